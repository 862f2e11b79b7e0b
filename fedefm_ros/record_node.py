# SPDX-License-Identifier: Apache-2.0
"""record_node: inputs, outputs and diagnostics of our nodes in an MCAP file.

    ros2 run fedefm_ros record_node --ros-args -p path:=runs/first

Messages are written as they come, with the time at which they came. The file is whole when the
node has ended; a node that is killed leaves one without an index.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path

from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy

from fedefm_core.errors import OutputError
from fedefm_ros import interface
from fedefm_ros.bag_writer import BagWriter
from fedefm_ros.parameters import Parameters, ParameterSpec
from fedefm_ros.runner import run_node

DEPTH = 100  # so that a recorder that was held up loses nothing
LARGE = (*(name for name, _ in interface.IMAGES.values()), interface.MASK)
RECORDED: dict[str, type] = {
    **interface.INPUTS,
    **{name: kind for name, kind in interface.OUTPUTS.items() if name != interface.OVERLAY},
    **interface.STATUS_OUTPUTS,
    **interface.GUARD_OUTPUTS,
    **interface.LOOP_TOPICS,
}
PARAMETERS = (
    ParameterSpec("path", "", "Folder to make, for the recording."),
    ParameterSpec("images", True, "Record images and masks too, some 15 MB/s at 30 Hz."),
)


class RecordNode(Node):
    """Listens all the time, and writes while a recording is open."""

    def __init__(self) -> None:
        super().__init__("record_node")
        self._values = Parameters(self, PARAMETERS).values()
        self._bag: BagWriter | None = None
        self._heard: set[str] = set()
        self._large: set[str] = {self._full(name) for name in LARGE}
        self._images = self._values["images"]
        self.types = {self._full(name): kind for name, kind in RECORDED.items()}
        for topic, kind in self.types.items():
            self.create_subscription(kind, topic, partial(self._on, topic), _qos(), raw=True)
        if self._values["path"]:
            self.open(Path(self._values["path"]), self._images)

    def close(self) -> None:
        """Finish the recording."""
        bag, self._bag = self._bag, None
        if bag is not None:
            bag.close()

    def open(self, path: Path, images: bool) -> None:
        """Begin a recording, after the one before it was closed. Raises OutputError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._images = images
        self._bag = BagWriter(path, self.types)

    def _full(self, name: str) -> str:
        name = name.replace("~", interface.NODE_NAME)
        return str(self.resolve_topic_name(name))

    def _on(self, topic: str, data: bytes) -> None:
        bag = self._bag
        if bag is not None and (self._images or topic not in self._large):
            bag.write(topic, data, time.time_ns())
            if topic not in self._heard:
                self._heard.add(topic)
                self.get_logger().info(f"Recording {topic}")


def _qos() -> QoSProfile:
    """Best effort fits every publisher, and asks for nothing again that came late."""
    return QoSProfile(depth=DEPTH, reliability=QoSReliabilityPolicy.BEST_EFFORT)


def make_node(done: object) -> RecordNode:
    """The node of this process, which must be told where to record to."""
    node = RecordNode()
    if not node.get_parameter("path").value:
        raise OutputError("parameter 'path' must name the folder to record to (got '')")
    return node


def main() -> None:
    """Entry point of the process; takes --ros-args."""
    sys.exit(run_node(make_node))


if __name__ == "__main__":
    main()
