# SPDX-License-Identifier: Apache-2.0
"""segmentation_node from start to end, over DDS: every transition, and every way to be stopped."""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install the extra 'ros'")

from model_fixture import write_threshold_model
from rclpy.qos import QoSReliabilityPolicy
from ros_peer import NodeProcess, peer, running, wait_until
from rosgraph_msgs.msg import Clock
from segmentation_bench import CAMERA_PERIOD_S, MODULE, NODE, Bench, segmentation_bench

from fedefm_core.frames import to_grey8
from fedefm_core.perception.models import DEFAULT_MODEL
from fedefm_core.simulation import simulate_sequence
from fedefm_ros import interface
from fedefm_ros.messages import ns_to_stamp
from fedefm_ros.qos import image_qos

pytestmark = pytest.mark.ros

WAYS = {
    "unconfigured": (),
    "inactive": ("configure",),
    "active": ("configure", "activate"),
    "finalized": ("shutdown",),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_threshold_model(tmp_path_factory.mktemp("model") / "threshold.onnx")


def test_a_whole_life_and_another(model: Path, tmp_path: Path) -> None:
    with segmentation_bench(model, tmp_path / "log.txt") as bench:
        assert bench.peer.get_state(NODE) == "unconfigured"
        assert not bench.peer.change_state(NODE, "activate")  # there is no such transition
        assert bench.peer.node.count_publishers("/state") == 0
        for _ in range(2):
            bench.start()
            bench.send_until_state("TRACKING")
            assert bench.peer.change_state(NODE, "deactivate")
            wait_until(lambda: "not active" in bench.status().message, "inactive in `state`")
            assert bench.state() == "STALE"
            assert bench.peer.change_state(NODE, "activate")
            bench.send_until_state("TRACKING")
            assert bench.peer.change_state(NODE, "deactivate")
            assert bench.peer.change_state(NODE, "cleanup")
            wait_until(lambda: bench.peer.node.count_publishers("/state") == 0, "silence")
            bench.clear(*bench.heard)
        assert bench.peer.change_state(NODE, "shutdown")
        assert bench.peer.get_state(NODE) == "finalized"


def test_inactive_is_deaf_to_images(model: Path, tmp_path: Path) -> None:
    with segmentation_bench(model, tmp_path / "log.txt") as bench:
        assert bench.peer.change_state(NODE, "configure")
        wait_until(lambda: bench.heard[interface.DIAGNOSTICS], "diagnostics")
        bench.clear(interface.DIAGNOSTICS)
        bench.send_until(lambda: bench.heard[interface.DIAGNOSTICS], "diagnostics")
        assert bench.values(interface.DIAGNOSTICS)["received"] == "0"
        assert not bench.heard[interface.MASK]


def test_configure_without_its_model_fails_with_a_sentence_and_can_be_mended(
    model: Path, tmp_path: Path
) -> None:
    missing = tmp_path / "missing.onnx"
    with segmentation_bench(missing, tmp_path / "log.txt") as bench:
        assert not bench.peer.change_state(NODE, "configure")
        assert bench.peer.get_state(NODE) == "unconfigured"
        assert "Cannot configure" in bench.process.output
        assert str(missing) in bench.process.output
        assert "Traceback" not in bench.process.output
        assert bench.peer.node.count_publishers("/state") == 0
        assert bench.peer.set_parameters(NODE, model=str(model)) == ""
        bench.start()
        bench.send_until_state("TRACKING")


WRONG_VALUES = {
    "max_age:=soon": "'max_age' must be a double from 0.0 to 3600.0 s (got 'soon', a string)",
    "threads:=-1": "'threads' must be an integer from 0 to 64 (got -1, an integer)",
    "overlay:=3": "'overlay' must be a bool (got 3, an integer)",
    "image_transport:=pigeon": "must be one of raw, compressed (got 'pigeon', a string)",
    "tracker.gate_sigma:=.nan": "'tracker.gate_sigma' must be a double from 0.1",
}


def test_configure_with_wrong_parameters_fails_with_a_sentence_on_each(
    model: Path, tmp_path: Path
) -> None:
    arguments = [word for value in WRONG_VALUES for word in ("-p", value)]
    with segmentation_bench(model, tmp_path / "log.txt", *arguments) as bench:
        assert not bench.peer.change_state(NODE, "configure")
        assert bench.peer.get_state(NODE) == "unconfigured"
        for words in WRONG_VALUES.values():
            assert words in bench.process.output
        assert "Traceback" not in bench.process.output


def test_configure_with_a_wrong_qos_override_fails_with_a_sentence(
    model: Path, tmp_path: Path
) -> None:
    override = "qos_overrides./image.subscription.reliability:=maybe"
    with segmentation_bench(model, tmp_path / "log.txt", "-p", override) as bench:
        assert not bench.peer.change_state(NODE, "configure")
        assert bench.peer.get_state(NODE) == "unconfigured"
        assert "maybe" in bench.process.output
        assert "Traceback" not in bench.process.output


def test_autostart_with_a_damaged_model_stays_unconfigured(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"not a model")
    with segmentation_bench(damaged, tmp_path / "log.txt", "-p", "autostart:=true") as bench:
        wait_until(lambda: "Cannot configure" in bench.process.output, "the refusal")
        assert bench.peer.get_state(NODE) == "unconfigured"


def test_autostart_goes_to_active_with_the_qos_that_was_asked_for(
    model: Path, tmp_path: Path
) -> None:
    override = "qos_overrides./guidewire/centerline.publisher.reliability:=best_effort"
    arguments = ("-p", "autostart:=true", "-p", override)
    with segmentation_bench(model, tmp_path / "log.txt", *arguments) as bench:
        bench.wait_connected()
        assert bench.peer.get_state(NODE) == "active"
        bench.send_until_state("TRACKING")
        (line,) = bench.peer.node.get_publishers_info_by_topic("/guidewire/centerline")
        assert line.qos_profile.reliability is QoSReliabilityPolicy.BEST_EFFORT


def test_simulated_time(model: Path, tmp_path: Path) -> None:
    """Stamps of the wall clock are from the future until /clock says so; then they are fresh."""
    arguments = ("-p", "use_sim_time:=true", "-p", "autostart:=true")
    with segmentation_bench(model, tmp_path / "log.txt", *arguments) as bench:
        clock = bench.peer.publisher("/clock", Clock, image_qos())
        wait_until(lambda: bench.heard[interface.STATE], "state, with the clock standing still")
        bench.send_until(lambda: "in the future" in bench.status().message, "from the future")

        def tick() -> bool:
            clock.publish(Clock(clock=ns_to_stamp(bench.now_ns())))
            return bench.state() == "TRACKING"

        bench.send_until(tick, "tracking in simulated time")


def test_the_shipped_model_tracks_a_simulated_insertion(tmp_path: Path) -> None:
    frames = [to_grey8(made.frame) for made in simulate_sequence(seed=1, length=60)]
    with segmentation_bench(Path(DEFAULT_MODEL), tmp_path / "log.txt") as bench:
        assert bench.peer.set_parameters(NODE, max_age=0.0) == ""  # slow machines count too
        for transition in ("configure", "activate"):
            assert bench.peer.change_state(NODE, transition), bench.process.output
        wait_until(bench.images.get_subscription_count, "the node subscribes to images")
        wait_until(lambda: bench.heard[interface.STATE], "the first state")
        turns = itertools.cycle(frames)

        def tracked() -> bool:
            bench.send(next(turns))
            return bool(bench.heard[interface.tip_pixel("guidewire")])

        wait_until(tracked, "a tip of the guidewire", every=CAMERA_PERIOD_S)
        assert bench.status().hardware_id  # the model's name


# --- ways to be stopped -----------------------------------------------------------------------


def once(number: int) -> Callable[[Callable[[int], None]], None]:
    def stop(send: Callable[[int], None]) -> None:
        send(number)

    return stop


def twice(send: Callable[[int], None]) -> None:
    send(signal.SIGINT)
    time.sleep(0.05)  # the case that DESIGN names: a second Ctrl-C while the first is at work
    send(signal.SIGINT)


def again_and_again(send: Callable[[int], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM) * 10:
        send(number)
        time.sleep(0.02)


STOPS = {
    "SIGINT": once(signal.SIGINT),
    "SIGTERM": once(signal.SIGTERM),
    "SIGINT twice": twice,
    "twenty signals": again_and_again,
}


@pytest.mark.parametrize("stop", STOPS)
def test_signals_end_the_node_cleanly_in_every_state(
    model: Path, tmp_path: Path, stop: str
) -> None:
    with contextlib.ExitStack() as stack:
        nodes = {state: stack.enter_context(node_in(state, model, tmp_path)) for state in WAYS}
        robot = stack.enter_context(peer())
        for state, transitions in WAYS.items():
            for transition in transitions:
                assert robot.change_state(f"/{state}{NODE}", transition), nodes[state].output
            assert robot.get_state(f"/{state}{NODE}") == state
        for process in nodes.values():
            STOPS[stop](process.interrupt)
        for state, process in nodes.items():
            assert process.wait() == 0, (state, process.output)
            assert not process.has_orphans(), state
            assert "Traceback" not in process.output
            assert "terminate" not in process.output


def node_in(
    state: str, model: Path, folder: Path
) -> contextlib.AbstractContextManager[NodeProcess]:
    """A node that is named after the state that it will be brought to."""
    arguments = ("-r", f"__ns:=/{state}", "-p", f"model:={model}", "-p", "threads:=1")
    return running(MODULE, folder / f"{state}.txt", *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("stop", STOPS)
def test_signals_end_the_node_cleanly_under_load(model: Path, tmp_path: Path, stop: str) -> None:
    for attempt in range(5):
        with segmentation_bench(model, tmp_path / f"log{attempt}.txt") as bench:
            run_and_stop(bench, stop)


def run_and_stop(bench: Bench, stop: str) -> None:
    bench.start()
    bench.send_until_state("TRACKING")

    def send(number: int) -> None:
        bench.send()
        bench.process.interrupt(number)

    STOPS[stop](send)
    assert bench.process.wait() == 0, bench.process.output
    assert not bench.process.has_orphans()
    assert "Traceback" not in bench.process.output
