# SPDX-License-Identifier: Apache-2.0
"""The graph contract: what a model file's real inputs and outputs must be (see ModelMetadata)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fedefm_core.errors import ModelFileError
from fedefm_core.perception.metadata import ModelMetadata

if TYPE_CHECKING:
    import onnx

TIP_STRIDE = 4  # network pixels per cell of the tip heatmap

Ports = dict[str, tuple[str, tuple[int, ...]]]  # name: (element type, shape)


def expected_inputs(metadata: ModelMetadata) -> Ports:
    """Inputs that a graph with this metadata must have."""
    height, width = metadata.input_size
    return {"image": ("uint8", (1, 1, height, width))}


def expected_outputs(metadata: ModelMetadata) -> Ports:
    """Outputs that a graph with this metadata must have."""
    height, width = metadata.input_size
    return {
        "label_map": ("uint8", (1, height, width)),
        "probability": ("uint8", (1, height, width)),
        "tip_heatmap": ("float32", (1, 2, height // TIP_STRIDE, width // TIP_STRIDE)),
    }


def verify_graph(path: Path, metadata: ModelMetadata) -> None:
    """Compare the inputs and outputs of the ONNX file at path with the contract.

    Raises ModelFileError that names the port, what was expected and what the file has.
    """
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = _ports(port for port in graph.input if port.name not in weights)
    _compare(path, "input", expected_inputs(metadata), inputs)
    _compare(path, "output", expected_outputs(metadata), _ports(graph.output))


def _compare(path: Path, role: str, expected: Ports, found: Ports) -> None:
    if set(found) != set(expected):
        raise ModelFileError(
            f"{path} must have the {role}s {sorted(expected)} (got {sorted(found)})"
        )
    for name, port in expected.items():
        if found[name] != port:
            raise ModelFileError(
                f"The {role} '{name}' of {path} must be {_words(port)} to fit its metadata "
                f"(got {_words(found[name])})"
            )


def _words(port: tuple[str, tuple[int, ...]]) -> str:
    return f"{port[0]} of shape {port[1]}"


def _ports(values: Iterable[onnx.ValueInfoProto]) -> Ports:
    import onnx

    ports: Ports = {}
    for value in values:
        tensor = value.type.tensor_type
        element = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        # a symbolic dimension has dim_value 0: it fits no contract, whose sizes are all fixed
        shape = tuple(dimension.dim_value for dimension in tensor.shape.dim)
        ports[value.name] = ("float32" if element == "float" else element, shape)
    return ports
