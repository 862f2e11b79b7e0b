# SPDX-License-Identifier: Apache-2.0
"""Starts motion_guard_node, beside segment.launch.py and in the same namespace, and keeps it up.

    ros2 launch fedefm_ros motion_guard.launch.py
    ros2 launch fedefm_ros motion_guard.launch.py namespace:=lateral params_file:=guard.yaml

A guard that died starts anew, and permits nothing until tracking was good for long enough.
"""

import os

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from fedefm_ros.entry import END_WITH
from fedefm_ros.launch_values import number
from fedefm_ros.transport import large_data_variables
from launch import LaunchContext, LaunchDescription

NAME = "motion_guard_node"
RATE_RANGE = 1.0, 1000.0  # what the guard takes

ARGUMENTS = [
    DeclareLaunchArgument(
        "namespace", default_value="", description="That of the segmentation_node to watch."
    ),
    DeclareLaunchArgument(
        "params_file",
        default_value="",
        description="YAML file of parameters; config/motion_guard.yaml shows them all.",
    ),
    DeclareLaunchArgument(
        "transport",
        default_value="default",
        choices=["default", "large_data"],
        description="As segmentation_node has it: large_data when that was started with a source "
        "or with transport:=large_data.",
    ),
    DeclareLaunchArgument(
        "camera_rate",
        default_value="",
        description="Frames a second that the camera sends; empty: as params_file says, else 30.",
    ),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=["debug", "info", "warn", "error", "fatal"],
        description="Of the node.",
    ),
]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; the node follows when their values are known."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=nodes)])


def nodes(context: LaunchContext) -> list[Node]:
    """motion_guard_node."""
    given = context.launch_configurations
    file = given["params_file"]
    if file and not os.path.isfile(file):  # launch_ros only warns, and the defaults would run
        raise RuntimeError(f"Launch argument 'params_file': there is no file '{file}'.")
    parameters = [file] if file else []
    if given["camera_rate"]:
        rate = number("camera_rate", given["camera_rate"], *RATE_RANGE)
        parameters.append({"camera_rate_hz": ParameterValue(rate, value_type=float)})
    guard = Node(
        package="fedefm_ros",
        executable=NAME,
        name=NAME,
        namespace=given["namespace"],
        parameters=parameters,
        ros_arguments=["--log-level", given["log_level"]],
        additional_env={
            END_WITH: str(os.getpid()),
            **(large_data_variables() if given["transport"] == "large_data" else {}),
        },
        output="screen",
        respawn=True,
        respawn_delay=1.0,
    )
    return [guard]
