# SPDX-License-Identifier: Apache-2.0
"""OpenVINO on the CPU: the default runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedefm_core.errors import RuntimeUnavailableError
from fedefm_core.perception.metadata import ModelMetadata
from fedefm_core.perception.runtimes.base import IMAGE, OUTPUTS, NetworkOutput, Runtime
from fedefm_core.perception.runtimes.telemetry import silence_openvino

silence_openvino()

import openvino as ov  # noqa: E402


class OpenVinoRuntime:
    """One compiled model with one infer request, whose buffers are used again for each image."""

    name = "openvino"

    def __init__(self, compiled: ov.CompiledModel, metadata: ModelMetadata) -> None:
        self.metadata = metadata
        self.skipped_runtimes: Mapping[str, str] = {}
        self.warnings: Sequence[str] = ()
        self._request = compiled.create_infer_request()
        self._image = self._request.get_tensor(IMAGE).data
        self._outputs = [self._request.get_tensor(name) for name in OUTPUTS]

    def infer(self, image: npt.NDArray[np.uint8]) -> NetworkOutput:
        """Run the network on image (H, W) uint8; the outputs are views, valid until the next."""
        self._image[0, 0] = image  # 10 µs; a shared tensor would refuse a read-only frame
        self._request.infer()
        return NetworkOutput(*(tensor.data[0] for tensor in self._outputs))


def load(path: Path, metadata: ModelMetadata, threads: int) -> Runtime:
    """Compile the model for lowest latency; RuntimeUnavailableError when OpenVINO cannot."""
    config: dict[str, str | int] = {
        "PERFORMANCE_HINT": "LATENCY",
        # without it OpenVINO takes bfloat16 wherever the CPU has it, and results differ by machine
        "INFERENCE_PRECISION_HINT": "f32",
    }
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    try:
        compiled = _core().compile_model(str(path), "CPU", config)
    except RuntimeError as error:
        raise RuntimeUnavailableError(f"OpenVINO cannot run {path}: {error}") from error
    return OpenVinoRuntime(compiled, metadata)


@cache
def _core() -> ov.Core:
    """The one Core of this process, which never ends.

    OpenVINO's CPU plugin gives the thread that loads it another stack for signals, and frees it
    with its Core. Of two Cores that end in the order in which they began, the second puts back the
    freed stack of the first, and the next signal kills the process.
    """
    return ov.Core()
