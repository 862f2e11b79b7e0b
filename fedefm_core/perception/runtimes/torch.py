# SPDX-License-Identifier: Apache-2.0
"""PyTorch: runs the ONNX graph node by node with torch functions.

The model file stays the only source: no network class, no second set of weights. It covers the
operators that our exported graphs hold, quantised ones included (computed in float, rounded as
the file says), and says which one it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional

from fedefm_core.errors import RuntimeUnavailableError
from fedefm_core.perception.metadata import ModelMetadata
from fedefm_core.perception.runtimes.base import IMAGE, OUTPUTS, NetworkOutput, Runtime

Attributes = Mapping[str, Any]
Operator = Callable[[list[Tensor | None], Attributes], Tensor | tuple[Tensor, ...]]

# By operator: inputs that say how, not what. They are read while the graph is walked, so they stay
# on the host: to wait for a GPU there takes longer than the work, and no CUDA graph allows it.
_HOST_INPUTS = {
    "ReduceMean": (1,),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Split": (1,),
    "Squeeze": (1,),
}


class TorchRuntime:
    """The nodes of a graph, in order, and its weights as tensors.

    On an NVIDIA GPU the weights are channels-last, the precision is that of the file, and all
    nodes are one CUDA graph.
    """

    name = "torch"

    @torch.inference_mode()
    def __init__(
        self, graph: onnx.GraphProto, metadata: ModelMetadata, device: str = "cpu"
    ) -> None:
        self.metadata = metadata
        self.skipped_runtimes: Mapping[str, str] = {}
        self.warnings: Sequence[str] = ()
        self._nodes: list[_Node] = []
        self._host: dict[str, Tensor] = {}
        for weight in graph.initializer:
            self._host[weight.name] = _tensor(numpy_helper.to_array(weight))
        for node in graph.node:
            self._add(_Node(_OPERATORS[node.op_type], node, _attributes(node)))
        self._weights = {name: _placed(value, device) for name, value in self._host.items()}
        self._captured = None if device == "cpu" else CapturedGraph(self._run, self._blank(device))

    @torch.inference_mode()
    def infer(self, image: npt.NDArray[np.uint8]) -> NetworkOutput:
        """Run the network on image (H, W) uint8; the outputs are valid until the next."""
        batch = _tensor(image)[None, None]
        outputs = self._run(batch) if self._captured is None else self._captured(batch)
        return NetworkOutput(*(output[0].numpy() for output in outputs))

    def _add(self, node: _Node) -> None:
        """Keep a node for every image, or work it out now when it depends on none."""
        names = [name for name in node.proto.input if name]
        if all(name in self._host for name in names):
            self._host.update(node.run(self._host, self._host))
        else:
            self._nodes.append(node)

    def _run(self, image: Tensor) -> tuple[Tensor, ...]:
        """image (1, 1, H, W) uint8 to label map, probability and tip heat map, on its device."""
        values = {**self._weights, IMAGE: image}
        for node in self._nodes:
            values.update(node.run(values, self._host))
        return tuple(values[name] for name in OUTPUTS)

    def _blank(self, device: str) -> Tensor:
        return torch.zeros(1, 1, *self.metadata.input_size, dtype=torch.uint8, device=device)


@dataclass(frozen=True)
class _Node:
    operator: Operator
    proto: onnx.NodeProto
    attributes: Attributes

    def run(self, values: Mapping[str, Tensor], host: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs, by name. host: the constants again, where the host can read them."""
        on_host = _HOST_INPUTS.get(self.proto.op_type, ())
        inputs = [
            (host if index in on_host else values)[name] if name else None
            for index, name in enumerate(self.proto.input)
        ]
        result = self.operator(inputs, self.attributes)
        results = result if isinstance(result, tuple) else (result,)
        return dict(zip(self.proto.output, results, strict=True))


class CapturedGraph:
    """A function of one tensor on an NVIDIA GPU, captured once and replayed for every call.

    Host memory is pinned; results are on the host and valid until the next call.
    """

    def __init__(self, function: Callable[[Tensor], tuple[Tensor, ...]], example: Tensor) -> None:
        self._input = example.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries choose their kernels and allocate: not captured
            for _ in range(3):
                function(self._input)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = function(self._input)
        self._pinned_input = torch.empty_like(example, device="cpu").pin_memory()
        self._pinned = [
            torch.empty(o.shape, dtype=o.dtype, pin_memory=True) for o in self._outputs
        ]

    def __call__(self, values: Tensor) -> Sequence[Tensor]:
        self._pinned_input.copy_(values)
        self._input.copy_(self._pinned_input, non_blocking=True)
        self._graph.replay()
        for pinned, output in zip(self._pinned, self._outputs, strict=True):
            pinned.copy_(output, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return self._pinned


def load(path: Path, metadata: ModelMetadata, threads: int) -> Runtime:
    """Read the graph; RuntimeUnavailableError for an operator that is not known here.

    It runs on the first NVIDIA GPU that torch can use, else on the CPU. threads, when given, is
    set for the whole process: torch knows no other way.
    """
    graph = onnx.load(path).graph
    unknown = sorted({node.op_type for node in graph.node} - set(_OPERATORS))
    if unknown:
        raise RuntimeUnavailableError(
            f"The torch runtime cannot run {path}: it does not know the operators "
            f"{', '.join(unknown)}."
        )
    if threads:
        torch.set_num_threads(threads)
    return TorchRuntime(graph, metadata, "cuda" if torch.cuda.is_available() else "cpu")


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    copy = np.array(array)  # torch wants writeable memory
    if copy.dtype.name == "bfloat16":  # numpy has none of its own, so torch does not take it
        return torch.from_numpy(copy.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(copy)


def _placed(value: Tensor, device: str) -> Tensor:
    """On a device; on a GPU, filters and images channels-last, as its tensor cores want them."""
    if device == "cpu" or value.dim() != 4:
        return value.to(device)
    return value.to(device, memory_format=torch.channels_last)


def _attributes(node: onnx.NodeProto) -> Attributes:
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}


def _of(inputs: list[Tensor | None], index: int) -> Tensor:
    """An input that the operator cannot do without."""
    value = inputs[index]
    assert value is not None  # the exporter's onnx.checker has seen to it
    return value


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda inputs, attributes: function(_of(inputs, 0))


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda inputs, attributes: function(_of(inputs, 0), _of(inputs, 1))


def _conv(inputs: list[Tensor | None], attributes: Attributes) -> Tensor:
    weight = _of(inputs, 1)
    ones = [1] * (weight.dim() - 2)
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    x = functional.pad(_of(inputs, 0), (left, right, top, bottom))
    bias = inputs[2] if len(inputs) > 2 else None
    return functional.conv2d(
        x,
        weight,
        bias,
        stride=attributes.get("strides", ones),
        dilation=attributes.get("dilations", ones),
        groups=attributes.get("group", 1),
    )


def _resize(inputs: list[Tensor | None], attributes: Attributes) -> Tensor:
    if attributes.get("mode", "nearest") != "nearest":
        raise RuntimeUnavailableError(
            f"The torch runtime resizes by 'nearest' only (got '{attributes['mode']}')"
        )
    x = _of(inputs, 0)
    if len(inputs) > 3 and inputs[3] is not None:
        size = [int(v) for v in inputs[3][2:]]
    else:
        scales = _of(inputs, 2)[2:].tolist()
        size = [int(n * s) for n, s in zip(x.shape[2:], scales, strict=True)]
    return functional.interpolate(x, size=size)


def _reduce_mean(inputs: list[Tensor | None], attributes: Attributes) -> Tensor:
    axes = inputs[1].tolist() if len(inputs) > 1 and inputs[1] is not None else attributes["axes"]
    return _of(inputs, 0).mean(dim=axes, keepdim=bool(attributes.get("keepdims", 1)))


def _reshape(inputs: list[Tensor | None], attributes: Attributes) -> Tensor:
    x, shape = _of(inputs, 0), _of(inputs, 1).tolist()
    if not attributes.get("allowzero", 0):
        shape = [x.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    return x.reshape(shape)


def _squeeze(inputs: list[Tensor | None], attributes: Attributes) -> Tensor:
    return _of(inputs, 0).squeeze(tuple(_of(inputs, 1).reshape(-1).tolist()))


def _split(inputs: list[Tensor | None], attributes: Attributes) -> tuple[Tensor, ...]:
    x, axis = _of(inputs, 0), attributes.get("axis", 0)
    if len(inputs) > 1 and inputs[1] is not None:
        return tuple(torch.split(x, inputs[1].tolist(), dim=axis))
    return tuple(torch.chunk(x, attributes["num_outputs"], dim=axis))


def _depth_to_space(inputs: list[Tensor | None], attributes: Attributes) -> Tensor:
    if attributes.get("mode", "DCR") != "CRD":
        raise RuntimeUnavailableError("The torch runtime knows DepthToSpace in mode CRD only")
    return functional.pixel_shuffle(_of(inputs, 0), attributes["blocksize"])


def _cast(inputs: list[Tensor | None], attributes: Attributes) -> Tensor:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(attributes["to"])
    return _of(inputs, 0).to(_tensor(np.empty(0, dtype)).dtype)


def _along(axis: int, values: Tensor, x: Tensor) -> Tensor:
    """A scale or zero point, one for all or one a channel, in a shape that broadcasts over x."""
    if values.numel() == 1:
        return values.reshape(())
    shape = [1] * x.dim()
    shape[axis] = -1
    return values.reshape(shape)


def _zero_point(inputs: list[Tensor | None]) -> Tensor:
    zero = inputs[2] if len(inputs) > 2 else None
    return torch.zeros((), dtype=torch.uint8) if zero is None else zero


def _quantize(inputs: list[Tensor | None], attributes: Attributes) -> Tensor:
    x, scale, zero = _of(inputs, 0), _of(inputs, 1), _zero_point(inputs)
    axis, limits = attributes.get("axis", 1), torch.iinfo(zero.dtype)
    steps = torch.round(x / _along(axis, scale, x)) + _along(axis, zero, x).float()
    return steps.clamp(limits.min, limits.max).to(zero.dtype)


def _dequantize(inputs: list[Tensor | None], attributes: Attributes) -> Tensor:
    x, scale, zero = _of(inputs, 0), _of(inputs, 1), _zero_point(inputs)
    axis = attributes.get("axis", 1)
    return (x.float() - _along(axis, zero, x).float()) * _along(axis, scale, x)


_OPERATORS: dict[str, Operator] = {
    "Add": _binary(torch.add),
    "Cast": _cast,
    "Constant": lambda inputs, attributes: _tensor(numpy_helper.to_array(attributes["value"])),
    "Conv": _conv,
    "DepthToSpace": _depth_to_space,
    "DequantizeLinear": _dequantize,
    "Div": _binary(torch.div),
    "Exp": _unary(torch.exp),
    "Greater": _binary(torch.gt),
    "Identity": _unary(lambda x: x),
    "Max": lambda inputs, attributes: reduce(
        torch.maximum, (_of(inputs, i) for i in range(len(inputs)))
    ),
    "Mul": _binary(torch.mul),
    "Pow": _binary(torch.pow),
    "QuantizeLinear": _quantize,
    "Reciprocal": _unary(torch.reciprocal),
    "ReduceMean": _reduce_mean,
    "Relu": _unary(torch.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": _unary(torch.sigmoid),
    "Split": _split,
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _binary(torch.sub),
    "Transpose": lambda inputs, attributes: _of(inputs, 0).permute(attributes["perm"]),
}
