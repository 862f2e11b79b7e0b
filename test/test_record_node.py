# SPDX-License-Identifier: Apache-2.0
"""record_node over DDS: what our nodes say ends up in an MCAP file that our reader reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install the extra 'ros'")

from diagnostic_msgs.msg import DiagnosticArray
from ros_peer import peer, running, wait_until
from sensor_msgs.msg import Image
from std_msgs.msg import Bool, Header

from fedefm_core.frames import open_source
from fedefm_core.frames.bag import read_messages, recorded_topics
from fedefm_ros import interface
from fedefm_ros.messages import array_to_image, ns_to_stamp
from fedefm_ros.qos import image_qos, output_qos, permission_qos
from fedefm_ros.record_node import RECORDED

pytestmark = pytest.mark.ros

MODULE = "fedefm_ros.record_node"
STAMP_NS = 1_700_000_000_000_000_000


def test_every_input_and_output_but_the_overlay_is_recorded() -> None:
    everything = {**interface.INPUTS, **interface.OUTPUTS, **interface.STATUS_OUTPUTS}
    everything |= {**interface.GUARD_OUTPUTS, **interface.LOOP_TOPICS}
    assert set(everything) - set(RECORDED) == {interface.OVERLAY}


def test_what_is_said_is_what_is_read(tmp_path: Path) -> None:
    bag = tmp_path / "new" / "bag"
    arguments = ("-p", f"path:={bag}", "-r", "__ns:=/lateral")
    pixels = np.arange(64 * 48, dtype=np.uint8).reshape(48, 64)
    with running(MODULE, tmp_path / "log.txt", *arguments) as process, peer() as made:
        ends = {
            "/lateral/image": made.publisher("/lateral/image", Image, image_qos()),
            "/lateral/motion_permitted": made.publisher(
                "/lateral/motion_permitted", Bool, permission_qos()
            ),
            "/diagnostics": made.publisher("/diagnostics", DiagnosticArray, output_qos()),
        }
        wait_until(
            lambda: all(end.get_subscription_count() for end in ends.values()), "the recorder"
        )
        stamps = []

        def say() -> bool:
            """Until all is heard: what is sent while they discover each other is lost."""
            stamps.append(STAMP_NS + len(stamps))
            header = Header(stamp=ns_to_stamp(stamps[-1]))
            ends["/lateral/image"].publish(array_to_image(pixels, header))
            ends["/lateral/motion_permitted"].publish(Bool(data=True))
            ends["/diagnostics"].publish(DiagnosticArray())
            return all(f"Recording {topic}\n" in process.output for topic in ends)

        wait_until(say, "all topics", every=0.05)
        process.interrupt()
        assert process.wait() == 0, process.output
        assert "Traceback" not in process.output
    assert recorded_topics(bag)["/lateral/guidewire/tip_pixel"] == "geometry_msgs/msg/PointStamped"
    images = list(read_messages(bag, ["/lateral/image"]))
    said = list(read_messages(bag, ["/lateral/motion_permitted", "/diagnostics"]))
    assert images
    assert {message.topic for message in said} == {"/lateral/motion_permitted", "/diagnostics"}
    for message in images:
        stamp = message.data.header.stamp
        assert stamp.sec * 10**9 + stamp.nanosec in stamps
    frames = list(open_source(f"{bag}#/lateral/image"))
    assert len(frames) == len(images)
    assert np.array_equal(frames[0].pixels, pixels)


@pytest.mark.parametrize("there", [True, False])
def test_a_recording_that_cannot_begin_is_told_in_a_sentence(tmp_path: Path, there: bool) -> None:
    arguments = ("-p", f"path:={tmp_path}") if there else ()
    with running(MODULE, tmp_path / "log.txt", *arguments) as process:
        assert process.wait() == 1
        assert ("exists already" if there else "'path' must name") in process.output
        assert "Traceback" not in process.output
