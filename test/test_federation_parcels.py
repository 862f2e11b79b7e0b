# SPDX-License-Identifier: Apache-2.0
"""Weights as bytes: what comes out of a parcel, how exactly, and what is refused."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor

from fedefm_core.errors import FederationError
from fedefm_core.federation.parcels import (
    HEADER_LIMIT,
    TRANSFERS,
    Transfer,
    pack,
    parcel_bytes,
    unpack,
)
from fedefm_core.federation.state import State

WHOSE = "The weights of the silo 'a' in round 3"


def weights(seed: int, spread: float = 1.0) -> dict[str, Tensor]:
    rng = np.random.default_rng(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.as_tensor(spread * rng.standard_normal(shape), dtype=torch.float32)

    return {
        "stem.weight": drawn(4, 1, 3, 3),
        "bias": drawn(7),
        "scalar": drawn(),
        "count": torch.tensor([1, 2, 2**60]),
    }


def test_exact_is_bit_for_bit() -> None:
    sent = weights(1)
    came = unpack(pack(sent, weights(2), "exact"), weights(2), WHOSE)
    assert came.keys() == sent.keys()
    assert all(torch.equal(came[name], sent[name]) for name in sent)


@given(
    st.sampled_from(["bf16", "int8"]),
    st.integers(0, 10_000),
    st.floats(1e-6, 1e3),
    st.floats(1e-6, 1e3),
)
@settings(deadline=None, max_examples=60)
def test_the_error_of_a_difference_is_bounded(
    transfer: Transfer, seed: int, apart: float, spread: float
) -> None:
    base = weights(seed, spread)
    moved = weights(seed + 1, apart)
    sent = {n: base[n] + moved[n] if base[n].is_floating_point() else moved[n] for n in base}
    came = unpack(pack(sent, base, transfer), base, WHOSE)
    assert torch.equal(came["count"], sent["count"])
    for name in ("stem.weight", "bias", "scalar"):
        now, before = sent[name].double(), base[name].double()
        delta, error = (now - before).abs(), (came[name].double() - now).abs()
        rounding = 2 * 2**-24 * (now.abs() + before.abs() + delta)
        if transfer == "bf16":
            bound = 2**-8 * delta + rounding
        else:
            rows = delta.reshape(len(delta) if delta.dim() > 1 else 1, -1)
            largest = rows.amax(1).reshape(
                [-1] + [1] * (delta.dim() - 1) if delta.dim() > 1 else ()
            )
            bound = largest / 254 * (1 + 2**-20) + rounding
        assert bool((error <= bound).all()), (name, float((error / bound).max()))


def test_equal_weights_differ_by_nothing() -> None:
    for transfer in TRANSFERS:
        came = unpack(pack(weights(1), weights(1), transfer), weights(1), WHOSE)
        assert all(torch.equal(came[name], tensor) for name, tensor in weights(1).items())


def test_bytes_are_those_predicted_and_a_header() -> None:
    like: State = {"w": torch.zeros(256, 512), "b": torch.zeros(256)}
    predicted = {transfer: parcel_bytes(like, transfer) for transfer in TRANSFERS}
    values = 256 * 512 + 256
    assert predicted == {
        "exact": 4 * values,
        "bf16": 2 * values,
        "int8": values + 4 * (256 + 1),
    }
    for transfer, size in predicted.items():
        assert size < len(pack(like, like, transfer)) < size + 512


@pytest.mark.parametrize("transfer", TRANSFERS)
def test_what_is_no_number_is_refused(transfer: Transfer) -> None:
    bad = weights(1)
    bad["bias"] = bad["bias"].clone()
    bad["bias"][2] = math.nan
    with pytest.raises(FederationError, match=f"{WHOSE}: 'bias' holds NaN"):
        unpack(pack(bad, weights(2), transfer), weights(2), WHOSE)


@pytest.mark.parametrize("transfer", ["bf16", "int8"])
def test_other_shapes_are_refused(transfer: Transfer) -> None:
    other = {**weights(2), "bias": torch.zeros(3)}
    with pytest.raises(
        FederationError, match=r"'bias' must be of the shape \(7,\) \(got \(3,\)\)"
    ):
        unpack(pack(other, other, transfer), weights(2), WHOSE)


def test_anything_else_is_refused_with_a_sentence() -> None:
    good = weights(1)
    lacking = {name: tensor for name, tensor in good.items() if name != "bias"}
    for parcel, reason in (
        (pickle.dumps(good), "no safetensors"),
        (b"", "no safetensors"),
        (b"\xff" * 100, "no safetensors"),
        (pack(good, good, "exact")[:-5], "no safetensors"),
        (save(good), "no safetensors"),
        (save(good, metadata={"transfer": "zip"}), "its transfer is 'zip'"),
        (bytes(parcel_bytes(good, "exact") + HEADER_LIMIT + 1), "bytes at most"),
        ("text", "must be bytes"),
        (pack(lacking, good, "exact"), "odd: bias"),
        (pack(lacking, good, "int8"), "odd: bias"),
        (pack({**good, "more": torch.ones(1)}, good, "exact"), "odd: more"),
        (pack({**good, "bias": good["bias"].double()}, good, "exact"), "float64"),
        (save({**good}, metadata={"transfer": "int8"}), "lacks its"),
    ):
        with pytest.raises(FederationError, match=f"{WHOSE}.*{reason}"):
            unpack(parcel, good, WHOSE)


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_no_bytes_raise_anything_else(junk: bytes) -> None:
    with pytest.raises(FederationError):
        unpack(junk, weights(1), WHOSE)
