# SPDX-License-Identifier: Apache-2.0
"""Probing: what is missing or broken is told in a sentence, and no process ends but the child."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from model_fixture import write_threshold_model

from fedefm_core.errors import EngineError, NotInstalledError
from fedefm_core.perception import open_runtime
from fedefm_core.perception import runtimes as runtimes_package
from fedefm_core.perception.runtimes.tensorrt import ask, machine

HEALTHY = {
    **ask.ANSWER,
    "gpu": "NVIDIA H100",
    "compute_capability": "9.0",
    "driver": "580.65.06",
    "version": "11.4.0",
}
NO_DRIVER = {**ask.ANSWER, "gpu_trouble": "there is no NVIDIA driver", "version": "1.7.1"}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the child answer as told, and TensorRT or TensorRT-RTX be installed."""

    def answer(values: dict[str, Any], flavour: machine.Flavour = machine.TENSORRT) -> None:
        monkeypatch.setattr(machine, "installed", lambda: (flavour, flavour.modules[0]))
        monkeypatch.setattr(machine, "_ask", lambda module, only_build=False: values)
        monkeypatch.setattr(machine, "_has_cuda_python", lambda: True)

    return answer


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a module with some code where the child finds it; return its name."""

    def make(code: str) -> str:
        (tmp_path / "pretended_tensorrt.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return "pretended_tensorrt"

    return make


def test_without_tensorrt_no_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = machine.Flavour("TensorRT", ("no_such_tensorrt",), (10, 11))
    monkeypatch.setattr(machine, "FLAVOURS", (nowhere,))
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("started a process"))
    with pytest.raises(NotInstalledError, match="TensorRT is not installed"):
        machine.probe()


def test_a_healthy_machine(answers: Any) -> None:
    answers(HEALTHY)
    assert machine.probe() == machine.Machine(
        "TensorRT", "tensorrt", "11.4.0", "NVIDIA H100", "9.0", "580.65.06"
    )


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (NO_DRIVER, "needs an NVIDIA GPU: there is no NVIDIA driver"),
        ({**HEALTHY, "version": "9.3.0"}, r"TensorRT 9\.3\.0 is installed.* written for 10 or 11"),
        ({**HEALTHY, "version": "12.0.1"}, r"TensorRT 12\.0\.1 is installed"),
        ({**HEALTHY, "version": "", "import_trouble": "ImportError: libnvinfer"}, "libnvinfer"),
        ({**HEALTHY, "builds_for": ["8.9", "12.0"]}, r"does not run on NVIDIA H100.* 9\.0, not"),
    ],
)
def test_what_is_missing_is_told(answers: Any, answer: dict[str, Any], sentence: str) -> None:
    answers(answer)
    with pytest.raises(EngineError, match=sentence):
        machine.probe()


@pytest.mark.parametrize(
    ("flavour", "error"),
    [(machine.TENSORRT, EngineError), (machine.TENSORRT_RTX, NotInstalledError)],
)
def test_without_cuda_python_nothing_runs(
    answers: Any, monkeypatch: pytest.MonkeyPatch, flavour: machine.Flavour, error: type[Exception]
) -> None:
    answers(HEALTHY, flavour)
    monkeypatch.setattr(machine, "_has_cuda_python", lambda: False)
    with pytest.raises(error, match="pip install cuda-python"):
        machine.probe()


def test_rtx_builds_without_a_gpu_and_tensorrt_does_not(answers: Any) -> None:
    answers(NO_DRIVER, machine.TENSORRT_RTX)
    assert machine.probe_builder().gpu == ""
    answers(NO_DRIVER)
    with pytest.raises(EngineError, match="builds engines only where their GPU is"):
        machine.probe_builder()


def test_a_tensorrt_that_kills_its_process_does_not_kill_ours(module: Any) -> None:
    name = module("import os; os.abort()")
    with pytest.raises(EngineError, match=r"ends the process that touches it \(SIGABRT\)"):
        machine._ask(name, only_build=True)


def test_a_tensorrt_that_hangs_is_given_up(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PROBE_TIMEOUT_S", 0.2)
    with pytest.raises(EngineError, match="did not answer within"):
        machine._ask(module("import time; time.sleep(600)"), only_build=True)


def test_what_libraries_print_and_raise_is_borne(module: Any) -> None:
    answer = machine._ask(module("print('hello'); __version__ = '10.7.0'"), only_build=True)
    assert answer["version"] == "10.7.0"
    answer = machine._ask(module("raise OSError('libcudart.so.13 not found')"), only_build=True)
    assert "libcudart.so.13" in answer["import_trouble"]
    assert answer["version"] == ""


def test_compute_capabilities_come_from_the_library(module: Any) -> None:
    code = "class ComputeCapability:\n    NONE = CURRENT = SM89 = SM120 = 0\n__version__ = '1.7'"
    answer = machine._ask(module(code), only_build=True)
    assert sorted(answer["builds_for"]) == ["12.0", "8.9"]


def test_tensorrt_is_not_touched_without_a_gpu(module: Any) -> None:
    answer = machine._ask(module("import os; os.abort()"))
    if not answer["gpu_trouble"]:
        pytest.skip("this machine has a GPU")
    assert answer["version"] == ""


def test_auto_goes_on_and_warns_only_of_what_is_installed(
    tmp_path: Path, answers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes_package, "ORDER", ("absent", "tensorrt", "onnxruntime"))
    answers(NO_DRIVER)
    runtime = open_runtime(write_threshold_model(tmp_path / "model.onnx"))
    assert runtime.name == "onnxruntime"
    assert list(runtime.skipped_runtimes) == ["absent", "tensorrt"]
    (warning,) = runtime.warnings
    assert "no NVIDIA driver" in warning
