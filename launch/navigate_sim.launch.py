# SPDX-License-Identifier: Apache-2.0
"""Starts the closed loop with no robot: X-rays of a wire, perception, guard, navigator, robot.

    ros2 launch fedefm_ros navigate_sim.launch.py
    ros2 launch fedefm_ros navigate_sim.launch.py seed:=7 trouble:=frame_loss record:=runs/seven

It plays one case; `ros2 param set` of `seed`, at fluoroscopy_node and then at navigation_node,
begins another. `make navigate` plays many and counts. Ctrl-C ends all.
"""

import os

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from fedefm_ros.entry import END_WITH
from fedefm_ros.launch_values import number
from fedefm_ros.transport import large_data_variables
from launch import LaunchContext, LaunchDescription

SOURCE_DETECTOR_DISTANCE = 1.0  # m; one number for both ends
RATE_RANGE = 1.0, 60.0  # what both fluoroscopy_node and the guard take
SEED_RANGE = 0, 2**31 - 1

ARGUMENTS = [
    DeclareLaunchArgument("seed", default_value="0", description="Of the case to play."),
    DeclareLaunchArgument(
        "trouble",
        default_value="none",
        choices=["none", "frame_loss", "noise", "contrast", "false_wire", "latency"],
        description="What goes wrong for two seconds on the way.",
    ),
    DeclareLaunchArgument(
        "rate", default_value="15.0", description="Frames a second; fewer on a slow machine."
    ),
    DeclareLaunchArgument("namespace", default_value="", description="Of all nodes."),
    DeclareLaunchArgument(
        "record",
        default_value="",
        description="Folder to make for an MCAP recording; empty: none.",
    ),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=["debug", "info", "warn", "error", "fatal"],
        description="Of all nodes.",
    ),
]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; the nodes follow when their values are known."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=nodes)])


def nodes(context: LaunchContext) -> list[Node]:
    """The five nodes of the loop, and record_node when there is something to record to."""
    given = context.launch_configurations
    rate = ParameterValue(number("rate", given["rate"], *RATE_RANGE), value_type=float)
    seed = ParameterValue(int(number("seed", given["seed"], *SEED_RANGE)), value_type=int)
    xray = {"seed": seed, "trouble": given["trouble"], "rate": rate}
    xray["source_detector_distance"] = SOURCE_DETECTOR_DISTANCE
    segmentation = {"autostart": True, "source_detector_distance": SOURCE_DETECTOR_DISTANCE}
    started = [
        node("fluoroscopy_node", xray, given),
        node("segmentation_node", segmentation, given, respawn=True),
        node("motion_guard_node", {"camera_rate_hz": rate, "require_metres": True}, given, True),
        node("follower_robot_node", {}, given),
        node("navigation_node", {"seed": seed}, given),
    ]
    if given["record"]:
        path = ParameterValue(given["record"], value_type=str)
        started.append(node("record_node", {"path": path}, given))
    return started


def node(name: str, parameters: dict, given: dict, respawn: bool = False) -> Node:
    """One of our nodes; respawn: it starts anew when it died."""
    return Node(
        package="fedefm_ros",
        executable=name,
        name=name,
        namespace=given["namespace"],
        parameters=[parameters] if parameters else [],
        ros_arguments=["--log-level", given["log_level"]],
        additional_env={END_WITH: str(os.getpid()), **large_data_variables()},
        output="screen",
        respawn=respawn,
        respawn_delay=1.0,
    )
