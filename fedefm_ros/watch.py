# SPDX-License-Identifier: Apache-2.0
"""What `make demo` and `make navigate` share: nodes that are watched, and waiting for them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import rclpy
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from fedefm_core.errors import FedefmError
from fedefm_ros.children import Child, ChildError, check_alive, check_clean_end, stop_node
from fedefm_ros.runner import SIGNALS, set_on_signals
from fedefm_ros.transport import claim_domain, large_data_environment

POLL_S = 0.05
NodeT = TypeVar("NodeT", bound=Node)


class WaitError(Exception):
    """Something did not come in time; the message says what."""


@dataclass(frozen=True)
class Watch:
    """The started nodes, and whether somebody interrupted: each wait looks after both."""

    children: list[Child]
    interrupted: threading.Event

    def wait(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait for what; raise WaitError after timeout_s, else as poll does."""
        if not self.poll(condition, timeout_s):
            logs = ", ".join(str(child.log) for child in self.children)
            raise WaitError(f"Waited {timeout_s:g} s in vain for {what}. Logs: {logs}")

    def poll(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """True as soon as condition holds, False after timeout_s.

        Raises ChildError when a node died, KeyboardInterrupt when interrupted.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            check_alive(self.children)
            if condition():
                return True
            if time.monotonic() > deadline:
                return False
            if self.interrupted.wait(POLL_S):
                raise KeyboardInterrupt


@contextmanager
def own_domain(domain: int) -> Iterator[None]:
    """Take part in a ROS domain, by the transport that large images need; 0: one that is free.

    The environment of this process, and so of the nodes that it starts, is changed for good.
    """
    number, claim = (domain, None) if domain else claim_domain()
    environment = large_data_environment(number)
    os.environ.clear()
    os.environ.update(environment)
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        yield
    finally:
        rclpy.try_shutdown()
        if claim is not None:
            claim.close()


def exit_code(work: Callable[[], None], interrupted: str) -> int:
    """Do the work of a program: 0, or 1 with a sentence on stderr, or 130 when interrupted.

    interrupted: what is then told.
    """
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    try:
        work()
    except (WaitError, ChildError, FedefmError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    return 0


def _interrupt(number: int, frame: object) -> None:
    """End at the first signal, cleanly even when more follow."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def watching() -> Iterator[Watch]:
    """A watch whose nodes are stopped at the end; signals only set a flag until then.

    So no signal can come between the start of a node and the note that it must be stopped.
    """
    watch = Watch([], threading.Event())
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    set_on_signals(watch.interrupted)
    try:
        yield watch
    finally:
        for child in reversed(watch.children):
            stop_node(child)
        for number, handler in previous.items():
            signal.signal(number, handler)
    check_clean_end(watch.children)
    if watch.interrupted.is_set():
        raise KeyboardInterrupt


@contextmanager
def spinning(node: NodeT) -> Iterator[NodeT]:
    """Let node receive in a thread of its own; it is gone when the block ends."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        with suppress(ExternalShutdownException, ShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin, name="executor")
    thread.start()
    try:
        yield node
    finally:
        executor.shutdown()
        thread.join()
        node.destroy_node()
