# SPDX-License-Identifier: Apache-2.0
"""Foundation networks: shapes, sizes, that all of them learns, and the way through a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fedefm_core.errors import ConfigError
from fedefm_core.networks import build_network, load_network, save_weights
from fedefm_core.networks.foundation import FoundationNetwork

SMALL: dict[str, dict[str, Any]] = {
    "small_cnn": {"image_size": 32, "channels": [4, 8, 12]},
    "vit": {
        "image_size": 32, "patch_size": 8, "width": 12, "heads": 3, "layers": 2, "mlp_width": 16,
    },
    "r50_vit": {
        "image_size": 32, "stem": 32, "stages": [1, 1, 1], "width": 12, "heads": 3, "layers": 2,
        "mlp_width": 16,
    },
}  # fmt: skip
POSITIONS = {"small_cnn": 16, "vit": 16, "r50_vit": 4}


def build(name: str, **changes: Any) -> FoundationNetwork:
    torch.manual_seed(0)
    network = build_network(name, {"classes": 5, **SMALL[name], **changes})
    assert isinstance(network, FoundationNetwork)
    return network


@pytest.mark.parametrize("name", SMALL)
def test_outputs(name: str) -> None:
    network = build(name)
    output = network(torch.randn(2, 1, 32, 32))
    assert output.logits_bk.shape == (2, 5)
    assert output.late_bnc.shape == (2, POSITIONS[name], 12)
    assert output.mid_bnc.shape[:2] == (2, POSITIONS[name])
    assert not torch.equal(output.dense_map("mid")[..., 0], output.dense_map("late")[..., 0])
    assert torch.equal(network.head(output.features_bd), output.logits_bk)
    torch.testing.assert_close(output.late_bnc.mean(1), output.features_bd)


@pytest.mark.parametrize("name", SMALL)
def test_images_of_a_batch_do_not_see_each_other_and_all_weights_learn(name: str) -> None:
    network = build(name)
    images = torch.randn(3, 1, 32, 32)
    together = network(images).logits_bk
    torch.testing.assert_close(network(images[:1]).logits_bk[0], together[0], rtol=1e-4, atol=1e-5)
    assert [key for key, _ in network.named_buffers()] == []
    together.square().sum().backward()
    idle = [k for k, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@pytest.mark.parametrize("name", SMALL)
def test_a_weights_file_rebuilds_the_network(name: str, tmp_path: Path) -> None:
    network = build(name).eval()
    path = tmp_path / "foundation.safetensors"
    settings = {"classes": 5, **SMALL[name]}
    save_weights(network, path, {"architecture": name, "settings": settings})
    images = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_network(path)(images).logits_bk, network(images).logits_bk)


@pytest.mark.parametrize(
    ("name", "millions"), [("small_cnn", (0.1, 1.0)), ("r50_vit", (44.2, 44.8)), ("vit", (21, 23))]
)
def test_sizes(name: str, millions: tuple[float, float]) -> None:
    with torch.device("meta"):
        network = build_network(name, {})
    found = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert millions[0] < found < millions[1]


def test_settings_that_do_not_fit_are_told() -> None:
    with pytest.raises(ConfigError, match="multiple of 'patch_size'"):
        build("vit", image_size=30)
    with pytest.raises(ConfigError, match="multiple of 'heads'"):
        build("r50_vit", heads=5)
