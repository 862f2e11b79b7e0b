# SPDX-License-Identifier: Apache-2.0
"""Weights as plain dictionaries: sums, distances, sizes, and the check of those that come back.

A State is never changed in place, so two names may share one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from fedefm_core.errors import FederationError

State = Mapping[str, Tensor]


def state_of(network: nn.Module) -> State:
    """A copy of the weights of network, on the CPU."""
    return {
        name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()
    }


def weighted_sum(parts: Iterable[tuple[float, State]]) -> State:
    """Σ w θ in the dtype of the weights; tensors of whole numbers are those of the first part.

    parts are taken one at a time, so they need not all be in memory. Raises FederationError when
    there are none.
    """
    total: dict[str, Tensor] = {}
    for weight, state in parts:
        for name, tensor in state.items():
            if name not in total:
                total[name] = tensor * weight if tensor.is_floating_point() else tensor.clone()
            elif tensor.is_floating_point():
                total[name].add_(tensor, alpha=weight)
    if not total:
        raise FederationError("An average needs the weights of one silo at least (got none)")
    return total


def distance(first: State, second: State) -> float:
    """Euclidean distance between two sets of weights."""
    squares = (
        float((tensor - second[name]).double().square().sum())
        for name, tensor in first.items()
        if tensor.is_floating_point()
    )
    return math.sqrt(sum(squares))


def state_bytes(state: State) -> int:
    """Size of the weights as they travel."""
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def check_state(state: State, like: State, whose: str) -> None:
    """Raise FederationError unless state has the names, shapes and dtypes of like and is finite.

    whose: begins the sentence: 'The weights of the silo 'a' in round 3'.
    """
    if state.keys() != like.keys():
        odd = sorted(state.keys() ^ like.keys())
        raise FederationError(f"{whose} must have the network's names (odd: {', '.join(odd[:3])})")
    for name, tensor in state.items():
        expected = like[name]
        if tensor.shape != expected.shape or tensor.dtype != expected.dtype:
            raise FederationError(
                f"{whose}: '{name}' must be {expected.dtype} of the shape "
                f"{tuple(expected.shape)} (got {tensor.dtype}, {tuple(tensor.shape)})"
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise FederationError(f"{whose}: '{name}' holds NaN or infinity")
