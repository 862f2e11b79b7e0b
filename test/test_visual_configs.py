# SPDX-License-Identifier: Apache-2.0
"""Every topic, type and field that the RViz and Foxglove configurations name is one of ours."""

from __future__ import annotations

import importlib
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2's message packages")

from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Path
from sensor_msgs.msg import Image

from fedefm_ros import interface
from fedefm_ros.playback_node import PARAMETERS
from fedefm_ros.qos import image_qos, output_qos

RVIZ_TYPES = {
    "rviz_default_plugins/Image": Image,
    "rviz_default_plugins/Path": Path,
    "rviz_default_plugins/PoseWithCovariance": PoseWithCovarianceStamped,
}
CONFIG = pathlib.Path(__file__).resolve().parents[1] / "config"
RELIABILITIES = {"Reliable": "RELIABLE", "Best Effort": "BEST_EFFORT"}


def absolute(name: str) -> str:
    """A topic as it is called when the node runs without a namespace."""
    return "/" + name.replace("~", interface.NODE_NAME).lstrip("/")


INPUTS = {absolute(name): kind for name, kind in interface.INPUTS.items()}
OUTPUTS = {
    absolute(name): kind
    for name, kind in {**interface.OUTPUTS, **interface.STATUS_OUTPUTS}.items()
}
TOPICS = {**INPUTS, **OUTPUTS}


@pytest.fixture(scope="module")
def rviz() -> list[dict[str, Any]]:
    config = yaml.safe_load((CONFIG / "segment.rviz").read_text())
    return config["Visualization Manager"]["Displays"]


@pytest.fixture(scope="module")
def foxglove() -> dict[str, Any]:
    return json.loads((CONFIG / "foxglove.json").read_text())


def test_rviz_displays_show_our_topics_as_their_types(rviz):
    for display in rviz:
        assert TOPICS[display["Topic"]["Value"]] is RVIZ_TYPES[display["Class"]]


def test_rviz_asks_for_the_reliability_that_is_offered(rviz):
    for display in rviz:
        topic = display["Topic"]
        offered = image_qos() if topic["Value"] in INPUTS else output_qos()
        assert RELIABILITIES[topic["Reliability Policy"]] == offered.reliability.name
        assert topic["Durability Policy"] == "Volatile"


def test_rviz_shows_overlay_tips_and_centrelines_in_our_frame(rviz):
    shown = {display["Topic"]["Value"] for display in rviz if display["Enabled"]}
    kinds = interface.KINDS
    wanted = [interface.OVERLAY, *map(interface.tip, kinds), *map(interface.centerline, kinds)]
    assert {absolute(name) for name in wanted} <= shown
    frame_id = next(spec.default for spec in PARAMETERS if spec.name == "frame_id")
    config = yaml.safe_load((CONFIG / "segment.rviz").read_text())
    fixed = config["Visualization Manager"]["Global Options"]["Fixed Frame"]
    assert fixed == f"{frame_id}_image_plane"


def topics_of(panels: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(panel kind, message path) of all that the panels show."""
    for name, panel in panels.items():
        kind = name.partition("!")[0]
        for path in panel.get("paths", []):
            yield kind, path["value"]
        for topic in panel.get("topics", {}):
            yield kind, topic
        for key in ("topicToRender", "topicPath"):
            if key in panel:
                yield kind, panel[key]
        if kind == "Image":
            yield kind, panel["imageMode"]["imageTopic"]


FOXGLOVE_TYPES = {
    "Image": (Image,),
    "3D": (Path, PoseWithCovarianceStamped),
    "DiagnosticSummary": (interface.STATUS_OUTPUTS[interface.DIAGNOSTICS],),
}


def test_foxglove_panels_show_our_topics_and_fields(foxglove):
    for kind, path in topics_of(foxglove["configById"]):
        topic, *fields = re.sub(r"\[\d+\]", "", path).split(".")
        message = TOPICS[topic]
        assert kind not in FOXGLOVE_TYPES or message in FOXGLOVE_TYPES[kind], path
        for name in fields:
            message = field_type(message, name)


def field_type(message: Any, name: str) -> Any:
    """Class of a field, or of its elements; None when that is no message. KeyError: no field."""
    described = message.get_fields_and_field_types()[name]
    package, _, kind = re.sub(r"^sequence<(.*)>$|\[\d+\]$", r"\1", described).partition("/")
    return getattr(importlib.import_module(f"{package}.msg"), kind) if kind else None


def test_foxglove_shows_every_kind_of_result(foxglove):
    shown = {re.split(r"[.\[]", path)[0] for _, path in topics_of(foxglove["configById"])}
    assert set(OUTPUTS) <= shown


def test_foxglove_places_every_panel_once(foxglove):
    placed = list(leaves(foxglove["layout"]))
    assert sorted(placed) == sorted(foxglove["configById"])


def leaves(layout: str | dict[str, Any]) -> Iterator[str]:
    if isinstance(layout, str):
        yield layout
    else:
        yield from leaves(layout["first"])
        yield from leaves(layout["second"])
