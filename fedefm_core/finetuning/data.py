# SPDX-License-Identifier: Apache-2.0
"""The simulator as a stream of training samples; sample i depends on (seed, i) alone."""

from __future__ import annotations

from collections.abc import Sequence
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
from torch.utils.data import Dataset

from fedefm_core.finetuning.settings import AugmentationSettings
from fedefm_core.frames.windowing import to_grey8
from fedefm_core.networks.wirenet import STRIDE
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
        self.augment.set_random_state(seed=int(rng.integers(2**32)))
        image = self.augment(sample.image.float() / 255)
        image = torch.clamp(torch.as_tensor(np.asarray(image)) * 255 + 0.5, 0, 255).to(torch.uint8)
        return _flip(sample._replace(image=image), rng)


def to_sample(frame: SimulatedFrame, tip_sigma_cells: float) -> Sample:
    """Tensors of one simulated frame; the image windowed to 8 bit as at inference."""
    heatmap = tip_heatmap(frame.instruments, frame.label_map.shape, tip_sigma_cells)
    return Sample(
        torch.from_numpy(np.array(to_grey8(frame.frame)))[None],
        torch.from_numpy(frame.label_map)[None],
        torch.from_numpy(heatmap),
    )


def tip_heatmap(
    instruments: Sequence[InstrumentTruth], shape: tuple[int, ...], sigma_cells: float
) -> npt.NDArray[np.float32]:
    """(2, H/4, W/4) float32: a Gaussian of peak 1 at each visible tip, one plane a kind."""
    rows, columns = shape[0] // STRIDE, shape[1] // STRIDE
    heatmap = np.zeros((len(INSTRUMENT_KINDS), rows, columns), np.float32)
    y, x = np.arange(rows), np.arange(columns)
    for instrument in instruments:
        if instrument.tip_px is None:
            continue
        column, row = (instrument.tip_px - (STRIDE - 1) / 2) / STRIDE
        bump = np.outer(_gaussian(y - row, sigma_cells), _gaussian(x - column, sigma_cells))
        plane = heatmap[INSTRUMENT_KINDS.index(instrument.kind)]
        np.maximum(plane, bump, out=plane)
    return heatmap


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
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _gaussian(distance: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    return np.exp(-0.5 * (distance / sigma) ** 2)


def _flip(sample: Sample, rng: np.random.Generator) -> Sample:
    """One of the eight symmetries of the square, the same for image, labels and tips."""
    turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
    turned = [torch.rot90(t, turns, (1, 2)) for t in sample]
    return Sample(*((torch.flip(t, (2,)) if mirror else t).contiguous() for t in turned))
