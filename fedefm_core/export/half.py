# SPDX-License-Identifier: Apache-2.0
"""Half precision: an ONNX graph in float32 to one that computes in float16 or bfloat16.

TensorRT takes the precision of a network from its file. What stays in float32 is what int8 leaves
in float too: normalisation, whose sums over an image float16 cannot hold, and the choice of the
label and the tips. The graph's inputs and outputs do not change.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import TensorProto, helper, numpy_helper

from fedefm_core.errors import ModelFileError
from fedefm_core.export.quantisation import nodes_kept_in_float

ELEMENT_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
FLOAT = TensorProto.FLOAT
NOT_IN = {"bf16": {"ConvTranspose"}}  # by precision: operators that TensorRT-RTX has not in it
STAYS_FLOAT = {"Resize": (1, 2)}  # by operator: inputs that the standard wants in float32


def to_half(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """A copy of a graph made by to_onnx, in 'fp16' or 'bf16'.

    Raises ModelFileError for a graph without convolutions, or with numbers that float16 cannot
    hold.
    """
    element = ELEMENT_TYPES[precision]
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    kept = set(nodes_kept_in_float(graph.node))
    kept |= {node.name for node in graph.node if node.op_type in NOT_IN.get(precision, ())}
    types = _element_types(model)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    produced = {name for node in graph.node if node.name not in kept for name in node.output}
    nodes: list[onnx.NodeProto] = []
    casts: set[str] = set()

    def cast(name: str, to: int, suffix: str) -> str:
        """The name of a value as another type; the first who asks gets the cast made."""
        if name + suffix not in casts:
            casts.add(name + suffix)
            nodes.append(helper.make_node("Cast", [name], [name + suffix], name + suffix, to=to))
        return name + suffix

    for node in graph.node:
        inside = node.name not in kept
        for index, name in enumerate(node.input):
            stays = index in STAYS_FLOAT.get(node.op_type, ())
            if types.get(name) != FLOAT or (inside and stays):
                continue
            if inside and name in weights:
                node.input[index] = _half_weight(graph, weights[name], element)
            elif inside and name not in produced:
                node.input[index] = cast(name, element, "/half")
            elif not inside and name in produced:
                node.input[index] = cast(name, FLOAT, "/float")
        if inside and node.op_type == "Cast":
            _cast_to(node, element)
        nodes.append(node)
    new_nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(new_nodes)
    del graph.value_info[:]
    _drop_unused(graph)
    return half


def _element_types(model: onnx.ModelProto) -> Mapping[str, int]:
    """Element types by the names of all values."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _half_weight(graph: onnx.GraphProto, weight: TensorProto, element: int) -> str:
    """The name of a weight's copy in half precision, made when it is first asked for."""
    name = weight.name + "/half"
    if any(tensor.name == name for tensor in graph.initializer):
        return name
    values = numpy_helper.to_array(weight)
    largest = abs(values).max(initial=0.0)
    if element == TensorProto.FLOAT16 and largest > 65504.0:
        raise ModelFileError(f"'{weight.name}' reaches {largest:.3g}, which float16 cannot hold")
    dtype = helper.tensor_dtype_to_np_dtype(element)
    graph.initializer.append(numpy_helper.from_array(values.astype(dtype), name))
    return name


def _cast_to(node: onnx.NodeProto, element: int) -> None:
    for attribute in node.attribute:
        if attribute.name == "to" and attribute.i == FLOAT:
            attribute.i = element


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
