# SPDX-License-Identifier: Apache-2.0
"""make navigate: all nodes as processes, over DDS, with a network that is always right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install the extra 'ros'")

from model_fixture import write_threshold_model

from fedefm_core.frames.bag import recorded_topics
from fedefm_core.simulation.vessel_tree import SIZE

pytestmark = pytest.mark.ros
TIMEOUT_S = 900.0


def navigate(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fedefm_ros.navigate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)


@pytest.mark.slow
def test_a_case_with_and_one_without_trouble(tmp_path: Path, ros_domain_id: int) -> None:
    model = write_threshold_model(tmp_path / "threshold.onnx", (SIZE, SIZE))
    out = tmp_path / "out"
    result = navigate(
        *("--out", out, "--model", model, "--runtime", "onnxruntime", "--domain", ros_domain_id),
        *("--seeds", 1, "--troubles", "frame_loss"),
    )
    assert result.returncode == 0, result.stderr
    report = json.loads((out / "report.json").read_text())
    assert [case["trouble"] for case in report["cases"]] == ["none", "frame_loss"]
    assert all(case["reached"] for case in report["cases"])
    assert all(case["samples_that_moved"] > 50 for case in report["cases"])
    assert report["motion_without_permission"] == 0
    lost = report["cases"][1]
    assert lost["stops"] >= 1
    if lost["detection"]["permitted_before"]:
        assert lost["detection"]["delay_s"] is not None
    for name in ("navigate.mp4", "navigate.png", "troubles.png"):
        assert (out / name).stat().st_size > 1000
    topics = recorded_topics(out / "recordings" / "none_0000")
    assert {"/image", "/mask", "/motion_permitted", "/robot/measured_js"} <= topics.keys()


@pytest.mark.slow
def test_a_case_in_a_time_of_its_own(tmp_path: Path) -> None:
    model = write_threshold_model(tmp_path / "threshold.onnx", (SIZE, SIZE))
    out = tmp_path / "new" / "out"
    result = navigate(
        *("--own-time", "--out", out, "--model", model, "--runtime", "onnxruntime"),
        *("--seeds", 1, "--troubles", ""),
    )
    assert result.returncode == 0, result.stderr
    report = json.loads((out / "report.json").read_text())
    assert [case["reached"] for case in report["cases"]] == [True]
    assert report["motion_without_permission"] == 0
    assert (out / "navigate.png").stat().st_size > 1000


def test_a_wrong_command_line_is_told(tmp_path: Path) -> None:
    result = navigate("--out", tmp_path, "--troubles", "earthquake")
    assert result.returncode == 2
    assert "earthquake" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_model_that_is_not_there_is_told_before_anything_starts(tmp_path: Path) -> None:
    result = navigate("--out", tmp_path / "out", "--model", tmp_path / "nowhere.onnx")
    assert result.returncode == 1
    assert result.stderr.startswith("Error: ")
    assert not (tmp_path / "out").exists()
