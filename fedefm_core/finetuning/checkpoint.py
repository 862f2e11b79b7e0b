# SPDX-License-Identifier: Apache-2.0
"""The state of a training run as one safetensors file: weights, average, optimiser, counters."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fedefm_core.errors import OutputError, WeightsError


@dataclass
class Progress:
    """Counters of a run. best: highest validation metric so far, at best_step."""

    step: int = 0
    best: float = -1.0
    best_step: int = 0


def save_state(
    path: Path,
    network: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Write everything that a bit-for-bit resume needs, in one step."""
    tensors = _with_prefix("network.", network.state_dict())
    tensors |= _with_prefix("average.", average.state_dict())
    for index, entry in optimiser.state_dict()["state"].items():
        tensors |= _with_prefix(f"optimiser.{index}.", entry)
    partial = path.with_name(path.name + ".partial")
    try:
        save_file(tensors, partial, metadata={"progress": json.dumps(asdict(progress))})
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"Cannot write the training state {path}: {error}") from error


def load_state(
    path: Path, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> Progress:
    """Restore what save_state wrote. Raises WeightsError when the file does not fit the run."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            progress = Progress(**json.loads(file.metadata()["progress"]))
        network.load_state_dict(_without_prefix("network.", tensors))
        average.load_state_dict(_without_prefix("average.", tensors))
        state: dict[int, dict[str, Any]] = {}
        for name, tensor in _without_prefix("optimiser.", tensors).items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = tensor
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path} is no training state of this run: {error}") from error
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    return progress


def _with_prefix(prefix: str, state: dict[str, Any]) -> dict[str, Tensor]:
    # Copies: safetensors refuses tensors that share memory or are not contiguous.
    return {prefix + k: torch.as_tensor(v).detach().clone().contiguous() for k, v in state.items()}


def _without_prefix(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
