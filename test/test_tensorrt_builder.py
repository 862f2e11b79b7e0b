# SPDX-License-Identifier: Apache-2.0
"""Building: settings, progress, interruption, and every way in which a build can end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_tensorrt as trt
import numpy as np
import onnx
import pytest
from cli_runner import run_cli
from model_fixture import write_threshold_model
from onnx import TensorProto, helper, numpy_helper

from fedefm_core.errors import EngineError, OutputError
from fedefm_core.perception.runtimes import tensorrt
from fedefm_core.perception.runtimes.tensorrt import build_process, cache
from fedefm_core.perception.runtimes.tensorrt.builder import (
    BuildSettings,
    build_plan,
    check_quantisation,
)
from fedefm_core.perception.runtimes.tensorrt.machine import Machine
from fedefm_core.perception.runtimes.tensorrt.progress import Progress, ProgressTracker

MACHINE = Machine("TensorRT", "fake_tensorrt", trt.__version__, "NVIDIA H100", "9.0", "580.65.06")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_threshold_model(tmp_path / "model.onnx")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of engines; the child finds the fake TensorRT."""
    paths = [str(Path(trt.__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "engines"))
    return tmp_path / "engines"


def test_settings_reach_the_builder() -> None:
    settings = BuildSettings(optimisation_level=5, workspace_mib=2)
    plan, timed = build_plan(trt, b"model", settings, b"earlier")
    assert plan == b"flags 2 level 5 workspace 2097152 cache earlier"
    assert timed == b"earlier"


def test_timings_are_kept_only_where_there_are_any() -> None:
    without = BuildSettings(timing_cache=False)
    assert build_plan(trt, b"model", without)[1] == b""
    assert build_plan(trt, b"model", BuildSettings(), flavour="TensorRT-RTX")[1] == b""


def test_timings_of_another_gpu_are_forgotten() -> None:
    plan, timed = build_plan(trt, b"model", BuildSettings(), b"of another GPU")
    assert plan.endswith(b"cache ")
    assert timed == b"timed"


def test_a_release_without_the_flag_is_always_strongly_typed(monkeypatch: Any) -> None:
    monkeypatch.delattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    assert build_plan(trt, b"model", BuildSettings())[0].startswith(b"flags 0 ")


def test_tensorrts_own_reasons_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="cannot read the model: no such operator"):
        build_plan(trt, b"bad", BuildSettings())
    monkeypatch.setenv("FAKE_TENSORRT", "refuse")
    with pytest.raises(EngineError, match="cannot build the engine: no kernel for this layer"):
        build_plan(trt, b"model", BuildSettings())


def test_a_build_ends_when_told() -> None:
    told: list[Progress] = []

    def tell(progress: Progress) -> bool:
        told.append(progress)
        return len(told) < 2

    with pytest.raises(EngineError, match="interrupted"):
        build_plan(trt, b"model", BuildSettings(), tell=tell)
    assert [progress.fraction for progress in told] == [0.25, 0.5]


def test_progress_of_nested_phases() -> None:
    times: Iterator[float] = iter([0.0, 10.0, 30.0, 40.0])
    tracker = ProgressTracker(lambda: next(times))
    tracker.start("build", None, 2)
    tracker.start("time", "build", 4)
    tracker.step("time", 0)
    assert tracker.now() == Progress(0.125, 10.0, 70.0, "time")
    tracker.finish("time")
    tracker.step("build", 0)
    assert tracker.now() == Progress(0.5, 30.0, 30.0, "build")
    tracker.finish("build")
    assert tracker.now() == Progress(1.0, 40.0, 0.0, "starting")


def test_progress_never_goes_back_and_begins_without_a_guess() -> None:
    tracker = ProgressTracker(lambda: 0.0)
    assert tracker.now().eta_s is None
    tracker.start("a", None, 2)
    tracker.step("a", 0)
    assert tracker.now().fraction == 0.5
    tracker.start("a", None, 10)
    assert tracker.now().fraction == 0.5
    tracker.step("unknown", 3)
    tracker.finish("unknown")


def test_progress_in_words() -> None:
    assert str(Progress(0.25, 5.0, 125.0, "x")) == "25 % after 5 s, about 2 min 5 s left: x"
    assert str(Progress(0.0, 0.0, None, "x")) == "0 % after 0 s: x"


def quantised(path: Path, kind: Any, zero: int) -> Path:
    """A file with one quantiser of an element type and a zero point."""
    node = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])
    graph = helper.make_graph(
        [node],
        "q",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(kind), [1])],
        [
            numpy_helper.from_array(np.array(0.1, np.float32), "scale"),
            numpy_helper.from_array(np.array(zero, kind), "zero"),
        ],
    )
    onnx.save(helper.make_model(graph), path)
    return path


def test_only_int8_around_zero_is_taken(tmp_path: Path, model: Path) -> None:
    check_quantisation(model)
    check_quantisation(quantised(tmp_path / "int8.onnx", np.dtype(np.int8), 0))
    for kind, zero in ((np.uint8, 0), (np.int8, 3)):
        path = quantised(tmp_path / "bad.onnx", np.dtype(kind), zero)
        with pytest.raises(EngineError, match=r"it would clip them.*--activations int8"):
            check_quantisation(path)


def test_an_engine_is_built_in_a_process_and_kept(model: Path, folder: Path) -> None:
    told: list[Progress] = []
    entry = build_process.build_engine(model, folder, MACHINE, BuildSettings(), told.append)
    assert cache.load(folder, entry.key).startswith(b"flags 2 level 3")
    assert cache.timings_file(folder, MACHINE).read_bytes() == b"timed"
    assert told[-1].fraction == 1.0
    again = build_process.build_engine(model, folder, MACHINE, BuildSettings())
    assert cache.load(folder, again.key).endswith(b"cache timed")


@pytest.mark.parametrize(
    ("does", "words"),
    [("crash", r"ended the process that built the engine \(SIGABRT\)"), ("refuse", "no kernel")],
)
def test_a_failed_build_leaves_nothing(
    model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, does: str, words: str
) -> None:
    monkeypatch.setenv("FAKE_TENSORRT", does)
    with pytest.raises(EngineError, match=words):
        build_process.build_engine(model, folder, MACHINE, BuildSettings())
    assert list(folder.iterdir()) == []


def test_a_build_that_would_not_end_can_be_stopped(
    model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TENSORRT", "hang")
    told: list[Progress] = []
    with pytest.raises(EngineError, match="interrupted"):
        build_process.build_engine(
            model, folder, MACHINE, BuildSettings(), told.append, lambda: bool(told)
        )
    assert list(folder.iterdir()) == []


def test_no_long_build_before_the_folder_is_known_to_work(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    nowhere = Machine("TensorRT", "no_such_module", "11", "", "", "")
    with pytest.raises(OutputError, match="Cannot write"):
        build_process.build_engine(model, tmp_path / "file" / "x", nowhere, BuildSettings())


def test_a_full_temporary_folder_is_told(
    model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Path("/dev/full")
    write_bytes = Path.write_bytes
    monkeypatch.setattr(build_process, "build_plan", lambda *arguments: (b"plan" * 100_000, b""))
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: write_bytes(full, data))
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(build_process, "_say", lambda line: bool(lines.append(line)) or True)
    order = {"module": "fake_tensorrt", "flavour": "TensorRT", "model": str(model)}
    build_process.obey(order | {"settings": {}, "timings": "none", "results": "/nowhere"})
    assert "No space left on device" in lines[-1]["error"]


def test_ensure_builds_once_and_mends(model: Path, folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tensorrt, "probe", lambda: MACHINE)
    assert tensorrt.ensure_engine(model)
    assert not tensorrt.ensure_engine(model)
    (plan,) = folder.glob("*" + cache.PLAN)
    plan.write_bytes(plan.read_bytes()[:9])
    assert tensorrt.ensure_engine(model)
    assert run_cli("engine", "verify").code == 0


def test_the_verb_builds_and_says_where(model: Path, folder: Path, monkeypatch: Any) -> None:
    from fedefm_core.perception.runtimes.tensorrt import machine

    monkeypatch.setattr(machine, "probe_builder", lambda: MACHINE)
    result = run_cli("engine", "build", model, "--optimisation-level", 1)
    assert result.code == 0, result.err
    assert f"TensorRT {trt.__version__} builds {model} for NVIDIA H100" in result.out
    assert str(folder) in result.out
    result = run_cli("engine", "build", model, "--optimisation-level", 6)
    assert result.code == 1
    assert "optimisation_level" in result.err
