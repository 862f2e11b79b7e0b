# SPDX-License-Identifier: Apache-2.0
"""Runs a node as a process that ends cleanly: exit code 0 on SIGINT and SIGTERM, however often.

The executor spins in a thread of its own while the main thread waits for a signal. Signals are
ours from before rclpy starts until the process is gone: rclpy's own handlers give the second
Ctrl-C back to Python, which then ends the process halfway through its shutdown.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Protocol, cast

import rclpy
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TELLS_SENDER = sys.platform == "linux"  # its sockets say who wrote
_CREDENTIALS = struct.Struct("3i")  # process, user, group


class RunnableNode(Protocol):
    """An rclpy node that also knows how to let go of its threads, files and timers."""

    def close(self) -> None:
        """Stop; called once, from the main thread, when no callback runs any more."""

    def destroy_node(self) -> None: ...

    def get_logger(self) -> Any: ...


MakeNode = Callable[[threading.Event], RunnableNode]


def run_node(make_node: MakeNode, args: Sequence[str] | None = None) -> int:
    """Make a node, spin it until SIGINT, SIGTERM or its end, and return the exit code.

    Call it from the main thread and hand the result to sys.exit. make_node gets an event; a node
    that has nothing left to do sets it. args: without the program's name, default sys.argv[1:].
    An exception in a callback is logged and the node lives on. Exit code 0: ended as asked;
    1: the node could not be made, the reason is on stderr.
    """
    stop = threading.Event()
    set_on_signals(stop)
    try:
        rclpy.init(
            args=None if args is None else [sys.argv[0], *args],
            signal_handler_options=SignalHandlerOptions.NO,
        )
        node = make_node(stop)
    except Exception as error:
        print(f"The node could not start: {error}", file=sys.stderr)
        code = 1
    else:
        _spin_until(stop, node)
        code = 0
    _on_signals(signal.SIG_IGN)
    rclpy.try_shutdown()
    _on_signals(signal.SIG_IGN)  # shutting down put back what was there before
    return code


def set_on_signals(event: threading.Event) -> None:
    """Set event when a signal of SIGNALS comes; call it from the main thread.

    A thread that Python's wakeup pipe wakes sets it. A handler cannot: when it interrupts
    Event.wait, or Event.set of an earlier signal, it needs the lock that these hold; and it does
    not run at all while the main thread waits if another thread was given the signal.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    if _TELLS_SENDER:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)

    def tell() -> None:
        while True:  # to the end, for the socket is closed with this thread, and signals go on
            if _sender(reader) == os.getpid():
                event.set()

    threading.Thread(target=tell, name="signals", daemon=True).start()
    _on_signals(lambda number, frame: None)


def _sender(reader: socket.socket) -> int:
    """Wait for a byte in the wakeup socket; the process that wrote it.

    A process that a library forked has our handlers and our end of the socket too, and a SIGTERM
    that ends it is not for us. (OpenVINO's telemetry did that, on busy machines.)
    """
    if not _TELLS_SENDER:
        reader.recv(1)
        return os.getpid()
    _, messages, _, _ = reader.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
    return int(_CREDENTIALS.unpack(messages[0][2])[0]) if messages else os.getpid()


def _on_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in SIGNALS:
        signal.signal(number, handler)


def _spin_until(stop: threading.Event, node: RunnableNode) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(cast(Node, node))
    spinner = threading.Thread(target=_spin, args=(executor, node, stop), name="executor")
    spinner.start()
    stop.wait()
    executor.create_task(lambda: None)  # wakes the executor, which then sees `stop`
    spinner.join()
    executor.shutdown()
    node.close()
    node.destroy_node()


def _spin(executor: SingleThreadedExecutor, node: RunnableNode, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            executor.spin_once()
        except (ShutdownException, ExternalShutdownException):
            stop.set()
        except Exception as error:
            node.get_logger().error(f"A callback failed and was skipped: {error!r}")
