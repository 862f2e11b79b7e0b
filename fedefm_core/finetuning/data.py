# SPDX-License-Identifier: Apache-2.0
"""The simulator as training samples, drawn anew or from a pool; sample i depends on (seed, i)."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from monai.transforms import (
    Compose,
    RandAdjustContrast,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandHistogramShift,
    RandScaleIntensity,
    RandShiftIntensity,
)
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from fedefm_core.errors import TruthError
from fedefm_core.finetuning.settings import AugmentationSettings, FinetuneSettings
from fedefm_core.frames import Frame, to_grey8
from fedefm_core.networks.segmentation import STRIDE
from fedefm_core.perception.types import INSTRUMENT_KINDS
from fedefm_core.simulation import (
    InstrumentTruth,
    SimulatedFrame,
    SimulationSettings,
    simulate_frame,
)


class Sample(NamedTuple):
    """image (1, H, W) uint8, labels (1, H, W) uint8, tips (2, H/4, W/4) float32; or batches."""

    image: Tensor
    labels: Tensor
    tips: Tensor


Tip = tuple[str, npt.NDArray[np.float64]]  # kind of instrument, (2,) x, y in pixels


class SimulatorStream(Dataset[Sample]):
    """length samples from simulation and augmentation, each a function of (seed, index)."""

    def __init__(
        self,
        seed: int,
        length: int,
        simulation: SimulationSettings,
        augmentation: AugmentationSettings | None,
        tip_sigma_cells: float,
    ) -> None:
        self.seed = seed
        self.length = length
        self.simulation = simulation
        self.tip_sigma_cells = tip_sigma_cells
        self.augment = photometric(augmentation) if augmentation else None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        frame = simulate_frame(self.seed, index, self.simulation)
        sample = to_sample(frame, self.tip_sigma_cells)
        if self.augment is None:
            return sample
        rng = np.random.default_rng([self.seed, index, 1])
        return _augmented(sample, self.augment, rng)


class PoolStream(Dataset[Sample]):
    """Samples from a folder that simulate wrote: crops, and every so often whole frames.

    Indexed by (index, whole): the sample depends on these, the seed and the pool alone.
    """

    def __init__(self, folder: Path, settings: FinetuneSettings) -> None:
        self.folder = folder
        self.settings = settings
        self.tips = _read_tips(folder)
        self.augment = photometric(settings.augmentation)

    def __len__(self) -> int:
        return self.settings.steps * self.settings.batch_size

    def __getitem__(self, item: tuple[int, bool]) -> Sample:
        index, whole = item
        rng = np.random.default_rng([self.settings.seed, index, 2])
        name, tips = self.tips[int(rng.integers(len(self.tips)))]
        image = to_grey8(Frame(_read_png(self.folder / "images" / f"{name}.png")))
        labels = _read_png(self.folder / "masks" / f"{name}.png")
        if not whole:
            x, y = _crop_corner(rng, labels, self.settings)
            part = np.s_[y : y + self.settings.crop, x : x + self.settings.crop]
            image, labels = image[part], labels[part]
            tips = [(kind, tip - (x, y)) for kind, tip in tips]
        sample = Sample(
            torch.from_numpy(np.ascontiguousarray(image))[None],
            torch.from_numpy(np.ascontiguousarray(labels))[None],
            tip_heatmap(tips, labels.shape, self.settings.loss.tip_sigma_cells),
        )
        return _augmented(sample, self.augment, rng)


class PoolSampler(Sampler[list[tuple[int, bool]]]):
    """Batches for PoolStream: crops, but every whole_every-th step fewer whole frames instead."""

    def __init__(self, settings: FinetuneSettings, first_step: int) -> None:
        self.settings = settings
        self.first_step = first_step

    def __len__(self) -> int:
        return self.settings.steps - self.first_step

    def __iter__(self) -> Iterator[list[tuple[int, bool]]]:
        size = self.settings.batch_size
        for step in range(self.first_step, self.settings.steps):
            whole = (step + 1) % self.settings.whole_every == 0
            count = self.settings.whole_batch_size if whole else size
            yield [(step * size + i, whole) for i in range(count)]


def to_sample(frame: SimulatedFrame, tip_sigma_cells: float) -> Sample:
    """Tensors of one simulated frame; the image windowed to 8 bit as at inference."""
    return Sample(
        torch.from_numpy(np.array(to_grey8(frame.frame)))[None],
        torch.from_numpy(frame.label_map)[None],
        tip_heatmap(_tips(frame.instruments), frame.label_map.shape, tip_sigma_cells),
    )


def tip_heatmap(tips: Sequence[Tip], shape: tuple[int, ...], sigma_cells: float) -> Tensor:
    """(2, H/4, W/4) float32: a Gaussian of peak 1 at each tip, one plane a kind."""
    rows, columns = shape[0] // STRIDE, shape[1] // STRIDE
    heatmap = np.zeros((len(INSTRUMENT_KINDS), rows, columns), np.float32)
    y, x = np.arange(rows), np.arange(columns)
    for kind, tip_px in tips:
        column, row = (tip_px - (STRIDE - 1) / 2) / STRIDE
        bump = np.outer(_gaussian(y - row, sigma_cells), _gaussian(x - column, sigma_cells))
        plane = heatmap[INSTRUMENT_KINDS.index(kind)]
        np.maximum(plane, bump, out=plane)
    return torch.from_numpy(heatmap)


def photometric(settings: AugmentationSettings) -> Compose:
    """MONAI transforms of a (1, H, W) float image in 0..1."""
    transforms: list[Any] = [
        RandAdjustContrast(prob=settings.gamma_probability, gamma=settings.gamma),
        RandScaleIntensity(factors=settings.intensity_scale, prob=settings.intensity_probability),
        RandShiftIntensity(offsets=settings.intensity_shift, prob=settings.intensity_probability),
        RandHistogramShift(num_control_points=(4, 8), prob=settings.histogram_probability),
        RandGaussianSmooth(
            sigma_x=settings.smooth_sigma,
            sigma_y=settings.smooth_sigma,
            prob=settings.smooth_probability,
        ),
        RandGaussianNoise(prob=settings.noise_probability, std=settings.noise_std),
    ]
    return Compose(transforms)


def worker_init(_: int) -> None:
    """One thread a loader process: they run side by side already."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the workers
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _gaussian(distance: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    return np.exp(-0.5 * (distance / sigma) ** 2)


def _tips(instruments: Sequence[InstrumentTruth]) -> list[Tip]:
    return [(i.kind, i.tip_px) for i in instruments if i.tip_px is not None]


def _read_tips(folder: Path) -> list[tuple[str, list[Tip]]]:
    """Name and tips of every frame of the pool."""
    try:
        frames = json.loads((folder / "truth.json").read_text())["frames"]
    except (OSError, ValueError, KeyError) as error:
        raise TruthError(f"{folder} is no finished data set of simulate: {error}") from error
    return [
        (
            frame["name"],
            [(i["kind"], np.array(i["tip_px"])) for i in frame["instruments"] if i["tip_px"]],
        )
        for frame in frames
    ]


def _read_png(path: Path) -> npt.NDArray[Any]:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)  # 8 or 16 bits, as they were written
    if image is None:
        raise TruthError(f"{path} of the pool cannot be read; delete the pool to draw it anew")
    return np.asarray(image)


def _crop_corner(
    rng: np.random.Generator, labels: npt.NDArray[np.uint8], settings: FinetuneSettings
) -> tuple[int, int]:
    """x, y of a crop that, at the share asked for, shows a random point of an instrument."""
    height, width = labels.shape
    side = settings.crop
    x, y = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
    shown = np.flatnonzero((labels == 1) | (labels == 2))
    if rng.random() < settings.instrument_share and len(shown):
        row, column = divmod(int(shown[rng.integers(len(shown))]), width)
        x = int(np.clip(column - rng.integers(side), 0, width - side))
        y = int(np.clip(row - rng.integers(side), 0, height - side))
    return x, y


def _augmented(sample: Sample, augment: Compose, rng: np.random.Generator) -> Sample:
    augment.set_random_state(seed=int(rng.integers(2**32)))
    image = augment(sample.image.float() / 255)
    image = torch.clamp(torch.as_tensor(np.asarray(image)) * 255 + 0.5, 0, 255).to(torch.uint8)
    return _flip(sample._replace(image=image), rng)


def _flip(sample: Sample, rng: np.random.Generator) -> Sample:
    """One of the eight symmetries of the square, the same for image, labels and tips."""
    turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
    turned = [torch.rot90(t, turns, (1, 2)) for t in sample]
    return Sample(*((torch.flip(t, (2,)) if mirror else t).contiguous() for t in turned))
