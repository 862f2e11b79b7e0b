# SPDX-License-Identifier: Apache-2.0
"""segmentation_node where TensorRT is meant and cannot be used: it works on, and says so."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install the extra 'ros'")

import segmentation_bench as benches
from diagnostic_msgs.msg import DiagnosticStatus
from model_fixture import write_threshold_model
from ros_peer import wait_until
from segmentation_bench import NODE, segmentation_bench

from fedefm_ros import interface

pytestmark = pytest.mark.ros


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_threshold_model(tmp_path / "threshold.onnx")


def find_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes that are started find their modules in a folder first."""
    known = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), known]))


def test_a_tensorrt_that_cannot_run_is_a_warning(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    (broken / "cuda" / "bindings").mkdir(parents=True)
    for file in (broken / "cuda", broken / "cuda" / "bindings"):
        (file / "__init__.py").write_text("")
    (broken / "tensorrt.py").write_text("import os; os.abort()")
    find_first(broken, monkeypatch)
    never_stale = ("-p", "image_timeout:=0.0", "-p", "max_age:=0.0")  # on a busy machine
    with segmentation_bench(model, tmp_path / "log.txt", *never_stale) as bench:
        bench.start()
        bench.send_until_state("TRACKING")
        bench.clear(interface.DIAGNOSTICS)
        bench.send_until(lambda: bench.heard[interface.DIAGNOSTICS], "diagnostics")
        told = bench.status(interface.DIAGNOSTICS)
        assert told.level == DiagnosticStatus.WARN
        assert "TRACKING" in told.message
        assert "Not on the runtime meant" in told.message
        values = bench.values(interface.DIAGNOSTICS)
        assert values["runtime"] == "openvino"
        assert "tensorrt" in values["warning"].lower()


def test_a_build_is_told_and_its_failure_too(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on = tmp_path / "going_on"
    going_on.touch()
    monkeypatch.setenv("FAKE_BUILD_GOES_ON", str(going_on))
    monkeypatch.setattr(benches, "MODULE", "node_that_builds")
    find_first(Path(__file__).parent, monkeypatch)
    with segmentation_bench(model, tmp_path / "log.txt", "-p", "build_engine:=true") as bench:
        configured: list[bool] = []
        waits = threading.Thread(
            target=lambda: configured.append(bench.peer.change_state(NODE, "configure"))
        )
        waits.start()
        wait_until(lambda: bench.heard[interface.DIAGNOSTICS], "progress of the build")
        told = bench.status(interface.DIAGNOSTICS)
        assert told.level == DiagnosticStatus.WARN
        assert "25 % after 5 s, about 15 s left: timing" in told.message
        going_on.unlink()
        waits.join()
        assert configured == [True]
        wait_until(lambda: "no kernel for this layer" in bench.process.output, "the reason")


def test_a_signal_ends_a_build(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on = tmp_path / "going_on"
    going_on.touch()
    monkeypatch.setenv("FAKE_BUILD_GOES_ON", str(going_on))
    monkeypatch.setattr(benches, "MODULE", "node_that_builds")
    find_first(Path(__file__).parent, monkeypatch)
    arguments = ("-p", "build_engine:=true", "-p", "autostart:=true")
    with segmentation_bench(model, tmp_path / "log.txt", *arguments) as bench:
        wait_until(lambda: bench.heard[interface.DIAGNOSTICS], "progress of the build")
        bench.process.process.send_signal(signal.SIGINT)
        assert bench.process.process.wait(timeout=60) == 0
