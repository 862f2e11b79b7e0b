# SPDX-License-Identifier: Apache-2.0
"""Start a network from the weights of another: what fits is taken, and the rest is told.

A weight fits by name and shape. Position embeddings are resized to the network's grid; a patch
embedding of colour images becomes that of grey ones by summing over its channels, which is what
it would do to a grey image in all three. Published image encoders are renamed first (layouts.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from fedefm_core.errors import WeightsError
from fedefm_core.networks.layouts import read_weights
from fedefm_core.networks.vit import resize_positions
from fedefm_core.networks.weights import load_weights

POSITION = "body.position"
EMBEDDING = "embedding.weight"

Outcome = Literal["loaded", "resized", "left out", "fresh"]


@dataclass(frozen=True)
class Fate:
    """What became of one weight. name: the network's; the file's where the network has none.

    'left out' is what the file has and the network cannot take, 'fresh' what it lacks.
    """

    name: str
    outcome: Outcome
    parameters: int
    note: str = ""


@dataclass(frozen=True)
class Initialisation:
    """layout: whose names the file had."""

    path: Path
    layout: str
    fates: tuple[Fate, ...]

    def of(self, outcome: Outcome) -> list[Fate]:
        """Those of one outcome."""
        return [fate for fate in self.fates if fate.outcome == outcome]


def initialise(network: nn.Module, architecture: str, path: Path) -> Initialisation:
    """Load what fits of the weights file at path into network, the architecture of that name.

    A file of the same architecture must fit whole, as load_weights has it. Raises WeightsError
    when it does not, when the file is damaged, holds values that are not finite, or when nothing
    in it but norms, biases and positions fits; the network then stays as it was.
    """
    file = read_weights(path)
    expected = network.state_dict()
    if file.architecture == architecture:
        load_weights(network, path)
        fates = tuple(Fate(name, "loaded", t.numel()) for name, t in _learnt(expected))
        return Initialisation(path, file.layout, fates)
    state: dict[str, Tensor] = {}
    fates = (*_fit(expected, file.state, state), *_fresh(expected, state, file.state))
    if not any(tensor.ndim > 1 and name != POSITION for name, tensor in state.items()):
        raise WeightsError(
            f"Nothing in {path} ({file.layout}) fits this {architecture}: {_reason(fates)}"
        )
    bad = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise WeightsError(f"{path} holds NaN or infinite values, in '{bad[0]}' for one")
    network.load_state_dict(state, strict=False)
    return Initialisation(path, file.layout, fates)


def _fit(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], state: dict[str, Tensor]
) -> Iterator[Fate]:
    """Fates of what the file has; what fits is put into state."""
    for name, tensor in found.items():
        target = expected.get(name)
        if target is None or not (tensor.is_floating_point() and target.is_floating_point()):
            yield Fate(name, "left out", tensor.numel(), "the network has no such weight")
            continue
        fitting, note = _fitting(name, tensor, target)
        weight = name.removesuffix(".bias") + ".weight"
        if name.endswith(".bias") and not _same_weight(weight, expected, found):
            fitting, note = None, "its weight does not fit"
        if fitting is None:
            yield Fate(name, "left out", tensor.numel(), note)
            continue
        state[name] = fitting.to(target.dtype)
        yield Fate(name, "resized" if note else "loaded", target.numel(), note)


def _same_weight(name: str, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> bool:
    """Does the weight that a bias belongs to fit too, where both sides have it?"""
    if name not in expected or name not in found:
        return True
    return _fitting(name, found[name], expected[name])[0] is not None


def _fitting(name: str, tensor: Tensor, target: Tensor) -> tuple[Tensor | None, str]:
    """The tensor in the shape of target, None where there is no way; and what was done, or why."""
    if tensor.shape == target.shape:
        return tensor, ""
    if name == POSITION and tensor.shape[-1] == target.shape[-1]:
        return _positions(tensor, target)
    grey = (*tensor.shape[:1], 1, *tensor.shape[2:])
    if name == EMBEDDING and tensor.ndim == 4 and target.shape == grey:
        return tensor.float().sum(1, keepdim=True), f"{tensor.shape[1]} colour channels summed"
    return None, f"{_text(tensor)} in the file, {_text(target)} in the network"


def _positions(tensor: Tensor, target: Tensor) -> tuple[Tensor | None, str]:
    """tensor: (N, C), (1, N, C) or (1, h, w, C), with or without one of a class token before."""
    positions = tensor.reshape(1, -1, tensor.shape[-1]).float()
    count = positions.shape[1]
    if math.isqrt(count) ** 2 != count:
        positions = positions[:, 1:]
    old, new = (math.isqrt(p.shape[1]) for p in (positions, target))
    if old**2 != positions.shape[1]:
        return None, f"{count} positions are no square grid"
    return resize_positions(positions, (new, new)), f"{old} x {old} to {new} x {new} positions"


def _fresh(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> Iterator[Fate]:
    for name, tensor in _learnt(expected):
        if name not in state and name not in found:
            yield Fate(name, "fresh", tensor.numel(), "not in the file")


def _learnt(expected: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """All but counters and indices."""
    return ((name, t) for name, t in expected.items() if t.is_floating_point())


def _reason(fates: tuple[Fate, ...]) -> str:
    """Why nothing fits, by the example that says most."""
    out = [fate for fate in fates if fate.outcome == "left out"]
    shaped = [fate for fate in out if "in the file" in fate.note]
    shaped.sort(key=lambda fate: fate.name != EMBEDDING)
    example = next(iter(shaped or out), None)
    return f"'{example.name}' for one, {example.note}" if example else "it has no weights"


def _text(tensor: Tensor) -> str:
    return str(list(tensor.shape))
