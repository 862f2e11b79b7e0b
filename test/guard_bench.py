# SPDX-License-Identifier: Apache-2.0
"""motion_guard_node in a process, and what it watches: segmentation_node's part played by us.

As a script it plays good frames for ever: a publisher that a test can kill.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PointStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile
from ros_peer import NodeProcess, Peer, peer, running, wait_until
from sensor_msgs.msg import Image
from std_msgs.msg import Bool, Header

from fedefm_core.perception import TrackPhase
from fedefm_ros import interface
from fedefm_ros.health import LastResult, State, Verdict
from fedefm_ros.messages import array_to_image, ns_to_stamp, tip_pixel_message
from fedefm_ros.qos import output_qos, permission_qos
from fedefm_ros.status import state_message

MODULE = "fedefm_ros.motion_guard_node"
NODE = "/motion_guard_node"
FRAME_PERIOD_S = 1 / 30
BEAT_S = 0.01
RECOVERY_S = 0.3
# A busy machine: what is tested here is what follows on what, not how fast.
PATIENT = (
    f"recovery_time_s:={RECOVERY_S}",
    "state_timeout_s:=0.6",
    "max_gap_frames:=27.0",
    "max_age_s:=2.0",
    "max_future_s:=0.5",
    "min_rate_share:=0.034",
    "max_pause_s:=1.0",
)
TIP_PX = np.array([31.0, 32.0])
MASK = np.zeros((64, 64), np.uint8)
MASK[30:34, 0:32] = 2  # a guidewire


class FakeSegmentation:
    """Publishes what segmentation_node would, right or wrong."""

    def __init__(self, node: Node) -> None:
        self._node = node
        kind = interface.KINDS[0]
        self.state = node.create_publisher(DiagnosticArray, interface.STATE, output_qos())
        self.tip = node.create_publisher(PointStamped, interface.tip_pixel(kind), output_qos())
        self.mask = node.create_publisher(Image, interface.MASK, output_qos())
        self._stamp_ns = 0
        self._due_s = 0.0

    def connected(self) -> bool:
        """Does the guard listen to all of it?"""
        return all(p.get_subscription_count() for p in (self.state, self.tip, self.mask))

    def frame(
        self,
        state: State = State.TRACKING,
        tip_px: np.ndarray | None = TIP_PX,
        length_px: float = 300.0,
        sigma_px: float = 1.2,
        mask: np.ndarray = MASK,
    ) -> None:
        """All of a frame; without a tip when tip_px is None."""
        self._stamp_ns = int(self._node.get_clock().now().nanoseconds)
        stamp = ns_to_stamp(self._stamp_ns)
        if tip_px is not None:
            self.tip.publish(tip_pixel_message(tip_px, stamp))
        self.beat(state, tip_px is not None, length_px, sigma_px)
        self.mask.publish(array_to_image(mask, Header(stamp=stamp)))

    def beat(
        self,
        state: State = State.TRACKING,
        has_tip: bool = True,
        length_px: float = 300.0,
        sigma_px: float = 1.2,
    ) -> None:
        """A `state` that speaks of the last frame."""
        kind = interface.KINDS[0]
        last = LastResult(
            self._stamp_ns,
            *({kind: value} if has_tip else {} for value in (0.9, length_px, sigma_px)),
            phases={kind: TrackPhase.LOST if state is State.LOST else TrackPhase.TRACKED},
        )
        stamp = self._node.get_clock().now().to_msg()
        self.state.publish(state_message(Verdict(state, "as played"), stamp, last, {}))

    def good(self) -> None:
        """To be called again and again: a good frame when one is due, else a beat."""
        if time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + FRAME_PERIOD_S
            self.frame()
        else:
            self.beat()


@dataclass
class Heard:
    """`motion_permitted` as a robot hears it: the value and when it came; and the reasons."""

    permitted: list[tuple[float, bool]] = field(default_factory=list)
    reasons: list[DiagnosticArray] = field(default_factory=list)

    def take(self, message: Bool) -> None:
        self.permitted.append((time.monotonic(), message.data))

    def permits(self) -> bool:
        """Is the newest answer yes?"""
        return bool(self.permitted) and self.permitted[-1][1]

    def forbids(self) -> bool:
        """Is the newest answer no?"""
        return bool(self.permitted) and not self.permitted[-1][1]

    def values(self) -> dict[str, str]:
        """The newest reason; empty before the first."""
        if not self.reasons:
            return {}
        return {pair.key: pair.value for pair in self.reasons[-1].status[0].values}


@dataclass
class GuardBench:
    """What a test has in hand."""

    process: NodeProcess
    peer: Peer
    heard: Heard
    fake: FakeSegmentation

    def earn(self) -> None:
        """Play good frames until motion is permitted."""
        wait_until(self.fake.connected, "the guard listens")

        def permitted() -> bool:
            self.fake.good()
            return self.heard.permits()

        wait_until(permitted, "permission", every=BEAT_S)

    def provoke(self, trouble: Callable[[], object], reason: str) -> None:
        """Earn permission and make trouble until that, and nothing else, withdraws it.

        Once is enough on a machine with nothing else to do.
        """
        name = f"withdrawals_{reason}"

        def withdrawn() -> bool:
            self.earn()
            before = self.heard.values().get(name, "0")
            trouble()
            wait_until(self.heard.forbids, "no permission")
            seen = len(self.heard.reasons)
            wait_until(lambda: len(self.heard.reasons) > seen, "the reason")
            return self.heard.values().get(name, "0") != before

        wait_until(withdrawn, f"withdrawn for '{reason}'")


@contextlib.contextmanager
def guard_bench(log: Path, *settings: str) -> Iterator[GuardBench]:
    """A guard, a robot that listens to it and something that it can watch."""
    with guard(log, *settings) as process, peer() as made:
        heard = listen(made, permission_qos())
        yield GuardBench(process, made, heard, FakeSegmentation(made.node))
        assert "failed" not in process.output, process.output


def guard(
    log: Path, *settings: str, namespace: str = ""
) -> contextlib.AbstractContextManager[NodeProcess]:
    """The guard's process."""
    arguments = [word for setting in (settings or PATIENT) for word in ("-p", setting)]
    if namespace:
        arguments += ["-r", f"__ns:=/{namespace}"]
    return running(MODULE, log, *arguments)


def listen(made: Peer, qos: QoSProfile, **more: Any) -> Heard:
    """Hear `motion_permitted` and `motion_state`."""
    heard = Heard()
    made.node.create_subscription(Bool, interface.MOTION_PERMITTED, heard.take, qos, **more)
    heard.reasons = made.listen(interface.MOTION_STATE, DiagnosticArray, output_qos())
    return heard


@contextlib.contextmanager
def fake_process() -> Iterator[subprocess.Popen[bytes]]:
    """Good frames from a process of their own."""
    process = subprocess.Popen([sys.executable, __file__])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def play_for_ever() -> None:
    """Good frames until somebody ends this process."""
    rclpy.init()
    node = Node("fake_segmentation")
    fake = FakeSegmentation(node)
    while True:
        fake.good()
        time.sleep(BEAT_S)


if __name__ == "__main__":
    play_for_ever()
