# SPDX-License-Identifier: Apache-2.0
"""config/sros2_policy.xml: it allows what our nodes really create, and no more."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install the extra 'ros'")

from model_fixture import write_threshold_model
from ros_peer import Peer, peer, running, wait_until

POLICY = Path(__file__).resolve().parents[1] / "config" / "sros2_policy.xml"
PROFILES = {one.get("node"): one for one in ElementTree.parse(POLICY).iter("profile")}
# Each run of the nodes creates one of the two, or none.
SOMETIMES = {
    "/image", "/image/compressed", "/clock", "/guidewire/tip", "/catheter/tip",
    "/catheter/tip_pixel",
}  # fmt: skip
# Not there in every distribution.
LATER_SERVICES = {"get_type_description"}


def allowed(node: str, kind: str, direction: str) -> set[str]:
    """Full names that the policy allows a node of the root namespace."""
    names = [
        entry.text or ""
        for group in PROFILES[node].iter(f"{kind}s")
        if group.get(direction) == "ALLOW"
        for entry in group.iter(kind)
    ]
    assert len(names) == len(set(names))
    return {full(name, node) for name in names}


def full(name: str, node: str) -> str:
    if name.startswith("~"):
        return f"/{node}{name[1:]}"
    return name if name.startswith("/") else f"/{name}"


@contextlib.contextmanager
def all_nodes(folder: Path) -> Iterator[Peer]:
    model = write_threshold_model(folder / "threshold.onnx")
    with (
        running(
            "fedefm_ros.segmentation_node",
            folder / "segmentation.txt",
            *("-p", f"model:={model}", "-p", "autostart:=true"),
        ),
        running("fedefm_ros.motion_guard_node", folder / "guard.txt"),
        running(
            "fedefm_ros.playback_node",
            folder / "playback.txt",
            *("-p", "limit:=2", "-p", "read_ahead:=1", "-p", "wait_for_start:=true"),
        ),
        peer() as made,
    ):
        yield made


def test_the_policy_names_the_three_nodes() -> None:
    assert list(PROFILES) == ["segmentation_node", "playback_node", "motion_guard_node"]


@pytest.mark.ros
def test_the_policy_is_what_the_nodes_create(tmp_path: Path) -> None:
    with all_nodes(tmp_path) as made:
        node = made.node
        questions = {
            ("topic", "publish"): node.get_publisher_names_and_types_by_node,
            ("topic", "subscribe"): node.get_subscriber_names_and_types_by_node,
            ("service", "reply"): node.get_service_names_and_types_by_node,
        }

        def created(name: str, kind: str, direction: str) -> set[str]:
            try:
                found = questions[kind, direction](name, "/")
            except Exception:  # not discovered yet
                return set()
            return {topic for topic, _ in found}

        for name in PROFILES:
            for kind, direction in questions:
                wanted = allowed(name, kind, direction)
                optional = SOMETIMES | {f"/{name}/{service}" for service in LATER_SERVICES}
                wait_until(
                    lambda: wanted - optional <= created(name, kind, direction),  # noqa: B023
                    f"{name} creates all that it may {direction}",
                    every=0.2,
                )
                assert created(name, kind, direction) <= wanted
