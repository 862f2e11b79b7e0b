# SPDX-License-Identifier: Apache-2.0
"""TensorRT 10, 11 or TensorRT-RTX on an NVIDIA GPU.

It runs engines that were built before, by 'fedefm_core engine build' or ensure_engine, and never
builds one on its own: that takes up to minutes, which nobody expects of loading a model.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedefm_core.errors import EngineError
from fedefm_core.perception.metadata import ModelMetadata, read_metadata
from fedefm_core.perception.runtimes.base import NetworkOutput, Runtime
from fedefm_core.perception.runtimes.tensorrt import cache
from fedefm_core.perception.runtimes.tensorrt.build_process import Tell, build_engine
from fedefm_core.perception.runtimes.tensorrt.builder import BuildSettings, check_quantisation
from fedefm_core.perception.runtimes.tensorrt.execution import EngineExecution
from fedefm_core.perception.runtimes.tensorrt.machine import Machine, probe

__all__ = ["TensorRtRuntime", "ensure_engine", "load"]


class TensorRtRuntime:
    """An engine, ready to run; what it needs of TensorRT is kept alive with it."""

    name = "tensorrt"

    def __init__(self, execution: EngineExecution, keep: Any, metadata: ModelMetadata) -> None:
        self.metadata = metadata
        self.skipped_runtimes: Mapping[str, str] = {}
        self.warnings: Sequence[str] = ()
        self._execution, self._keep = execution, keep

    def infer(self, image: npt.NDArray[np.uint8]) -> NetworkOutput:
        """Run the network on image (H, W) uint8; the outputs are valid until the next."""
        self.submit(image)
        return self.result()

    def submit(self, image: npt.NDArray[np.uint8]) -> None:
        """Start on image; the results come by result, in order. At most two may be under way."""
        self._execution.submit(image)

    def result(self) -> NetworkOutput:
        """Wait for the oldest image that was submitted."""
        return self._execution.result()


def load(path: Path, metadata: ModelMetadata, threads: int) -> Runtime:
    """Load the engine of this model on this machine. threads: not used.

    Raises EngineError, or RuntimeUnavailableError where TensorRT is not installed: see probe,
    check_quantisation and cache.load for the reasons.
    """
    machine = probe()
    check_quantisation(path)
    plan = cache.load(cache.default_folder(), cache.engine_key(path, metadata, machine))
    return open_plan(plan, metadata, machine)


def open_plan(plan: bytes, metadata: ModelMetadata, machine: Machine) -> TensorRtRuntime:
    """Make a plan that was checked ready to run. Raises EngineError when TensorRT refuses it."""
    trt = importlib.import_module(machine.module)
    cuda = importlib.import_module("cuda.bindings.runtime")
    logger = trt.Logger(trt.Logger.ERROR)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(
            f"{machine.flavour} {machine.version} refuses the engine on {machine.gpu}; build it "
            f"again: {cache.BUILD_COMMAND}"
        )
    return TensorRtRuntime(
        EngineExecution(cuda, trt, engine, metadata), (logger, runtime, engine), metadata
    )


def ensure_engine(
    path: Path,
    tell: Tell = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
    settings: BuildSettings | None = None,
) -> bool:
    """Build the engine of a model on this machine where there is none that may be used.

    True when one was built. Raises what probe and build_engine do.
    """
    machine, folder = probe(), cache.default_folder()
    try:
        cache.load(folder, cache.engine_key(path, read_metadata(path), machine))
        return False
    except EngineError:
        build_engine(path, folder, machine, settings or BuildSettings(), tell, stop)
        return True
