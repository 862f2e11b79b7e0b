# SPDX-License-Identifier: Apache-2.0
"""Keeps a node's Permission: `motion_permitted`, and the events of its deadline and liveliness."""

from __future__ import annotations

import time
from typing import Any

from rclpy.node import Node
from std_msgs.msg import Bool

from fedefm_ros import interface
from fedefm_ros.permission import Permission
from fedefm_ros.qos import permission_events, permission_qos


def listen_for_permission(node: Node) -> Permission:
    """A Permission that is kept up to date for as long as the node lives."""
    permission = Permission()

    def on_liveliness(event: Any) -> None:
        if not event.alive_count:
            permission.ended()

    node.create_subscription(
        Bool,
        interface.MOTION_PERMITTED,
        lambda message: permission.heard(message.data, time.monotonic()),
        permission_qos(),
        event_callbacks=permission_events(lambda event: permission.ended(), on_liveliness),
    )
    return permission
