# SPDX-License-Identifier: Apache-2.0
"""Starting from other weights: what fits is taken and told, published layouts are known, and
files of which nothing fits, or that are no plain tensors, are refused."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from safetensors.torch import load_file, save_file  # noqa: E402
from segmentation_networks import NETWORKS, TRANSFORMER, build, registered  # noqa: E402
from torch import Tensor  # noqa: E402

from fedefm_core.cli import main  # noqa: E402
from fedefm_core.errors import WeightsError  # noqa: E402
from fedefm_core.networks import build_network, save_weights  # noqa: E402
from fedefm_core.networks.initialise import initialise  # noqa: E402

WIDTH, PATCH, LAYERS = 12, 8, 3
FOUNDATIONS: dict[str, dict[str, Any]] = {
    "vit": {**TRANSFORMER, "image_size": 64, "patch_size": 8, "classes": 5},
    "r50_vit": {**TRANSFORMER, "image_size": 32, "stem": 32, "stages": [1, 1, 1], "classes": 5},
    "small_cnn": {"image_size": 32, "channels": [4, 8, 12], "classes": 5},
}


@pytest.fixture
def foundation(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """foundation.safetensors as pretrain writes it, of the network named by the parameter."""
    name = request.param
    torch.manual_seed(1)
    path = tmp_path / "foundation.safetensors"
    header = {"architecture": name, "settings": FOUNDATIONS[name], "round": 3}
    save_weights(build_network(name, FOUNDATIONS[name]), path, header)
    return path


@pytest.mark.parametrize(
    ("foundation", "target", "taken"),
    [
        ("vit", "vit", {"embedding", "body"}),
        ("r50_vit", "transunet", {"stem", "stages", "embedding", "body"}),
        ("vit", "transunet", {"body"}),
        ("r50_vit", "vit", {"body"}),
    ],
    indirect=["foundation"],
)
def test_a_foundation_starts_what_has_its_parts(
    foundation: Path, target: str, taken: set[str]
) -> None:
    network = build(target)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = initialise(network, registered(target), foundation)
    file, after = load_file(foundation), network.state_dict()
    loaded, resized = ({f.name for f in found.of(o)} for o in ("loaded", "resized"))
    assert {name.partition(".")[0] for name in loaded | resized} == taken
    assert all(torch.equal(after[name], file[name]) for name in loaded)
    assert resized <= {"body.position"}
    assert {"head.weight", "head.bias"} <= {f.name for f in found.of("left out")}
    fresh = {f.name for f in found.of("fresh")}
    assert {name.partition(".")[0] for name in fresh} >= {"class_head", "tip_head"}
    assert all(torch.equal(after[name], before[name]) for name in fresh)
    counters = {name for name in after if name.endswith("num_batches_tracked")}
    clashing = {f.name for f in found.of("left out")} & after.keys()
    assert loaded | resized | fresh | clashing | counters == after.keys()


@pytest.mark.parametrize("foundation", ["vit"], indirect=True)
def test_positions_are_resized_to_the_grid_of_the_network(foundation: Path) -> None:
    network = build("vit")  # 32 px: 4 x 4 patches of the 8 x 8 in the file
    found = initialise(network, "vit_segmenter", foundation)
    (resized,) = found.of("resized")
    assert resized.note == "8 x 8 to 4 x 4 positions"
    old = load_file(foundation)["body.position"].reshape(4, 2, 4, 2, WIDTH)
    mean = old.mean(dim=(1, 3)).reshape(1, 16, WIDTH)  # half way between two and two centres
    torch.testing.assert_close(network.state_dict()["body.position"], mean)


@pytest.mark.parametrize("foundation", ["small_cnn"], indirect=True)
@pytest.mark.parametrize("target", NETWORKS)
def test_a_foundation_of_which_nothing_fits_is_refused(foundation: Path, target: str) -> None:
    network = build(target)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    name = registered(target)
    with pytest.raises(WeightsError, match=rf"Nothing in .* fits this {name}: '"):
        initialise(network, name, foundation)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


@pytest.mark.parametrize("foundation", ["vit"], indirect=True)
def test_the_reason_names_both_shapes(foundation: Path) -> None:
    with pytest.raises(WeightsError, match=r"\[12, 1, 8, 8\] in the file, \[24, 1, 8, 8\] in the"):
        initialise(build("vit", width=24), "vit_segmenter", foundation)


def test_the_same_architecture_must_fit_whole(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    header = {"architecture": "vit_segmenter", "settings": NETWORKS["vit"]}
    save_weights(build("vit"), path, header)
    found = initialise(build("vit"), "vit_segmenter", path)
    assert {fate.outcome for fate in found.fates} == {"loaded"}
    with pytest.raises(WeightsError, match="must have the shape"):
        initialise(build("vit", decoder=8), "vit_segmenter", path)


@pytest.mark.parametrize("foundation", ["vit"], indirect=True)
def test_values_that_are_not_finite_are_refused(foundation: Path) -> None:
    state = load_file(foundation)
    state["body.norm.bias"][0] = math.nan
    save_file(state, foundation)
    with pytest.raises(WeightsError, match=r"NaN or infinite values, in 'body\.norm\.bias'"):
        initialise(build("vit"), "vit_segmenter", foundation)


# Published encoders, with generated weights under the names of their files.


def generated(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {k: 0.3 * torch.randn(shape, generator=generator) for k, shape in shapes.items()}


def timm_shapes(mlp: str = "fc", **more: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
        **more,
    }
    for layer in range(LAYERS):
        block = f"blocks.{layer}."
        shapes |= {f"{block}norm{n}.{end}": (WIDTH,) for n in "12" for end in ("weight", "bias")}
        shapes |= {f"{block}attn.qkv.weight": (3 * WIDTH, WIDTH)}
        shapes |= {f"{block}attn.qkv.bias": (3 * WIDTH,), f"{block}attn.proj.bias": (WIDTH,)}
        shapes |= {f"{block}attn.proj.weight": (WIDTH, WIDTH)}
        shapes |= {f"{block}mlp.{mlp}1.weight": (16, WIDTH), f"{block}mlp.{mlp}1.bias": (16,)}
        shapes |= {f"{block}mlp.{mlp}2.weight": (WIDTH, 16), f"{block}mlp.{mlp}2.bias": (WIDTH,)}
    return shapes


def sam() -> dict[str, Tensor]:
    shapes = timm_shapes("lin", pos_embed=(1, 8, 8, WIDTH))
    shapes |= {f"blocks.{n}.attn.rel_pos_{side}": (27, 4) for n in range(LAYERS) for side in "hw"}
    shapes |= {"neck.0.weight": (256, WIDTH, 1, 1), "neck.1.weight": (256,)}
    encoder = {f"image_encoder.{name}": tensor for name, tensor in generated(shapes).items()}
    return {**encoder, "prompt_encoder.no_mask_embed.weight": torch.ones(1, 256)}


def lvm_med() -> dict[str, Tensor]:
    shapes = timm_shapes("lin")
    shapes |= {f"blocks.{n}.attn.rel_pos_{side}": (27, 4) for n in range(LAYERS) for side in "hw"}
    return generated(shapes)


def endo_fm() -> dict[str, Tensor]:
    shapes = timm_shapes(
        cls_token=(1, 1, WIDTH), pos_embed=(1, 65, WIDTH), time_embed=(1, 8, WIDTH)
    )
    shapes |= {"norm.weight": (WIDTH,), "norm.bias": (WIDTH,)}
    for layer in range(LAYERS):
        shapes[f"blocks.{layer}.temporal_attn.qkv.weight"] = (3 * WIDTH, WIDTH)
        shapes[f"blocks.{layer}.temporal_fc.weight"] = (WIDTH, WIDTH)
    return {f"module.backbone.{name}": tensor for name, tensor in generated(shapes).items()}


def clip() -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "visual.class_embedding": (WIDTH,),
        "visual.positional_embedding": (65, WIDTH),
        "visual.proj": (WIDTH, 7),
        "visual.conv1.weight": (WIDTH, 3, PATCH, PATCH),
        "positional_embedding": (77, 8),
        "transformer.resblocks.0.ln_1.weight": (8,),
    }
    for norm in ("ln_pre", "ln_post"):
        shapes |= {f"visual.{norm}.{end}": (WIDTH,) for end in ("weight", "bias")}
    for layer in range(LAYERS):
        block = f"visual.transformer.resblocks.{layer}."
        shapes |= {f"{block}ln_{n}.{end}": (WIDTH,) for n in "12" for end in ("weight", "bias")}
        shapes |= {f"{block}attn.in_proj_weight": (3 * WIDTH, WIDTH)}
        shapes |= {f"{block}attn.in_proj_bias": (3 * WIDTH,)}
        shapes |= {f"{block}attn.out_proj.weight": (WIDTH, WIDTH)}
        shapes |= {f"{block}attn.out_proj.bias": (WIDTH,)}
        shapes |= {f"{block}mlp.c_fc.weight": (16, WIDTH), f"{block}mlp.c_fc.bias": (16,)}
        shapes |= {f"{block}mlp.c_proj.weight": (WIDTH, 16), f"{block}mlp.c_proj.bias": (WIDTH,)}
    return {name: tensor.half() for name, tensor in generated(shapes).items()}  # as published


def clip_of_hugging_face() -> dict[str, Tensor]:
    top = "vision_model."
    shapes: dict[str, tuple[int, ...]] = {
        f"{top}embeddings.class_embedding": (WIDTH,),
        f"{top}embeddings.position_embedding.weight": (65, WIDTH),
        f"{top}embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        "text_model.embeddings.token_embedding.weight": (49, 8),
    }
    for norm in ("pre_layrnorm", "post_layernorm"):
        shapes |= {f"{top}{norm}.{end}": (WIDTH,) for end in ("weight", "bias")}
    for layer in range(LAYERS):
        block = f"{top}encoder.layers.{layer}."
        for end, tail in (("weight", (WIDTH,)), ("bias", ())):
            shapes |= {f"{block}layer_norm{n}.{end}": (WIDTH,) for n in "12"}
            shapes |= {f"{block}self_attn.{p}_proj.{end}": (WIDTH, *tail) for p in "kvq"}
            shapes |= {f"{block}self_attn.out_proj.{end}": (WIDTH, *tail)}
        shapes |= {f"{block}mlp.fc1.weight": (16, WIDTH), f"{block}mlp.fc1.bias": (16,)}
        shapes |= {f"{block}mlp.fc2.weight": (WIDTH, 16), f"{block}mlp.fc2.bias": (WIDTH,)}
    return generated(shapes)


PUBLISHED = {
    "SAM or LVM-Med": sam,
    "Endo-FM": endo_fm,
    "CLIP": clip,
    "CLIP of Hugging Face": clip_of_hugging_face,
}


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("title", PUBLISHED)
def test_published_encoders_fill_embedding_positions_and_layers(
    tmp_path: Path, title: str, suffix: str
) -> None:
    state, path = PUBLISHED[title](), tmp_path / f"published.{suffix}"
    if suffix == "pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    network = build("vit")
    found = initialise(network, "vit_segmenter", path)
    assert found.layout == title
    missing = {f.name for f in found.of("fresh") if f.name.startswith(("embedding", "body"))}
    assert missing <= {"embedding.bias", "body.norm.weight", "body.norm.bias"}
    assert ("embedding.bias" in missing) == title.startswith("CLIP")
    assert ("body.norm.bias" in missing) == (title == "SAM or LVM-Med")
    notes = {f.name: f.note for f in found.of("resized")}
    assert notes == {
        "embedding.weight": "3 colour channels summed",
        "body.position": "8 x 8 to 4 x 4 positions",
    }
    colours = next(t for t in state.values() if t.shape == (WIDTH, 3, PATCH, PATCH))
    grey = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(
        torch.nn.functional.conv2d(grey, network.state_dict()["embedding.weight"], stride=PATCH),
        torch.nn.functional.conv2d(grey.expand(1, 3, 32, 32), colours.float(), stride=PATCH),
        rtol=1e-4,
        atol=1e-4,
    )
    left = {f.name for f in found.of("left out")}
    assert not {name for name in left if name.startswith("body.")}


def test_weights_of_lvm_med_have_no_positions(tmp_path: Path) -> None:
    torch.save(lvm_med(), tmp_path / "lvmmed_vit.pth")
    found = initialise(build("vit"), "vit_segmenter", tmp_path / "lvmmed_vit.pth")
    assert found.layout == "SAM or LVM-Med"
    assert "body.position" in {fate.name for fate in found.of("fresh")}


def test_a_layer_computes_what_the_published_layer_computes(tmp_path: Path) -> None:
    """The order of query, key and value, of heads, norms and biases: a block of the published
    kind written out here, against our layer with the weights that were read."""
    state, heads = lvm_med(), 3
    torch.save(state, tmp_path / "vit.pth")
    network = build("vit").eval()
    initialise(network, "vit_segmenter", tmp_path / "vit.pth")

    def norm(x: Tensor, name: str) -> Tensor:
        weight, bias = state[f"blocks.1.{name}.weight"], state[f"blocks.1.{name}.bias"]
        return (x - x.mean(-1, True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() * (
            weight
        ) + bias

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"blocks.1.{name}.weight"].T + state[f"blocks.1.{name}.bias"]

    x = torch.randn(2, 5, WIDTH)
    q, k, v = (
        part.reshape(2, 5, heads, WIDTH // heads).transpose(1, 2)
        for part in linear(norm(x, "norm1"), "attn.qkv").chunk(3, dim=-1)
    )
    seen = ((q @ k.mT) / math.sqrt(WIDTH // heads)).softmax(-1) @ v
    y = x + linear(seen.transpose(1, 2).reshape(2, 5, WIDTH), "attn.proj")
    hidden = torch.nn.functional.gelu(linear(norm(y, "norm2"), "mlp.lin1"))
    expected = y + linear(hidden, "mlp.lin2")
    with torch.no_grad():
        torch.testing.assert_close(network.body.layers[1](x), expected, rtol=1e-4, atol=1e-4)


def test_query_key_and_value_are_joined_in_the_order_of_torch(tmp_path: Path) -> None:
    state = clip_of_hugging_face()
    save_file(state, tmp_path / "model.safetensors")
    network = build("vit")
    initialise(network, "vit_segmenter", tmp_path / "model.safetensors")
    layer = "vision_model.encoder.layers.2.self_attn."
    for end in ("weight", "bias"):
        expected = torch.cat([state[f"{layer}{part}_proj.{end}"] for part in "qkv"])
        found = network.state_dict()[f"body.layers.2.self_attn.in_proj_{end}"]
        assert torch.equal(found, expected)


def test_a_checkpoint_with_options_and_scores_is_read_and_the_teacher_is_taken(
    tmp_path: Path,
) -> None:
    """As DINO's training, which Endo-FM's file comes from, saves it."""
    teacher, student = endo_fm(), {k: 0 * v for k, v in endo_fm().items()}
    content = {
        "student": student,
        "teacher": teacher,
        "args": argparse.Namespace(arch="vit_base", lr=1e-3),
        "epoch": 30,
        "loss": np.float64(0.5),
    }
    torch.save(content, tmp_path / "endo_fm.pth")
    network = build("vit")
    found = initialise(network, "vit_segmenter", tmp_path / "endo_fm.pth")
    assert found.layout == "Endo-FM"
    weight = network.state_dict()["body.layers.0.linear1.weight"]
    assert torch.equal(weight, teacher["module.backbone.blocks.0.mlp.fc1.weight"])


class Trap:
    """Unpickled by a careless reader, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "sprung")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_torch_file_is_not_run(tmp_path: Path, zipped: bool) -> None:
    path, mark = tmp_path / "evil.pth", tmp_path / "mark"
    torch.save({"w": torch.ones(2), "x": Trap(mark)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="holds more than tensors"):
        initialise(build("vit"), "vit_segmenter", path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "not a whole"), (b"PK\x03\x04 and no more", "damaged"), (b"nonsense", "not a whole")],
)
def test_damaged_files_are_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=sentence):
        initialise(build("vit"), "vit_segmenter", path)


def test_files_without_weights_and_absurdly_large_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"epoch": 3}, path)
    with pytest.raises(WeightsError, match="holds no weights under names"):
        initialise(build("vit"), "vit_segmenter", path)
    with path.open("ab") as file:
        file.truncate(1 << 34)  # sparse: takes no room on the disk
    with pytest.raises(WeightsError, match="17179869184 bytes"):
        initialise(build("vit"), "vit_segmenter", path)


@pytest.mark.parametrize("foundation", ["vit"], indirect=True)
def test_finetune_prints_one_table_of_what_it_took(
    foundation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    config = tmp_path / "vit.yaml"
    config.write_text(json.dumps({
        "architecture": "vit", "network": NETWORKS["vit"], "steps": 1, "batch_size": 1,
        "simulation": {"size": 64}, "workers": 0, "precision": "fp32",
        "validation": {"frames": 1},
    }))  # fmt: skip
    monkeypatch.setenv("COLUMNS", "120")
    out = tmp_path / "run"
    arguments = ["finetune", str(config), "--init", str(foundation), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["fedefm_core", *arguments])
    with pytest.raises(SystemExit, match="0"):
        main()
    printed = capsys.readouterr().out
    for text in (
        "FedEFM's vit",
        "body.layers",
        "loaded",
        "resized: 8 x 8 to 4 x 4 positions",
        "left out: the network has no such weight",
        "fresh: not in the file",
    ):
        assert text in printed
    assert str(foundation) in (out / "config.yaml").read_text()
