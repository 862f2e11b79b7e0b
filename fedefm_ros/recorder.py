# SPDX-License-Identifier: Apache-2.0
"""Records what segmentation_node says and when it came, at little cost while it is timed."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PointStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Path
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Float64
from std_srvs.srv import Trigger

from fedefm_core.perception.types import INSTRUMENT_KINDS
from fedefm_ros import interface
from fedefm_ros.demo_report import Point
from fedefm_ros.messages import image_to_array, stamp_to_ns

# Deep enough that a recorder that was held up loses nothing; the node's own depth stays 1.
RECORDER_QOS = QoSProfile(depth=100)
STATE_NAMES = {
    DiagnosticStatus.OK: "TRACKING",
    DiagnosticStatus.WARN: "LOST",
    DiagnosticStatus.STALE: "STALE",
    DiagnosticStatus.ERROR: "FAULT",
}


def _by_kind(make: Callable[[], Any] = dict) -> dict[str, Any]:
    return {kind: make() for kind in INSTRUMENT_KINDS}


@dataclass(frozen=True)
class SparseMask:
    """The labelled pixels of a label map: all else is background."""

    shape: tuple[int, int]
    where: npt.NDArray[np.int64]
    labels: npt.NDArray[np.uint8]

    def dense(self) -> npt.NDArray[np.uint8]:
        """The (H, W) uint8 label map again."""
        label_map = np.zeros(self.shape, np.uint8)
        label_map.reshape(-1)[self.where] = self.labels
        return label_map


def sparse_mask(label_map: npt.NDArray[np.generic]) -> SparseMask:
    """Keep the labelled pixels of a (H, W) uint8 label map."""
    height, width = label_map.shape
    flat = label_map.reshape(-1)
    where = np.flatnonzero(flat)
    return SparseMask((height, width), where, flat[where].astype(np.uint8))


@dataclass(frozen=True)
class TipPose:
    """Heading of the tip in the image plane, and covariance_m (2, 2) of its position in m²."""

    heading_rad: float
    covariance_m: npt.NDArray[np.float64]


@dataclass
class Recording:
    """All that came, by the stamp in nanoseconds of the image that it answers.

    Tips, centerlines_m ((N, 2), metres in the image plane), poses and confidences are by kind,
    then stamp. states: names of STATE_NAMES. diagnostics: the latest values of the node's own
    status. durations_ms: by debug topic, in order of arrival.
    """

    masks: dict[int, SparseMask] = field(default_factory=dict)
    masks_received_ns: dict[int, int] = field(default_factory=dict)
    tips_px: dict[str, dict[int, Point]] = field(default_factory=_by_kind)
    tips_received_ns: dict[str, dict[int, int]] = field(default_factory=_by_kind)
    centerlines_m: dict[str, dict[int, npt.NDArray[np.float64]]] = field(default_factory=_by_kind)
    poses: dict[str, dict[int, TipPose]] = field(default_factory=_by_kind)
    confidences: dict[str, dict[int, float]] = field(default_factory=_by_kind)
    states: dict[int, str] = field(default_factory=dict)
    durations_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    diagnostics: dict[str, str] = field(default_factory=dict)


class Call:
    """One call of a service, to be polled."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._answer: Any = None

    @property
    def sent(self) -> bool:
        """Was the request sent?"""
        return self._answer is not None

    def answered(self, request: Any) -> bool:
        """Send request once, as soon as the service is there; True when its answer has come."""
        if not self.sent and self._client.service_is_ready():
            self._answer = self._client.call_async(request)
        return self.sent and bool(self._answer.done())


class Recorder(Node):
    """Subscribes to a segmentation node's results; never to the images, which would slow it."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self._recording = Recording()
        self._paths: dict[str, list[bytes]] = _by_kind(list)
        self._poses: dict[str, list[bytes]] = _by_kind(list)
        self._start = Call(self.create_client(Trigger, "playback_node/start"))
        self._set = Call(self.create_client(SetParameters, "playback_node/set_parameters"))
        # The executor serves subscriptions in this order: first what is timed to the millisecond.
        for kind in INSTRUMENT_KINDS:
            self._listen(interface.tip_pixel(kind), PointStamped, partial(self._on_tip, kind))
        self._listen(interface.STATE, DiagnosticArray, self._on_state)
        self._listen(interface.DIAGNOSTICS, DiagnosticArray, self._on_diagnostics)
        for topic in (interface.PROCESSING_TIME, interface.PIPELINE_LATENCY):
            name = topic.replace("~", interface.NODE_NAME)
            self._listen(name, Float64, partial(self._on_duration, topic))
        for kind in INSTRUMENT_KINDS:
            # Kept as bytes and unpacked later: a hundred poses take milliseconds.
            self._listen(interface.centerline(kind), Path, self._paths[kind].append, raw=True)
            self._listen(
                interface.tip(kind), PoseWithCovarianceStamped, self._poses[kind].append, raw=True
            )
        # Last, so that a mask that came proves that the other subscriptions are known as well.
        self._listen(interface.MASK, Image, self._on_mask)

    def has_answer(self, stamp_ns: int | None = None) -> bool:
        """Did a mask come: for this stamp, or any?"""
        masks = self._recording.masks_received_ns
        return stamp_ns in masks if stamp_ns is not None else bool(masks)

    def start_playback(self) -> bool:
        """Call playback_node's ~/start; True once it has answered. To be polled."""
        if not self._start.sent:
            self._recording.durations_ms.clear()  # of the rehearsal
        return self._start.answered(Trigger.Request())

    def set_playback_rate(self, rate_hz: float) -> bool:
        """Set playback_node's rate; True once it has answered. To be polled."""
        kind = ParameterType.PARAMETER_DOUBLE
        value = ParameterValue(type=kind, double_value=rate_hz)
        rate = Parameter(name="rate", value=value)
        return self._set.answered(SetParameters.Request(parameters=[rate]))

    def answered_ns(self) -> list[int]:
        """Stamps of all images that a mask came for, so far."""
        return list(self._recording.masks_received_ns)

    def has_diagnostics(self) -> bool:
        """Did the node speak on /diagnostics since forget_diagnostics?"""
        return bool(self._recording.diagnostics)

    def forget_diagnostics(self) -> None:
        """Wait for new ones."""
        self._recording.diagnostics = {}

    def recording(self) -> Recording:
        """All that came so far."""
        for kind in INSTRUMENT_KINDS:
            for message in self._paths[kind]:
                self._keep_centerline(kind, deserialize_message(message, Path))
            for message in self._poses[kind]:
                self._keep_pose(kind, deserialize_message(message, PoseWithCovarianceStamped))
        return self._recording

    def _listen(
        self, topic: str, kind: type, callback: Callable[[Any], None], raw: bool = False
    ) -> None:
        self.create_subscription(kind, topic, callback, RECORDER_QOS, raw=raw)

    def _on_mask(self, message: Image) -> None:
        received_ns = time.time_ns()
        stamp_ns = stamp_to_ns(message.header.stamp)
        self._recording.masks_received_ns[stamp_ns] = received_ns
        self._recording.masks[stamp_ns] = sparse_mask(image_to_array(message))

    def _on_tip(self, kind: str, message: PointStamped) -> None:
        received_ns = time.time_ns()
        stamp_ns = stamp_to_ns(message.header.stamp)
        self._recording.tips_received_ns[kind][stamp_ns] = received_ns
        self._recording.tips_px[kind][stamp_ns] = (message.point.x, message.point.y)

    def _on_state(self, message: DiagnosticArray) -> None:
        status = message.status[0]
        stamp_ns = stamp_to_ns(message.header.stamp)
        self._recording.states[stamp_ns] = STATE_NAMES[status.level]
        values = {pair.key: pair.value for pair in status.values}
        for kind in INSTRUMENT_KINDS:
            if values.get(f"{kind}_confidence"):
                self._recording.confidences[kind][stamp_ns] = float(values[f"{kind}_confidence"])

    def _on_duration(self, topic: str, message: Float64) -> None:
        self._recording.durations_ms[topic].append(message.data)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if interface.NODE_NAME in status.name:
                self._recording.diagnostics = {pair.key: pair.value for pair in status.values}

    def _keep_centerline(self, kind: str, message: Path) -> None:
        positions = [pose.pose.position for pose in message.poses]
        points = np.array([(p.x, p.y) for p in positions], dtype=np.float64)
        self._recording.centerlines_m[kind][stamp_to_ns(message.header.stamp)] = points

    def _keep_pose(self, kind: str, message: PoseWithCovarianceStamped) -> None:
        rotation = message.pose.pose.orientation
        heading = 2 * math.atan2(rotation.z, rotation.w)
        covariance = np.reshape(message.pose.covariance, (6, 6))[:2, :2]
        stamp_ns = stamp_to_ns(message.header.stamp)
        self._recording.poses[kind][stamp_ns] = TipPose(heading, covariance)
