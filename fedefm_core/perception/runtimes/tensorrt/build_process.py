# SPDX-License-Identifier: Apache-2.0
"""Builds in a process of their own: what TensorRT does there ends no node and keeps no memory.

The child gets one line of JSON on stdin, writes progress and at last an answer as lines of JSON
on stdout, and the plan into a temporary folder. It ends when its parent does.
"""

from __future__ import annotations

import importlib
import json
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from fedefm_core.config import parse_settings
from fedefm_core.errors import EngineError, FedefmError
from fedefm_core.perception.metadata import read_metadata
from fedefm_core.perception.runtimes.tensorrt.builder import (
    BuildSettings,
    build_plan,
    check_quantisation,
)
from fedefm_core.perception.runtimes.tensorrt.cache import (
    Entry,
    check_folder,
    engine_key,
    store,
    timings_file,
    write,
)
from fedefm_core.perception.runtimes.tensorrt.machine import Machine
from fedefm_core.perception.runtimes.tensorrt.progress import Progress

POLL_S = 0.1  # between two looks at whether to stop
TELL_S = 0.2  # between two lines of progress

Tell = Callable[[Progress], None]


def build_engine(
    model: Path,
    folder: Path,
    machine: Machine,
    settings: BuildSettings,
    tell: Tell = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
) -> Entry:
    """Build the engine of a model file for machine and keep it in folder.

    tell: is shown the progress. stop: is asked often; True ends the build. Raises ModelFileError,
    OutputError before the build where the folder cannot be used, and EngineError; then, and when
    interrupted, nothing of the build stays.
    """
    metadata = read_metadata(model)
    check_quantisation(model)
    check_folder(folder)
    started = time.monotonic()
    timings = timings_file(folder, machine)
    with tempfile.TemporaryDirectory() as name:
        results = Path(name)
        order = {
            "module": machine.module,
            "flavour": machine.flavour,
            "model": str(model),
            "settings": settings.model_dump(),
            "timings": str(timings),
            "results": name,
        }
        _run(order, tell, stop)
        plan, timed = (results / "plan").read_bytes(), (results / "timings").read_bytes()
    key = engine_key(model, metadata, machine)
    seconds = time.monotonic() - started
    entry = store(folder, key, plan, metadata.name, seconds, settings.optimisation_level)
    if timed:
        with suppress(OSError):  # they only make the next build faster
            write(timings, timed)
    return entry


def _run(order: dict[str, Any], tell: Tell, stop: Callable[[], bool]) -> None:
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__]
    # a session of its own: Ctrl-C is for the parent, which then ends the child
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        with suppress(BrokenPipeError):
            child.stdin.write(json.dumps(order).encode() + b"\n")
            child.stdin.flush()
        answer: dict[str, Any] | None = None
        for line in _lines(child.stdout, stop):
            answer = line if "error" in line else answer
            if "fraction" in line:
                tell(Progress(**line))
        code = child.wait()
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
    if answer is None:
        how = signal.Signals(-code).name if code < 0 else f"code {code}"
        raise EngineError(f"TensorRT ended the process that built the engine ({how}).")
    if answer["error"]:
        raise EngineError(str(answer["error"]))


def _lines(stream: IO[bytes], stop: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Lines of JSON until the stream ends; all else that is printed there is passed over."""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        rest = b""
        while True:
            if stop():
                raise EngineError("The build of the engine was interrupted.")
            if not selector.select(POLL_S):
                continue
            block = stream.read1(1 << 16)  # type: ignore[attr-defined]
            if not block:
                return
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                with suppress(ValueError):
                    value = json.loads(line)
                    if isinstance(value, dict):
                        yield value


def obey(order: dict[str, Any]) -> None:
    """What the child does: build as ordered, and say how it went."""
    told_at = 0.0

    def tell(progress: Progress) -> bool:
        nonlocal told_at
        if time.monotonic() - told_at < TELL_S and progress.fraction < 1.0:
            return True
        told_at = time.monotonic()
        return _say(asdict(progress))

    try:
        settings = parse_settings(BuildSettings, order["settings"])
        timings = Path(order["timings"])
        plan, timed = build_plan(
            importlib.import_module(order["module"]),
            Path(order["model"]).read_bytes(),
            settings,
            timings.read_bytes() if timings.is_file() else b"",
            tell,
            order["flavour"],
        )
        results = Path(order["results"])
        (results / "plan").write_bytes(plan)
        (results / "timings").write_bytes(timed)
    except (FedefmError, ImportError, OSError) as error:
        _say({"error": str(error)})
    else:
        _say({"error": ""})


def _say(line: dict[str, Any]) -> bool:
    """Print a line; False when the parent is gone."""
    try:
        print(json.dumps(line), flush=True)
    except BrokenPipeError:
        return False
    return True


if __name__ == "__main__":
    obey(json.loads(sys.stdin.readline()))
