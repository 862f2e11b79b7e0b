# SPDX-License-Identifier: Apache-2.0
"""Weights in and out: safetensors only, checked for names, shapes, dtypes, finiteness and size.

A weights file carries in its header which architecture with which settings it belongs to, so that
networks.load_network can rebuild the network from the file alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fedefm_core.errors import OutputError, WeightsError

HEADER_KEY = "fedefm"
REQUIRED_KEYS = ("architecture", "settings")
HEADER_BYTES = 1 << 20  # more than any header of ours: a larger file holds something else
_DTYPE_NAMES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def save_weights(
    network: nn.Module, path: Path, metadata: Mapping[str, Any], half: bool = False
) -> None:
    """Write the state of network to path, in one step: a reader sees the old file or the new one.

    half: store float32 as float16, for files that others start from; load_weights takes both.

    metadata: plain values; must name 'architecture' and 'settings' as build_network takes them.
    Raises WeightsError for weights that are not finite or metadata that lack a key, OutputError
    when path cannot be written.
    """
    missing = [key for key in REQUIRED_KEYS if key not in metadata]
    if missing:
        raise WeightsError(f"The metadata of {path} lack {_listed(missing)}")
    state = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    if half:
        state = {k: t.half() if t.dtype == torch.float32 else t for k, t in state.items()}
    _check_finite(state, f"The network to be saved as {path}")
    header = {HEADER_KEY: json.dumps(dict(metadata), sort_keys=True)}
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, partial, metadata=header)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"Cannot write the weights file {path}: {error}") from error


def load_weights(network: nn.Module, path: Path) -> None:
    """Load the weights file at path into network, which stays as it was when the file is refused.

    Raises WeightsError when the file is missing, is no whole safetensors file, or does not fit
    network in names, shapes, dtypes or size, or holds values that are not finite.
    """
    expected = network.state_dict()
    _check_size(expected, path)
    try:
        with safe_open(path, framework="pt") as file:
            _check_names(expected, file.keys(), path)
            for name, tensor in expected.items():
                _check_tensor(name, tensor, file.get_slice(name), path)
            state = {name: file.get_tensor(name) for name in expected}
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    _check_finite(state, str(path))
    network.load_state_dict(state)


def read_weights_header(path: Path) -> dict[str, Any]:
    """Read what the weights file says of itself: 'architecture', 'settings' and what was added.

    Raises WeightsError when the file is missing, is no safetensors file or lacks the header.
    """
    _file_bytes(path)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(HEADER_KEY)
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    if text is None:
        raise WeightsError(
            f"{path} has no '{HEADER_KEY}' header, so the network it belongs to is unknown"
        )
    return _parse_header(text, path)


def _parse_header(text: str, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except json.JSONDecodeError as error:
        raise WeightsError(f"The header of {path} is not valid JSON: {error}") from error
    if (
        not isinstance(header, dict)
        or not isinstance(header.get("architecture"), str)
        or not isinstance(header.get("settings"), dict)
    ):
        raise WeightsError(
            f"The header of {path} must give 'architecture' as text and 'settings' as a mapping"
        )
    return header


def _file_bytes(path: Path) -> int:
    if not path.is_file():
        raise WeightsError(f"Weights file not found: {path}")
    return path.stat().st_size


def _check_size(expected: Mapping[str, Tensor], path: Path) -> None:
    found = _file_bytes(path)
    limit = HEADER_BYTES + sum(t.numel() * t.element_size() for t in expected.values())
    if found > limit:
        raise WeightsError(f"{path} has {found} bytes; this network needs {limit} at most")


def _check_names(expected: Iterable[str], found: Iterable[str], path: Path) -> None:
    missing = sorted(set(expected) - set(found))
    extra = sorted(set(found) - set(expected))
    if missing:
        raise WeightsError(f"{path} lacks {len(missing)} weights: {_listed(missing)}")
    if extra:
        raise WeightsError(f"{path} has {len(extra)} unknown weights: {_listed(extra)}")


def _check_tensor(name: str, expected: Tensor, found: Any, path: Path) -> None:
    shape, dtype = list(expected.shape), _DTYPE_NAMES[expected.dtype]
    if found.get_shape() != shape:
        raise WeightsError(
            f"'{name}' in {path} must have the shape {shape} (got {found.get_shape()})"
        )
    halved = dtype == "F32" and found.get_dtype() == "F16"
    if found.get_dtype() != dtype and not halved:
        raise WeightsError(
            f"'{name}' in {path} must have the dtype {dtype} (got {found.get_dtype()})"
        )


def _check_finite(state: Mapping[str, Tensor], where: str) -> None:
    bad = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise WeightsError(f"{where} holds NaN or infinite values in {_listed(bad)}")


def _listed(names: Iterable[str], most: int = 3) -> str:
    quoted = [f"'{name}'" for name in names]
    return ", ".join(quoted[:most]) + (", …" if len(quoted) > most else "")


def _unreadable(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{path} is not a whole, readable safetensors file: {error}")
