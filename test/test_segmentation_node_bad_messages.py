# SPDX-License-Identifier: Apache-2.0
"""Nothing that a publisher sends may kill segmentation_node; all of it is counted by reason."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install the extra 'ros'")

import rclpy
from bad_messages import bad_messages
from model_fixture import write_threshold_model
from ros_peer import wait_until
from segmentation_bench import IMAGE, segmentation_bench
from sensor_msgs.msg import CameraInfo, CompressedImage
from std_msgs.msg import Header

from fedefm_core.frames.encoding import REASONS
from fedefm_ros import frame_pipeline, interface
from fedefm_ros.health import SUPERSEDED, State, Statistics
from fedefm_ros.messages import array_to_image, ns_to_stamp
from fedefm_ros.segmentation_node import SUCCESS, SegmentationNode

pytestmark = pytest.mark.ros

KNOWN_REASONS = {
    *REASONS,
    frame_pipeline.TOO_SMALL,
    frame_pipeline.TOO_OLD,
    frame_pipeline.FROM_FUTURE,
    frame_pipeline.OUT_OF_ORDER,
}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[SegmentationNode]:
    """Return an active node in this process, whose callback is called directly."""
    model = write_threshold_model(tmp_path / "threshold.onnx")
    values = ["-p", f"model:={model}", "-p", "threads:=1", "-p", "max_age:=0.0"]
    rclpy.init(args=["test", "--ros-args", "--log-level", "fatal", *values])
    made = SegmentationNode()
    try:
        assert made.trigger_configure() == SUCCESS
        assert made.trigger_activate() == SUCCESS
        yield made
    finally:
        made.close()
        made.destroy_node()
        rclpy.shutdown()


def deliver(node: SegmentationNode, message: object) -> Statistics:
    """Hand a message to the image callback; return the counts when it has been dealt with."""
    node._on_image(message)

    counts = node._health._counts

    def settled() -> bool:
        done = counts.processed + counts.faults + sum(counts.dropped.values())
        return done == counts.received

    wait_until(settled, "the message is dealt with", every=0.0002)
    return node._health.statistics(time.monotonic())


def stamped(message: object, stamp_ns: int) -> object:
    message.header.stamp = ns_to_stamp(stamp_ns)
    return message


def good(stamp_ns: int) -> object:
    return array_to_image(IMAGE, Header(stamp=ns_to_stamp(stamp_ns), frame_id="xray"))


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=[pytest.mark.slow])])
def test_bad_messages_into_the_callback(node: SegmentationNode, count: int) -> None:
    stamp_ns = 10**12
    expected: Counter[str] = Counter()
    before = node._health.statistics(time.monotonic())
    for bad in bad_messages(seed=1, count=count):
        stamp_ns += 33_000_000
        after = deliver(node, stamped(bad.message, stamp_ns))
        reasons = Counter(after.dropped) - Counter(before.dropped)
        assert after.faults == 0, f"{bad.name}: {after.last_fault}"
        if "any" not in bad.reasons:
            assert set(reasons) <= bad.reasons, bad.name
            assert bool(reasons) == bool(bad.reasons), f"{bad.name}: {reasons}"
        expected += reasons
        before = after
    assert before.received == count
    assert before.dropped == expected
    assert set(before.dropped) <= KNOWN_REASONS
    assert sum(before.dropped.values()) + before.processed == count
    for _ in range(3):
        stamp_ns += 33_000_000
        deliver(node, good(stamp_ns))
    assert node._verdict().state is State.TRACKING
    assert set(node._health.last_result().confidence) == {"catheter", "guidewire"}


def test_stamps_that_go_backwards(node: SegmentationNode) -> None:
    """A late frame is dropped; a source that starts again is followed again."""
    second = 10**9
    for index in range(3):
        deliver(node, good(100 * second + index * 33_000_000))
    late = deliver(node, good(100 * second))
    assert late.dropped == {"out_of_order": 1}
    assert node._verdict().state is State.TRACKING
    for index in range(2):
        deliver(node, good(50 * second + index * 33_000_000))
    assert node._verdict().state is State.TRACKING
    assert node._health.last_result().stamp_ns == 50 * second + 33_000_000


def test_camera_info_that_makes_no_sense(node: SegmentationNode) -> None:
    node.set_parameters([rclpy.Parameter("source_detector_distance", value=1.0)])
    for focal in (0.0, -1.0, float("nan"), float("inf")):
        node._on_camera_info(CameraInfo(k=[focal, 0.0, 0.0, 0.0, focal, 0.0, 0.0, 0.0, 1.0]))
        assert node._image_plane(Header(), _frame()) is None
        assert deliver(node, good(node._clock_ns())).faults == 0


def test_an_exception_in_processing_is_a_fault_and_the_next_frame_ends_it(
    node: SegmentationNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(node, good(10**12))
    with monkeypatch.context() as patch:
        patch.setattr(node._pipeline._segmenter, "process", _explode)
        after = deliver(node, good(10**12 + 1))
    assert after.faults == 1
    verdict = node._verdict()
    assert verdict.state is State.FAULT
    assert "the tube has exploded" in verdict.text
    # It is told while inactive too.
    assert node.trigger_deactivate() == SUCCESS
    assert node._verdict().state is State.FAULT
    assert node.trigger_activate() == SUCCESS
    for index in range(3):
        deliver(node, good(10**12 + 2 + index))
    assert node._verdict().state is State.TRACKING


def test_a_transition_that_raises_starts_over(
    node: SegmentationNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert node.trigger_deactivate() == SUCCESS
    with monkeypatch.context() as patch:
        patch.setattr(node._pipeline, "reset", _explode)
        assert node.trigger_activate() != SUCCESS
    assert node._outputs is None
    assert node.trigger_configure() == SUCCESS  # so it was unconfigured
    assert node.trigger_activate() == SUCCESS
    assert deliver(node, good(10**12)).processed == 1


def test_a_slow_worker_gets_the_newest_frame_and_the_others_are_counted(
    node: SegmentationNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, go_on = threading.Event(), threading.Event()
    process = node._pipeline._segmenter.process

    def slow(frame: object) -> object:
        started.set()
        assert go_on.wait(30)
        return process(frame)

    monkeypatch.setattr(node._pipeline._segmenter, "process", slow)
    stamps = [10**12 + index for index in range(10)]
    node._on_image(good(stamps[0]))
    assert started.wait(30)
    for stamp_ns in stamps[1:]:
        node._on_image(good(stamp_ns))
    go_on.set()
    wait_until(lambda: node._health.last_result().stamp_ns == stamps[-1], "the newest frame")
    counts = node._health.statistics(time.monotonic())
    assert counts.dropped == {SUPERSEDED: 8}
    assert counts.processed == 2


@pytest.mark.parametrize("payload", [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"nonsense" * 99])
def test_compressed_images_that_are_none(node: SegmentationNode, payload: bytes) -> None:
    message = CompressedImage(format="jpeg", data=payload)
    after = deliver(node, stamped(message, 10**12))
    assert after.faults == 0
    assert set(after.dropped) <= KNOWN_REASONS
    assert sum(after.dropped.values()) == 1


def test_three_hundred_bad_messages_over_dds(tmp_path: Path) -> None:
    model = write_threshold_model(tmp_path / "threshold.onnx")
    with segmentation_bench(model, tmp_path / "log.txt") as bench:
        bench.start()
        for bad in bad_messages(seed=2, count=300, huge_every=100):
            bad.message.header.stamp = ns_to_stamp(bench.now_ns())
            bench.images.publish(bad.message)
            time.sleep(0.002)  # the pace of a fast publisher, not a wait for anything
        bench.send_until_state("TRACKING")
        bench.clear(interface.DIAGNOSTICS)
        bench.send_until(lambda: bench.heard[interface.DIAGNOSTICS], "diagnostics")
        values = bench.values(interface.DIAGNOSTICS)
        dropped = {name for name in values if name.startswith("dropped_")}
        assert dropped - {f"dropped_{SUPERSEDED}"}, "bad messages are counted by reason"
        assert dropped <= {f"dropped_{reason}" for reason in (*KNOWN_REASONS, SUPERSEDED)}
        assert values["faults"] == "0"
        assert bench.process.process.poll() is None
        assert "Traceback" not in bench.process.output


def _explode(*arguments: object) -> None:
    raise RuntimeError("the tube has exploded")


def _frame() -> object:
    from fedefm_core.frames import Frame

    return Frame(IMAGE)
