# SPDX-License-Identifier: Apache-2.0
"""Figures of the closed loop: closed forms, and a recording of which all is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="needs ROS 2: pip install the extra 'ros'")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point, PointStamped, PoseWithCovarianceStamped
from rclpy.serialization import serialize_message
from sensor_msgs.msg import JointState
from std_msgs.msg import Header, String

from fedefm_core.errors import OutputError
from fedefm_core.simulation.navigation_case import PIXEL_MM, random_case
from fedefm_ros import bag_writer, interface
from fedefm_ros.bag_writer import BagWriter
from fedefm_ros.messages import ns_to_stamp, status_message
from fedefm_ros.navigate import Options, Pace, guarding
from fedefm_ros.navigate_report import (
    MAY_STOP_WITHIN_S,
    Span,
    Track,
    after_permission_s,
    detection,
    figures,
    moving,
    read_episode,
    spans,
    summarise,
    summary_row,
)

SEED = 3
BEGIN_NS = 1_700_000_000_000_000_000
TARGET_MM = random_case(SEED).plan.path[-1] * PIXEL_MM


def drive(*positions: float, period_s: float = 0.02) -> Track:
    rows = np.array(positions)[:, None]
    return Track(np.arange(len(rows)) * period_s, np.hstack([rows, 0 * rows]))


# --- motion and permission --------------------------------------------------------------------


def test_spans_begin_with_a_yes_and_end_with_a_no() -> None:
    assert spans([1, 2, 3, 4, 5], [False, True, True, False, True], 9) == [Span(2, 4), Span(5, 9)]
    assert spans([], [], 9) == []


def test_a_sample_that_lies_elsewhere_has_moved() -> None:
    assert moving(drive(0, 0, 1, 1, 0)).tolist() == [False, False, True, False, True]
    assert moving(drive(1)).tolist() == [False]
    turned = Track(np.arange(2.0), np.array([[0.0, 0.0], [0.0, 0.1]]))
    assert moving(turned).tolist() == [False, True]


def test_motion_is_dated_by_the_end_of_the_last_permission() -> None:
    track = drive(0, 1, 2, 3, 4, 5, period_s=1.0)
    late = after_permission_s(track, [Span(2.0, 2.5), Span(4.0, 9.0)])
    assert late.tolist() == [math.inf, 0.0, 0.5, 0.0, 0.0]
    assert np.isinf(after_permission_s(track, [])).all()


@given(st.lists(st.booleans(), min_size=2, max_size=40), st.lists(st.booleans(), max_size=40))
def test_who_moves_only_while_permitted_is_never_late(moves: list[bool], yes: list[bool]) -> None:
    yes = (yes + [False] * len(moves))[: len(moves)]
    steps = [move and ok for move, ok in zip(moves, yes, strict=True)]
    track = drive(*np.cumsum(steps).tolist(), period_s=1.0)
    permitted = spans(range(len(yes)), yes, len(yes))
    assert not after_permission_s(track, permitted).any()


# --- a recording ------------------------------------------------------------------------------


def write_case(path: Path, late_s: float) -> Path:
    """Five seconds: permission from 1 s to 3 s, in which the wire is fed by 20 mm, and late_s
    longer; trouble from 2 s on; the tip lies at the target and is seen 1 mm beside it."""
    kinds = {**interface.GUARD_OUTPUTS, **interface.LOOP_TOPICS}
    kinds[interface.tip("guidewire")] = PoseWithCovarianceStamped
    bag = BagWriter(path, {f"/{name.lstrip('/')}": kind for name, kind in kinds.items()})

    def write(name: str, seconds: float, message: object) -> None:
        at_ns = BEGIN_NS + round(seconds * 1e9)
        if hasattr(message, "header"):
            message.header.stamp = ns_to_stamp(at_ns)
        bag.write(f"/{name}", serialize_message(message), at_ns)

    x, y = (float(value) / 1000 for value in TARGET_MM)
    for step in range(251):
        seconds = step * 0.02
        fed = float(np.clip(seconds - 1.0, 0.0, 2.0 + late_s)) / 100
        write(interface.ROBOT_JOINTS, seconds, joints(fed))
    for seconds, yes in ((0.0, "false"), (1.0, "true"), (3.0, "false")):
        values = {"permitted": yes, "withdrawn_by": "jump"}
        write(interface.MOTION_STATE, seconds, status(values))
    for step in range(50):
        seconds = step * 0.1
        write(interface.TRUE_TIP, seconds, PointStamped(header=Header(), point=Point(x=x, y=y)))
        seen = PoseWithCovarianceStamped()
        seen.pose.pose.position = Point(x=x + 0.001, y=y)
        write(interface.tip("guidewire"), seconds, seen)
        write(interface.TROUBLE, seconds, String(data="noise" if 2 <= seconds < 4 else "none"))
    write(
        interface.NAVIGATION_STATE, 4.9, status({"seed": SEED, "phase": "REACHED", "retries": 2})
    )
    bag.close()
    return path


def joints(fed_m: float) -> JointState:
    """With all fields: after an empty last one serialize_message leaves bytes, DDS does not."""
    nothing = [0.0, 0.0]
    names = list(interface.JOINTS)
    return JointState(name=names, position=[fed_m, 0.0], velocity=nothing, effort=nothing)


def status(values: dict[str, object]) -> DiagnosticArray:
    return status_message(ns_to_stamp(0), "test", b"\0", str(values.get("phase", "")), values)


def test_figures_of_a_recording(tmp_path: Path) -> None:
    episode = read_episode(write_case(tmp_path / "bag", late_s=0.06), SEED, "noise")
    found = figures(episode)
    assert found["reached"]
    assert (found["seconds"], found["stops"], found["retries"]) == (5.0, 1, 2)
    assert found["stops_by_reason"] == {"jump": 1}
    assert found["final_error_mm"] == pytest.approx(0.0, abs=0.01)
    assert found["tip_error_mm"]["max"] == pytest.approx(1.0, abs=0.01)
    assert found["permitted_share"] == pytest.approx(0.4)
    assert found["samples"] == 251
    assert found["last_motion_after_permission_ms"] == pytest.approx(60.0, abs=1.0)
    assert found["samples_that_moved_without_permission"] == 0
    assert found["detection"] == {
        "permitted_before": True,
        "delay_s": pytest.approx(1.0),
        "worst_tip_error_mm": pytest.approx(1.0),
        "permitted_tip_error_mm": pytest.approx(1.0),
        "moved_mm": pytest.approx(10.6, abs=0.3),
    }
    assert detection(episode, Span(4.5, 4.9))["permitted_before"] is False


def test_motion_that_goes_on_is_told(tmp_path: Path) -> None:
    """Each sample counts: 0.5 s of motion, of which 0.1 s may pass."""
    episode = read_episode(write_case(tmp_path / "bag", late_s=0.5), SEED, "noise")
    report = summarise([episode])
    assert report["motion_without_permission"] == round((0.5 - MAY_STOP_WITHIN_S) / 0.02)
    row = report["by_trouble"]["noise"]
    assert summary_row("noise", row)[1:3] == ("1 of 1", "5 s")
    assert row["detection"]["detected"] == 1


def test_a_recording_never_replaces_another(tmp_path: Path) -> None:
    BagWriter(tmp_path / "bag", {}).close()
    with pytest.raises(OutputError, match="Cannot record to"):
        BagWriter(tmp_path / "bag", {})


def test_names_of_message_types() -> None:
    assert bag_writer.type_name(JointState) == "sensor_msgs/msg/JointState"


# --- the run ----------------------------------------------------------------------------------


def test_cases_come_in_order_and_each_trouble_has_its_own() -> None:
    options = Options(Path(), 3, 10, ("noise", "latency"), 1, 0.0, "", "auto", 0, False)
    assert options.cases == [
        ("none", 10), ("none", 11), ("none", 12), ("noise", 10), ("latency", 10)
    ]  # fmt: skip


def test_a_machine_that_is_fast_enough_has_the_guards_own_limits() -> None:
    fast, slow = guarding(Pace(30.0, 15.0)), guarding(Pace(5.0, 3.0))
    assert fast["state_timeout_s"] == pytest.approx(0.08)
    assert fast["max_pause_s"] == pytest.approx(0.1)
    assert slow["state_timeout_s"] == pytest.approx(0.16)
    assert slow["camera_rate_hz"] == 3.0
