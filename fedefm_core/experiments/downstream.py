# SPDX-License-Identifier: Apache-2.0
"""What a foundation is worth downstream: initialisations x architectures x shares of the labels.

Every part is one fine-tuning, alike in everything but its initialisation, scored with its last
weights on simulated frames that no training saw; nothing is chosen.

    OUT/pools/TRAINING/seed_1/                    frames that all parts of a seed train on
    OUT/runs/TRAINING/ARCHITECTURE/INIT/10/seed_1/  one training; result.json when it is finished
    OUT/report.json, report.md, losses.png

An interrupted study goes on where it was: finished parts are read, a begun one resumes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from pydantic import Field, field_validator

from fedefm_core.config import Settings, load_settings, settings_sha256
from fedefm_core.errors import OutputError, WeightsError
from fedefm_core.evaluation.metrics import bootstrap_interval, nan_mean
from fedefm_core.experiments.parts import PartResult, held_result, keep_result, progress_line
from fedefm_core.experiments.study import Result, Rows
from fedefm_core.finetuning import FinetuneSettings, finetune
from fedefm_core.finetuning.data import Sample, SimulatorStream
from fedefm_core.finetuning.segmentation import POOL, forward
from fedefm_core.networks import build_network, load_network
from fedefm_core.networks.initialise import initialise
from fedefm_core.networks.layouts import read_weights
from fedefm_core.networks.segmentation import decide
from fedefm_core.provenance import provenance
from fedefm_core.simulation.dataset import DatasetPlan, write_dataset

FloatArray = npt.NDArray[np.float64]
Kind = Literal["human", "animal", "phantom", "simulation"]
LAST = "last.safetensors"
_RESAMPLES = 2000
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


class TrainingSettings(Settings):
    """name: of its folder. title: in tables. set: overrides, as 'finetune --set'. test_kinds: what
    it is scored on."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    set: tuple[str, ...] = ()
    test_kinds: tuple[Kind, ...] = Field(min_length=1)


class DownstreamSettings(Settings):
    """inits: weights by name, null for random ones, which must be the first: the others are
    compared with it. architectures: files of a finetune run by name. set: overrides for all, the
    budget. percents: of the labels. trainings: on what, and scored on which kinds. test_frames: of
    each kind, drawn by test_seed."""

    study: Literal["downstream"] = "downstream"
    inits: Mapping[str, Path | None] = Field(min_length=2)
    architectures: Mapping[str, tuple[Path, ...]] = Field(min_length=1)
    set: tuple[str, ...] = ()
    percents: tuple[Literal[1, 5, 10, 25, 100], ...] = (10, 100)
    seeds: tuple[int, ...] = Field(default=(1, 2, 3), min_length=1)
    trainings: tuple[TrainingSettings, ...] = Field(min_length=1)
    test_frames: int = Field(40, ge=1)
    test_seed: int = 7_300_007

    @field_validator("inits")
    @classmethod
    def _reference_first(cls, inits: Mapping[str, Path | None]) -> Mapping[str, Path | None]:
        if next(iter(inits.values())) is not None:
            raise ValueError("the first must be null, random weights, for comparison")
        return inits


class Key(NamedTuple):
    """What a part is."""

    training: str
    architecture: str
    init: str
    percent: int
    seed: int

    @property
    def folder(self) -> Path:
        """Below the study's folder."""
        parts = (self.training, self.architecture, self.init, str(self.percent))
        return Path("runs", *parts, f"seed_{self.seed}")


@dataclass(frozen=True)
class DownstreamResult(PartResult):
    """dice: by kind of test image, foreground Dice a frame, None where undefined. losses: means of
    the training loss over fiftieths of the run."""

    dice: dict[str, list[float | None]]
    losses: list[float]

    @property
    def flatness(self) -> float:
        """Mean loss of the last tenth over that of the tenth before it: 1 where it is flat."""
        tenth = max(1, len(self.losses) // 10)
        last, before = self.losses[-tenth:], self.losses[-2 * tenth : -tenth]
        return float(np.mean(last) / np.mean(before)) if before else float("nan")


def downstream(settings: DownstreamSettings, out: Path, tell: Callable[[str], None]) -> Result:
    """Train and score what is missing, then report; tell gets a line a part, with the time left.

    Raises ConfigError for wrong settings and WeightsError for missing or damaged weights before
    anything is drawn; OutputError when out holds parts of another study.
    """
    parts = plan(settings)
    unfit = find_unfit(settings)
    wanted = {k: part for k, part in parts.items() if (k.architecture, k.init) not in unfit}
    results = {
        key: held
        for key, part in wanted.items()
        if (held := held_result(DownstreamResult, out / key.folder, _sha256(part, settings)))
    }
    missing = [key for key in wanted if key not in results]
    for number, key in enumerate(missing):
        name, left = " ".join(map(str, key)), len(missing) - number
        tell(progress_line(name, len(wanted), left, list(results.values())))
        results[key] = _run(key, wanted[key], settings, out)
    return report(settings, results, unfit, out)


def plan(settings: DownstreamSettings) -> dict[Key, FinetuneSettings]:
    """All trainings, seed by seed, so that an early end leaves whole comparisons."""
    return {
        Key(training.name, name, init, percent, seed): load_settings(
            FinetuneSettings,
            files,
            [
                *settings.set,
                *training.set,
                f"seed={seed}",
                f"labels.percent={percent}",
                f"init={json.dumps(None if weights is None else str(weights))}",
            ],
        )
        for seed in settings.seeds
        for training in settings.trainings
        for name, files in settings.architectures.items()
        for percent in settings.percents
        for init, weights in settings.inits.items()
    }


def find_unfit(settings: DownstreamSettings) -> dict[tuple[str, str], str]:
    """By architecture and init, why weights cannot start a network at all. Raises WeightsError for
    a file that is missing or damaged."""
    unfit = {}
    for key, part in plan(settings).items():
        pair = (key.architecture, key.init)
        if part.init is None or pair in unfit:
            continue
        read_weights(part.init)
        network = build_network(part.network_name, part.network.model_dump())
        try:
            initialise(network, part.network_name, part.init)
        except WeightsError as error:
            unfit[pair] = str(error)
    return unfit


def report(
    settings: DownstreamSettings,
    results: Mapping[Key, DownstreamResult],
    unfit: Mapping[tuple[str, str], str],
    out: Path,
) -> Result:
    """Tables and loss curves of the finished parts."""
    rows = _rows(settings, results)
    pictures = {}
    if results:
        _draw_losses(settings, results, out / "losses.png")
        pictures["Training loss, mean over seeds"] = out / "losses.png"
    return Result(
        report={
            "study": settings.study,
            "finished": len(results),
            "seconds": sum(result.seconds for result in results.values()),
            "rows": rows,
            "does_not_fit": {f"{a}, {i}": reason for (a, i), reason in unfit.items()},
            "provenance": provenance(settings),
        },
        title="What a foundation is worth downstream",
        text=_text(settings, results, unfit),
        tables={
            "Foreground Dice in points of 100, mean over seeds; difference from "
            f"{next(iter(settings.inits))} with its 95 % interval": _table(rows)
        },
        pictures=pictures,
    )


def _run(
    key: Key, part: FinetuneSettings, settings: DownstreamSettings, out: Path
) -> DownstreamResult:
    started = time.monotonic()
    folder = out / key.folder
    _share_pool(key, part, out, folder)
    finetune(part, folder, resume=True)
    network = load_network(folder / LAST)
    (training,) = (t for t in settings.trainings if t.name == key.training)
    result = DownstreamResult(
        sha256=_sha256(part, settings),
        seconds=time.monotonic() - started,
        dice={kind: _scores(network, part, kind, settings) for kind in training.test_kinds},
        losses=_losses(folder / "metrics.jsonl"),
    )
    keep_result(result, folder)
    return result


def _share_pool(key: Key, part: FinetuneSettings, out: Path, folder: Path) -> None:
    """Draw the frames once for all parts of a training and seed; the run gets links to them."""
    if part.pool_frames == 0 or (folder / POOL).exists() or (folder / LAST).exists():
        return
    shared = out / "pools" / key.training / f"seed_{key.seed}"
    dataset = DatasetPlan(part.seed, part.pool_frames, part.simulation)
    for _ in write_dataset(dataset, shared, max(part.workers, 1)):
        pass
    try:
        partial = folder / f"{POOL}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(shared, partial, copy_function=os.link)
        os.replace(partial, folder / POOL)
    except OSError as error:
        raise OutputError(f"Cannot link the frames of {shared} to {folder}: {error}") from error


def _scores(
    network: torch.nn.Module, part: FinetuneSettings, kind: str, settings: DownstreamSettings
) -> list[float | None]:
    """Foreground Dice of each test frame of a kind."""
    simulation = part.simulation.model_copy(
        update={"kind_weights": {kind: 1.0}, "empty_fraction": 0.0}
    )
    frames = SimulatorStream(settings.test_seed, settings.test_frames, simulation, None, 1.0)
    with torch.inference_mode():
        return [_dice(network, frames[index]) for index in range(len(frames))]


def _dice(network: torch.nn.Module, frame: Sample) -> float | None:
    classes, _ = forward(network, frame.image[None], "fp32")
    found = decide(*classes.chunk(3, dim=1))[0][0] > 0
    known = frame.labels < 3
    found, true = found & known, (frame.labels > 0) & known
    total = int(found.sum() + true.sum())
    return 2 * int((found & true).sum()) / total if total else None


def _losses(log: Path) -> list[float]:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    losses = np.array([line["total"] for line in lines if line["split"] == "train"])
    return [float(part.mean()) for part in np.array_split(losses, min(50, len(losses)))]


def _rows(
    settings: DownstreamSettings, results: Mapping[Key, DownstreamResult]
) -> list[dict[str, Any]]:
    """A row for each training, share of labels, kind of test image, architecture and init."""
    rows = []
    for training in settings.trainings:
        for percent in settings.percents:
            for kind in training.test_kinds:
                head = {"training": training.title, "percent": percent, "kind": kind}
                for name in settings.architectures:
                    for init in settings.inits:
                        key = Key(training.name, name, init, percent, 0)
                        rows.append({**head, **_row(settings, results, key, kind)})
    return rows


def _row(
    settings: DownstreamSettings, results: Mapping[Key, DownstreamResult], key: Key, kind: str
) -> dict[str, Any]:
    """Mean Dice over seeds and its difference from the first init on the same frames and seeds.

    key: of the part, whatever its seed.
    """
    first = next(iter(settings.inits))
    pairs = [
        (results[own], results[base])
        for seed in settings.seeds
        if (own := key._replace(seed=seed)) in results
        and (base := own._replace(init=first)) in results
    ]
    row: dict[str, Any] = {"architecture": key.architecture, "init": key.init, "seeds": len(pairs)}
    if not pairs:
        return {**row, "dice": None, "difference": None, "interval": None, "flatness": None}
    values = np.array([own.dice[kind] for own, _ in pairs], np.float64)
    differences = values - np.array([base.dice[kind] for _, base in pairs], np.float64)
    by_frame = nan_mean(differences.T)
    return {
        **row,
        "dice": float(nan_mean(values.ravel())),
        "by_seed": [float(nan_mean(seed)) for seed in values],
        "difference": float(nan_mean(by_frame)),
        "interval": bootstrap_interval(nan_mean, by_frame, seed=0, resamples=_RESAMPLES),
        "flatness": float(np.mean([own.flatness for own, _ in pairs])),
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> Rows:
    header = ("trained on", "tested on", "labels", "network", "from", "seeds", "Dice", "by seed",
              "difference", "loss, last tenth / before")  # fmt: skip
    body = []
    for row in rows:
        figures = ("-",) * 4
        if row["dice"] is not None:
            low, high = (100 * bound for bound in row["interval"] or (np.nan, np.nan))
            figures = (
                f"{100 * row['dice']:.1f}",
                " / ".join(f"{100 * value:.1f}" for value in row["by_seed"]),
                f"{100 * row['difference']:+.1f} [{low:+.1f} {high:+.1f}]",
                f"{row['flatness']:.3f}",
            )
        where = (row["training"], row["kind"], f"{row['percent']} %")
        body.append((*where, row["architecture"], row["init"], str(row["seeds"]), *figures))
    return [header, *body]


def _draw_losses(
    settings: DownstreamSettings, results: Mapping[Key, DownstreamResult], path: Path
) -> None:
    """A panel an architecture and share of labels; a curve an init, of the first training."""
    figure = Figure(
        figsize=(3 * len(settings.architectures), 2.4 * len(settings.percents)),
        dpi=150,
        layout=ConstrainedLayoutEngine(),
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(settings.percents), len(settings.architectures), squeeze=False)
    training = settings.trainings[0].name
    for row, percent in zip(axes, settings.percents, strict=True):
        for axis, name in zip(row, settings.architectures, strict=True):
            for color, init in zip(_COLORS * 9, settings.inits, strict=False):
                keys = [Key(training, name, init, percent, seed) for seed in settings.seeds]
                curves = [results[key].losses for key in keys if key in results]
                if curves and len({len(curve) for curve in curves}) == 1:
                    share = np.linspace(0, 1, len(curves[0]))
                    axis.plot(share, np.mean(curves, axis=0), color=color, label=init)
            axis.set_title(f"{name}, {percent} %", fontsize=8)
            axis.set(xlabel="share of the steps", ylabel="loss")
    axes[0][0].legend(fontsize=6)
    figure.savefig(path)


def _sha256(part: FinetuneSettings, settings: DownstreamSettings) -> str:
    """Of settings, test frames and the weights that it starts from."""
    weights = part.init.read_bytes() if part.init is not None else b""
    test = f"{settings.test_seed} {settings.test_frames}"
    return hashlib.sha256(settings_sha256(part).encode() + test.encode() + weights).hexdigest()


def _text(
    settings: DownstreamSettings,
    results: Mapping[Key, DownstreamResult],
    unfit: Mapping[tuple[str, str], str],
) -> str:
    first = next(iter(plan(settings).values()))
    reasons = "".join(f"\n- {a} from {i}: {why}" for (a, i), why in unfit.items())
    left_out = f"\n\nLeft out, because nothing of the weights fits:\n{reasons}" if unfit else ""
    return f"""\
{len(results)} parts are finished. Each trains for {first.steps} steps of {first.batch_size} \
crops of {first.crop} pixels from a pool of {first.pool_frames} simulated frames of \
{first.simulation.size} pixels, of which the given percentage has labels, and is scored with its \
last weights on {settings.test_frames} frames of each kind that no training saw. All parts of a \
seed see the same frames and labels. Intervals are over test frames: they do not know of other \
seeds, so look at the figures by seed too. The last column says whether the loss had flattened: 1 \
is flat.{left_out}"""
