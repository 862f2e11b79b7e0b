# SPDX-License-Identifier: Apache-2.0
"""Teachers into a student: segmenters teach a smaller one, on frames without labels too.

G. Hinton, O. Vinyals and J. Dean, 'Distilling the Knowledge in a Neural Network', 2015
(arXiv:1503.02531): the student follows the teachers' probabilities, softened by a temperature T,
and the gradient of that part is scaled by T² to keep its size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedefm_core.errors import ConfigError, OutputError
from fedefm_core.evaluation.run_records import BEST_WEIGHTS
from fedefm_core.finetuning.data import PoolStream, Sample
from fedefm_core.finetuning.losses import tip_loss
from fedefm_core.finetuning.segmentation import (
    SegmentationTask,
    check_sides,
    forward,
    training_frames,
)
from fedefm_core.finetuning.settings import DistillSettings
from fedefm_core.finetuning.sources import read_unlabelled, write_unlabelled
from fedefm_core.finetuning.training import progress_bar, train
from fedefm_core.frames import open_source
from fedefm_core.networks import load_segmenter, read_weights_header
from fedefm_core.networks.segmentation import SegmentationNetwork
from fedefm_core.perception.types import UNKNOWN

UNLABELLED = "unlabelled"  # folder of a run: frames without labels
TEACHERS_FILE = "teachers.json"  # of a run: who they were


def distill(settings: DistillSettings, run_dir: Path, resume: bool = False) -> Path:
    """Train the student into run_dir and return the path of its best weights.

    Files and errors are those of finetune; WeightsError for a teacher that is no segmenter, and
    FrameError for frames that cannot be read.
    """
    return train(DistillationTask(settings), run_dir, resume)


class DistillationTask(SegmentationTask):
    """settings: of the run; check loads the teachers, and notes who they are."""

    def __init__(self, settings: DistillSettings) -> None:
        super().__init__(settings)
        self.settings: DistillSettings = settings
        self.files = [_weights_file(path) for path in settings.teachers]
        self.teachers: list[SegmentationNetwork] = []
        self.described: list[dict[str, str]] = []

    def check(self) -> None:
        super().check()
        if self.settings.unlabelled and not self.settings.has_frames:
            raise ConfigError(
                "Unlabelled frames are learnt from beside others: set 'pool_frames' or 'data' too"
            )
        for path in self.settings.unlabelled:
            open_source(path)
        self.teachers = [load_segmenter(file).requires_grad_(False) for file in self.files]
        for file, teacher in zip(self.files, self.teachers, strict=True):
            check_sides(self.settings, teacher.size_multiple, f"the teacher {file}")
        self.described = _described(self.files)

    def prepare(self, run_dir: Path) -> None:
        _keep_teachers(self.described, run_dir / TEACHERS_FILE)
        super().prepare(run_dir)
        chosen = self.settings
        if chosen.unlabelled:
            folder, size = run_dir / UNLABELLED, chosen.simulation.size
            with progress_bar() as bar:
                line = bar.add_task("reading frames without labels", total=None)
                for total in write_unlabelled(
                    chosen.unlabelled, chosen.unlabelled_every, folder, size
                ):
                    bar.update(line, advance=1, total=total)

    def stream(self, run_dir: Path) -> PoolStream:
        frames = training_frames(self.settings, run_dir)
        extra = read_unlabelled(run_dir / UNLABELLED) if self.settings.unlabelled else []
        return PoolStream(frames, self.settings, extra, self.settings.unlabelled_share)

    def loss(self, network: nn.Module, batch: Sample, step: int) -> dict[str, Tensor]:
        chosen = self.settings
        logits = forward(network, batch.image, chosen.precision)
        target, tips = teach(self.teachers, batch.image, chosen.temperature, chosen.precision)
        everywhere = torch.zeros_like(batch.labels)
        parts = {
            "soft": soft_loss(logits[0].float(), target, chosen.temperature),
            "soft_tip": tip_loss(logits[1].float(), tips, everywhere),
        }
        total = chosen.soft * parts["soft"] + chosen.soft_tip * parts["soft_tip"]
        labelled = (batch.labels != UNKNOWN).flatten(1).any(dim=1)
        if chosen.hard > 0 and labelled.any():
            kept = Sample(*(tensor[labelled] for tensor in batch))
            hard = self.parts((logits[0][labelled], logits[1][labelled]), kept, step)
            total = total + chosen.hard * hard.pop("total")
            parts |= hard
        return {**parts, "total": total}

    def header(self) -> dict[str, Any]:
        return {**super().header(), "teachers": self.described}


def teach(
    teachers: Sequence[nn.Module], image: Tensor, temperature: float, precision: str
) -> tuple[Tensor, Tensor]:
    """Mean over the teachers of softened class probabilities (B, 3, H, W) and of tip
    probabilities (B, 2, H/4, W/4), for uint8 images (B, 1, H, W); no gradient."""
    with torch.no_grad():
        said = [forward(teacher, image, precision) for teacher in teachers]
        classes = [torch.softmax(logits.float() / temperature, dim=1) for logits, _ in said]
        tips = [torch.sigmoid(logits.float()) for _, logits in said]
        return torch.stack(classes).mean(dim=0), torch.stack(tips).mean(dim=0)


def soft_loss(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """T² KL(target ‖ softmax(logits / T)), mean over pixels; both (B, 3, H, W)."""
    log_probability = torch.log_softmax(logits / temperature, dim=1)
    divergence = functional.kl_div(log_probability, target, reduction="none").sum(dim=1)
    return temperature**2 * divergence.mean()


def _weights_file(path: Path) -> Path:
    return path / BEST_WEIGHTS if path.is_dir() else path


def _keep_teachers(described: list[dict[str, str]], record: Path) -> None:
    """Write down who they are, or make sure that they still are who they were."""
    try:
        if not record.exists():
            record.write_text(json.dumps(described, indent=2) + "\n")
        elif json.loads(record.read_text()) != described:
            raise ConfigError(
                f"The teachers are not those that {record.parent} began with: their weights differ"
            )
    except (OSError, ValueError) as error:
        raise OutputError(f"Cannot read or write {record}: {error}") from error


def _described(files: Sequence[Path]) -> list[dict[str, str]]:
    return [
        {
            "architecture": str(read_weights_header(file)["architecture"]),
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in files
    ]
