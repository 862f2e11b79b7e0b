# SPDX-License-Identifier: Apache-2.0
"""Quality of service of all our topics, and the events that tell when it is not met.

Profiles are made anew at each call: rclpy writes a user's overrides into the profile it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.qos import QoSHistoryPolicy, QoSPolicyKind, QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks


def image_qos() -> QoSProfile:
    """Images, and what comes with each: best effort, newest only, as cameras publish them."""
    return QoSProfile(
        history=QoSHistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=QoSReliabilityPolicy.BEST_EFFORT,
    )


def output_qos() -> QoSProfile:
    """Results: reliable, volatile, newest only."""
    return QoSProfile(
        history=QoSHistoryPolicy.KEEP_LAST, depth=1, reliability=QoSReliabilityPolicy.RELIABLE
    )


def overridable() -> QoSOverridingOptions:
    """Parameters 'qos_overrides.<topic>.<publisher or subscription>.<policy>' may change it."""
    return QoSOverridingOptions(
        (
            QoSPolicyKind.HISTORY,
            QoSPolicyKind.DEPTH,
            QoSPolicyKind.RELIABILITY,
            QoSPolicyKind.DURABILITY,
        )
    )


def subscription_events(message_lost: Callable[[Any], None]) -> SubscriptionEventCallbacks:
    """Callback for messages that the middleware lost; the defaults for all other events.

    One helper for 'rclpy.qos_event' (Humble) and 'rclpy.event_handler' (later).
    """
    return SubscriptionEventCallbacks(message_lost=message_lost)
