# SPDX-License-Identifier: Apache-2.0
"""follower_robot_node: a robot that feeds and turns a wire, simulated, by the names of CRTK.

`robot/servo_cv` (geometry_msgs/TwistStamped) tells the speeds: linear.x of insertion in m/s,
angular.x of rotation in rad/s. `robot/measured_js` (sensor_msgs/JointState) tells where the drive
is. It goes by `motion_permitted` itself, whatever it is told, and stops when commands cease.
"""

from __future__ import annotations

import sys
import time

from geometry_msgs.msg import TwistStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import JointState

from fedefm_ros import interface
from fedefm_ros.parameters import Parameters, ParameterSpec
from fedefm_ros.permission_listener import listen_for_permission
from fedefm_ros.qos import output_qos
from fedefm_ros.runner import run_node
from fedefm_ros.simulated_robot import RobotLimits, SimulatedRobot

PERIOD_S = 0.02
LONGEST_STEP_S = 0.1  # a robot that was held up does not make up for it
_DEFAULTS = RobotLimits()
PARAMETERS = (
    ParameterSpec("insert_limit", _DEFAULTS.insert_m_s, "Fastest insertion.", "m/s", 0.0001, 1.0),
    ParameterSpec("turn_limit", _DEFAULTS.turn_rad_s, "Fastest rotation.", "rad/s", 0.001, 100.0),
    ParameterSpec(
        "command_timeout",
        _DEFAULTS.command_lasts_s,
        "A command that is not repeated for so long is over.",
        "s",
        0.01,
        1.0,
    ),
)


class FollowerRobotNode(Node):
    """See the module's docstring. Wrong values of parameters are a ConfigError."""

    def __init__(self) -> None:
        super().__init__("follower_robot_node")
        values = Parameters(self, PARAMETERS).values()
        self._robot = SimulatedRobot(
            RobotLimits(
                insert_m_s=values["insert_limit"],
                turn_rad_s=values["turn_limit"],
                command_lasts_s=values["command_timeout"],
            )
        )
        self._permission = listen_for_permission(self)
        self._joints = self.create_publisher(JointState, interface.ROBOT_JOINTS, output_qos())
        self.create_subscription(
            TwistStamped, interface.ROBOT_COMMAND, self._on_command, output_qos()
        )
        self._stepped_at = time.monotonic()
        self.create_timer(PERIOD_S, self._step, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """Nothing to let go of."""

    def _on_command(self, message: TwistStamped) -> None:
        twist = message.twist
        self._robot.command(twist.linear.x, twist.angular.x, time.monotonic())

    def _step(self) -> None:
        now_s = time.monotonic()
        seconds = min(now_s - self._stepped_at, LONGEST_STEP_S)
        self._stepped_at = now_s
        drive = self._robot.step(seconds, now_s, self._permission.holds(now_s))
        message = JointState(
            name=list(interface.JOINTS),
            position=list(drive.position),
            velocity=list(drive.velocity),
        )
        message.header.stamp = self.get_clock().now().to_msg()
        self._joints.publish(message)


def main() -> None:
    """Entry point of the process; takes --ros-args."""
    sys.exit(run_node(lambda done: FollowerRobotNode()))


if __name__ == "__main__":
    main()
