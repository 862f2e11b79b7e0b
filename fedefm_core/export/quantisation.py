# SPDX-License-Identifier: Apache-2.0
"""Int8 by post-training quantisation: an ONNX graph in float to one with Q/DQ nodes.

The convolutions and what lies between them run in int8. What stays in float: normalisation and the
first convolution, which reads an image of eight bits already and would round it once more, the
choice of the label and the tips, and the sums of the skips, so that what a block adds to is not
rounded again at every block. Activations and weights are symmetric, weights per channel, biases
float.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from fedefm_core.errors import ModelFileError
from fedefm_core.perception.runtimes.base import IMAGE
from fedefm_core.perception.runtimes.telemetry import silence_openvino

Image = npt.NDArray[np.uint8]

QUANTISERS = {"QuantizeLinear", "DequantizeLinear"}


def quantise(
    model: onnx.ModelProto, images: Sequence[Image], keep_float: Sequence[str] = ()
) -> onnx.ModelProto:
    """Quantise a graph made by to_onnx; images, each (H, W) uint8, choose the ranges.

    keep_float: parts of the network whose convolutions stay in float, such as 'encoder.0'.
    Raises ModelFileError without images, and for a graph without convolutions or such a part.
    """
    if not images:
        raise ModelFileError("Quantisation needs at least one calibration image (got none)")
    floats = nodes_kept_in_float(model.graph.node)
    for part in keep_float:
        floats += convolutions_of(model.graph.node, part)
    nncf = _import_nncf()
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    dataset = nncf.Dataset(images, lambda image: {IMAGE: image[None, None]})
    quantised: onnx.ModelProto = nncf.quantize(
        model,
        dataset,
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(names=floats, types=["Add"], validate=False),
        # measured: less drift than with ranges from the mean of the extremes, or corrected biases
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM,
            disable_bias_correction=True,
        ),
    )
    return quantised


def signed_activations(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph made by quantise with int8 in place of uint8, over the same range.

    For TensorRT, which knows no uint8 there. Half of int8 is of no use behind a ReLU, so 128 steps
    are left of 256, and the model drifts more.
    """
    signed = onnx.ModelProto()
    signed.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in signed.graph.initializer}
    nodes = [n for n in signed.graph.node if n.op_type in QUANTISERS and len(n.input) > 2]
    unsigned = [n for n in nodes if tensors[n.input[2]].data_type == onnx.TensorProto.UINT8]
    scales = {node.input[1] for node in unsigned}
    zeros = {node.input[2] for node in unsigned}
    for name in sorted(scales):
        _replace(tensors[name], lambda scale: (scale * (255 / 127)).astype(np.float32))
    for name in sorted(zeros):
        _replace(tensors[name], lambda zero: zero.astype(np.int8))
    return signed


def nodes_kept_in_float(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """Names of the nodes that no convolution precedes or that lead to none; in graph order."""
    if not any(node.op_type == "Conv" for node in nodes):
        raise ModelFileError("Quantisation needs a graph with convolutions (got none)")
    after: set[str] = set()
    values: set[str] = set()
    for node in nodes:
        if values.intersection(node.input):
            after.add(node.name)
        if node.op_type == "Conv" or node.name in after:
            values.update(node.output)
    before: set[str] = set()
    values.clear()
    for node in reversed(nodes):
        if node.op_type == "Conv" or values.intersection(node.output):
            before.add(node.name)
            values.update(node.input)
    return [node.name for node in nodes if node.name not in after & before]


def convolutions_of(nodes: Sequence[onnx.NodeProto], part: str) -> list[str]:
    """Names of the convolutions whose weights belong to a part of the network."""
    prefix = f"network.{part}."
    names = [n.name for n in nodes if n.op_type == "Conv" and n.input[1].startswith(prefix)]
    if not names:
        raise ModelFileError(f"The network has no convolutions in a part named '{part}'")
    return names


def _replace(
    tensor: onnx.TensorProto, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
) -> None:
    values = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(change(values), tensor.name))


def _import_nncf() -> Any:
    """Import NNCF, silenced."""
    silence_openvino()
    import nncf

    nncf.set_log_level(logging.ERROR)
    return nncf
