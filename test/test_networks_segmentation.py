# SPDX-License-Identifier: Apache-2.0
"""Segmentation networks: all keep one contract, learn with every weight, and export exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from segmentation_networks import NETWORKS, build, registered  # noqa: E402

from fedefm_core.config import load_settings, parse_settings  # noqa: E402
from fedefm_core.errors import ConfigError, ModelFileError  # noqa: E402
from fedefm_core.export.onnx import export_onnx, to_onnx  # noqa: E402
from fedefm_core.finetuning import FinetuneSettings, finetune  # noqa: E402
from fedefm_core.finetuning.segmentation import POOL  # noqa: E402
from fedefm_core.finetuning.settings import NETWORK_SETTINGS  # noqa: E402
from fedefm_core.frames import Frame  # noqa: E402
from fedefm_core.networks import (  # noqa: E402
    build_network,
    load_network,
    read_weights_header,
    save_weights,
)
from fedefm_core.networks.segmentation import SegmentationNetwork, normalise  # noqa: E402
from fedefm_core.networks.vit import resize_positions  # noqa: E402
from fedefm_core.perception import Segmenter, open_runtime, read_metadata  # noqa: E402
from fedefm_core.perception.contract import verify_graph  # noqa: E402
from fedefm_core.simulation.dataset import DatasetPlan, write_dataset  # noqa: E402

SIZE = (64, 96)
TINY = {
    "simulation": {"size": 64, "empty_fraction": 0.0},
    "steps": 2,
    "batch_size": 2,
    "workers": 0,
    "precision": "fp32",
    "pool_frames": 2,
    "crop": 32,
    "whole_every": 2,
    "whole_batch_size": 2,
    "optimiser": {"warmup_steps": 1},
    "validation": {"frames": 1, "every_steps": 2},
}


def settings(**changes: object) -> FinetuneSettings:
    return parse_settings(FinetuneSettings, {**TINY, **changes})


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    chosen = settings()
    for _ in write_dataset(DatasetPlan(chosen.seed, 2, chosen.simulation), folder):
        pass
    return folder


@pytest.mark.parametrize("name", NETWORKS)
def test_one_contract_for_all_sizes_and_all_weights_learn(name: str) -> None:
    network = build(name)
    for height, width in ((32, 32), SIZE):
        classes, tips = network(torch.randn(2, 1, height, width))
        assert classes.shape == (2, 3, height, width)
        assert tips.shape == (2, 2, height // 4, width // 4)
    assert tips.sigmoid().mean() < 0.02  # tips are rare from the start
    (classes.square().mean() + tips.square().mean()).backward()
    idle = [k for k, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_change_where_the_image_does(name: str) -> None:
    """No part is mirrored or transposed: what a wire on the left changes is not on the right."""
    network = build(name).eval()
    image = torch.zeros(1, 1, 128, 128)
    image[..., 40:44] = 5.0
    with torch.no_grad():
        blank, near = network(torch.zeros_like(image)), network(image)
    for nothing, wire, cell in zip(blank, near, (1, 4), strict=True):
        change = (wire - nothing).abs().sum(dim=(0, 1, 2))
        centre = float((change * torch.arange(len(change))).sum() / change.sum()) * cell
        assert abs(centre - 42) < 32


@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_keeps_the_contract_and_the_results(name: str, tmp_path: Path) -> None:
    network, path = build(name).eval(), tmp_path / "model.onnx"
    export_onnx(network, path, "tiny", registered(name), SIZE)
    verify_graph(path, read_metadata(path))
    image = np.random.default_rng(5).integers(0, 256, SIZE, dtype=np.uint8)
    with torch.no_grad():
        logits, tips = network(normalise(torch.from_numpy(image)[None, None]))
    none, catheter, guidewire = torch.softmax(logits.double(), 1)[0].numpy()
    clear = np.minimum(np.abs(none - 0.5), np.abs(guidewire - catheter)) > 1e-4
    assert clear.mean() > 0.9
    for runtime in ("openvino", "onnxruntime"):
        found = open_runtime(path, runtime).infer(image)
        label = np.where(none >= 0.5, 0, 1 + (guidewire > catheter))
        np.testing.assert_array_equal(found.label_map[clear], label[clear])
        sure = 255 * np.maximum(none, 1 - none)
        np.testing.assert_allclose(found.probability, sure, rtol=0, atol=0.52)
        np.testing.assert_allclose(found.tip_heatmap, tips[0].sigmoid().numpy(), atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_two_steps_of_training_give_weights_that_predict(
    name: str, pool: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / POOL).symlink_to(pool)
    best = finetune(settings(architecture=name, network=NETWORKS[name]), tmp_path / "run")
    header = read_weights_header(best)
    assert header["architecture"] == registered(name)
    network = load_network(best)
    fresh = build_network(header["architecture"], header["settings"])
    assert isinstance(network, SegmentationNetwork)
    assert network.state_dict().keys() == fresh.state_dict().keys()


def test_the_pipeline_runs_on_another_architecture(tmp_path: Path) -> None:
    path = tmp_path / "unet.onnx"
    export_onnx(build("unet").eval(), path, "unet", "unet", SIZE)
    frame = Frame(np.full((100, 120), 90, np.uint8))
    perception = Segmenter(open_runtime(path, "onnxruntime")).process(frame)
    assert perception.label_map.shape == (100, 120)


def test_sides_that_an_architecture_cannot_take_are_refused(tmp_path: Path) -> None:
    deep = {"channels": [4] * 7, "residual_units": 1}
    with pytest.raises(ConfigError, match=r"multiple of 64 for this unet \(got 96\)"):
        finetune(
            settings(architecture="unet", network=deep, simulation={"size": 96}), tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()
    with pytest.raises(ModelFileError, match="multiples of 64"):
        to_onnx(build("unet", channels=[4] * 7), (96, 96))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architecture": "unett"}, r"'architecture': Input should be 'wirenet', 'unet'"),
        ({"architecture": "unet", "network": {"chanels": [4, 8]}}, r"'network\.chanels' is no"),
        ({"architecture": "vit", "network": {"patch_size": 12}}, "multiple of 'patch_size'"),
        ({"architecture": "vit", "network": {"patch_size": 24, "image_size": 48}}, "power of two"),
        ({"architecture": "vit", "network": {"layers": 3}}, "'layers' must be at least 4"),
        ({"architecture": "swinunet", "network": {"depths": [2]}}, "an entry for each level"),
        ({"architecture": "swinunet", "network": {"heads": [5, 6, 12, 24]}}, "must divide its 96"),
        ({"network": {"features": 3}}, r"'network\.features' is no known setting"),
    ],
)
def test_settings_of_a_network_are_checked(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        settings(**changes)


@pytest.mark.parametrize("name", NETWORK_SETTINGS)
def test_without_settings_an_architecture_has_its_own_and_they_survive_a_file(name: str) -> None:
    chosen = settings(architecture=name)
    assert type(chosen.network) is NETWORK_SETTINGS[name]
    assert parse_settings(FinetuneSettings, chosen.model_dump(mode="json")) == chosen


@pytest.mark.parametrize("name", NETWORK_SETTINGS)
def test_example_configurations_load_and_their_networks_can_be_built(name: str) -> None:
    folder = Path(__file__).parents[1] / "config"
    chosen = load_settings(FinetuneSettings, folder / f"finetune_{name}.yaml")
    assert chosen.architecture == name
    with torch.device("meta"):
        network = build_network(chosen.network_name, chosen.network.model_dump())
    assert isinstance(network, SegmentationNetwork)
    assert chosen.simulation.size % network.size_multiple == 0


def test_positions_of_a_ramp_are_a_ramp() -> None:
    """Closed form: linear between the old centres, constant outside of the outermost."""
    old, new = 4, (6, 10)
    y, x = torch.meshgrid(torch.arange(old), torch.arange(old), indexing="ij")
    ramp = torch.stack([2.0 * x - 1.0, 3.0 * y + 0.0 * x, torch.ones(old, old)], dim=-1)
    found = resize_positions(ramp.reshape(1, old * old, 3), new).reshape(*new, 3)
    rows, columns = (((torch.arange(n) + 0.5) * old / n - 0.5).clamp(0, old - 1) for n in new)
    expected = torch.stack(
        [
            (2 * columns - 1).expand(new),
            (3 * rows)[:, None].expand(new),
            torch.ones(new),
        ],
        dim=-1,
    )
    torch.testing.assert_close(found, expected)


def test_positions_of_a_grid_that_fits_stay_bit_for_bit() -> None:
    positions = torch.randn(1, 16, 5)
    assert torch.equal(resize_positions(positions, (4, 4)), positions)


def test_the_segmenting_vit_sees_what_the_foundation_sees(tmp_path: Path) -> None:
    foundation = build_network(
        "vit",
        {"image_size": 32, "patch_size": 8, "width": 12, "heads": 3, "layers": 3, "mlp_width": 16},
    ).eval()
    network = build("vit").eval()
    network.load_state_dict(foundation.state_dict(), strict=False)
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        late = network.body.maps(network.embedding(images))[-1]
        expected = foundation(images).late_bnc
    torch.testing.assert_close(late.flatten(2).mT, expected)
    save_weights(network, tmp_path / "w.safetensors", {
        "architecture": "vit_segmenter", "settings": NETWORKS["vit"],
    })  # fmt: skip
    assert torch.equal(load_network(tmp_path / "w.safetensors")(images)[0], network(images)[0])
