# SPDX-License-Identifier: Apache-2.0
"""A tiny network that keeps the graph contract, and images on which it is always right.

It is a threshold, so tests of what surrounds a network need no trained one:
grey values 0..39 are guidewire, 40..79 catheter, all others background. Tips are marked in the
image: 0..9 lights the tip heatmap of the guidewire, 40..49 that of the catheter.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from fedefm_core.perception.metadata import ModelMetadata, attach_metadata, weights_sha256

BACKGROUND_GREY, GUIDEWIRE_GREY, CATHETER_GREY = 200, 20, 60
GUIDEWIRE_TIP_GREY, CATHETER_TIP_GREY = 5, 45
PROBABILITY = 230

_BOUNDS = {"tip_end": 10, "wire_end": 40, "catheter_tip_end": 50, "catheter_end": 80}


def write_threshold_model(path: Path, size: tuple[int, int] = (128, 128)) -> Path:
    """Write the network, for images of size (height, width), multiples of 4, to path."""
    model = helper.make_model(
        _graph(size), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.checker.check_model(model)
    metadata = ModelMetadata(
        name="threshold",
        architecture="threshold",
        precision="fp32",
        input_size=size,
        weights_sha256=weights_sha256(model),
        normalisation="none",
        data="none: grey values decide",
    )
    attach_metadata(model, metadata)
    onnx.save(model, path)
    return path


def draw_instruments(
    size: tuple[int, int] = (128, 128),
    guidewire: list[tuple[float, float]] | None = None,
    catheter: list[tuple[float, float]] | None = None,
) -> npt.NDArray[np.uint8]:
    """(height, width) image with a polyline (x, y) for each instrument, the last point the tip."""
    image = np.full(size, BACKGROUND_GREY, np.uint8)
    if catheter:
        _draw(image, catheter, 7, CATHETER_GREY, CATHETER_TIP_GREY)
    if guidewire:
        _draw(image, guidewire, 3, GUIDEWIRE_GREY, GUIDEWIRE_TIP_GREY)
    return image


def _draw(
    image: npt.NDArray[np.uint8],
    line: list[tuple[float, float]],
    width: int,
    grey: int,
    tip_grey: int,
) -> None:
    points = np.round(line).astype(np.int32)
    cv2.polylines(image, [points], False, grey, width)
    near_tip = np.zeros_like(image)
    cv2.circle(near_tip, tuple(map(int, points[-1])), 3, 1, -1)
    image[(near_tip > 0) & (image == grey)] = tip_grey


def _graph(size: tuple[int, int]) -> onnx.GraphProto:
    height, width = size
    constants = {
        **{name: np.array(value, np.float32) for name, value in _BOUNDS.items()},
        "label_guidewire": np.array(2, np.uint8),
        "label_catheter": np.array(1, np.uint8),
        "label_background": np.array(0, np.uint8),
        "constant_probability": np.full((1, height, width), PROBABILITY, np.uint8),
        "channel_axis": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["grey"], to=TensorProto.FLOAT),
        *(helper.make_node("Less", ["grey", name], [f"below_{name}"]) for name in _BOUNDS),
        _where("below_catheter_end", "label_catheter", "label_background", "outline"),
        _where("below_wire_end", "label_guidewire", "outline", "labels"),
        helper.make_node("Squeeze", ["labels", "channel_axis"], ["label_map"]),
        helper.make_node("Identity", ["constant_probability"], ["probability"]),
        helper.make_node("Not", ["below_wire_end"], ["not_wire"]),
        helper.make_node("And", ["below_catheter_tip_end", "not_wire"], ["catheter_tip"]),
        helper.make_node("Concat", ["catheter_tip", "below_tip_end"], ["tips"], axis=1),
        helper.make_node("Cast", ["tips"], ["tip_values"], to=TensorProto.FLOAT),
        helper.make_node(
            "AveragePool", ["tip_values"], ["tip_heatmap"], kernel_shape=[4, 4], strides=[4, 4]
        ),
    ]
    outputs = [
        ("label_map", TensorProto.UINT8, (1, height, width)),
        ("probability", TensorProto.UINT8, (1, height, width)),
        ("tip_heatmap", TensorProto.FLOAT, (1, 2, height // 4, width // 4)),
    ]
    return helper.make_graph(
        nodes,
        "threshold",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, (1, 1, height, width))],
        [helper.make_tensor_value_info(*output) for output in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )


def _where(condition: str, yes: str, no: str, result: str) -> onnx.NodeProto:
    return helper.make_node("Where", [condition, yes, no], [result])
