# SPDX-License-Identifier: Apache-2.0
"""The publishers of segmentation_node, and what of a Perception goes on which topic.

Messages are built only for topics that somebody listens to: the outputs are volatile, so nobody
can tell, and a path of a hundred poses is milliseconds of Python.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header

from fedefm_core.perception.types import Instrument, LabelMap, Perception
from fedefm_ros import interface, messages
from fedefm_ros.qos import output_qos, overridable


class Outputs:
    """All topics of interface.OUTPUTS; silent until the node is active."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._publishers = {
            name: node.create_lifecycle_publisher(
                message_type, name, output_qos(), qos_overriding_options=overridable()
            )
            for name, message_type in interface.OUTPUTS.items()
        }

    def destroy(self) -> None:
        """Take the publishers from the node."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = {}

    def wanted(self, name: str) -> bool:
        """Does anybody listen?"""
        return self._publishers[name].get_subscription_count() > 0

    def publish_tips(
        self, perception: Perception, plane: messages.ImagePlane | None, stamp: Time
    ) -> None:
        """Publish the tip of each tracked instrument; nothing for a kind that is not tracked."""
        for kind, instrument in perception.tracked.items():
            if instrument.tip_px is None:
                continue
            self._publish(
                interface.tip_pixel(kind), messages.tip_pixel_message(instrument.tip_px, stamp)
            )
            if plane is not None and instrument.heading_rad is not None:
                message = messages.tip_message(instrument, plane, stamp)
                self._publish(interface.tip(kind), message)

    def publish_centerlines(
        self, perception: Perception, plane: messages.ImagePlane | None, stamp: Time
    ) -> None:
        """Publish the centreline of each kind whose tip is published in metres."""
        for kind, instrument in perception.tracked.items():
            name = interface.centerline(kind)
            if plane is not None and _has_tip(instrument) and self.wanted(name):
                line = instrument.centerline_px
                self._publish(name, messages.centerline_message(line, plane, stamp))

    def publish_mask(self, label_map: LabelMap, header: Header) -> None:
        """Publish the label map."""
        if self.wanted(interface.MASK):
            self._publish(interface.MASK, messages.array_to_image(label_map, header, "mono8"))

    def publish_overlay(self, overlay: npt.NDArray[np.uint8], header: Header) -> None:
        """Publish (H, W, 3) BGR."""
        self._publish(interface.OVERLAY, messages.array_to_image(overlay, header, "bgr8"))

    def publish_timing(self, processing_ms: float, latency_ms: float) -> None:
        """Publish the debug topics."""
        self._publish(interface.PROCESSING_TIME, messages.milliseconds(processing_ms))
        self._publish(interface.PIPELINE_LATENCY, messages.milliseconds(latency_ms))

    def _publish(self, name: str, message: object) -> None:
        self._publishers[name].publish(message)


def _has_tip(instrument: Instrument) -> bool:
    return instrument.tip_px is not None and instrument.heading_rad is not None
