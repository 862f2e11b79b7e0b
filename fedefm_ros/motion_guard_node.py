# SPDX-License-Identifier: Apache-2.0
"""motion_guard_node: says eighty times a second whether the robot may move, and why not.

The rules are in motion_guard.py; here is what they are told of: messages, who sent them, and the
time. Nothing switches them off. Every message is judged as it comes, so that permission does not
outlast it until the next beat. All callbacks run in one thread.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PointStamped, PoseWithCovarianceStamped
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Bool

from fedefm_core.errors import FrameError
from fedefm_core.perception import CATHETER, GUIDEWIRE
from fedefm_core.perception.types import LabelMap
from fedefm_ros import interface
from fedefm_ros.messages import image_to_array, stamp_to_ns, status_message
from fedefm_ros.motion_guard import Decision, MotionGuard, Now, Reason, Report, Tip
from fedefm_ros.motion_guard_parameters import INSTRUMENT, SPECS, guard_settings
from fedefm_ros.parameters import Parameters
from fedefm_ros.qos import (
    image_qos,
    output_qos,
    overridable,
    permission_qos,
    quiet_publisher,
    quiet_subscription,
)
from fedefm_ros.runner import run_node

HEARTBEAT_S = 0.0125  # 80 Hz; 50 Hz are promised, the rest is room for a busy machine
MOTION_STATE_PERIOD_S = 0.1  # at least so often, and when the reason changes
DIAGNOSTICS_PERIOD_S = 1.0
FAREWELL = Duration(nanoseconds=200_000_000)  # for the last message to arrive
LOG_PERIOD_S = 5.0
LABELS = {"guidewire": GUIDEWIRE, "catheter": CATHETER}
FIXED = "can change only at start: end the node and start it anew"
PATIENCE_REASONS = (Reason.STARTING, Reason.RECOVERING)  # no trouble: time will tell


class MotionGuardNode(Node):
    """See the module's docstring. A parameter with a wrong value is a ConfigError: no guard."""

    def __init__(self) -> None:
        super().__init__(interface.GUARD_NODE_NAME)
        values = Parameters(self, SPECS, fixed=lambda spec: FIXED).values()
        self._kind = values[INSTRUMENT]
        self._guard = MotionGuard(
            guard_settings(values),
            LABELS[self._kind],
            clock_runs_steadily=not self.get_parameter("use_sim_time").value,
        )
        self._told: Decision | None = None  # what was published last
        self._state_told_at = -math.inf
        self._permitted = self.create_publisher(
            Bool,
            interface.MOTION_PERMITTED,
            permission_qos(),
            event_callbacks=quiet_publisher(),
        )
        self._state, self._diagnostics = (
            self.create_publisher(
                DiagnosticArray,
                name,
                output_qos(),
                event_callbacks=quiet_publisher(),
                qos_overriding_options=overridable(),
            )
            for name in (interface.MOTION_STATE, interface.DIAGNOSTICS)
        )
        self._listen(interface.STATE, DiagnosticArray, self._on_state)
        self._listen(interface.tip_pixel(self._kind), PointStamped, self._on_tip)
        self._listen(interface.MASK, Image, self._on_mask)
        if self._guard.settings.require_metres:
            self._listen(interface.tip(self._kind), PoseWithCovarianceStamped, self._on_metres)
        # A second guard would permit what this one does not: the robot must not hear two.
        self._listen(interface.MOTION_PERMITTED, Bool, lambda message: None, image_qos())
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # runs on when simulated time stops
        self.create_timer(HEARTBEAT_S, self._on_heartbeat, clock=steady)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=steady)

    def close(self) -> None:
        """Leave with a last false: who listens need not wait for its deadline."""
        self._permitted.publish(Bool(data=False))
        self._permitted.wait_for_all_acked(FAREWELL)

    # --- what comes ---------------------------------------------------------------------------

    def _listen(
        self,
        topic: str,
        message_type: type,
        take: Callable[[Any], Decision | None],
        qos: QoSProfile | None = None,
    ) -> None:
        """Hand each message to take. What fails there is trouble like any other."""

        def on_message(message: Any, info: Any) -> None:
            try:
                publisher = info.get("publisher_gid")  # Humble does not tell it
                if publisher is not None:
                    self._settle(self._guard.heard(topic, publisher["data"], self._now()))
                self._settle(take(message))
            except Exception as error:
                self._on_failure(f"A message on '{topic}' could not be judged: {error!r}")

        self.create_subscription(
            message_type,
            topic,
            on_message,
            qos or output_qos(),
            event_callbacks=quiet_subscription(),
            qos_overriding_options=overridable(),
        )

    def _on_state(self, message: DiagnosticArray) -> Decision:
        try:
            report = read_report(message, self._kind)
        except ValueError as error:
            return self._guard.trouble(Reason.UNREADABLE, str(error), self._now())
        return self._guard.report(report, self._now())

    def _on_tip(self, message: PointStamped) -> Decision:
        point_px = (message.point.x, message.point.y)
        return self._guard.tip(Tip(stamp_to_ns(message.header.stamp), point_px), self._now())

    def _on_metres(self, message: PoseWithCovarianceStamped) -> Decision:
        position = message.pose.pose.position
        values = (position.x, position.y, *message.pose.covariance)
        return self._guard.metres(stamp_to_ns(message.header.stamp), values, self._now())

    def _on_mask(self, message: Image) -> Decision:
        try:
            labels = read_mask(message)
        except FrameError as error:
            text = f"The mask cannot be read: {error}"
            return self._guard.trouble(Reason.UNREADABLE, text, self._now())
        return self._guard.mask(stamp_to_ns(message.header.stamp), labels, self._now())

    def _on_heartbeat(self) -> None:
        try:
            decision = self._guard.tick(self._now())
        except Exception as error:
            self._on_failure(f"The guard failed: {error!r}")
            return
        self._publish_permitted(decision)

    def _on_failure(self, text: str) -> None:
        self.get_logger().error(text, throttle_duration_sec=LOG_PERIOD_S)
        self._publish_permitted(self._guard.trouble(Reason.INTERNAL, text, self._now()))

    # --- what goes out ------------------------------------------------------------------------

    def _settle(self, decision: Decision | None) -> None:
        """Publish a decision now if it takes permission away, else the next beat will."""
        if decision is not None and not decision.permitted and self._was_permitted():
            self._publish_permitted(decision)

    def _publish_permitted(self, decision: Decision) -> None:
        stamp = self.get_clock().now().to_msg()
        self._permitted.publish(Bool(data=decision.permitted))
        before, self._told = self._told, decision
        if before is None or before.permitted is not decision.permitted:
            self._log(decision)
        changed = before is None or before.reason is not decision.reason
        if changed or time.monotonic() - self._state_told_at >= MOTION_STATE_PERIOD_S:
            self._state.publish(self._status(decision, stamp))
            self._state_told_at = time.monotonic()

    def _log(self, decision: Decision) -> None:
        if decision.permitted:
            self.get_logger().info(f"Motion is permitted: {decision.text}")
        else:  # a line of its own: rclpy allows each line one severity
            self.get_logger().warning(f"Motion is not permitted: {decision.text}")

    def _publish_diagnostics(self) -> None:
        if self._told is not None:
            stamp = self.get_clock().now().to_msg()
            self._diagnostics.publish(self._status(self._told, stamp))

    def _status(self, decision: Decision, stamp: Time) -> DiagnosticArray:
        """stamp: of the decision, before `motion_permitted` told it."""
        withdrawn = self._guard.withdrawn
        name = self.get_fully_qualified_name().lstrip("/")
        values: dict[str, object] = {
            "permitted": str(decision.permitted).lower(),
            "reason": decision.reason.value,
            "good_for_s": f"{decision.good_for_s:.3f}",
            "instrument": self._kind,
            "withdrawn_by": "" if withdrawn is None else withdrawn.reason.value,
            "withdrawn_text": "" if withdrawn is None else withdrawn.text,
            **{
                f"withdrawals_{reason.value}": count
                for reason, count in sorted(self._guard.withdrawals.items())
            },
        }
        text = f"{'Permitted' if decision.permitted else 'Not permitted'}: {decision.text}"
        return status_message(stamp, f"{name}: motion", level_of(decision), text, values)

    def _was_permitted(self) -> bool:
        return self._told is not None and self._told.permitted

    def _now(self) -> Now:
        return Now(time.monotonic(), int(self.get_clock().now().nanoseconds))


def level_of(decision: Decision) -> bytes:
    """OK: permitted; WARN: not yet; ERROR: something is wrong."""
    if decision.permitted:
        return DiagnosticStatus.OK
    return DiagnosticStatus.WARN if decision.reason in PATIENCE_REASONS else DiagnosticStatus.ERROR


def read_mask(message: Image) -> LabelMap:
    """The label map (H, W). Raises FrameError when the message is none."""
    labels = image_to_array(message)
    if labels.dtype != np.uint8:
        raise FrameError(f"it is {message.encoding:.40}, not mono8", reason="unknown_encoding")
    return labels.view(np.uint8)


def read_report(message: DiagnosticArray, kind: str) -> Report:
    """What a message on `state` says of an instrument; the reverse of status.state_message.

    Raises ValueError, with a sentence, when it is not such a message.
    """
    if len(message.status) != 1:
        raise ValueError(f"A state came with {len(message.status)} statuses instead of one")
    (status,) = message.status
    values = {pair.key: pair.value for pair in status.values}
    try:
        stamp, tip = values["frame_stamp_ns"], values[f"{kind}_tip"]
        return Report(
            values["state"],
            status.message,
            int(stamp) if stamp else None,
            {"valid": True, "none": False}[tip],
            values[f"{kind}_track"],
            float(values[f"{kind}_length_px"] or "nan"),
            float(values[f"{kind}_sigma_px"] or "nan"),
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"A state came that cannot be read: {error!r}") from error


def main() -> None:
    """Entry point of the process; takes --ros-args."""
    sys.exit(run_node(lambda done: MotionGuardNode()))


if __name__ == "__main__":
    main()
