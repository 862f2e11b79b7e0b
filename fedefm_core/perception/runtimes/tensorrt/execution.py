# SPDX-License-Identifier: Apache-2.0
"""Runs an engine: pinned host memory, one stream, addresses bound once, one CUDA graph a slot.

A slot has its own buffers, and its graph does all that a frame needs: image to the GPU, network,
outputs back. There are two, so that the copy of a frame's image and its network run while the
outputs of the frame before are still read. It has never run on a GPU: tests run it on a fake.
"""

from __future__ import annotations

import ctypes
import weakref
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fedefm_core.errors import EngineError
from fedefm_core.perception.contract import expected_inputs, expected_outputs
from fedefm_core.perception.metadata import ModelMetadata
from fedefm_core.perception.runtimes.base import IMAGE, OUTPUTS, NetworkOutput

SLOTS = 2


@dataclass
class _Slot:
    """Buffers and the graph of one frame under way."""

    context: Any
    host: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    device: dict[str, int] = field(default_factory=dict)
    graph: Any = None
    done: Any = None  # event: all of the graph has run


class EngineExecution:
    """One engine on one GPU. Frames go in by submit and come out by result, in order.

    cuda: the module cuda.bindings.runtime. Raises EngineError when the engine's inputs and
    outputs are not those of metadata, or CUDA refuses something. close() gives everything back,
    and so does the end of the object.
    """

    def __init__(self, cuda: Any, trt: Any, engine: Any, metadata: ModelMetadata) -> None:
        self._cuda = cuda
        self._ports = {**expected_inputs(metadata), **expected_outputs(metadata)}
        _check_ports(trt, engine, self._ports)
        self._owned: list[tuple[Any, Any]] = []  # (function that frees, what), in order
        self.close = weakref.finalize(self, _give_back, self._owned)
        self._busy: deque[_Slot] = deque()
        try:
            self._stream = self._make(
                cuda.cudaStreamCreateWithFlags, cuda.cudaStreamDestroy, cuda.cudaStreamNonBlocking
            )
            self._free = deque(self._slot(engine) for _ in range(SLOTS))
        except Exception:
            self.close()
            raise

    def submit(self, image: npt.NDArray[np.uint8]) -> None:
        """Start on image (H, W) uint8; returns before the GPU has done anything.

        At most SLOTS frames may be under way. The outputs that the slot held are overwritten.
        """
        slot = self._free.popleft()
        slot.host[IMAGE][0, 0] = image
        self._call(self._cuda.cudaGraphLaunch, slot.graph, self._stream)
        self._call(self._cuda.cudaEventRecord, slot.done, self._stream)
        self._busy.append(slot)

    def result(self) -> NetworkOutput:
        """Wait for the oldest frame under way. Its arrays are valid until SLOTS more submits."""
        slot = self._busy.popleft()
        self._call(self._cuda.cudaEventSynchronize, slot.done)
        self._free.append(slot)
        return NetworkOutput(*(slot.host[name][0] for name in OUTPUTS))

    def _slot(self, engine: Any) -> _Slot:
        cuda = self._cuda
        slot = _Slot(engine.create_execution_context())
        if slot.context is None:
            raise EngineError("TensorRT has no memory for the engine on this GPU.")
        for name, (dtype, shape) in self._ports.items():
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            slot.device[name] = int(self._make(cuda.cudaMalloc, cuda.cudaFree, size))
            address = int(self._make(cuda.cudaMallocHost, cuda.cudaFreeHost, size))
            memory = (ctypes.c_uint8 * size).from_address(address)
            slot.host[name] = np.frombuffer(memoryview(memory), dtype).reshape(shape)
            slot.context.set_tensor_address(name, slot.device[name])
        slot.done = self._make(
            cuda.cudaEventCreateWithFlags, cuda.cudaEventDestroy, cuda.cudaEventDisableTiming
        )
        self._enqueue(slot)  # TensorRT wants one run before a capture: it may still allocate
        self._call(cuda.cudaStreamSynchronize, self._stream)
        slot.graph = self._capture(slot)
        return slot

    def _capture(self, slot: _Slot) -> Any:
        """The slot's work as a graph: one launch instead of five calls."""
        cuda = self._cuda
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call(cuda.cudaStreamBeginCapture, self._stream, mode)
        self._enqueue(slot)
        graph = self._make(cuda.cudaStreamEndCapture, cuda.cudaGraphDestroy, self._stream)
        return self._make(cuda.cudaGraphInstantiate, cuda.cudaGraphExecDestroy, graph, 0)

    def _enqueue(self, slot: _Slot) -> None:
        self._copy(slot.device[IMAGE], slot.host[IMAGE].ctypes.data, slot.host[IMAGE].nbytes, "in")
        if not slot.context.execute_async_v3(int(self._stream)):
            raise EngineError("TensorRT could not start the engine on this GPU.")
        for name in OUTPUTS:
            host = slot.host[name]
            self._copy(host.ctypes.data, slot.device[name], host.nbytes, "out")

    def _copy(self, to: int, origin: int, size: int, way: str) -> None:
        kinds = self._cuda.cudaMemcpyKind
        kind = kinds.cudaMemcpyHostToDevice if way == "in" else kinds.cudaMemcpyDeviceToHost
        self._call(self._cuda.cudaMemcpyAsync, to, origin, size, kind, self._stream)

    def _make(self, create: Any, free: Any, *arguments: Any) -> Any:
        """Call a function of CUDA that makes something, and remember how to free it."""
        made = self._call(create, *arguments)
        self._owned.append((free, made))
        return made

    def _call(self, function: Any, *arguments: Any) -> Any:
        """Call a function of CUDA; what it returns beside the code. Raises EngineError."""
        code, *values = function(*arguments)
        if int(code):
            name = getattr(function, "__name__", "CUDA")
            raise EngineError(f"{name} failed on this GPU: {getattr(code, 'name', code)}")
        return values[0] if values else None


def _give_back(owned: list[tuple[Any, Any]]) -> None:
    """Free everything, the newest first."""
    while owned:
        free, what = owned.pop()
        free(what)


def _check_ports(trt: Any, engine: Any, ports: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    """Raise EngineError when the engine's tensors are not those of the graph contract."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    found = {
        name: (np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name, tuple(shape))
        for name in names
        for shape in (engine.get_tensor_shape(name),)
    }
    if found != ports:
        raise EngineError(f"The engine must have the tensors {ports} (got {found})")
