# SPDX-License-Identifier: Apache-2.0
"""Weights as bytes that travel: safetensors, whole or as a difference from weights that both know.

    exact   the tensors as they are
    bf16    θ − base in bfloat16: half the bytes
    int8    θ − base in 255 steps a row (of the first axis), with a float32 scale a row: a quarter

Error of an element, with δ = θ − base and u = 2⁻²⁴ (|θ| + |base| + |δ|), the rounding of float32:

    bf16    |error| ≤ 2⁻⁸ |δ| + 2u
    int8    |error| ≤ max |δ| of the row / 254 · (1 + 2⁻²⁰) + 2u

Tensors that are not floating point travel as they are. Whatever arrives is checked for size before
it is read, and for names, shapes, dtypes and finite values before it is used. There is no pickle.
"""

from __future__ import annotations

import json
import struct
from typing import Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fedefm_core.errors import FederationError
from fedefm_core.federation.state import State, check_state

Transfer = Literal["exact", "bf16", "int8"]
TRANSFERS: tuple[Transfer, ...] = get_args(Transfer)
SCALE = "/scale"  # what the name of the scales of an int8 tensor ends in
HEADER_LIMIT = 1 << 20  # bytes of names and shapes that a parcel may have beside its tensors
_STEPS = 127


def pack(weights: State, base: State, transfer: Transfer) -> bytes:
    """Weights as they travel. base: what the receiver has; of no use for 'exact'."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if transfer == "exact" or not tensor.is_floating_point():
            tensors[name] = tensor.contiguous()
            continue
        delta = tensor - base[name]
        if transfer == "bf16":
            tensors[name] = delta.to(torch.bfloat16).contiguous()
        else:
            tensors[name], tensors[name + SCALE] = _quantised(delta)
    return save(tensors, metadata={"transfer": transfer})


def unpack(parcel: object, base: State, whose: str) -> State:
    """The weights in a parcel; base has the names, shapes and dtypes that they must have.

    whose: begins the sentence: 'The weights of the silo 'a' in round 3'. Raises FederationError
    for what is no such parcel.
    """
    if not isinstance(parcel, bytes | bytearray | memoryview):
        raise FederationError(f"{whose} must be bytes (got {type(parcel).__name__})")
    data = bytes(parcel)
    largest = max(parcel_bytes(base, transfer) for transfer in TRANSFERS) + HEADER_LIMIT
    if len(data) > largest:
        raise FederationError(f"{whose} must be {largest} bytes at most (got {len(data)})")
    try:
        tensors: State = load(data)
        transfer = _transfer_of(data)
    except (SafetensorError, ValueError, KeyError, TypeError, struct.error) as error:
        raise FederationError(f"{whose} are no safetensors file: {error}") from error
    if transfer != "exact":
        tensors = _restored(tensors, base, transfer, whose)
    check_state(tensors, base, whose)
    return {name: tensors[name] for name in base}  # in their order: sums over names depend on it


def parcel_bytes(like: State, transfer: Transfer) -> int:
    """Bytes of the tensors of a parcel, without the header that names them (below HEADER_LIMIT).

    like may be on the device 'meta'.
    """
    total = 0
    for tensor in like.values():
        if transfer == "exact" or not tensor.is_floating_point():
            total += tensor.numel() * tensor.element_size()
        elif transfer == "bf16":
            total += 2 * tensor.numel()
        else:
            total += tensor.numel() + 4 * _rows(tensor)
    return total


def _transfer_of(data: bytes) -> Transfer:
    (length,) = struct.unpack_from("<Q", data)
    named = json.loads(data[8 : 8 + length])["__metadata__"]["transfer"]
    if named not in TRANSFERS:
        raise ValueError(f"its transfer is '{named}'")
    return named  # type: ignore[no-any-return]


def _rows(tensor: Tensor) -> int:
    return tensor.shape[0] if tensor.dim() > 1 else 1


def _quantised(delta: Tensor) -> tuple[Tensor, Tensor]:
    """(R, …) int8 and (R,) float32 scales; the scale of a row with NaN is NaN, which is seen."""
    rows = delta.float().reshape(_rows(delta), -1)
    scale = rows.abs().amax(1) / _STEPS if rows.numel() else rows.new_zeros(len(rows))
    steps = torch.where(scale > 0, scale, 1)[:, None]
    quantised = torch.nan_to_num(rows / steps).round().clamp(-_STEPS, _STEPS).to(torch.int8)
    return quantised.reshape(delta.shape).contiguous(), scale.contiguous()


def _restored(tensors: State, base: State, transfer: Transfer, whose: str) -> State:
    """base + δ. What does not fit together is left out, for check_state to name it."""
    restored: dict[str, Tensor] = {}
    for name, like in base.items():
        if name not in tensors:
            continue
        sent = tensors[name]
        if not like.is_floating_point():
            restored[name] = sent
            continue
        if sent.shape != like.shape:
            raise FederationError(
                f"{whose}: '{name}' must be of the shape {tuple(like.shape)} "
                f"(got {tuple(sent.shape)})"
            )
        delta = sent.float()
        if transfer == "int8":
            scale = tensors.get(name + SCALE)
            if scale is None or scale.shape != (_rows(like),):
                raise FederationError(f"{whose}: '{name}' lacks its {_rows(like)} scales")
            shape = (-1,) + (1,) * (like.dim() - 1) if like.dim() > 1 else ()
            delta = delta * scale.float().reshape(shape)
        restored[name] = (base[name].float() + delta).to(like.dtype)
    scales = {name + SCALE for name in base} if transfer == "int8" else set()
    extra = {name: tensors[name] for name in tensors.keys() - base.keys() - scales}
    return {**restored, **extra}
