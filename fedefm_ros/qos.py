# SPDX-License-Identifier: Apache-2.0
"""Quality of service of all our topics, and the events that tell when it is not met.

Profiles are made anew at each call: rclpy writes a user's overrides into the profile it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.duration import Duration
from rclpy.qos import (
    QoSHistoryPolicy,
    QoSLivelinessPolicy,
    QoSPolicyKind,
    QoSProfile,
    QoSReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

PERMISSION_DEADLINE_NS = 50_000_000  # some five times the period at which it is published
PERMISSION_LEASE_NS = 100_000_000


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


def permission_qos() -> QoSProfile:
    """`motion_permitted`: as results, and who listens is told when it stops, or its node hangs.

    Liveliness is manual: it is shown by publishing, which a process that hangs does not do.
    """
    return QoSProfile(
        history=QoSHistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=QoSReliabilityPolicy.RELIABLE,
        deadline=Duration(nanoseconds=PERMISSION_DEADLINE_NS),
        liveliness=QoSLivelinessPolicy.MANUAL_BY_TOPIC,
        liveliness_lease_duration=Duration(nanoseconds=PERMISSION_LEASE_NS),
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


def quiet_publisher() -> PublisherEventCallbacks:
    """No events: rclpy waits on each of them, and some hundred times a second that is costly.

    The other end still warns when the QoS of the two do not fit.
    """
    return PublisherEventCallbacks(use_default_callbacks=False)


def quiet_subscription() -> SubscriptionEventCallbacks:
    """As quiet_publisher."""
    return SubscriptionEventCallbacks(use_default_callbacks=False)


def permission_events(
    deadline: Callable[[Any], None], liveliness: Callable[[Any], None]
) -> SubscriptionEventCallbacks:
    """Callbacks of who listens to `motion_permitted`: the guard is late, or gone."""
    return SubscriptionEventCallbacks(deadline=deadline, liveliness=liveliness)
