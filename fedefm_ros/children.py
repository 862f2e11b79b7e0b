# SPDX-License-Identifier: Apache-2.0
"""Nodes as child processes: started with a parameter file, watched, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from fedefm_ros.entry import END_WITH

STOP_TIMEOUT_S = 30.0
LOG_LINES_SHOWN = 12


class ChildError(Exception):
    """A node ended that should not have; the message holds the end of its log."""


@dataclass(frozen=True)
class Child:
    """A running node. ends_by_itself: to end with code 0 is no failure."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    ends_by_itself: bool


def start_node(
    name: str,
    parameters: Mapping[str, object],
    log_folder: Path,
    ends_by_itself: bool = False,
) -> Child:
    """Start fedefm_ros.<name> with parameters; its output goes to log_folder/<name>.log.

    It gets a session of its own, so that a Ctrl-C at the terminal reaches it only through us, and
    it ends when the thread that calls this does, however that ends.
    """
    log_folder.mkdir(parents=True, exist_ok=True)
    parameter_file = log_folder / f"{name}.yaml"
    parameter_file.write_text(yaml.safe_dump({"/**": {"ros__parameters": dict(parameters)}}))
    command = [sys.executable, "-m", "fedefm_ros.entry", name]
    command += ["--ros-args", "--params-file", str(parameter_file)]
    log = log_folder / f"{name}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, END_WITH: str(os.getpid())},
        )
    return Child(name, process, log, ends_by_itself)


def check_alive(children: Sequence[Child]) -> None:
    """Raise ChildError when one of children has ended that should not have."""
    for child in children:
        code = child.process.poll()
        if code is not None and not (child.ends_by_itself and code == 0):
            raise ChildError(_describe_end(child, code))


def check_clean_end(children: Sequence[Child]) -> None:
    """Raise ChildError when one of children, all stopped, ended with an error."""
    for child in children:
        if child.process.returncode != 0:
            raise ChildError(_describe_end(child, child.process.returncode))


def stop_node(child: Child) -> int:
    """Ask the node to end, insist when it does not, and return its exit code; once ended, that."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if child.process.poll() is not None:
            break
        child.process.send_signal(number)
        try:
            child.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            continue
    return child.process.wait()


def _describe_end(child: Child, code: int) -> str:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    lines = child.log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
    tail = "\n".join(f"    {line}" for line in lines) or "    (it wrote nothing)"
    return f"{child.name} {how}. The end of {child.log}:\n{tail}"
