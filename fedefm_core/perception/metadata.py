# SPDX-License-Identifier: Apache-2.0
"""What a model file says of itself: everything that a runtime needs and a person asks."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedefm_core.errors import ModelFileError
from fedefm_core.perception.types import CLASS_NAMES

if TYPE_CHECKING:
    import onnx

FORMAT_VERSION = 1
METADATA_KEY = "fedefm"


@dataclass(frozen=True)
class ModelMetadata:
    """The JSON object stored under METADATA_KEY in an ONNX file's metadata.

    Graph contract, format version 1, one image at a time:
      input  'image'        (1, 1, H, W) uint8, H x W = input_size; the graph normalises it
      output 'label_map'    (1, H, W) uint8, index into classes; background where that is as
             probable as both instruments together, or more
      output 'probability'  (1, H, W) uint8, 255 * probability of 'background' or of
             'instrument', as the label says
      output 'tip_heatmap'  (1, 2, H/4, W/4) float32 in 0..1: catheter tips, guidewire tips;
             cell (r, c) is centred on network pixel (4c + 1.5, 4r + 1.5)
    """

    name: str
    architecture: str
    precision: str  # fp32, fp16, bf16 or int8
    input_size: tuple[int, int]  # (height, width)
    weights_sha256: str
    classes: tuple[str, ...] = CLASS_NAMES
    normalisation: str = "per-image zero mean, unit variance"
    training_config_sha256: str = ""
    data: str = ""
    licence: str = "Apache-2.0"
    intended_use: str = "Research use only. Not a medical device."
    metrics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    git_revision: str = ""
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """Serialise with sorted keys, so that equal metadata give equal bytes."""
        return json.dumps(asdict(self), sort_keys=True)


def weights_sha256(model: onnx.ModelProto) -> str:
    """Hash an ONNX graph's structure and weights: nodes, initialisers, inputs and outputs."""
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()


def attach_metadata(model: onnx.ModelProto, metadata: ModelMetadata) -> None:
    """Store metadata in model, in place of what was there under METADATA_KEY."""
    kept = [(p.key, p.value) for p in model.metadata_props if p.key != METADATA_KEY]
    del model.metadata_props[:]
    for key, value in [*kept, (METADATA_KEY, metadata.to_json())]:
        model.metadata_props.add(key=key, value=value)


def read_metadata(path: Path) -> ModelMetadata:
    """Read and verify the metadata of the model file at path.

    Raises ModelFileError when the file is missing, is no ONNX file, carries no metadata, carries
    metadata of another format version, or when its weights do not match the recorded hash.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise ModelFileError(f"Model file not found: {path}")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise ModelFileError(f"{path} is not a readable ONNX file: {error}") from error
    found = {p.key: p.value for p in model.metadata_props}.get(METADATA_KEY)
    if found is None:
        raise ModelFileError(
            f"{path} carries no '{METADATA_KEY}' metadata, so its classes, size and normalisation "
            "are unknown. Export the model with 'fedefm_core export'."
        )
    metadata = parse_metadata(found, str(path))
    digest = weights_sha256(model)
    if digest != metadata.weights_sha256:
        raise ModelFileError(
            f"{path} was changed after export: its weights hash to {digest[:12]}…, "
            f"its metadata says {metadata.weights_sha256[:12]}…"
        )
    return metadata


def parse_metadata(text: str, where: str) -> ModelMetadata:
    """Parse the JSON text of a model file's metadata; where names the file in messages."""
    try:
        raw = json.loads(text)
        version = raw["format_version"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ModelFileError(f"The metadata of {where} cannot be read: {error!r}") from error
    if version != FORMAT_VERSION:
        raise ModelFileError(
            f"{where} has model format version {version}; this release reads {FORMAT_VERSION}."
        )
    known = {f.name for f in fields(ModelMetadata)}
    raw = {key: value for key, value in raw.items() if key in known}
    try:
        raw["input_size"] = (int(raw["input_size"][0]), int(raw["input_size"][1]))
        raw["classes"] = tuple(raw["classes"])
        metadata = ModelMetadata(**raw)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ModelFileError(f"The metadata of {where} is incomplete: {error!r}") from error
    if metadata.classes != CLASS_NAMES:
        raise ModelFileError(
            f"{where} knows the classes {metadata.classes}; expected {CLASS_NAMES}."
        )
    return metadata
