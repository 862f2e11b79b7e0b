# SPDX-License-Identifier: Apache-2.0
"""A fake of cuda.bindings.runtime and of a TensorRT engine, which works as lazily as a GPU may.

What is put into a stream is done only when somebody waits for it, and what is captured only when
its graph is launched. So results that are read too early, or buffers that are used again too soon,
give wrong arrays, not lucky ones. Every call is recorded.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

Work = Callable[[], None]


class FakeCuda:
    """The functions that fedefm_core calls; each returns a code first, 0 for success."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815
    cudaStreamNonBlocking = 1  # noqa: N815
    cudaEventDisableTiming = 2  # noqa: N815

    def __init__(self, fails: str = "") -> None:
        self.calls: list[str] = []
        self.owned: dict[int, str] = {}
        self._memory: dict[int, Any] = {}
        self._queue: list[Work] = []
        self._capture: list[Work] | None = None
        self._graphs: dict[int, list[Work]] = {}
        self._marks: dict[int, int] = {}
        self._done = 0
        self._fails = fails
        self._next = 1000

    def __getattr__(self, name: str) -> Any:
        implementation = getattr(FakeCuda, "_" + name, None)
        if implementation is None:
            raise AttributeError(name)

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            if name == self._fails:
                return (2,)
            values = implementation(self, *arguments)
            return (0,) if values is None else (0, values)

        call.__name__ = name
        return call

    def enqueue(self, work: Work) -> None:
        """Put work into the stream, or into the graph that is being captured."""
        (self._queue if self._capture is None else self._capture).append(work)

    def _new(self, kind: str) -> int:
        self._next += 1
        self.owned[self._next] = kind
        return self._next

    def _allocate(self, kind: str, size: int) -> int:
        memory = (ctypes.c_uint8 * size)()
        address = ctypes.addressof(memory)
        self._memory[address], self.owned[address] = memory, kind
        return address

    def _free(self, handle: int) -> None:
        del self.owned[int(handle)]

    def _cudaStreamCreateWithFlags(self, flags: int) -> int:  # noqa: N802
        return self._new("stream")

    def _cudaMalloc(self, size: int) -> int:  # noqa: N802
        return self._allocate("device", size)

    def _cudaMallocHost(self, size: int) -> int:  # noqa: N802
        return self._allocate("host", size)

    def _cudaEventCreateWithFlags(self, flags: int) -> int:  # noqa: N802
        return self._new("event")

    _cudaStreamDestroy = _cudaFree = _cudaFreeHost = _cudaEventDestroy = _free  # noqa: N815
    _cudaGraphDestroy = _cudaGraphExecDestroy = _free  # noqa: N815

    def _cudaMemcpyAsync(self, to: int, origin: int, size: int, kind: int, stream: int) -> None:  # noqa: N802
        expected = ("device", "host") if kind == 1 else ("host", "device")
        assert (self.owned[to], self.owned[origin]) == expected
        self.enqueue(lambda: ctypes.memmove(to, origin, size) and None)

    def _cudaStreamBeginCapture(self, stream: int, mode: int) -> None:  # noqa: N802
        self._capture = []

    def _cudaStreamEndCapture(self, stream: int) -> int:  # noqa: N802
        graph = self._new("graph")
        assert self._capture is not None
        self._graphs[graph], self._capture = self._capture, None
        return graph

    def _cudaGraphInstantiate(self, graph: int, flags: int) -> int:  # noqa: N802
        executable = self._new("executable")
        self._graphs[executable] = self._graphs[graph]
        return executable

    def _cudaGraphLaunch(self, executable: int, stream: int) -> None:  # noqa: N802
        self._queue.extend(self._graphs[executable])

    def _cudaEventRecord(self, event: int, stream: int) -> None:  # noqa: N802
        self._marks[event] = self._done + len(self._queue)

    def _cudaEventSynchronize(self, event: int) -> None:  # noqa: N802
        self._work_off(self._marks[event] - self._done)

    def _cudaStreamSynchronize(self, stream: int) -> None:  # noqa: N802
        self._work_off(len(self._queue))

    def _work_off(self, count: int) -> None:
        for _ in range(max(count, 0)):
            self._queue.pop(0)()
            self._done += 1


class FakeTrt:
    """The one function that execution needs of the module."""

    @staticmethod
    def nptype(dtype: Any) -> Any:
        return dtype


class FakeEngine:
    """compute: image (H, W) uint8 to the arrays of outputs, by name."""

    def __init__(
        self,
        cuda: FakeCuda,
        ports: dict[str, tuple[str, tuple[int, ...]]],
        compute: Callable[[np.ndarray], dict[str, np.ndarray]],
        starts: bool = True,
    ) -> None:
        self.cuda, self.ports, self.compute, self.starts = cuda, ports, compute, starts
        self.num_io_tensors = len(ports)

    def get_tensor_name(self, index: int) -> str:
        return list(self.ports)[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return np.dtype(self.ports[name][0])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.ports[name][1]

    def create_execution_context(self) -> FakeContext:
        return FakeContext(self)


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert self.engine.cuda.owned[address] == "device"
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert self.addresses.keys() == self.engine.ports.keys()
        self.engine.cuda.calls.append("execute")
        self.engine.cuda.enqueue(self._run)
        return self.engine.starts

    def _run(self) -> None:
        outputs = self.engine.compute(self._view("image")[0, 0])
        for name, values in outputs.items():
            self._view(name)[0] = values

    def _view(self, name: str) -> np.ndarray:
        dtype, shape = self.engine.ports[name]
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = (ctypes.c_uint8 * size).from_address(self.addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)
