# SPDX-License-Identifier: Apache-2.0
"""Where a node's process begins: signals are ours before anything large is imported.

To import a node takes a second, and many on a busy machine. A Ctrl-C in that time would end it
with a traceback and code -2, which to launch is a node that died.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from importlib import import_module

# Set to its own process id by what starts our nodes: they end with it, even when it is killed and
# can end nobody. ros2 launch leaves its nodes running when it gets a SIGTERM itself.
END_WITH = "FEDEFM_END_WITH"
_PR_SET_PDEATHSIG = 1


def fluoroscopy_node() -> None:
    """Run fluoroscopy_node."""
    start("fluoroscopy_node")


def follower_robot_node() -> None:
    """Run follower_robot_node."""
    start("follower_robot_node")


def motion_guard_node() -> None:
    """Run motion_guard_node."""
    start("motion_guard_node")


def navigation_node() -> None:
    """Run navigation_node."""
    start("navigation_node")


def playback_node() -> None:
    """Run playback_node."""
    start("playback_node")


def record_node() -> None:
    """Run record_node."""
    start("record_node")


def segmentation_node() -> None:
    """Run segmentation_node."""
    start("segmentation_node")


def start(name: str) -> None:
    """Run the main of fedefm_ros.<name>; SIGINT and SIGTERM end it with code 0 from here on."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: os._exit(0))  # nothing to tidy up yet
    if os.environ.get(END_WITH, "").isdecimal() and sys.platform == "linux":
        end_with(int(os.environ[END_WITH]))
    import_module(f"fedefm_ros.{name}").main()


def end_with(starter: int) -> None:
    """Ask Linux for a SIGTERM when the parent dies; end at once if the starter has died already.

    The starter is the parent, or, with a launch prefix such as 'xterm -e', a parent of it.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    try:
        os.kill(starter, 0)
    except ProcessLookupError:
        sys.exit(0)
    except PermissionError:  # somebody else's: alive
        pass


if __name__ == "__main__":
    start(sys.argv.pop(1))
