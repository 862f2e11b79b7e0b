# SPDX-License-Identifier: Apache-2.0
"""fluoroscopy_node: a wire in a vessel tree, moved by the robot's drive, as X-rays show it.

Listens to `robot/measured_js`, publishes `image` and `camera_info`, and, for who judges the run,
what is true: `simulation/tip` and `simulation/trouble`. `seed` and `trouble` may change at any
time; then it begins anew, with the wire where the case starts.
"""

from __future__ import annotations

import sys
import time
from collections import deque

import numpy as np
import numpy.typing as npt
from geometry_msgs.msg import Point, PointStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.timer import Timer
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Header, String

from fedefm_core.frames import Spacing
from fedefm_core.simulation.navigation_case import PIXEL_MM
from fedefm_ros import interface
from fedefm_ros.messages import array_to_image, ns_to_stamp
from fedefm_ros.parameters import Parameters, ParameterSpec, Value
from fedefm_ros.playback_node import camera_info
from fedefm_ros.qos import image_qos, output_qos
from fedefm_ros.runner import run_node
from fedefm_ros.simulated_view import NONE, TROUBLES, SimulatedView

FRAME_ID = "xray"
RATE = "rate"
MM_PER_M = 1000.0
PARAMETERS = (
    ParameterSpec("seed", 0, "Of the case.", "", 0, 2**31 - 1, live=True),
    ParameterSpec(
        "trouble",
        NONE,
        "What goes wrong, once, for two seconds, when the wire is deep enough in.",
        choices=TROUBLES,
        live=True,
    ),
    ParameterSpec(RATE, 15.0, "Frames a second.", "Hz", 0.5, 60.0, live=True),
    ParameterSpec("source_detector_distance", 1.0, "X-ray source to detector.", "m", 0.1, 5.0),
)


class FluoroscopyNode(Node):
    """See the module's docstring. Wrong values of parameters are a ConfigError."""

    def __init__(self) -> None:
        super().__init__("fluoroscopy_node")
        parameters = Parameters(self, PARAMETERS, on_set=self._on_parameter)
        self._values = parameters.values()
        self._view = SimulatedView(self._values["seed"], self._values["trouble"])
        self._before: JointState | None = None
        self._waiting: deque[tuple[float, Image, CameraInfo]] = deque()
        self._images = self.create_publisher(Image, "image", image_qos())
        self._infos = self.create_publisher(CameraInfo, interface.CAMERA_INFO, image_qos())
        self._tips = self.create_publisher(PointStamped, interface.TRUE_TIP, output_qos())
        self._troubles = self.create_publisher(String, interface.TROUBLE, output_qos())
        self.create_subscription(JointState, interface.ROBOT_JOINTS, self._on_joints, output_qos())
        self._timer = self._start_timer()

    def close(self) -> None:
        """Nothing to let go of."""

    def _on_parameter(self, name: str, value: Value) -> None:
        self._values[name] = value
        if name == RATE:
            self.destroy_timer(self._timer)
            self._timer = self._start_timer()
        else:
            self._view = SimulatedView(self._values["seed"], self._values["trouble"])
            self._waiting.clear()

    def _start_timer(self) -> Timer:
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        return self.create_timer(1 / self._values[RATE], self._expose, clock=steady)

    def _on_joints(self, message: JointState) -> None:
        before, self._before = self._before, message
        if before is None:
            return
        fed_m, turned_rad = np.subtract(message.position, before.position)
        seconds = max(_seconds(message) - _seconds(before), 0.0)
        self._view.move(float(fed_m) * MM_PER_M, float(turned_rad), seconds)

    def _expose(self) -> None:
        now_s = time.monotonic()
        stamp = ns_to_stamp(int(self.get_clock().now().nanoseconds))
        exposure = self._view.expose(now_s)
        header = Header(stamp=stamp, frame_id=FRAME_ID)
        self._troubles.publish(String(data=exposure.trouble))
        self._publish_truth(exposure.tip_px, header)
        if exposure.pixels is not None:
            spacing = Spacing(imager_pixel_spacing_mm=(PIXEL_MM, PIXEL_MM))
            distance_m = self._values["source_detector_distance"]
            info = camera_info(exposure.pixels.shape, header, spacing, distance_m)
            image = array_to_image(exposure.pixels, header)
            self._waiting.append((now_s + exposure.delay_s, image, info))
        while self._waiting and self._waiting[0][0] <= now_s:
            _, image, info = self._waiting.popleft()
            self._infos.publish(info)
            self._images.publish(image)

    def _publish_truth(self, tip_px: npt.NDArray[np.float64], header: Header) -> None:
        x, y = (float(value) * PIXEL_MM / MM_PER_M for value in tip_px)
        plane = Header(stamp=header.stamp, frame_id=f"{FRAME_ID}_image_plane")
        self._tips.publish(PointStamped(header=plane, point=Point(x=x, y=y, z=0.0)))


def _seconds(message: JointState) -> float:
    return float(message.header.stamp.sec + message.header.stamp.nanosec * 1e-9)


def main() -> None:
    """Entry point of the process; takes --ros-args."""
    sys.exit(run_node(lambda done: FluoroscopyNode()))


if __name__ == "__main__":
    main()
