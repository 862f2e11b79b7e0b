# SPDX-License-Identifier: Apache-2.0
"""navigation_node: steers the simulated robot along a planned path, by what our topics say alone.

Listens to `guidewire/tip` and `motion_permitted`, commands `robot/servo_cv`. The plan is the
roadmap of the case that `seed` names: the axes of the vessels, nothing of the wire. `seed` may
change at any time and begins anew; -1: do nothing.
"""

from __future__ import annotations

import math
import sys
import time

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseWithCovarianceStamped, TwistStamped
from nav_msgs.msg import Path
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from fedefm_core.simulation.navigation_case import PIXEL_MM, Plan, random_case
from fedefm_ros import interface
from fedefm_ros.messages import ImagePlane, centerline_message, status_message
from fedefm_ros.navigator import (
    STILL,
    Command,
    Navigator,
    Phase,
    PlannedFork,
    PlannedPath,
    SeenTip,
)
from fedefm_ros.parameters import Parameters, ParameterSpec, Value
from fedefm_ros.permission_listener import listen_for_permission
from fedefm_ros.qos import output_qos
from fedefm_ros.runner import run_node

PERIOD_S = 0.04
PLAN_PERIOD_S = 1.0
MM_PER_M = 1000.0
SEED = "seed"
PARAMETERS = (
    ParameterSpec(
        SEED, -1, "Of the case whose path is followed; -1: none.", "", -1, 2**31 - 1, live=True
    ),
    ParameterSpec("frame_id", "xray_image_plane", "Of the plan: that of `guidewire/tip`."),
)


class NavigationNode(Node):
    """See the module's docstring. Wrong values of parameters are a ConfigError."""

    def __init__(self) -> None:
        super().__init__("navigation_node")
        parameters = Parameters(self, PARAMETERS, on_set=self._on_parameter)
        self._values = parameters.values()
        self._plan: Plan | None = None
        self._navigator: Navigator | None = None
        self._permission = listen_for_permission(self)
        self._commands = self.create_publisher(TwistStamped, interface.ROBOT_COMMAND, output_qos())
        self._states = self.create_publisher(
            DiagnosticArray, interface.NAVIGATION_STATE, output_qos()
        )
        self._plans = self.create_publisher(Path, interface.NAVIGATION_PLAN, output_qos())
        self.create_subscription(
            PoseWithCovarianceStamped, interface.tip("guidewire"), self._on_tip, output_qos()
        )
        self._begin(self._values[SEED])
        self._commanded_at = time.monotonic()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(PERIOD_S, self._command, clock=steady)
        self.create_timer(PLAN_PERIOD_S, self._publish_plan, clock=steady)

    def close(self) -> None:
        """Leave the robot standing."""
        self._publish_command(STILL)

    def _on_parameter(self, name: str, value: Value) -> None:
        self._values[name] = value
        self._begin(int(value))

    def _begin(self, seed: int) -> None:
        self._plan = random_case(seed).plan if seed >= 0 else None
        self._navigator = None if self._plan is None else Navigator(planned_path(self._plan))

    def _on_tip(self, message: PoseWithCovarianceStamped) -> None:
        if self._navigator is None:
            return
        position, rotation = message.pose.pose.position, message.pose.pose.orientation
        point_mm = (position.x * MM_PER_M, position.y * MM_PER_M)
        self._navigator.see(SeenTip(point_mm, 2 * math.atan2(rotation.z, rotation.w)))

    def _command(self) -> None:
        now_s = time.monotonic()
        seconds = min(now_s - self._commanded_at, 2 * PERIOD_S)
        self._commanded_at = now_s
        permitted = self._permission.holds(now_s)
        command = STILL
        if self._navigator is not None:
            command = self._navigator.command(seconds, permitted)
        self._publish_command(command)
        self._publish_state(permitted)

    def _publish_command(self, command: Command) -> None:
        message = TwistStamped()
        message.header.stamp = self.get_clock().now().to_msg()
        message.twist.linear.x = command.insert_mm_s / MM_PER_M
        message.twist.angular.x = command.turn_rad_s
        self._commands.publish(message)

    def _publish_state(self, permitted: bool) -> None:
        navigator = self._navigator
        phase = "IDLE" if navigator is None else navigator.phase.value
        place = None if navigator is None else navigator.place
        values: dict[str, object] = {
            "seed": self._values[SEED],
            "phase": phase,
            "permitted": str(permitted).lower(),
            "retries": 0 if navigator is None else navigator.retries,
            "at_mm": "" if place is None else f"{place.at_mm:.2f}",
            "aside_mm": "" if place is None else f"{place.aside_mm:.2f}",
            "turned_rad": "" if place is None else f"{place.turned_rad:.3f}",
        }
        done = phase in ("IDLE", Phase.REACHED.value)
        level = DiagnosticStatus.OK if permitted or done else DiagnosticStatus.WARN
        stamp = self.get_clock().now().to_msg()
        name = f"{self.get_name()}: navigation"
        self._states.publish(status_message(stamp, name, level, phase, values))

    def _publish_plan(self) -> None:
        if self._plan is None or not self._plans.get_subscription_count():
            return
        plane = ImagePlane(self._values["frame_id"], (PIXEL_MM / MM_PER_M,) * 2)
        stamp = self.get_clock().now().to_msg()
        self._plans.publish(centerline_message(self._plan.path, plane, stamp))


def planned_path(plan: Plan) -> PlannedPath:
    """The plan in millimetres."""
    forks = [PlannedFork(fork.at * PIXEL_MM, fork.side) for fork in plan.forks]
    return PlannedPath(np.asarray(plan.path) * PIXEL_MM, forks)


def main() -> None:
    """Entry point of the process; takes --ros-args."""
    sys.exit(run_node(lambda done: NavigationNode()))


if __name__ == "__main__":
    main()
