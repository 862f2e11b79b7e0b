# SPDX-License-Identifier: Apache-2.0
"""The first moments of a node's process, before rclpy is there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

TIMEOUT_S = 400.0
# Sends itself a signal while the node's module is being imported.
INTERRUPTED = """
import os, sys
from fedefm_ros import entry

class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == "fedefm_ros.segmentation_node":
            for number in {numbers}:
                os.kill(os.getpid(), number)
            raise ImportError("the signal was ignored")

sys.meta_path.insert(0, Interrupter())
entry.segmentation_node()
"""
# Starts a node that says that it is ready and then waits; waits itself.
PARENT = """
import os, signal, subprocess, sys
environment = {**os.environ, "FEDEFM_END_WITH": str(os.getpid())}
subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=environment)
signal.pause()
"""
CHILD = """
import signal, sys, types
from fedefm_ros import entry
sleeper = types.ModuleType("fedefm_ros.sleeper")
sleeper.main = lambda: (print("ready", flush=True), signal.pause())
sys.modules["fedefm_ros.sleeper"] = sleeper
entry.start("sleeper")
"""


# Waits for a signal, while a child that is forked and has the same handlers gets one of its own.
FORKED = """
import os, signal, threading
from fedefm_ros.runner import set_on_signals
told = threading.Event()
set_on_signals(told)
child = os.fork()
if child == 0:
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(0)
os.waitpid(child, 0)
print("by the child:", told.wait(1.0))
os.kill(os.getpid(), signal.SIGTERM)
print("by its own:", told.wait(60.0))
"""


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT] * 2])
def test_a_signal_during_the_imports_ends_the_process_with_code_0(numbers: list[int]) -> None:
    code = INTERRUPTED.format(numbers=[int(number) for number in numbers])
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_signal_to_a_forked_child_does_not_end_the_node() -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2: pip install the extra 'ros'")
    output = subprocess.check_output([sys.executable, "-c", FORKED], text=True, timeout=TIMEOUT_S)
    assert output == "by the child: False\nby its own: True\n"


def test_no_import_of_its_own_is_large() -> None:
    code = "import fedefm_ros.entry, sys; print({'rclpy', 'numpy', 'cv2'} & set(sys.modules))"
    output = subprocess.check_output([sys.executable, "-c", code], text=True, timeout=TIMEOUT_S)
    assert output == "set()\n"


def test_a_node_ends_with_a_parent_that_was_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout.readline() == "ready\n"
    parent.kill()
    # The child holds the other end of the pipe: this returns when it is gone, and not before.
    output, _ = parent.communicate(timeout=TIMEOUT_S)
    assert output == ""


def test_a_node_whose_starter_is_gone_already_ends_at_once() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    result = subprocess.run(
        [sys.executable, "-c", CHILD],
        env={**os.environ, "FEDEFM_END_WITH": str(gone.pid)},
        capture_output=True,
        timeout=TIMEOUT_S,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
