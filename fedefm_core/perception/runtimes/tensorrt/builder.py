# SPDX-License-Identifier: Apache-2.0
"""From an ONNX file to a plan: one way for TensorRT 10, 11 and TensorRT-RTX.

Precision lives in the file (TensorRT 11 and RTX know no other way): float16 or bfloat16 tensors,
or Q/DQ nodes for int8. The networks are strongly typed, so that TensorRT 10 keeps to it too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from fedefm_core.config import Settings
from fedefm_core.errors import EngineError
from fedefm_core.perception.runtimes.tensorrt.machine import TENSORRT
from fedefm_core.perception.runtimes.tensorrt.progress import Progress, ProgressTracker, monitor

MIB = 1 << 20
QUANTISERS = {"QuantizeLinear", "DequantizeLinear"}


class BuildSettings(Settings):
    """optimisation_level: 0 (builds in seconds) to 5 (tries most). workspace_mib: GPU memory that
    a layer may use meanwhile, 0 for TensorRT's own limit. timing_cache: keep what was timed."""

    optimisation_level: int = Field(3, ge=0, le=5)
    workspace_mib: int = Field(0, ge=0)
    timing_cache: bool = True


def check_quantisation(path: Path) -> None:
    """Raise EngineError for a file whose Q/DQ nodes TensorRT would read as something else.

    It takes activations of uint8 for int8 with nothing but a warning, and clips half their range.
    """
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        zero = weights.get(node.input[2]) if len(node.input) > 2 else None
        if node.op_type not in QUANTISERS or zero is None:
            continue
        if zero.data_type == onnx.TensorProto.UINT8 or onnx.numpy_helper.to_array(zero).any():
            raise EngineError(
                f"{path} has activations in uint8 or with a zero point, and TensorRT knows int8 "
                "with zero point 0 only: it would clip them. Export the model for it with "
                "'fedefm_core export --precision fp16' or '--activations int8'."
            )


def build_plan(
    trt: Any,
    model: bytes,
    settings: BuildSettings,
    timings: bytes = b"",
    tell: Callable[[Progress], bool] = lambda progress: True,
    flavour: str = TENSORRT.name,
) -> tuple[bytes, bytes]:
    """The plan, and what was timed on the way (b'' where that is not kept).

    trt: the module. timings: of earlier builds on this machine. tell: is shown each step; False
    ends the build. Raises EngineError with TensorRT's own reason.
    """
    logger = _Log(trt)
    builder = trt.Builder(logger.of_trt)
    network = builder.create_network(_flags(trt))
    parser = trt.OnnxParser(network, logger.of_trt)
    if not parser.parse(model):
        reasons = [str(parser.get_error(i).desc()) for i in range(parser.num_errors)]
        raise EngineError(f"TensorRT cannot read the model: {'; '.join(reasons) or logger.last}")
    config = builder.create_builder_config()
    config.builder_optimization_level = settings.optimisation_level
    if settings.workspace_mib:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mib * MIB)
    stopped = False

    def go_on(progress: Progress) -> bool:
        nonlocal stopped
        stopped = stopped or not tell(progress)
        return not stopped

    config.progress_monitor = steps = monitor(trt, ProgressTracker(), go_on)
    keeps_timings = settings.timing_cache and flavour == TENSORRT.name  # RTX times nothing here
    if keeps_timings:
        cache = config.create_timing_cache(timings)
        if not config.set_timing_cache(cache, False):  # of another GPU or version
            config.set_timing_cache(config.create_timing_cache(b""), False)
    plan = builder.build_serialized_network(network, config)
    del steps  # must outlive the build
    if stopped:
        raise EngineError("The build of the engine was interrupted.")
    if plan is None:
        raise EngineError(f"TensorRT cannot build the engine: {logger.last or 'no reason given'}")
    timed = bytes(config.get_timing_cache().serialize()) if keeps_timings else b""
    return bytes(plan), timed


def _flags(trt: Any) -> int:
    """Strongly typed: must be asked for in 10; in releases without the flag it is the only way."""
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if typed is None else 1 << int(typed)


class _Log:
    """Keeps TensorRT's last error, which is the reason when a call fails."""

    def __init__(self, trt: Any) -> None:
        self.last = ""
        log = self

        class Logger(trt.ILogger):  # type: ignore[misc]  # a class of the module at hand
            def __init__(self) -> None:
                super().__init__()

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                    log.last = message

        self.of_trt = Logger()
