# SPDX-License-Identifier: Apache-2.0
"""motion_guard_node over DDS: when it permits, what takes permission away, and how it dies."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2: pip install the extra 'ros'")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from guard_bench import (
    BEAT_S,
    MASK,
    NODE,
    RECOVERY_S,
    GuardBench,
    fake_process,
    guard,
    guard_bench,
)
from rclpy.qos import QoSDurabilityPolicy, QoSLivelinessPolicy, QoSReliabilityPolicy
from ros_peer import wait_until

from fedefm_core.perception import TrackPhase
from fedefm_ros import interface, status
from fedefm_ros.health import LastResult, State, Verdict
from fedefm_ros.messages import ns_to_stamp
from fedefm_ros.motion_guard import Decision, Reason
from fedefm_ros.motion_guard_node import LABELS, level_of, read_report
from fedefm_ros.motion_guard_parameters import SPECS, guard_settings
from fedefm_ros.parameters import refusal

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = REPOSITORY / "config" / "motion_guard.yaml"
DOCUMENT = REPOSITORY / "docs" / "integration.md"

ros = pytest.mark.ros


@pytest.fixture(scope="module")
def running_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardBench]:
    with guard_bench(tmp_path_factory.mktemp("guard") / "log.txt") as made:
        yield made


@pytest.fixture
def bench(running_bench: GuardBench) -> GuardBench:
    """Return a guard that does not permit motion, because it hears nothing."""
    wait_until(running_bench.heard.forbids, "no permission")
    running_bench.heard.permitted.clear()
    running_bench.heard.reasons.clear()
    return running_bench


# --- permission -------------------------------------------------------------------------------


@ros
def test_good_tracking_earns_permission_but_not_before_its_time(bench: GuardBench) -> None:
    wait_until(bench.fake.connected, "the guard listens")
    bench.heard.permitted.clear()
    start_s = time.monotonic()
    bench.earn()
    assert bench.heard.permitted[-1][0] - start_s >= RECOVERY_S
    told = {
        (m.status[0].level, m.status[0].message.partition(":")[0]) for m in bench.heard.reasons
    }
    assert (DiagnosticStatus.WARN, "Not permitted") in told


@ros
def test_the_answer_comes_at_least_fifty_times_a_second(bench: GuardBench) -> None:
    def beats() -> bool:
        """Of any twenty in a row: the machine may be busy, but a slow timer never gets there."""
        times = [at for at, _ in bench.heard.permitted]
        return any(b - a <= 19 / 50 for a, b in zip(times, times[19:], strict=False))

    wait_until(beats, "twenty answers at 50 Hz")


@ros
def test_quality_of_service(bench: GuardBench) -> None:
    (offered,) = bench.peer.node.get_publishers_info_by_topic(f"/{interface.MOTION_PERMITTED}")
    qos = offered.qos_profile
    assert qos.reliability is QoSReliabilityPolicy.RELIABLE
    assert qos.durability is QoSDurabilityPolicy.VOLATILE
    assert qos.liveliness is QoSLivelinessPolicy.MANUAL_BY_TOPIC
    assert 0 < qos.deadline.nanoseconds <= 100e6
    assert 0 < qos.liveliness_lease_duration.nanoseconds <= 100e6


# --- trouble ----------------------------------------------------------------------------------

TROUBLES: dict[str, Callable[[GuardBench], object]] = {
    "lost": lambda bench: bench.fake.frame(State.LOST),
    "stale": lambda bench: bench.fake.frame(State.STALE, None),
    "fault": lambda bench: bench.fake.frame(State.FAULT, None),
    "jump": lambda bench: bench.fake.frame(tip_px=np.array([63.0, 33.0])),
    "length": lambda bench: bench.fake.frame(length_px=100.0),
    "covariance": lambda bench: bench.fake.frame(sigma_px=20.0),
    "mask": lambda bench: bench.fake.frame(mask=np.zeros_like(MASK)),
    "not_finite": lambda bench: bench.fake.frame(tip_px=np.array([np.nan, 1.0])),
    "unreadable": lambda bench: bench.fake.state.publish(DiagnosticArray()),
    "state_silent": lambda bench: None,
}


@ros
@pytest.mark.parametrize("reason", TROUBLES)
def test_trouble_takes_permission_away_and_says_why(bench: GuardBench, reason: str) -> None:
    bench.provoke(lambda: TROUBLES[reason](bench), reason)
    status_now = bench.heard.reasons[-1].status[0]
    assert status_now.level in (DiagnosticStatus.WARN, DiagnosticStatus.ERROR)
    assert bench.heard.values()["permitted"] == "false"


@ros
def test_no_tips_takes_permission_away_while_the_state_goes_on(bench: GuardBench) -> None:
    def no_more_frames() -> None:
        wait_until(
            lambda: bench.fake.beat() or bench.heard.forbids(), "no permission", every=BEAT_S
        )

    bench.provoke(no_more_frames, "no_frame")


@ros
def test_a_killed_publisher_takes_permission_away_until_another_earns_it(
    bench: GuardBench,
) -> None:
    with fake_process() as fake:
        wait_until(bench.heard.permits, "permission")
        fake.kill()
        fake.wait()
        wait_until(bench.heard.forbids, "no permission")
    bench.heard.permitted.clear()
    wait_until(lambda: len(bench.heard.permitted) >= 100, "a hundred answers")
    assert not any(permitted for _, permitted in bench.heard.permitted)
    start_s = time.monotonic()
    with fake_process():
        wait_until(bench.heard.permits, "permission")
        assert bench.heard.permitted[-1][0] - start_s >= RECOVERY_S


@ros
def test_two_that_publish_the_same_earn_nothing(bench: GuardBench) -> None:
    with fake_process(), fake_process():
        wait_until(lambda: bench.peer.node.count_publishers("/mask") >= 3, "both")  # and ours
        told: list[str] = []

        def told_often() -> bool:
            told.append(bench.heard.values().get("reason", ""))
            return told.count("publisher") >= 20

        wait_until(told_often, "the reason")
        bench.heard.permitted.clear()
        wait_until(lambda: len(bench.heard.permitted) >= 50, "fifty answers")
        permitted = [value for _, value in bench.heard.permitted]
        assert not all(permitted)


@ros
def test_two_guards_permit_nothing(bench: GuardBench, tmp_path: Path) -> None:
    """What one permits and the other does not would depend on who spoke last."""
    with guard(tmp_path / "second.txt") as second:
        wait_until(
            lambda: bench.peer.node.count_publishers(f"/{interface.MOTION_PERMITTED}") == 2,
            "the second guard",
        )
        reasons: set[str] = set()

        def both_told() -> bool:
            bench.fake.good()
            reasons.update(
                pair.value
                for message in bench.heard.reasons
                for pair in message.status[0].values
                if pair.key == "reason"
            )
            return "publisher" in reasons

        wait_until(both_told, "the reason", every=BEAT_S)
        second.interrupt()
        assert second.wait() == 0


# --- parameters -------------------------------------------------------------------------------


@ros
def test_no_parameter_changes_while_the_guard_runs(bench: GuardBench) -> None:
    reason = bench.peer.set_parameters(NODE, max_jump_px=9000.0)
    assert "'max_jump_px' can change only at start" in reason


def test_every_default_is_right_and_reaches_the_rules() -> None:
    values = {spec.name: spec.default for spec in SPECS}
    assert [refusal(spec, spec.default) for spec in SPECS] == [None] * len(SPECS)
    settings = guard_settings({**values, "max_jump_px": 12.0})
    assert settings.max_jump_px == 12.0
    assert set(type(settings).model_fields) | {"instrument"} == values.keys()


def test_the_configuration_file_documents_every_parameter_at_its_default() -> None:
    tree = yaml.safe_load(CONFIG.read_text())
    values = tree[f"/**/{interface.GUARD_NODE_NAME}"]["ros__parameters"]
    assert values == {spec.name: spec.default for spec in SPECS}
    documented, comment = {}, []
    for line in CONFIG.read_text().splitlines():
        if line.strip().startswith("#"):
            comment.append(line.strip("# "))
        elif match := re.match(r"\s+(\w+): \S", line):
            documented[match[1]] = " ".join(comment)
            comment = []
        else:
            comment = []
    for spec in SPECS:
        assert documented[spec.name] == f"{spec.description} Expects {spec.expectation}."


# --- messages ---------------------------------------------------------------------------------


def state(**changes: str) -> DiagnosticArray:
    last = LastResult(
        7, {"guidewire": 0.9}, {"guidewire": 321.5}, {"guidewire": 1.25},
        {"guidewire": TrackPhase.BRIDGED},
    )  # fmt: skip
    message = status.state_message(Verdict(State.TRACKING, "it is"), ns_to_stamp(7), last, {})
    for pair in message.status[0].values:
        pair.value = changes.get(pair.key, pair.value)
    return message


def test_a_report_is_what_segmentation_node_says() -> None:
    report = read_report(state(), "guidewire")
    assert (report.state, report.frame_stamp_ns, report.has_tip) == ("TRACKING", 7, True)
    assert (report.track, report.length_px, report.sigma_px) == ("BRIDGED", 321.5, 1.25)
    assert report.text == "TRACKING: it is"
    catheter = read_report(state(frame_stamp_ns=""), "catheter")
    assert (catheter.frame_stamp_ns, catheter.has_tip) == (None, False)
    assert np.isnan([catheter.length_px, catheter.sigma_px]).all()


@pytest.mark.parametrize(
    "message",
    [
        DiagnosticArray(),
        DiagnosticArray(status=[DiagnosticStatus()]),
        DiagnosticArray(status=[DiagnosticStatus(), DiagnosticStatus()]),
        state(frame_stamp_ns="yesterday"),
        state(guidewire_tip="perhaps"),
        state(guidewire_length_px="long"),
    ],
)
def test_a_state_that_is_none_is_refused_with_a_sentence(message: DiagnosticArray) -> None:
    with pytest.raises(ValueError, match=r"^A state came "):
        read_report(message, "guidewire")


def test_levels() -> None:
    assert level_of(Decision(True, Reason.PERMITTED, "", 2.0)) == DiagnosticStatus.OK
    assert level_of(Decision(False, Reason.RECOVERING, "", 0.5)) == DiagnosticStatus.WARN
    assert level_of(Decision(False, Reason.FAULT, "", 0.0)) == DiagnosticStatus.ERROR
    assert LABELS.keys() == set(interface.KINDS)


# --- documents --------------------------------------------------------------------------------


def test_every_reason_is_documented() -> None:
    section = DOCUMENT.read_text().partition("## Reasons")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([a-z_, ]+) \|", section, re.MULTILINE)
    documented = [reason for cell in rows[1:] for reason in cell.split(", ")]
    assert documented == [reason.value for reason in Reason]


def test_the_guards_topics_are_documented_with_their_types() -> None:
    section = DOCUMENT.read_text().partition("## Topics")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (\w+/\w+) \|", section, re.MULTILINE)
    for name, kind in interface.GUARD_OUTPUTS.items():
        type_name = f"{kind.__module__.partition('.')[0]}/{kind.__name__}"
        assert (name, type_name) in rows
