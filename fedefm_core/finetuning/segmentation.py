# SPDX-License-Identifier: Apache-2.0
"""Segmentation as a task: frames of the simulator or of labelled folders, its loss and Dice."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from monai.metrics import DiceMetric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fedefm_core.errors import ConfigError
from fedefm_core.finetuning.data import (
    PoolFrame,
    PoolSampler,
    PoolStream,
    Sample,
    SimulatorStream,
    WholeFrames,
    read_pool,
    worker_init,
)
from fedefm_core.finetuning.fractions import labelled_part
from fedefm_core.finetuning.losses import SegmentationLoss
from fedefm_core.finetuning.settings import FinetuneSettings
from fedefm_core.finetuning.sources import check_data, read_data, write_data
from fedefm_core.finetuning.training import Task, progress_bar
from fedefm_core.networks.segmentation import STRIDE, decide, normalise
from fedefm_core.perception.types import INSTRUMENT_KINDS, UNKNOWN
from fedefm_core.simulation.dataset import DatasetPlan, write_dataset

POOL = "pool"  # folder of a run: frames drawn ahead
DATA = "data"  # folder of a run: labelled frames decoded ahead
TIP_HIT_PX = 6.0  # a heat map's peak this near a true tip counts as a hit in 'tip_score'


class SegmentationTask(Task[Sample]):
    """settings: of the run."""

    name = "segmentation"

    def __init__(self, settings: FinetuneSettings) -> None:
        self.settings: FinetuneSettings = settings
        self.network_name = settings.network_name
        self.network_settings = settings.network.model_dump(mode="json")
        self.parts = SegmentationLoss(settings.loss)

    def check(self) -> None:
        check_sizes(self.settings)
        if self.settings.labels.percent < 100 and not self.settings.has_frames:
            raise ConfigError(
                "'labels.percent' below 100 needs frames to choose from: 'pool_frames' or 'data'"
            )
        for data in self.settings.data:
            check_data(data)

    def prepare(self, run_dir: Path) -> None:
        settings = self.settings
        if settings.pool_frames:
            plan = DatasetPlan(settings.seed, settings.pool_frames, settings.simulation)
            with progress_bar() as bar:
                line = bar.add_task("drawing the pool", total=settings.pool_frames)
                for _ in write_dataset(plan, run_dir / POOL, max(settings.workers, 1)):
                    bar.update(line, advance=1)
        if settings.data:
            size, seed = settings.simulation.size, settings.seed
            with progress_bar() as bar:
                line = bar.add_task("reading the data", total=None)
                for total in write_data(settings.data, run_dir / DATA, size, seed):
                    bar.update(line, advance=1, total=total)

    def batches(self, run_dir: Path, first_step: int) -> DataLoader[Sample]:
        settings = self.settings
        # A forked child can inherit a lock that one of OpenCV's or torch's threads holds.
        context = "spawn" if settings.workers else None
        if settings.has_frames:
            return DataLoader(
                self.stream(run_dir),
                batch_sampler=PoolSampler(settings, first_step),
                num_workers=settings.workers,
                worker_init_fn=worker_init,
                multiprocessing_context=context,
            )
        step_size = settings.batch_size * settings.optimiser.accumulate
        stream = SimulatorStream(
            settings.seed,
            settings.steps * step_size,
            settings.simulation,
            settings.augmentation,
            settings.loss.tip_sigma_cells,
        )
        return DataLoader(
            stream,
            batch_size=settings.batch_size,
            sampler=range(first_step * step_size, len(stream)),
            num_workers=settings.workers,
            worker_init_fn=worker_init,
            multiprocessing_context=context,
        )

    def stream(self, run_dir: Path) -> PoolStream:
        """Crops and whole frames of what prepare wrote."""
        return PoolStream(training_frames(self.settings, run_dir), self.settings)

    def loss(self, network: nn.Module, batch: Sample, step: int) -> dict[str, Tensor]:
        logits = forward(network, batch.image, self.settings.precision)
        return self.parts(logits, batch, step)

    def open_validation(self, run_dir: Path) -> Callable[[nn.Module], dict[str, float]]:
        settings = self.settings
        batches = validation_batches(settings, run_dir)
        sigma = settings.loss.tip_sigma_cells
        return lambda network: evaluate(network, batches, settings.precision, sigma)


def evaluate(
    network: nn.Module, batches: list[Sample], precision: str, sigma_cells: float
) -> dict[str, float]:
    """Mean Dice by class over frames that hold it, NaN where none does; share of tips found."""
    network.eval()
    metric = DiceMetric(include_background=False, num_classes=3, ignore_empty=True)
    hits: list[bool] = []
    with torch.inference_mode():
        for batch in batches:
            classes, tips = forward(network, batch.image, precision)
            labels, _ = decide(*classes.float().chunk(3, dim=1))
            known = batch.labels != UNKNOWN
            metric(y_pred=labels * known, y=batch.labels * known)
            hits += _tip_hits(tips, batch.tips, sigma_cells)
    per_class = torch.nanmean(metric.get_buffer(), dim=0)
    scores = {f"dice_{k}": float(v) for k, v in zip(INSTRUMENT_KINDS, per_class, strict=True)}
    scores["dice_mean"] = float(per_class.nanmean())
    scores["tip_score"] = float(np.mean(hits)) if hits else 0.0
    return scores


def check_sizes(settings: FinetuneSettings) -> None:
    """Raise ConfigError now rather than at the first batch that does not fit."""
    check_sides(settings, settings.network.size_multiple, f"this {settings.architecture}")
    size, crop = settings.simulation.size, settings.crop
    if settings.has_frames and crop > size:
        raise ConfigError(f"'crop' must be at most 'simulation.size', {size} (got {crop})")


def check_sides(settings: FinetuneSettings, multiple: int, network: str) -> None:
    """Raise ConfigError unless a network, called so in the message, can take all batches."""
    size, crop = settings.simulation.size, settings.crop
    sides = {"simulation.size": size} | ({"crop": crop} if settings.has_frames else {})
    for name, side in sides.items():
        if side % multiple:
            raise ConfigError(
                f"'{name}' must be a multiple of {multiple} for {network} (got {side})"
            )


def training_frames(settings: FinetuneSettings, run_dir: Path) -> list[PoolFrame]:
    """Frames of pool and data whose labels may be used: labels.percent of all."""
    frames = read_pool(run_dir / POOL) if settings.pool_frames else []
    if settings.data:
        frames += read_data(run_dir / DATA, "train")
    groups = [frame.group for frame in frames]
    chosen = labelled_part(groups, settings.labels.percent, settings.labels.seed)
    return [frames[index] for index in chosen]


def validation_batches(settings: FinetuneSettings, run_dir: Path) -> list[Sample]:
    """Whole frames: of the data where there is any, else of the simulator."""
    validation, sigma = settings.validation, settings.loss.tip_sigma_cells
    stream: WholeFrames | SimulatorStream
    if settings.data:
        frames = read_data(run_dir / DATA, "validation")
        count = min(validation.frames, len(frames))
        spread = np.linspace(0, len(frames) - 1, count).round().astype(int)
        stream = WholeFrames([frames[index] for index in spread], sigma)
    else:
        stream = SimulatorStream(
            validation.seed, validation.frames, settings.simulation, None, sigma
        )
    return list(DataLoader(stream, batch_size=settings.batch_size))


def forward(network: nn.Module, image: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """Class and tip logits of uint8 images (B, 1, H, W)."""
    x = normalise(image).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        classes, tips = network(x)
    return classes, tips


def _tip_hits(logits: Tensor, target: Tensor, sigma_cells: float) -> list[bool]:
    """For each frame and kind that shows a tip: is the heat map's peak near one?"""
    shown = target.amax(dim=(2, 3)) > 0.5
    peaks = logits.flatten(2).argmax(dim=2, keepdim=True)
    # The target is a Gaussian of the distance, so its height at the peak tells the distance.
    near = target.flatten(2).gather(2, peaks)[..., 0]
    floor = math.exp(-0.5 * (TIP_HIT_PX / (sigma_cells * STRIDE)) ** 2)
    return [bool(hit) for hit in (near > floor)[shown]]
