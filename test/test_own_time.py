# SPDX-License-Identifier: Apache-2.0
"""The closed loop in its own time, with a network that is always right."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install the extra 'ros'")

from model_fixture import write_threshold_model

from fedefm_core.perception import Segmenter, open_runtime
from fedefm_core.simulation.vessel_tree import SIZE
from fedefm_ros.navigate_report import figures
from fedefm_ros.own_time import Times, play
from fedefm_ros.simulated_view import TROUBLE_LASTS_S

TIMES = Times(camera_hz=8.0, longest_s=40.0)
LONGEST_GAP_S = 2.7 / TIMES.camera_hz  # by the guard's defaults
PERIOD_S = 1 / TIMES.camera_hz


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    model = write_threshold_model(tmp_path_factory.mktemp("model") / "thr.onnx", (SIZE, SIZE))
    return Segmenter(open_runtime(model, "onnxruntime", 1))


def test_the_target_is_reached_without_a_stop(segmenter: Segmenter) -> None:
    found = figures(play(segmenter, 0, times=TIMES))
    assert found["reached"]
    assert found["stops"] == 0
    assert found["samples_that_moved"] > 100
    assert found["samples_that_moved_without_permission"] == 0
    assert found["path_error_mm"]["max"] < 4.0


def test_the_same_case_gives_the_same_run(segmenter: Segmenter) -> None:
    short = Times(camera_hz=8.0, longest_s=4.0)
    assert figures(play(segmenter, 1, times=short)) == figures(play(segmenter, 1, times=short))


@pytest.mark.parametrize("trouble", ["frame_loss", "latency"])
def test_frames_that_fail_to_come_end_motion(segmenter: Segmenter, trouble: str) -> None:
    found = figures(play(segmenter, 0, trouble, TIMES))
    assert found["reached"]
    assert found["stops"] >= 1
    seen = found["detection"]
    assert seen["permitted_before"]
    assert 0 < seen["delay_s"] <= LONGEST_GAP_S + 2 * PERIOD_S
    assert found["seconds"] > TROUBLE_LASTS_S
    assert found["samples_that_moved_without_permission"] == 0
    assert found["last_motion_after_permission_ms"] <= 20.0  # a step of the robot
