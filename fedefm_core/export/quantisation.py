# SPDX-License-Identifier: Apache-2.0
"""Int8 by post-training quantisation: an ONNX graph in float to one with Q/DQ nodes.

The convolutions and what lies between them run in int8; normalisation, the choice of the winning
class and the tips stay in float, or the label map would be that of another network. Activations
and weights are symmetric, weights per channel, biases float.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from fedefm_core.errors import ModelFileError
from fedefm_core.export.onnx import IMAGE

Image = npt.NDArray[np.uint8]


def quantise(model: onnx.ModelProto, images: Sequence[Image]) -> onnx.ModelProto:
    """Quantise a graph made by to_onnx; images, each (H, W) uint8, choose the ranges.

    Raises ModelFileError without images or for a graph without convolutions.
    """
    if not images:
        raise ModelFileError("Quantisation needs at least one calibration image (got none)")
    floats = nodes_kept_in_float(model.graph.node)
    nncf = _import_nncf()
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    dataset = nncf.Dataset(images, lambda image: {IMAGE: image[None, None]})
    quantised: onnx.ModelProto = nncf.quantize(
        model,
        dataset,
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(names=floats),
        # measured: moves half as many labels as the default, the mean of the extremes
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM
        ),
    )
    return quantised


def nodes_kept_in_float(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """Names of the nodes that do not lie between two convolutions; nodes: in graph order."""
    if not any(node.op_type == "Conv" for node in nodes):
        raise ModelFileError("Quantisation needs a graph with convolutions (got none)")
    after = _reached(nodes, sources="input", results="output")
    before = _reached(list(reversed(nodes)), sources="output", results="input")
    inside = after & before
    return [node.name for node in nodes if node.name not in inside]


def _reached(nodes: Iterable[onnx.NodeProto], sources: str, results: str) -> set[str]:
    """Names of the convolutions and of all nodes that follow one in the order of nodes."""
    values: set[str] = set()
    names: set[str] = set()
    for node in nodes:
        if node.op_type == "Conv" or values & set(getattr(node, sources)):
            values.update(getattr(node, results))
            names.add(node.name)
    return names


def _import_nncf() -> Any:
    """Import NNCF, silenced: it reports its use to its makers unasked, through this package."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import nncf

    nncf.set_log_level(logging.ERROR)
    return nncf
