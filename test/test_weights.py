# SPDX-License-Identifier: Apache-2.0
"""Weights files: what goes in comes out, and nothing that does not fit gets in."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from fedefm_core.errors import ConfigError, OutputError, WeightsError  # noqa: E402
from fedefm_core.networks import (  # noqa: E402
    build_network,
    load_network,
    load_weights,
    read_weights_header,
    save_weights,
)

SETTINGS = {"channels": [4, 8], "blocks": [1, 1]}
HEADER = {"architecture": "wirenet", "settings": SETTINGS}


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network("wirenet", SETTINGS)


@pytest.fixture
def saved(network: torch.nn.Module, tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_weights(network, path, HEADER)
    return path


def rewrite(path: Path, **changes: torch.Tensor | None) -> None:
    """Replace tensors of a weights file, or drop those given as None."""
    state = load_file(path)
    for name, tensor in changes.items():
        state.pop(name, None)
        if tensor is not None:
            state[name] = tensor
    save_file(state, path, metadata={"fedefm": json.dumps(HEADER)})


def test_network_comes_back_whole(network, saved):
    restored = load_network(saved)
    assert not restored.training
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(restored.state_dict()[name], tensor, rtol=0, atol=0)


def test_header_keeps_what_was_added(network, tmp_path):
    path = tmp_path / "deep" / "weights.safetensors"
    save_weights(network, path, {**HEADER, "step": 7, "validation": {"dice": 0.5}})
    header = read_weights_header(path)
    assert header == {**HEADER, "step": 7, "validation": {"dice": 0.5}}


def test_saving_replaces_and_leaves_nothing_else(network, saved):
    save_weights(network, saved, HEADER)
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_missing_weight_is_named(network, saved):
    rewrite(saved, **{"class_head.bias": None})
    with pytest.raises(WeightsError, match=r"lacks 1 weights: 'class_head\.bias'"):
        load_weights(network, saved)


def test_unknown_weight_is_named(network, saved):
    rewrite(saved, intruder=torch.zeros(1))
    with pytest.raises(WeightsError, match="1 unknown weights: 'intruder'"):
        load_weights(network, saved)


def test_wrong_shape_says_both_shapes(network, saved):
    rewrite(saved, **{"class_head.bias": torch.zeros(5)})
    with pytest.raises(WeightsError, match=r"'class_head\.bias'.*\[48\] \(got \[5\]\)"):
        load_weights(network, saved)


def test_wrong_dtype_says_both_dtypes(network, saved):
    rewrite(saved, **{"class_head.bias": torch.zeros(48, dtype=torch.float64)})
    with pytest.raises(WeightsError, match=r"dtype F32 \(got F64\)"):
        load_weights(network, saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_and_change_nothing(network, saved, value):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    rewrite(saved, **{"class_head.bias": torch.full((48,), value)})
    with pytest.raises(WeightsError, match=r"NaN or infinite values in 'class_head\.bias'"):
        load_weights(network, saved)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_network_that_diverged_is_not_saved(network, tmp_path):
    with torch.no_grad():
        network.class_head.bias[0] = float("nan")
    with pytest.raises(WeightsError, match="NaN or infinite"):
        save_weights(network, tmp_path / "weights.safetensors", HEADER)
    assert list(tmp_path.iterdir()) == []


def test_missing_file(network, tmp_path):
    with pytest.raises(WeightsError, match=r"not found: .*nothing\.safetensors"):
        load_weights(network, tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("kept", [0, 4, 200, -1])
def test_truncated_file(network, saved, kept):
    saved.write_bytes(saved.read_bytes()[:kept])
    for read in (lambda: load_weights(network, saved), lambda: read_weights_header(saved)):
        with pytest.raises(WeightsError, match="not a whole, readable safetensors file"):
            read()


def test_pickle_is_never_loaded(network, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps({"class_head.bias": [0.0] * 48}))
    with pytest.raises(WeightsError, match="not a whole, readable safetensors file"):
        load_weights(network, path)


def test_far_too_large_file_is_refused_unread(network, saved):
    with saved.open("ab") as file:
        file.truncate(1 << 34)  # sparse: takes no room on the disk
    with pytest.raises(WeightsError, match="17179869184 bytes"):
        load_weights(network, saved)


def test_file_without_header_is_refused(saved):
    save_file(load_file(saved), saved)
    with pytest.raises(WeightsError, match="no 'fedefm' header"):
        read_weights_header(saved)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"architecture": "wirenet"}',
        '{"architecture": ["wirenet"], "settings": {}}',
        '{"architecture": "wirenet", "settings": "default"}',
    ],
)
def test_damaged_header_is_refused(saved, text):
    save_file(load_file(saved), saved, metadata={"fedefm": text})
    with pytest.raises(WeightsError, match="header of"):
        read_weights_header(saved)


def test_header_must_say_how_to_rebuild_the_network(network, tmp_path):
    with pytest.raises(WeightsError, match="lack 'settings'"):
        save_weights(network, tmp_path / "weights.safetensors", {"architecture": "wirenet"})


def test_unwritable_output(network, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="Cannot write the weights file"):
        save_weights(network, tmp_path / "file" / "weights.safetensors", HEADER)


def test_unknown_architecture_and_setting():
    with pytest.raises(ConfigError, match=r"'lenet' is no known architecture.*wirenet"):
        build_network("lenet", {})
    with pytest.raises(ConfigError, match="did you mean 'channels'"):
        build_network("wirenet", {"chanels": [4, 8]})
