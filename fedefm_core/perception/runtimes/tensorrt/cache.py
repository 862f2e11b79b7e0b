# SPDX-License-Identifier: Apache-2.0
"""Engines on disk: each a plan and, beside it, a record of what it was built from and for.

A plan holds code that the GPU runs, and one of another machine crashes. So a plan is loaded only
with a record that we wrote, whose key is that of this model on this machine, and whose hash is
that of the plan; and only where nobody else may write.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fedefm_core.errors import EngineError, OutputError
from fedefm_core.perception.metadata import ModelMetadata
from fedefm_core.perception.runtimes.tensorrt.machine import Machine
from fedefm_core.provenance import file_sha256

FOLDER_VARIABLE = "FEDEFM_ENGINES"
BUILD_COMMAND = "fedefm_core engine build"
PLAN, RECORD, PARTIAL, TIMINGS = ".plan", ".json", ".partial", ".timings"
PREFIX = "engine-"  # of all files that are ours in the folder


@dataclass(frozen=True)
class EngineKey:
    """All that decides whether a plan may be used."""

    model_sha256: str  # of the bytes of the .onnx file
    precision: str
    input_size: tuple[int, int]
    flavour: str
    version: str
    gpu: str  # '' : built by TensorRT-RTX for any GPU that it supports
    compute_capability: str
    driver: str

    @property
    def stem(self) -> str:
        """Of the names of the files, without their suffix."""
        text = json.dumps(asdict(self), sort_keys=True)
        return PREFIX + hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Entry:
    """A record: what was built, when, in how long, and the hash and size of the plan."""

    key: EngineKey
    model: str
    plan_sha256: str
    plan_bytes: int
    created: str
    build_s: float
    optimisation_level: int


def default_folder() -> Path:
    """$FEDEFM_ENGINES, else in the user's cache folder, as the XDG specification has it."""
    named = os.environ.get(FOLDER_VARIABLE)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(base) / "fedefm_core" / "engines"


def engine_key(model: Path, metadata: ModelMetadata, machine: Machine) -> EngineKey:
    """The key of a model file on a machine. Raises OSError when the file cannot be read."""
    return EngineKey(
        file_sha256(model),
        metadata.precision,
        metadata.input_size,
        machine.flavour,
        machine.version,
        machine.gpu,
        machine.compute_capability,
        machine.driver,
    )


def check_folder(folder: Path) -> None:
    """Make the folder. Raises OutputError now, not after a long build, when it cannot be used."""
    probe = folder / f"{PREFIX}writable{PARTIAL}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise _not_written(folder, error) from error


def store(
    folder: Path, key: EngineKey, plan: bytes, model: str, build_s: float, optimisation_level: int
) -> Entry:
    """Write plan and record, the record last: a plan without one was never finished.

    Raises OutputError when the folder cannot be written or the disk is full; no part stays.
    """
    entry = Entry(
        key,
        model,
        hashlib.sha256(plan).hexdigest(),
        len(plan),
        time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        build_s,
        optimisation_level,
    )
    record = json.dumps(asdict(entry), indent=2).encode()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / (key.stem + RECORD)).unlink(missing_ok=True)  # an old record fits no new plan
        write(folder / (key.stem + PLAN), plan)
        write(folder / (key.stem + RECORD), record)
    except OSError as error:
        raise _not_written(folder, error) from error
    return entry


def write(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read or change, in one step."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def load(folder: Path, key: EngineKey) -> bytes:
    """The plan of this very key, checked.

    Raises EngineError that says why there is none: never built, built for another GPU, driver,
    version or precision, truncated, changed, without our record, or open to others.
    """
    path = folder / (key.stem + PLAN)
    try:
        plan = path.read_bytes()
    except FileNotFoundError:
        raise EngineError(_why_missing(folder, key)) from None
    except OSError as error:
        raise EngineError(f"Cannot read the engine {path}: {error.strerror}") from error
    trouble = problem(folder, key.stem, plan)
    if trouble:
        raise EngineError(f"{trouble} It is not loaded; build it again: {BUILD_COMMAND}")
    return plan


def problem(folder: Path, stem: str, plan: bytes | None = None) -> str:
    """What is wrong with an engine, as a sentence, or ''. plan: its bytes, where read."""
    path = folder / (stem + PLAN)
    try:
        entry = read_entry(folder / (stem + RECORD))
        content = path.read_bytes() if plan is None else plan
        exposed = [p for p in (folder, path, folder / (stem + RECORD)) if _others_write(p)]
    except (OSError, ValueError) as error:
        return f"{path} was not built by this program: it has no record of ours ({error})."
    if entry.key.stem != stem:
        return f"{path} was renamed, or its record changed: it belongs to {entry.key.stem}."
    if len(content) < entry.plan_bytes:
        return f"{path} is truncated: {len(content)} of {entry.plan_bytes} bytes."
    if hashlib.sha256(content).hexdigest() != entry.plan_sha256:
        return f"{path} is not the plan that this program built: its hash differs."
    if exposed:
        return f"{exposed[0]} can be written by other users or belongs to another (chmod go-w)."
    return ""


def stems(folder: Path) -> list[str]:
    """Of all engines in the folder, whole or not; [] when there is no such folder."""
    paths = folder.glob(f"{PREFIX}*") if folder.is_dir() else ()
    return sorted({p.stem for p in paths if p.suffix in (PLAN, RECORD)})


def read_entry(path: Path) -> Entry:
    """Read a record. Raises OSError, and ValueError for what is none."""
    try:
        values = json.loads(path.read_text())
        key = {**values.pop("key")}
        key["input_size"] = tuple(key["input_size"])
        return Entry(EngineKey(**key), **values)
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is no record of an engine") from error


def clear(folder: Path, only: Iterable[str] | None = None) -> int:
    """Remove our files, or those of some stems; how many bytes are free now.

    Nothing else in the folder is touched. Raises OutputError when a file cannot be removed.
    """
    removed = 0
    chosen = None if only is None else set(only)
    for path in sorted(folder.glob(f"{PREFIX}*")) if folder.is_dir() else ():
        ours = path.suffix in (PLAN, RECORD, PARTIAL, TIMINGS)
        if not ours or (chosen is not None and path.stem not in chosen):
            continue
        try:
            size = path.stat().st_size
            path.unlink()
        except OSError as error:
            raise OutputError(f"Cannot remove {path}: {error.strerror}") from error
        removed += size
    return removed


def timings_file(folder: Path, machine: Machine) -> Path:
    """Where TensorRT's timings of this machine are kept; they are no part of an engine."""
    text = json.dumps(asdict(machine), sort_keys=True)
    return folder / f"{PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:16]}{TIMINGS}"


def _why_missing(folder: Path, key: EngineKey) -> str:
    """Name what the engines of this model that there are were built for."""
    hint = f"build it: {BUILD_COMMAND}"
    reasons = []
    for stem in stems(folder):
        try:
            other = read_entry(folder / (stem + RECORD)).key
        except (OSError, ValueError):
            continue
        if other.model_sha256 == key.model_sha256:
            reasons.append(", ".join(_differences(other, key)))
    if not reasons:
        return f"There is no engine of this model in {folder}; {hint}"
    return f"The engines of this model in {folder} do not fit: {'; '.join(reasons)}; {hint}"


def _differences(other: EngineKey, key: EngineKey) -> list[str]:
    names = [field.name for field in fields(EngineKey)]
    pairs = [(name, getattr(other, name), getattr(key, name)) for name in names]
    return [
        f"{name.replace('_', ' ')} {found or 'any'}, here {wanted or 'none'}"
        for name, found, wanted in pairs
        if found != wanted
    ]


def _others_write(path: Path) -> bool:
    """Whether somebody else but root could have put something here."""
    status = path.stat()
    open_to_others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return bool(open_to_others) or status.st_uid not in (os.geteuid(), 0)


def _not_written(folder: Path, error: OSError) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"The engine does not fit into {folder}: the disk is full.")
    return OutputError(
        f"Cannot write to the folder of engines {folder}: {error.strerror}. Without it, every "
        f"start would build anew. Name another one with ${FOLDER_VARIABLE}."
    )
