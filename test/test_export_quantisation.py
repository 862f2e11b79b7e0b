# SPDX-License-Identifier: Apache-2.0
"""Quantisation: what runs in int8, what stays in float, and what is refused."""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="export needs torch")
pytest.importorskip("onnxscript", reason="export needs onnxscript")
pytest.importorskip("nncf", reason="quantisation needs nncf")

from fedefm_core.errors import ModelFileError  # noqa: E402
from fedefm_core.export.onnx import to_onnx  # noqa: E402
from fedefm_core.export.quantisation import convolutions_of, nodes_kept_in_float, quantise  # noqa: E402
from fedefm_core.networks.wirenet import Wirenet, WirenetSettings  # noqa: E402

SIZE = (64, 64)


def node(kind: str, inputs: str, output: str) -> onnx.NodeProto:
    return onnx.helper.make_node(kind, inputs.split(), [output], name=output)


@pytest.fixture(scope="module")
def float_model() -> onnx.ModelProto:
    torch.manual_seed(0)
    return to_onnx(Wirenet(WirenetSettings(channels=(8, 8, 8, 8), blocks=(1, 1, 1, 1))), SIZE)


@pytest.fixture(scope="module")
def int8_model(float_model: onnx.ModelProto) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, SIZE, dtype=np.uint8) for _ in range(3)]
    return quantise(float_model, images)


def test_only_what_lies_between_convolutions_is_quantised():
    nodes = [
        node("Cast", "image", "cast"),
        node("Conv", "cast w", "stem"),
        node("Relu", "stem", "relu"),
        node("Conv", "relu w", "body"),
        node("Add", "relu body", "sum"),
        node("Conv", "sum w", "head"),
        node("Sigmoid", "head", "tip"),
        node("Abs", "relu", "aside"),
    ]
    assert nodes_kept_in_float(nodes) == ["cast", "stem", "tip", "aside"]


def test_graph_without_convolutions_is_refused():
    with pytest.raises(ModelFileError, match="needs a graph with convolutions"):
        nodes_kept_in_float([node("Relu", "a", "b")])


def test_parts_are_found_by_the_names_of_their_weights(float_model):
    assert len(convolutions_of(float_model.graph.node, "encoder.0")) == 2
    assert len(convolutions_of(float_model.graph.node, "tip_head")) == 3


@pytest.mark.parametrize("part", ["encoder.9", "enc", ""])
def test_parts_that_are_not_there_are_refused(float_model, part):
    with pytest.raises(ModelFileError, match=f"no convolutions in a part named '{part}'"):
        quantise(float_model, [np.zeros(SIZE, np.uint8)], [part])


def test_calibration_needs_images(float_model):
    with pytest.raises(ModelFileError, match="at least one calibration image"):
        quantise(float_model, [])


def test_weights_are_int8_and_biases_float(float_model, int8_model):
    convolutions = sum(n.op_type == "Conv" for n in float_model.graph.node)
    kinds = Counter(
        (onnx.TensorProto.DataType.Name(t.data_type), len(t.dims))
        for t in int8_model.graph.initializer
    )
    assert kinds["INT8", 4] == convolutions - 1  # all but the first
    assert kinds["FLOAT", 4] == 1
    assert kinds["INT32", 1] == 0  # where quantised biases would be


def test_sums_of_skips_are_in_float(int8_model):
    made_by = {name: n.op_type for n in int8_model.graph.node for name in n.output}
    sums = [n for n in int8_model.graph.node if n.op_type == "Add"]
    assert sums
    assert not any(made_by.get(x) == "DequantizeLinear" for n in sums for x in n.input)


def test_all_zero_points_are_zero(int8_model):
    values = {t.name: onnx.numpy_helper.to_array(t) for t in int8_model.graph.initializer}
    kinds = ("QuantizeLinear", "DequantizeLinear")
    nodes = [n for n in int8_model.graph.node if n.op_type in kinds]
    assert nodes
    assert not any(np.any(values[n.input[2]]) for n in nodes if len(n.input) > 2)


def test_openvino_runs_the_convolutions_in_int8(int8_model):
    core = pytest.importorskip("openvino").Core()
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(int8_model.SerializeToString()), "CPU", hint)
    info = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ops()]
    precisions = Counter(
        str(i["runtimePrecision"].astype(str))
        for i in info
        if i["layerType"].astype(str) == "Convolution"
    )
    assert precisions["f32"] == 1
    assert precisions["i8"] + precisions["u8"] == precisions.total() - 1 > 10


@pytest.mark.usefixtures("int8_model")
def test_nncf_does_not_report_its_use():
    assert sys.modules["openvino_telemetry"] is None
