# SPDX-License-Identifier: Apache-2.0
"""Weights files that others wrote, brought to the names of our vision transformer.

    CLIP      A. Radford et al., 2021; its own names, and those of the Hugging Face files
    SAM       A. Kirillov et al., 2023; LVM-Med (D. Nguyen et al., 2023) has the same names without
              'image_encoder.' and no position embedding
    Endo-FM   Z. Wang et al., 2023: a TimeSformer below 'teacher' and 'backbone.'; what it has for
              time has no place here. DINO, MAE and timm name a ViT's weights alike.

safetensors, or torch files that hold nothing but tensors and plain values: no code in them is run.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fedefm_core.errors import WeightsError
from fedefm_core.networks.weights import HEADER_KEY

LARGEST_BYTES = 4 << 30  # more than any file named above
_TORCH_STARTS = (b"PK\x03\x04", b"\x80\x02")  # a zip archive; a pickle of earlier torch versions
# Endo-FM's file holds the options and the best score of its training beside the weights.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    type(np.dtype(np.float64)),
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
]
_INSIDE = ("teacher", "student", "state_dict", "model")
_PREFIXES = ("module.", "backbone.", "image_encoder.")
_LAYER = r"(\d+)\."
_END = r"(weight|bias)"


@dataclass(frozen=True)
class Layout:
    """title: whose. signature: a weight that no other layout has. names: pattern and our name."""

    title: str
    signature: str
    names: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class WeightsFile:
    """architecture: that our own header names, None without one. state: under our names where the
    layout is known, under the file's where it is not or a weight has no place in a vit."""

    layout: str
    architecture: str | None
    state: dict[str, Tensor]


_VIT_NAMES = (
    (rf"patch_embed\.proj\.{_END}", r"embedding.\1"),
    (r"pos_embed", r"body.position"),
    (rf"blocks\.{_LAYER}norm([12])\.{_END}", r"body.layers.\1.norm\2.\3"),
    (rf"blocks\.{_LAYER}attn\.qkv\.{_END}", r"body.layers.\1.self_attn.in_proj_\2"),
    (rf"blocks\.{_LAYER}attn\.proj\.{_END}", r"body.layers.\1.self_attn.out_proj.\2"),
    (rf"blocks\.{_LAYER}mlp\.(?:fc|lin)([12])\.{_END}", r"body.layers.\1.linear\2.\3"),
    (rf"norm\.{_END}", r"body.norm.\1"),
)
_CLIP_NAMES = (
    (r"visual\.conv1\.weight", r"embedding.weight"),
    (r"visual\.positional_embedding", r"body.position"),
    (
        rf"visual\.transformer\.resblocks\.{_LAYER}ln_([12])\.{_END}",
        r"body.layers.\1.norm\2.\3",
    ),
    (
        rf"visual\.transformer\.resblocks\.{_LAYER}attn\.(in_proj_|out_proj\.){_END}",
        r"body.layers.\1.self_attn.\2\3",
    ),
    (
        rf"visual\.transformer\.resblocks\.{_LAYER}mlp\.c_fc\.{_END}",
        r"body.layers.\1.linear1.\2",
    ),
    (
        rf"visual\.transformer\.resblocks\.{_LAYER}mlp\.c_proj\.{_END}",
        r"body.layers.\1.linear2.\2",
    ),
    (rf"visual\.ln_post\.{_END}", r"body.norm.\1"),
)
_HF = r"vision_model\."
_HF_CLIP_NAMES = (
    (rf"{_HF}embeddings\.patch_embedding\.{_END}", r"embedding.\1"),
    (rf"{_HF}embeddings\.position_embedding\.weight", r"body.position"),
    (rf"{_HF}encoder\.layers\.{_LAYER}layer_norm([12])\.{_END}", r"body.layers.\1.norm\2.\3"),
    (
        rf"{_HF}encoder\.layers\.{_LAYER}self_attn\.(in_proj_|out_proj\.){_END}",
        r"body.layers.\1.self_attn.\2\3",
    ),
    (rf"{_HF}encoder\.layers\.{_LAYER}mlp\.fc([12])\.{_END}", r"body.layers.\1.linear\2.\3"),
    (rf"{_HF}post_layernorm\.{_END}", r"body.norm.\1"),
)
LAYOUTS = (
    Layout("CLIP", "visual.class_embedding", _CLIP_NAMES),
    Layout("CLIP of Hugging Face", "vision_model.embeddings.class_embedding", _HF_CLIP_NAMES),
    Layout("Endo-FM", "blocks.0.temporal_attn.qkv.weight", _VIT_NAMES),
    Layout("SAM or LVM-Med", "blocks.0.mlp.lin1.weight", _VIT_NAMES),
    Layout("ViT as in DINO, MAE and timm", "blocks.0.attn.qkv.weight", _VIT_NAMES),
)


def read_weights(path: Path) -> WeightsFile:
    """Read all of the file at path. Raises WeightsError when it is missing, damaged, too large, or
    a torch file that holds more than tensors and plain values."""
    if not path.is_file():
        raise WeightsError(f"Weights file not found: {path}")
    size = path.stat().st_size
    if size > LARGEST_BYTES:
        raise WeightsError(f"{path} has {size} bytes; at most {LARGEST_BYTES} are read")
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(_TORCH_STARTS):
        return _named(_inside(_read_torch(path, mmap=start.startswith(b"PK"))), path)
    try:
        with safe_open(path, framework="pt") as opened:
            header = (opened.metadata() or {}).get(HEADER_KEY)
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{path} is not a whole, readable safetensors or torch file: {error}"
        ) from error
    architecture = _architecture(header)
    if architecture is not None:
        return WeightsFile(f"FedEFM's {architecture}", architecture, state)
    return _named(state, path)


def _architecture(header: str | None) -> str | None:
    try:
        value = json.loads(header or "")["architecture"]
    except (ValueError, KeyError, TypeError):
        return None
    return value if isinstance(value, str) else None


def _read_torch(path: Path, mmap: bool) -> Any:
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (OSError, EOFError, LookupError, RuntimeError, ValueError, pickle.PickleError) as error:
        raise WeightsError(
            f"{path} is damaged or holds more than tensors (CLIP's own files are TorchScript "
            f"archives, for example). Save its state_dict() as safetensors"
        ) from error


def _inside(content: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint, which may lie one or two keys deep."""
    while isinstance(content, Mapping):
        deeper = next((key for key in _INSIDE if isinstance(content.get(key), Mapping)), None)
        if deeper is None:
            return {k: v for k, v in content.items() if isinstance(v, Tensor)}
        content = content[deeper]
    return {}


def _named(state: Mapping[str, Tensor], path: Path) -> WeightsFile:
    if not state:
        raise WeightsError(f"{path} holds no weights under names")
    bare = {_without_prefixes(name): tensor for name, tensor in state.items()}
    layout = next((layout for layout in LAYOUTS if layout.signature in bare), None)
    if layout is None:
        return WeightsFile("an unknown layout", None, bare)
    joined = _with_joined_attention(bare)
    return WeightsFile(
        layout.title, None, {_our_name(name, layout): tensor for name, tensor in joined.items()}
    )


def _without_prefixes(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.partition(".")[2]
    return name


def _our_name(name: str, layout: Layout) -> str:
    for pattern, ours in layout.names:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(ours)
    return name


def _with_joined_attention(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value projections of a layer, where they lie apart, as one, in that order."""
    joined = dict(state)
    for name in state:
        match = re.fullmatch(rf"(.*self_attn\.)q_proj\.{_END}", name)
        if match:
            parts = [f"{match[1]}{part}_proj.{match[2]}" for part in "qkv"]
            if all(part in joined for part in parts):
                whole = torch.cat([joined.pop(part) for part in parts])
                joined[f"{match[1]}in_proj_{match[2]}"] = whole
    return joined
