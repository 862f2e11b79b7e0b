# SPDX-License-Identifier: Apache-2.0
"""What tests need to talk to our nodes over DDS: the process under test, and a peer that waits."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile

PATIENCE_S = 240.0  # a limit for what never happens; everything else is waited for
TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
    "shutdown": Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
}
REPOSITORY = Path(__file__).resolve().parents[1]


def wait_until(
    condition: Callable[[], object],
    what: str,
    every: float = 0.005,
    limit: float = PATIENCE_S,
) -> Any:
    """Poll condition until it holds and return what it gave; fail, saying what never happened."""
    deadline = time.monotonic() + limit
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"{what}: not within {limit} s"
        time.sleep(every)


class NodeProcess:
    """One of our nodes in a process, and a process group, of its own."""

    def __init__(self, module: str, log: Path, *ros_args: str) -> None:
        self._log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, "--ros-args", *ros_args],
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """All that the process has printed and logged."""
        return self._log.read_text()

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """Send a signal, as a shell does: to the whole process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def wait(self) -> int:
        """Exit code."""
        return self.process.wait(PATIENCE_S)

    def has_orphans(self) -> bool:
        """Is anything left of the process group, after the process has ended?"""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        """End it whatever its state."""
        self.interrupt(signal.SIGKILL)
        self.process.wait(PATIENCE_S)


class Peer:
    """A node with its own context and thread that records topics and calls services."""

    def __init__(self, name: str = "peer") -> None:
        self.context = Context()
        rclpy.init(context=self.context)
        self.node = Node(name, context=self.context)
        self.received: dict[str, list[Any]] = {}
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name=name)
        self._thread.start()

    def close(self) -> None:
        """Leave the graph."""
        self.context.try_shutdown()
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()

    def listen(self, topic: str, message_type: type, qos: QoSProfile) -> list[Any]:
        """Record the messages of a topic, in the list that is returned."""
        messages = self.received.setdefault(topic, [])
        self.node.create_subscription(message_type, topic, messages.append, qos)
        return messages

    def publisher(self, topic: str, message_type: type, qos: QoSProfile) -> Any:
        """Create a publisher."""
        return self.node.create_publisher(message_type, topic, qos)

    def call(self, service: str, service_type: type, request: Any) -> Any:
        """Call a service that may be called again: first wait for it, then ask until it answers.

        A client learns of a server before the server learns of the client, and an answer sent
        between the two is lost.
        """
        client = self.node.create_client(service_type, service)
        try:
            assert client.wait_for_service(PATIENCE_S), f"no service {service}"
            futures = []

            def ask() -> Any:
                futures.append(client.call_async(request))
                with contextlib.suppress(AssertionError):
                    wait_until(lambda: any(f.done() for f in futures), "an answer", limit=3.0)
                return next((f.result() for f in futures if f.done()), None)

            return wait_until(ask, f"an answer of {service}")
        finally:
            self.node.destroy_client(client)

    def change_state(self, node: str, transition: str) -> bool:
        """Ask for a transition by its label; return whether it succeeded.

        To ask again does no harm: a transition that has been made is not there to be made again,
        so success is told by the state and not by the answer.
        """
        before = self.get_state(node)
        number = TRANSITIONS[transition]
        if transition == "shutdown":
            number += ("unconfigured", "inactive", "active").index(before)
        request = ChangeState.Request(transition=Transition(id=number))
        self.call(f"{node}/change_state", ChangeState, request)
        return self.get_state(node) != before

    def get_state(self, node: str) -> str:
        """Label of a node's lifecycle state."""
        return str(
            self.call(f"{node}/get_state", GetState, GetState.Request()).current_state.label
        )

    def set_parameters(self, node: str, **values: Any) -> str:
        """Set parameters; return '' or the reason why they were refused."""
        parameters = [
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]
        request = SetParametersAtomically.Request(parameters=parameters)
        answer = self.call(f"{node}/set_parameters_atomically", SetParametersAtomically, request)
        return "" if answer.result.successful else str(answer.result.reason)

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()


@contextlib.contextmanager
def running(module: str, log: Path, *ros_args: str) -> Iterator[NodeProcess]:
    """Run a node's module with these ROS arguments; it is gone when the block ends."""
    started = NodeProcess(module, log, *ros_args)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.kill()


@contextlib.contextmanager
def peer(name: str = "peer") -> Iterator[Peer]:
    """A Peer that is closed when the block ends."""
    made = Peer(name)
    try:
        yield made
    finally:
        made.close()
