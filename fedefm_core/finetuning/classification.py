# SPDX-License-Identifier: Apache-2.0
"""Multi-label classification as a task: a table of labels, cross-entropy, AUROC a label."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from monai.metrics import ROCAUCMetric
from monai.utils import Average
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from fedefm_core.config import parse_settings
from fedefm_core.corpora.splits import assign_splits
from fedefm_core.errors import OutputError, TruthError
from fedefm_core.finetuning.data import augmented_image, photometric, worker_init
from fedefm_core.finetuning.fractions import labelled_part
from fedefm_core.finetuning.settings import (
    FOUNDATION_SETTINGS,
    ClassificationSettings,
    LabelTableSettings,
)
from fedefm_core.finetuning.sources import no_manifest, write_last, write_png
from fedefm_core.finetuning.training import Task, progress_bar
from fedefm_core.frames import open_source
from fedefm_core.networks.segmentation import normalise
from fedefm_core.perception.preprocess import preprocess

DATA = "data"  # folder of a run: images decoded ahead, and labels.json
LABELS_FILE = "labels.json"
_DECISION = 0.5  # a label is called from this probability on


class LabelledImage(NamedTuple):
    """image (1, S, S) uint8, labels (K,) float32 of 0 and 1; or batches."""

    image: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Row:
    """One image of the table. values: (K,) 0 or 1."""

    name: str
    group: str
    split: str
    values: tuple[float, ...]


class ClassificationTask(Task[LabelledImage]):
    """settings: of the run. The network is a foundation network with a head for the labels."""

    name = "classification"

    def __init__(self, settings: ClassificationSettings) -> None:
        self.settings: ClassificationSettings = settings
        self.labels, self.rows = read_table(settings.data, settings.seed)
        self.network_name = settings.architecture
        self.network_settings = {**settings.network, "classes": len(self.labels)}
        self.side = parse_settings(
            FOUNDATION_SETTINGS[settings.architecture],
            self.network_settings,
            where=f"the settings of {settings.architecture}",
        ).image_size

    @property
    def whole_init(self) -> bool:
        return False  # a foundation's head tells kinds of image apart, not these labels

    def check(self) -> None:
        there = {row.split for row in self.rows}
        for split in ("train", "validation"):
            if split not in there:
                raise TruthError(
                    f"{self.settings.data.table} has no images for {split}; give 'data.splits' "
                    "a larger share of them"
                )
        missing = [row.name for row in self.rows if not self._file(row).is_file()]
        if missing:
            raise TruthError(
                f"{self.settings.data.table} names {len(missing)} images that are not in "
                f"{self.settings.data.images}, '{missing[0]}' for one"
            )

    def prepare(self, run_dir: Path) -> None:
        folder = run_dir / DATA
        if (folder / LABELS_FILE).is_file():
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with progress_bar() as bar:
                line = bar.add_task("reading the images", total=len(self.rows))
                for row in self.rows:
                    frame = next(iter(open_source(self._file(row))))
                    image, _ = preprocess(frame, (self.side, self.side))
                    write_png(folder / f"{row.name}.png", image)
                    bar.update(line, advance=1)
            write_last(folder / LABELS_FILE, {"labels": self.labels, "images": len(self.rows)})
        except OSError as error:
            raise OutputError(f"Cannot write to {folder}: {error.strerror or error}") from error

    def batches(self, run_dir: Path, first_step: int) -> DataLoader[LabelledImage]:
        chosen = self.settings
        step_size = chosen.batch_size * chosen.optimiser.accumulate
        stream = LabelStream(self._part("train"), run_dir / DATA, chosen)
        return DataLoader(
            stream,
            batch_size=chosen.batch_size,
            sampler=range(first_step * step_size, len(stream)),
            num_workers=chosen.workers,
            worker_init_fn=worker_init,
            multiprocessing_context="spawn" if chosen.workers else None,
        )

    def loss(self, network: nn.Module, batch: LabelledImage, step: int) -> dict[str, Tensor]:
        logits = _logits(network, batch.image, self.settings.precision)
        total = functional.binary_cross_entropy_with_logits(logits, batch.labels)
        return {"total": total}

    def open_validation(self, run_dir: Path) -> Callable[[nn.Module], dict[str, float]]:
        rows = self._part("validation")[: self.settings.validation.frames]
        images = [_read(run_dir / DATA, row) for row in rows]
        truth = torch.tensor([row.values for row in rows])
        size, precision = self.settings.batch_size, self.settings.precision

        def validate(network: nn.Module) -> dict[str, float]:
            network.eval()
            with torch.inference_mode():
                said = [
                    torch.sigmoid(_logits(network, torch.stack(images[i : i + size]), precision))
                    for i in range(0, len(images), size)
                ]
            return scores(torch.cat(said), truth, self.labels)

        return validate

    def header(self) -> dict[str, object]:
        return {**super().header(), "labels": list(self.labels)}

    def _part(self, split: str) -> list[Row]:
        rows = [row for row in self.rows if row.split == split]
        if split != "train":
            return rows
        chosen = self.settings.labels
        part = labelled_part([row.group for row in rows], chosen.percent, chosen.seed)
        return [rows[index] for index in part]

    def _file(self, row: Row) -> Path:
        return self.settings.data.images / f"{row.name}{self.settings.data.suffix}"


class LabelStream(Dataset[LabelledImage]):
    """Training images, each sample a function of (seed, index); not mirrored: sides matter."""

    def __init__(
        self, rows: Sequence[Row], folder: Path, settings: ClassificationSettings
    ) -> None:
        self.rows, self.folder, self.settings = rows, folder, settings
        self.augment = photometric(settings.augmentation)

    def __len__(self) -> int:
        chosen = self.settings
        return chosen.steps * chosen.optimiser.accumulate * chosen.batch_size

    def __getitem__(self, index: int) -> LabelledImage:
        rng = np.random.default_rng([self.settings.seed, index, 3])
        row = self.rows[int(rng.integers(len(self.rows)))]
        image = augmented_image(_read(self.folder, row), self.augment, rng)
        return LabelledImage(image, torch.tensor(row.values))


def scores(said: Tensor, truth: Tensor, labels: Sequence[str]) -> dict[str, float]:
    """AUROC of each label and their mean, and the share of right calls at 0.5.

    said, truth: (N, K) probabilities and 0 or 1. A label that all images have, or none, has no
    AUROC: NaN, and left out of the mean.
    """
    found = {}
    for index, label in enumerate(labels):
        both = 0 < truth[:, index].sum() < len(truth)
        metric = ROCAUCMetric(average=Average.MACRO)
        metric(said[:, index], truth[:, index])
        found[f"auroc_{label}"] = (
            float(torch.as_tensor(metric.aggregate())) if both else float("nan")
        )
    known = [value for value in found.values() if not np.isnan(value)]
    found["auroc_mean"] = float(np.mean(known)) if known else float("nan")
    found["accuracy"] = float(((said >= _DECISION) == (truth > 0)).float().mean())
    return found


def read_table(settings: LabelTableSettings, seed: int) -> tuple[tuple[str, ...], list[Row]]:
    """Names of the labels, and the images for training and validation.

    Raises TruthError for a table that is missing, lacks a column or the end of a row, has a value
    but 0 and 1, or too few groups for the splits.
    """
    table = settings.table
    try:
        with table.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns, lines = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TruthError(f"{table} cannot be read as a table: {error}") from error
    others = [settings.name_column, *([settings.group_column] if settings.group_column else [])]
    labels = settings.label_columns or tuple(c for c in columns if c not in others)
    absent = [column for column in (*others, *labels) if column not in columns]
    if absent or not labels or not lines:
        what = f"no column '{absent[0]}'" if absent else "no labels" if not labels else "no rows"
        raise TruthError(f"{table} has {what}")
    for line in lines:
        if None in line.values():
            name = line[settings.name_column]
            raise TruthError(f"{table}: the row of {name} breaks off before its last column")
    group = settings.group_column or settings.name_column
    groups = [line[group] for line in lines]
    with no_manifest():
        splits = assign_splits(groups, [None] * len(lines), settings.splits, seed, str(table))
    rows = [
        Row(line[settings.name_column], line[group], split, tuple(_values(table, line, labels)))
        for line, split in zip(lines, splits, strict=True)
    ]
    return labels, [row for row in rows if row.split != "test"]


def _values(table: Path, line: dict[str, str], labels: Sequence[str]) -> Iterator[float]:
    for label in labels:
        if line[label] not in ("0", "1"):
            name = next(iter(line.values()))
            raise TruthError(f"{table}: '{label}' of {name} must be 0 or 1 (got {line[label]!r})")
        yield float(line[label])


def _read(folder: Path, row: Row) -> Tensor:
    """(1, S, S) uint8."""
    pixels = cv2.imread(str(folder / f"{row.name}.png"), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise TruthError(f"{row.name}.png in {folder} cannot be read; delete {folder}")
    return torch.from_numpy(np.asarray(pixels, np.uint8))[None]


def _logits(network: nn.Module, image: Tensor, precision: str) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits: Tensor = network(normalise(image)).logits_bk
    return logits.float()
