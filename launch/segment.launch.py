# SPDX-License-Identifier: Apache-2.0
"""Starts segmentation_node, and with `source` also a playback_node that feeds it.

    ros2 launch fedefm_ros segment.launch.py image_topic:=/xray/image_raw
    ros2 launch fedefm_ros segment.launch.py source:=sim
    ros2 launch fedefm_ros segment.launch.py source:=run.dcm rate:=15.0

Ctrl-C ends all. An argument left empty leaves the value to params_file, or to the node's default.
"""

import os
import posixpath

from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from fedefm_ros.entry import END_WITH
from fedefm_ros.launch_values import number
from fedefm_ros.transport import large_data_variables
from launch import LaunchContext, LaunchDescription

PACKAGE = "fedefm_ros"
RATE_RANGE = 0.0, 1000.0  # what playback_node takes

ARGUMENTS = [
    DeclareLaunchArgument(
        "model", default_value="", description="Model file, or the name of a shipped model."
    ),
    DeclareLaunchArgument(
        "runtime",
        default_value="",
        choices=["", "auto", "tensorrt", "openvino", "onnxruntime", "torch"],
        description="Inference runtime; auto takes the first that works.",
    ),
    DeclareLaunchArgument(
        "image_topic",
        default_value="image",
        description="Topic of the raw images. Compressed ones are expected on TOPIC/compressed, "
        "and camera_info beside it.",
    ),
    DeclareLaunchArgument(
        "image_transport",
        default_value="",
        choices=["", "raw", "compressed"],
        description="Which of the two image topics is used.",
    ),
    DeclareLaunchArgument(
        "namespace", default_value="", description="Namespace of both nodes and their topics."
    ),
    DeclareLaunchArgument(
        "params_file",
        default_value="",
        description="YAML file of parameters; config/segment.yaml shows them all.",
    ),
    DeclareLaunchArgument(
        "source",
        default_value="",
        description="Empty: a live topic. sim: the simulator. Else a file or folder to play in a "
        "loop.",
    ),
    DeclareLaunchArgument(
        "rate",
        default_value="",
        description="Frames a second to play the source at; 0: its own rate, else 30.",
    ),
    DeclareLaunchArgument(
        "transport",
        default_value="auto",
        choices=["auto", "default", "large_data"],
        description="large_data: Fast DDS set up for images, which must then be so at both ends. "
        "default: as the environment says. auto: large_data with a source, default without.",
    ),
    DeclareLaunchArgument(
        "autostart",
        default_value="true",
        choices=["true", "false"],
        description="Configure and activate segmentation_node at once.",
    ),
    DeclareLaunchArgument(
        "overlay",
        default_value="",
        choices=["", "true", "false"],
        description="Publish images with the result drawn in, while somebody subscribes.",
    ),
    DeclareLaunchArgument(
        "record",
        default_value="",
        description="Folder to make for an MCAP recording of inputs, outputs and diagnostics; "
        "empty: none.",
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
    """segmentation_node, playback_node when there is a source, record_node when asked for."""
    given = context.launch_configurations
    file = given["params_file"]
    if file and not os.path.isfile(file):  # launch_ros only warns, and the defaults would run
        raise RuntimeError(f"Launch argument 'params_file': there is no file '{file}'.")
    parameters = {"autostart": flag(given["autostart"])}
    parameters |= {name: text(given[name]) for name in ("model", "runtime") if given[name]}
    if given["overlay"]:
        parameters["overlay"] = flag(given["overlay"])
    playback = {"source": text(given["source"]), "loop": True}
    if given["rate"]:
        rate = number("rate", given["rate"], *RATE_RANGE)
        playback["rate"] = ParameterValue(rate, value_type=float)
    # segmentation_node does not end by itself: one that died starts anew.
    started = [node("segmentation_node", parameters, given, respawn=True, respawn_delay=1.0)]
    if given["source"]:  # playback that ends cannot play the source: then all is over
        started.append(node("playback_node", playback, given, on_exit=[Shutdown()]))
    if given["record"]:  # so does a recording that cannot be written
        record = {"path": text(given["record"])}
        started.append(node("record_node", record, given, on_exit=[Shutdown()]))
    return started


def node(name: str, parameters: dict, given: dict, **more: object) -> Node:
    """One of our nodes, with what all have in common."""
    topic = given["image_topic"]
    if given["image_transport"] and name != "record_node":
        parameters = {**parameters, "image_transport": text(given["image_transport"])}
    return Node(
        package=PACKAGE,
        executable=name,
        name=name,
        namespace=given["namespace"],
        parameters=[*([given["params_file"]] if given["params_file"] else []), parameters],
        remappings=[
            ("image", topic),
            ("image/compressed", f"{topic}/compressed"),
            ("camera_info", posixpath.join(posixpath.dirname(topic), "camera_info")),
        ],
        ros_arguments=["--log-level", given["log_level"]],
        additional_env={
            END_WITH: str(os.getpid()),
            **transport_environment(given["transport"], bool(given["source"])),
        },
        output="screen",
        **more,
    )


def transport_environment(transport: str, has_source: bool) -> dict[str, str]:
    """Environment for images of some megabytes over Fast DDS, see 'Transport' in docs/ros.md."""
    if transport == "default" or (transport == "auto" and not has_source):
        return {}
    return large_data_variables()


def text(value: str) -> ParameterValue:
    """A string that stays one, even when it looks like a number."""
    return ParameterValue(value, value_type=str)


def flag(value: str) -> bool:
    """'true' or 'false' as a bool."""
    return value == "true"
