# SPDX-License-Identifier: Apache-2.0
"""How much frozen features know of wires: a light decoder on them, trained to segment.

The decoder sees the two dense maps of a foundation network position by position with their eight
neighbours, and gives the pixels beneath: one hidden layer, nothing of the image itself. So what
it draws must be in the features.

Legend: N images, B images in a batch, P positions of a dense map, C channels of both maps, S side
of an image, G side of the map (G² = P).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fedefm_core.config import Settings
from fedefm_core.evaluation.probes import Images, outputs_of
from fedefm_core.networks.foundation import FoundationNetwork

Masks = npt.NDArray[np.uint8]


class WireProbeSettings(Settings):
    """hidden: width of the decoder. seed: of its weights and batches, the same for all."""

    hidden: int = Field(48, ge=1)
    steps: int = Field(300, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(3e-3, gt=0)
    seed: int = Field(0, ge=0)


def wire_precision(
    network: FoundationNetwork,
    train: tuple[Images, Masks],
    test: tuple[Images, Masks],
    settings: WireProbeSettings,
    device: torch.device,
) -> float:
    """Average precision of the instruments' pixels in the test images, trained on the others.

    train, test: (N, S, S) uint8 images and masks; every value above 0 is an instrument. Chance is
    the share of such pixels. Dice would need a threshold, and wires a pixel wide are so uncertain
    at the sides at which a foundation is pretrained that at any fixed one most of them are lost.
    """
    maps_ncgg = _maps(network, train[0], device)
    mean, deviation = _by_channel(maps_ncgg)
    truth_n1ss = torch.from_numpy(np.asarray(train[1] > 0, np.float32))[:, None]
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        decoder = _decoder(maps_ncgg, truth_n1ss.shape[-1], settings.hidden)
    optimiser = torch.optim.Adam(decoder.parameters(), lr=settings.learning_rate)
    rng = np.random.default_rng(settings.seed)
    size = min(settings.batch_size, len(maps_ncgg))
    for step in range(settings.steps):
        rate = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        optimiser.param_groups[0]["lr"] = settings.learning_rate * rate
        chosen = torch.from_numpy(rng.choice(len(maps_ncgg), size, replace=False))
        logits = decoder((maps_ncgg[chosen] - mean) / deviation)
        loss = functional.binary_cross_entropy_with_logits(logits, truth_n1ss[chosen])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    with torch.inference_mode():
        logits = decoder((_maps(network, test[0], device) - mean) / deviation)
    return average_precision(logits.flatten(), torch.from_numpy(test[1] > 0).flatten())


def average_precision(scores_m: Tensor, truth_m: Tensor) -> float:
    """Mean precision over the true ones, each at its own score as the threshold; 0 without any.

    scores_m: (M,), higher where more probable. truth_m: (M,) bool. Of equal scores, all count.
    """
    ranked = scores_m.double().sort(descending=True, stable=True)
    right_m = truth_m[ranked.indices].double().cumsum(0)
    # At the last of equal scores: how many are above or equal, and how many of them true.
    _, counts = ranked.values.unique_consecutive(return_counts=True)
    last = counts.cumsum(0) - 1
    right = right_m[last]
    gained = torch.diff(right, prepend=right.new_zeros(1))
    precision = right / (last + 1)
    return float((gained * precision).sum() / right[-1].clamp(min=1))


def _maps(network: FoundationNetwork, images: Images, device: torch.device) -> Tensor:
    """(N, C, G, G): both maps, where they have the same positions; else the late one alone."""
    parts = []
    for output in outputs_of(network, images, device):
        late, mid = output.late_bnc, output.mid_bnc
        both = torch.cat([late, mid], 2) if mid.shape[1] == late.shape[1] else late
        side = math.isqrt(both.shape[1])
        parts.append(both.mT.unflatten(2, (side, side)))
    return torch.cat(parts)


def _by_channel(maps_ncgg: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation, (C, 1, 1) each; that of a constant channel is 1."""
    mean = maps_ncgg.mean(dim=(0, 2, 3))[:, None, None]
    deviation = maps_ncgg.std(dim=(0, 2, 3))[:, None, None]
    return mean, torch.where(deviation > 1e-6, deviation, 1.0)


def _decoder(maps_ncgg: Tensor, side: int, hidden: int) -> nn.Module:
    """(B, C, G, G) to logits (B, 1, S, S)."""
    patch = side // maps_ncgg.shape[-1]
    return nn.Sequential(
        nn.Conv2d(maps_ncgg.shape[1], hidden, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(hidden, patch * patch, 1),
        nn.PixelShuffle(patch),
    )
