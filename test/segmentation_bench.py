# SPDX-License-Identifier: Apache-2.0
"""segmentation_node in a process, and a peer that plays X-ray system and robot."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from diagnostic_msgs.msg import DiagnosticStatus
from model_fixture import draw_instruments
from ros_peer import NodeProcess, Peer, peer, running, wait_until
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from fedefm_ros import interface
from fedefm_ros.messages import array_to_image, ns_to_stamp
from fedefm_ros.qos import image_qos, output_qos

MODULE = "fedefm_ros.segmentation_node"
NODE = "/segmentation_node"
FRAME_ID = "xray"
CAMERA_PERIOD_S = 0.02

WIRE_TIP = (90.0, 80.0)
CATHETER_TIP = (40.0, 90.0)
IMAGE = draw_instruments(
    guidewire=[(0.0, 30.0), (60.0, 40.0), WIRE_TIP], catheter=[(20.0, 127.0), CATHETER_TIP]
)
EMPTY = draw_instruments()


@dataclass
class Bench:
    """What a test has in hand; received topics are keyed by their names in interface.py."""

    process: NodeProcess
    peer: Peer
    images: Any
    camera_infos: Any
    heard: dict[str, list[Any]]
    camera_info: CameraInfo | None = None

    def start(self) -> None:
        """Configure and activate the node and wait until both sides are connected."""
        for transition in ("configure", "activate"):
            assert self.peer.change_state(NODE, transition), self.process.output
        self.wait_connected()

    def wait_connected(self) -> None:
        """Wait until images and all outputs are connected."""
        wait_until(self.images.get_subscription_count, "the node subscribes to images")
        wait_until(self.camera_infos.get_subscription_count, "the node subscribes to camera_info")
        wait_until(lambda: self.heard[interface.STATE], "the first state")
        wait_until(lambda: self.heard[interface.DIAGNOSTICS], "the first diagnostics")
        # Messages are only built for outputs that somebody hears: all are connected when a frame
        # with both tips has come out everywhere that needs no spacing.
        outputs = [
            interface.MASK,
            interface.PROCESSING_TIME,
            interface.PIPELINE_LATENCY,
            interface.OVERLAY,
            *(interface.tip_pixel(kind) for kind in interface.KINDS),
        ]
        self.send_until(lambda: all(self.heard[name] for name in outputs), "all outputs")

    def send(
        self, pixels: npt.NDArray[Any] = IMAGE, age_s: float = 0.0, frame_id: str = FRAME_ID
    ) -> int:
        """Send an image that is age_s old; return its stamp in nanoseconds."""
        stamp_ns = self.now_ns() - round(age_s * 1e9)
        header = Header(stamp=ns_to_stamp(stamp_ns), frame_id=frame_id)
        if self.camera_info is not None:
            self.camera_infos.publish(self.camera_info)
        self.images.publish(array_to_image(pixels, header))
        return stamp_ns

    def send_until(
        self,
        done: Callable[[], object],
        what: str,
        pixels: npt.NDArray[Any] = IMAGE,
        age_s: float = 0.0,
    ) -> list[int]:
        """Send images at the pace of a camera until done() holds; return their stamps."""
        stamps: list[int] = []

        def attempt() -> object:
            stamps.append(self.send(pixels, age_s))
            return done()

        wait_until(attempt, what, every=CAMERA_PERIOD_S)
        return stamps

    def send_until_state(
        self, state: str, pixels: npt.NDArray[Any] = IMAGE, age_s: float = 0.0
    ) -> None:
        """Send images until the newest state is `state`."""
        self.send_until(lambda: self.state() == state, f"state {state}", pixels, age_s)

    def calibrate(self, focal_px: float, **fields: Any) -> None:
        """Send camera_info with this focal length before each image from now on."""
        k = [focal_px, 0.0, 64.0, 0.0, focal_px, 64.0, 0.0, 0.0, 1.0]
        self.camera_info = CameraInfo(k=k, **fields)

    def now_ns(self) -> int:
        """Nanoseconds of the clock that both sides use."""
        return int(self.peer.node.get_clock().now().nanoseconds)

    def status(self, topic: str = interface.STATE) -> DiagnosticStatus:
        """The newest status on a topic."""
        return self.heard[topic][-1].status[0]

    def values(self, topic: str = interface.STATE) -> dict[str, str]:
        """Key-value pairs of the newest status on a topic."""
        return {pair.key: pair.value for pair in self.status(topic).values}

    def state(self) -> str:
        """Name of the newest state."""
        return self.values()["state"]

    def forget(self) -> None:
        """Drop all recorded messages but the newest of each topic."""
        for messages in self.heard.values():
            del messages[:-1]

    def clear(self, *topics: str) -> None:
        """Drop all recorded messages of these topics."""
        for topic in topics:
            self.heard[topic].clear()


@contextlib.contextmanager
def segmentation_bench(model: Path, log: Path, *arguments: str) -> Iterator[Bench]:
    """A node in state unconfigured whose topics are all listened to."""
    settings = ("-p", f"model:={model}", "-p", "threads:=1", *arguments)
    with running(MODULE, log, *settings) as process, peer() as made:
        heard = {
            name: made.listen(name.replace("~", NODE), message_type, output_qos())
            for name, message_type in {**interface.OUTPUTS, **interface.STATUS_OUTPUTS}.items()
        }
        images = made.publisher("image", Image, image_qos())
        infos = made.publisher("camera_info", CameraInfo, image_qos())
        yield Bench(process, made, images, infos, heard)


def stamps_of(messages: list[Any]) -> np.ndarray:
    """Stamps of recorded messages in nanoseconds."""
    return np.array(
        [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in messages], dtype=np.int64
    )
