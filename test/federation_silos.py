# SPDX-License-Identifier: Apache-2.0
"""Silos with a linear model and a handful of images, so that rounds can be derived in numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedefm_core.config import parse_settings
from fedefm_core.federation.carrier import InProcess, OnFailure
from fedefm_core.federation.data import LabelledImages
from fedefm_core.federation.prototypes import PrototypeSettings
from fedefm_core.federation.schedule import Schedule
from fedefm_core.federation.shelf import MemoryShelf
from fedefm_core.federation.silo import Silo, TrainingSettings
from fedefm_core.federation.state import State, state_of
from fedefm_core.federation.topology_overlays import build_topology
from fedefm_core.federation.underlays import alike
from fedefm_core.networks.foundation import FoundationNetwork, FoundationOutput

Matrix = npt.NDArray[np.float64]
SIDE, CLASSES, RATE = 2, 3, 0.5
NAMES = ("a", "b", "c")
PLAIN = {"name": "sgd", "learning_rate": RATE, "momentum": 0, "weight_decay": 0}


class Linear(FoundationNetwork):
    """Logits are W times the normalised pixels; a map of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(SIDE * SIDE, CLASSES, bias=False)

    def encoder_stages(self) -> list[tuple[str, ...]]:
        return []

    def forward(self, image: Tensor) -> FoundationOutput:
        pixels = image.flatten(1)
        return FoundationOutput(self.head(pixels), pixels, pixels[:, :, None], pixels[:, :, None])


def images_of(label: int, count: int, seed: int) -> LabelledImages:
    """Random images of one kind."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, SIDE, SIDE), dtype=np.uint8)
    return LabelledImages(images, np.full(count, label, np.int64))


def silos(
    names: Sequence[str] = NAMES,
    prototypes: PrototypeSettings | None = None,
    optimiser: Mapping[str, Any] | None = None,
) -> list[Silo]:
    """Silo number n holds n + 2 images of kind n; a batch is all that it holds."""
    network = Linear()
    values = {
        "batch_size": 100,
        "optimiser": {**PLAIN, "max_gradient_norm": None, **(optimiser or {})},
    }
    training = parse_settings(TrainingSettings, values)
    return [
        Silo(
            name,
            images_of(number, number + 2, number),
            network,
            training,
            CLASSES,
            seed=7,
            prototypes=prototypes or PrototypeSettings(),
        )
        for number, name in enumerate(names)
    ]


def start() -> State:
    """Weights that all silos start from."""
    torch.manual_seed(3)
    return state_of(Linear())


def carrier_of(members: Sequence[Silo], on_failure: OnFailure = "skip") -> InProcess:
    return InProcess(members, start(), MemoryShelf(), on_failure)


def schedule_of(topology: str, steps: int = 1, names: Sequence[str] = NAMES) -> Schedule:
    return Schedule(build_topology(topology, alike(names)), steps, rounds=10)


def matrix(weights: State) -> Matrix:
    return weights["head.weight"].double().numpy()


def pixels(silo: Silo) -> Matrix:
    """(B, P) normalised pixels of all images of a silo, by the definition of normalise."""
    x = silo.data.images.reshape(len(silo.data), -1).astype(np.float64)
    variance = x.var(axis=1, keepdims=True)
    return (x - x.mean(axis=1, keepdims=True)) / np.sqrt(variance + 1)


def softmax(z: Matrix) -> Matrix:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def gradient(w: Matrix, silo: Silo) -> Matrix:
    """Of the cross-entropy on all images of a silo: (P − Y)ᵀ X / B."""
    x, y = pixels(silo), np.eye(CLASSES)[silo.data.labels]
    return (softmax(x @ w.T) - y).T @ x / len(x)


def soft_gradient(w: Matrix, expert: Matrix, silo: Silo, temperature: float) -> Matrix:
    """Of T² L_c(Q_S^T, Q_E^T): T (P^T − Q^T)ᵀ X / B."""
    x = pixels(silo)
    apart = softmax(x @ w.T / temperature) - softmax(x @ expert.T / temperature)
    return temperature * apart.T @ x / len(x)


def step(w: Matrix, silo: Silo, times: int = 1) -> Matrix:
    """Plain gradient descent at a silo."""
    for _ in range(times):
        w = w - RATE * gradient(w, silo)
    return w
