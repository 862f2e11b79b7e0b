# SPDX-License-Identifier: Apache-2.0
"""Which TensorRT is installed, and on which GPU it would run: asked in a process of its own.

A TensorRT that is touched on a machine without a driver has been seen to end its process. So the
question is put by a child, which costs a fraction of a second, and only where TensorRT is.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedefm_core.errors import EngineError, NotInstalledError
from fedefm_core.perception.runtimes.tensorrt import ask

PROBE_TIMEOUT_S = 20.0  # a healthy machine answers in a fraction of it, a hanging driver never


@dataclass(frozen=True)
class Flavour:
    """A kind of TensorRT. modules: under any of these names it may be installed. majors: the
    versions that this release is written for."""

    name: str
    modules: tuple[str, ...]
    majors: tuple[int, ...]


TENSORRT = Flavour("TensorRT", ("tensorrt",), (10, 11))
TENSORRT_RTX = Flavour("TensorRT-RTX", ("tensorrt_rtx", "tensorrt_rtx_bindings"), (1,))
FLAVOURS = (TENSORRT, TENSORRT_RTX)  # the first that is installed is used


@dataclass(frozen=True)
class Machine:
    """What engines depend on. gpu, compute_capability and driver are '' where there is no GPU.

    module: the name to import TensorRT by. driver: its own version where it tells, else CUDA's.
    """

    flavour: str
    module: str
    version: str
    gpu: str
    compute_capability: str
    driver: str


def probe() -> Machine:
    """The TensorRT and the GPU of this machine.

    Raises NotInstalledError without TensorRT, and EngineError for one of another version, without
    cuda-python, a driver or a GPU, and for a TensorRT that ends the process: in a fraction of a
    second, unless the driver hangs.
    """
    flavour, module = installed()
    if not _has_cuda_python():
        # the wheels that only build, as tests use them, are no sign that somebody wants to run
        missing = NotInstalledError if flavour is TENSORRT_RTX else EngineError
        raise missing(
            f"{flavour.name} is installed, but 'cuda-python', which moves the images to the GPU, "
            "is not: pip install cuda-python"
        )
    answer = _ask(module)
    if answer["gpu_trouble"]:
        raise EngineError(f"{flavour.name} needs an NVIDIA GPU: {answer['gpu_trouble']}.")
    machine = _machine(flavour, module, answer)
    builds_for = answer["builds_for"]
    if builds_for and machine.compute_capability not in builds_for:
        raise EngineError(
            f"{flavour.name} {machine.version} does not run on {machine.gpu}: its compute "
            f"capability is {machine.compute_capability}, not one of {', '.join(builds_for)}."
        )
    return machine


def probe_builder() -> Machine:
    """As probe, for building only: TensorRT-RTX builds without a GPU, for any GPU it supports.

    Raises as probe does; a missing GPU is trouble for TensorRT alone.
    """
    flavour, module = installed()
    answer = _ask(module, only_build=flavour is TENSORRT_RTX)
    if answer["gpu_trouble"] and flavour is not TENSORRT_RTX:
        raise EngineError(
            f"{flavour.name} builds engines only where their GPU is: {answer['gpu_trouble']}. "
            "TensorRT-RTX builds without one."
        )
    return _machine(flavour, module, answer)


def installed() -> tuple[Flavour, str]:
    """The flavour that is installed, and its module; NotInstalledError when there is none."""
    for flavour in FLAVOURS:
        for module in flavour.modules:
            if importlib.util.find_spec(module) is not None:
                return flavour, module
    raise NotInstalledError("TensorRT is not installed (no package 'tensorrt' or 'tensorrt_rtx').")


def _has_cuda_python() -> bool:
    try:
        return importlib.util.find_spec("cuda.bindings") is not None
    except ImportError:
        return False


def _machine(flavour: Flavour, module: str, answer: dict[str, Any]) -> Machine:
    """Raises EngineError when TensorRT cannot be imported, or has another version."""
    version = answer["version"]
    if not version:
        raise EngineError(f"{flavour.name} cannot be used: {answer['import_trouble']}.")
    major = version.partition(".")[0]
    if major not in map(str, flavour.majors):
        wanted = " or ".join(map(str, flavour.majors))
        raise EngineError(
            f"{flavour.name} {version} is installed; this release is written for {wanted}."
        )
    return Machine(
        flavour.name,
        module,
        version,
        answer["gpu"],
        answer["compute_capability"],
        answer["driver"],
    )


def _ask(module: str, only_build: bool = False) -> dict[str, Any]:
    """What ask.py finds out. Raises EngineError when it does not come to an answer."""
    command = [sys.executable, str(Path(ask.__file__)), module, "build" if only_build else "run"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(
            f"'{module}' did not answer within {PROBE_TIMEOUT_S:.0f} s: does the driver hang?"
        ) from error
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise EngineError(f"'{module}' ends the process that touches it ({name}): not used.")
    return _parse(module, done.stdout.splitlines(), done.stderr.splitlines())


def _parse(module: str, output: Sequence[str], errors: Sequence[str]) -> dict[str, Any]:
    """The last line is the answer: what libraries print unasked comes before it."""
    try:
        answer: dict[str, Any] = json.loads(output[-1])
    except (IndexError, ValueError) as error:
        reason = errors[-1] if errors else "no answer"
        raise EngineError(f"'{module}' cannot be used: {reason}") from error
    return answer
