# SPDX-License-Identifier: Apache-2.0
"""kill -9 of segmentation_node in every state, with real processes: motion ends, and comes back
only when a new one has tracked for long enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install the extra 'ros'")

from guard_bench import PATIENT, RECOVERY_S, Heard, guard, listen
from model_fixture import write_threshold_model
from ros_peer import running, wait_until
from segmentation_bench import EMPTY, MODULE, Bench, segmentation_bench

from fedefm_ros.qos import permission_qos

pytestmark = [pytest.mark.ros, pytest.mark.slow]

STOPS_WITHIN_S = 0.1
ATTEMPTS = 4  # a busy machine may hold up any of the processes
# The default silence of `state`, and patience with all else.
SETTINGS = (*(s for s in PATIENT if "state_timeout" not in s), "state_timeout_s:=0.08")


def lose(bench: Bench, heard: Heard) -> None:
    bench.send_until_state("LOST", EMPTY)


def starve(bench: Bench, heard: Heard) -> None:
    wait_until(lambda: bench.state() == "STALE", "STALE")


def deactivate(bench: Bench, heard: Heard) -> None:
    assert bench.peer.change_state("/segmentation_node", "deactivate")


STATES: dict[str, Callable[[Bench, Heard], None]] = {
    "LOST": lose,
    "STALE": starve,
    "inactive": deactivate,
}


@pytest.mark.parametrize("state", STATES)
def test_killed_while_motion_is_forbidden_it_stays_so(tmp_path: Path, state: str) -> None:
    model = write_threshold_model(tmp_path / "threshold.onnx")
    with (
        segmentation_bench(model, tmp_path / "first.txt") as bench,
        guard(tmp_path / "guard.txt", *SETTINGS),
    ):
        heard = listen(bench.peer, permission_qos())
        bench.start()
        bench.send_until(heard.permits, "permission")
        STATES[state](bench, heard)
        wait_until(heard.forbids, "no permission")
        heard.permitted.clear()
        bench.process.kill()
        bench.send_until(lambda: len(heard.permitted) > 80, "a second of answers")
        assert not any(yes for _, yes in heard.permitted)
        assert_earned_by_another(bench, heard, model, tmp_path / "second.txt")


def test_killed_in_tracking_motion_ends_within_100_ms(tmp_path: Path) -> None:
    model = write_threshold_model(tmp_path / "threshold.onnx")
    delays = []
    for attempt in range(ATTEMPTS):
        with (
            segmentation_bench(model, tmp_path / f"first_{attempt}.txt") as bench,
            guard(tmp_path / f"guard_{attempt}.txt", *SETTINGS),
        ):
            heard = listen(bench.peer, permission_qos())
            bench.start()
            bench.send_until(heard.permits, "permission")
            killed_s = time.monotonic()
            bench.process.kill()
            wait_until(heard.forbids, "no permission", every=0.001)
            delays.append(next(at for at, yes in heard.permitted if not yes and at > killed_s))
            delays[-1] -= killed_s
            assert_earned_by_another(bench, heard, model, tmp_path / f"second_{attempt}.txt")
        if min(delays) <= STOPS_WITHIN_S:
            return
    pytest.fail(f"seconds from kill -9 to false: {delays}")


def assert_earned_by_another(bench: Bench, heard: Heard, model: Path, log: Path) -> None:
    """A node that starts anew, as launch starts it, and what it must show first."""
    for messages in bench.heard.values():
        messages.clear()
    heard.permitted.clear()
    start = ("-p", f"model:={model}", "-p", "threads:=1", "-p", "autostart:=true")
    with running(MODULE, log, *start):
        bench.send_until(lambda: bench.heard["state"] and bench.state() == "TRACKING", "TRACKING")
        tracked_s = time.monotonic()
        early = [yes for _, yes in heard.permitted]
        bench.send_until(heard.permits, "permission again")
        permitted_s = next(at for at, yes in heard.permitted if yes)
        assert not any(early[:-1])
        assert permitted_s - tracked_s > RECOVERY_S / 2
