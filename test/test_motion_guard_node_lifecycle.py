# SPDX-License-Identifier: Apache-2.0
"""motion_guard_node from start to end, over DDS: how it begins, how it dies, and who notices.

Each test has a guard of its own. That needs a module of its own: a second guard on a topic, such
as one that many tests share, would speak for the first.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install the extra 'ros'")

from diagnostic_msgs.msg import DiagnosticStatus
from guard_bench import fake_process, guard, guard_bench, listen
from model_fixture import write_threshold_model
from rclpy.event_handler import SubscriptionEventCallbacks
from ros_peer import peer, wait_until
from segmentation_bench import EMPTY, segmentation_bench
from std_msgs.msg import Float64

from fedefm_ros.qos import output_qos, permission_qos

pytestmark = pytest.mark.ros

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "integration.md"


def test_without_anything_to_watch_nothing_is_ever_permitted(tmp_path: Path) -> None:
    with peer() as robot:
        heard = listen(robot, permission_qos())
        with guard(tmp_path / "log.txt"):
            wait_until(lambda: len(heard.permitted) >= 200 and heard.reasons, "200 answers")
            assert not any(permitted for _, permitted in heard.permitted)
            assert heard.values()["reason"] == "starting"
            assert heard.reasons[-1].status[0].level == DiagnosticStatus.WARN


def test_a_wrong_parameter_ends_the_guard_with_a_sentence(tmp_path: Path) -> None:
    with guard(tmp_path / "log.txt", "max_jump_px:=-1.0", "instrument:=stent") as process:
        assert process.wait() == 1
        assert "'max_jump_px' must be a double from 1.0 to 10000.0 pixels" in process.output
        assert "'instrument' must be one of guidewire, catheter (got 'stent'" in process.output
        assert "Traceback" not in process.output


# --- the guard's own end ----------------------------------------------------------------------


def test_a_killed_guard_is_noticed_by_who_listens(tmp_path: Path) -> None:
    """Deadline and liveliness, in the words of a consumer: it need not poll anything."""
    events: list[tuple[str, float]] = []

    def note(name: str) -> Callable[[object], None]:
        return lambda event: events.append((name, time.monotonic()))

    with peer() as robot, guard(tmp_path / "log.txt") as process:
        heard = listen(
            robot,
            permission_qos(),
            event_callbacks=SubscriptionEventCallbacks(
                deadline=note("deadline"), liveliness=note("liveliness")
            ),
        )
        wait_until(lambda: len(heard.permitted) >= 100, "a hundred answers")
        killed_s = time.monotonic()
        process.kill()

        def noticed() -> set[str]:
            return {name for name, at in events if at > killed_s}

        wait_until(lambda: noticed() == {"deadline", "liveliness"}, "both events")
        count = len(heard.permitted)
        wait_until(lambda: len(events) >= 5, "the deadline again and again")
        assert len(heard.permitted) == count


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_guard_with_code_0_and_a_last_no(tmp_path: Path, number: int) -> None:
    with guard_bench(tmp_path / "log.txt") as bench:
        bench.earn()
        bench.process.interrupt(number)
        bench.process.interrupt(number)
        assert bench.process.wait() == 0, bench.process.output
        assert not bench.process.has_orphans()
        assert "Traceback" not in bench.process.output
        wait_until(bench.heard.forbids, "a last no")


# --- with the node that it watches ------------------------------------------------------------


def test_with_segmentation_node(tmp_path: Path) -> None:
    """Its real messages earn permission, and an empty image ends it."""
    model = write_threshold_model(tmp_path / "threshold.onnx")
    with (
        segmentation_bench(model, tmp_path / "segmentation.txt") as segmentation,
        guard(tmp_path / "guard.txt"),
    ):
        heard = listen(segmentation.peer, permission_qos())
        segmentation.start()
        wait_until(lambda: heard.permitted and heard.reasons, "the guard")

        def reason() -> str:
            return heard.values()["reason"]

        segmentation.send_until(heard.permits, "permission")
        segmentation.send_until(lambda: reason() in ("lost", "no_frame"), "no tip", EMPTY)
        assert heard.forbids()
        segmentation.send_until(lambda: reason() == "lost", "LOST", EMPTY)
        segmentation.send_until(heard.permits, "permission again")
        wait_until(heard.forbids, "silence")
        wait_until(lambda: reason() == "stale", "STALE")


# --- the controller in the documents ----------------------------------------------------------


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Return the controller of docs/integration.md in a process, and its log."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    script, log = tmp_path / "controller.py", tmp_path / "controller.txt"
    script.write_text(code)
    with log.open("wb") as stream:
        process = subprocess.Popen([sys.executable, script], stdout=stream, stderr=stream)
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()


def test_the_controller_in_the_documents_moves_only_with_permission(
    controller: tuple[subprocess.Popen[bytes], Path], tmp_path: Path
) -> None:
    _, log = controller
    with peer() as robot, fake_process():
        speeds = robot.listen("insertion_speed", Float64, output_qos())
        wait_until(lambda: len(speeds) >= 50, "commands")
        assert not any(speed.data for speed in speeds)
        with guard(tmp_path / "guard.txt") as process:
            wait_until(lambda: speeds[-1].data > 0, "motion")
            process.kill()
            wait_until(lambda: speeds[-1].data == 0, "a stop")
            wait_until(lambda: "Stopped: " in log.read_text(), "the reason")
        speeds.clear()
        wait_until(lambda: len(speeds) >= 50, "commands")
        assert not any(speed.data for speed in speeds)
        assert re.search("Stopped: the guard (is silent|is gone)", log.read_text())
