# SPDX-License-Identifier: Apache-2.0
"""Training samples, of the simulator or of frames on disk; sample i depends on (seed, i)."""

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
from fedefm_core.perception.types import INSTRUMENT_KINDS, UNKNOWN
from fedefm_core.simulation import (
    InstrumentTruth,
    SimulatedFrame,
    SimulationSettings,
    simulate_frame,
)


class Sample(NamedTuple):
    """image (1, H, W) uint8, labels (1, H, W) uint8, tips (2, H/4, W/4) float32, -1 where nobody
    knows whether there are any; or batches."""

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


class PoolFrame(NamedTuple):
    """A frame on disk. mask: None where nothing is labelled. tips: None where nobody knows them.
    group: what frames of one patient or cine have in common."""

    image: Path
    mask: Path | None
    tips: list[Tip] | None
    group: str


class PoolStream(Dataset[Sample]):
    """Samples from frames on disk: crops, and every so often whole frames.

    Indexed by (index, whole): the sample depends on these, the seed and the frames alone. Of
    unlabelled frames come unlabelled_share of all samples.
    """

    def __init__(
        self,
        frames: Sequence[PoolFrame],
        settings: FinetuneSettings,
        unlabelled: Sequence[PoolFrame] = (),
        unlabelled_share: float = 0.0,
    ) -> None:
        self.frames = frames
        self.settings = settings
        self.unlabelled = unlabelled
        self.unlabelled_share = unlabelled_share if unlabelled else 0.0
        self.augment = photometric(settings.augmentation)

    def __len__(self) -> int:
        chosen = self.settings
        return chosen.steps * chosen.optimiser.accumulate * chosen.batch_size

    def __getitem__(self, item: tuple[int, bool]) -> Sample:
        index, whole = item
        rng = np.random.default_rng([self.settings.seed, index, 2])
        frames = self.frames
        if self.unlabelled_share > 0 and rng.random() < self.unlabelled_share:
            frames = self.unlabelled
        frame = frames[int(rng.integers(len(frames)))]
        image, labels = read_frame(frame)
        tips = frame.tips
        if not whole:
            x, y = _crop_corner(rng, labels, self.settings)
            part = np.s_[y : y + self.settings.crop, x : x + self.settings.crop]
            image, labels = image[part], labels[part]
            tips = tips and [(kind, tip - (x, y)) for kind, tip in tips]
        sample = _sample(image, labels, tips, self.settings.loss.tip_sigma_cells)
        return _augmented(sample, self.augment, rng)


class WholeFrames(Dataset[Sample]):
    """Frames on disk as they are, to validate on."""

    def __init__(self, frames: Sequence[PoolFrame], tip_sigma_cells: float) -> None:
        self.frames = frames
        self.tip_sigma_cells = tip_sigma_cells

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        frame = self.frames[index]
        return _sample(*read_frame(frame), frame.tips, self.tip_sigma_cells)


class PoolSampler(Sampler[list[tuple[int, bool]]]):
    """Batches for PoolStream: crops, but every whole_every-th step fewer whole frames instead."""

    def __init__(self, settings: FinetuneSettings, first_step: int) -> None:
        self.settings = settings
        self.first_step = first_step

    def __len__(self) -> int:
        return (self.settings.steps - self.first_step) * self.settings.optimiser.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, bool]]]:
        size, times = self.settings.batch_size, self.settings.optimiser.accumulate
        for step in range(self.first_step, self.settings.steps):
            whole = (step + 1) % self.settings.whole_every == 0
            count = self.settings.whole_batch_size if whole else size
            for batch in range(step * times, (step + 1) * times):
                yield [(batch * size + i, whole) for i in range(count)]


def read_pool(folder: Path) -> list[PoolFrame]:
    """The frames of a data set of 'simulate', in its order. Raises TruthError when unfinished."""
    try:
        frames = json.loads((folder / "truth.json").read_text())["frames"]
    except (OSError, ValueError, KeyError) as error:
        raise TruthError(f"{folder} is no finished data set of simulate: {error}") from error
    return [
        PoolFrame(
            folder / "images" / f"{frame['name']}.png",
            folder / "masks" / f"{frame['name']}.png",
            [(i["kind"], np.array(i["tip_px"])) for i in frame["instruments"] if i["tip_px"]],
            frame["name"],
        )
        for frame in frames
    ]


def read_frame(frame: PoolFrame) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """(H, W) uint8 image, windowed as at inference, and labels; without a mask, all unknown."""
    image = to_grey8(Frame(_read_png(frame.image)))
    if frame.mask is None:
        return image, np.full(image.shape, UNKNOWN, np.uint8)
    return image, _read_png(frame.mask)


def to_sample(frame: SimulatedFrame, tip_sigma_cells: float) -> Sample:
    """Tensors of one simulated frame; the image windowed to 8 bit as at inference."""
    image = np.array(to_grey8(frame.frame))
    return _sample(image, frame.label_map, _tips(frame.instruments), tip_sigma_cells)


def unknown_tips(shape: tuple[int, ...]) -> Tensor:
    """(2, H/4, W/4) float32, all -1: a heat map that teaches nothing."""
    return torch.full((len(INSTRUMENT_KINDS), shape[0] // STRIDE, shape[1] // STRIDE), -1.0)


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


def _sample(
    image: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8],
    tips: Sequence[Tip] | None,
    sigma_cells: float,
) -> Sample:
    shape = labels.shape
    return Sample(
        torch.from_numpy(np.ascontiguousarray(image))[None],
        torch.from_numpy(np.ascontiguousarray(labels))[None],
        unknown_tips(shape) if tips is None else tip_heatmap(tips, shape, sigma_cells),
    )


def _read_png(path: Path) -> npt.NDArray[Any]:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)  # 8 or 16 bits, as they were written
    if image is None:
        raise TruthError(f"{path} cannot be read; delete {path.parents[1]} to have it made anew")
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


def augmented_image(image: Tensor, augment: Compose, rng: np.random.Generator) -> Tensor:
    """(1, H, W) uint8 to the same, changed by augment as rng decides."""
    augment.set_random_state(seed=int(rng.integers(2**32)))
    changed = augment(image.float() / 255)
    return torch.clamp(torch.as_tensor(np.asarray(changed)) * 255 + 0.5, 0, 255).to(torch.uint8)


def _augmented(sample: Sample, augment: Compose, rng: np.random.Generator) -> Sample:
    return _flip(sample._replace(image=augmented_image(sample.image, augment, rng)), rng)


def _flip(sample: Sample, rng: np.random.Generator) -> Sample:
    """One of the eight symmetries of the square, the same for image, labels and tips."""
    turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
    turned = [torch.rot90(t, turns, (1, 2)) for t in sample]
    return Sample(*((torch.flip(t, (2,)) if mirror else t).contiguous() for t in turned))
