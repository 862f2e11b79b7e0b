# SPDX-License-Identifier: Apache-2.0
"""Where a result came from: versions, git revision, machine and settings, as plain JSON."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from fedefm_core.config import Settings, settings_sha256

DISTRIBUTION = "fedefm_ros"  # the one package that holds fedefm_core and fedefm_ros
PACKAGES = (
    DISTRIBUTION,
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "openvino",
    "onnx",
    "onnxruntime",
    "nncf",
    "torch",
    "monai",
    "pydicom",
    "pydantic",
)
GIT_TIMEOUT_S = 5.0


def provenance(settings: Settings | None = None, seed: int | None = None) -> dict[str, Any]:
    """What a person needs to repeat a result; every value can be written as JSON.

    Keys: created (UTC, ISO 8601), command, versions (installed packages only), git_revision
    ('' when unknown; '-dirty' appended when tracked files differ from it), python, platform,
    cpu, cpu_count; with settings also settings and settings_sha256; with seed also seed.
    Never fails for what it cannot find out.
    """
    record: dict[str, Any] = {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": package_versions(),
        "git_revision": git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_count": usable_cpus(),
    }
    if settings is not None:
        record["settings"] = settings.model_dump(mode="json")
        record["settings_sha256"] = settings_sha256(settings)
    if seed is not None:
        record["seed"] = seed
    return record


def package_versions() -> dict[str, str]:
    """Versions by name of those of PACKAGES that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> str:
    """Commit of the source tree that this package runs from; '' when it is no git checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():  # else git would name the commit of a folder further up
        return ""
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}-dirty" if commit and changed else commit


def usable_cpus() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes. Raises OSError when it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _git(root: Path, *arguments: str) -> str:
    # No optional locks: a report must not disturb a commit under way in the same tree.
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
