# SPDX-License-Identifier: Apache-2.0
"""Trainings that a study is made of: the result of each is kept, and found again later."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from fedefm_core.errors import OutputError
from fedefm_core.finetuning.segmentation import POOL

RESULT = "result.json"


@dataclass(frozen=True)
class PartResult:
    """sha256: of everything that decides the figures. seconds: that it took."""

    sha256: str
    seconds: float


ResultT = TypeVar("ResultT", bound=PartResult)


def keep_result(result: PartResult, folder: Path) -> None:
    """Write the result whole or not at all; then drop what only a resumed training needs."""
    partial = folder / f"{RESULT}.partial"
    try:
        partial.write_text(json.dumps(asdict(result)) + "\n")
        os.replace(partial, folder / RESULT)
        shutil.rmtree(folder / POOL, ignore_errors=True)
        (folder / "state.safetensors").unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot write to {folder}: {error.strerror}") from error


def held_result(kind: type[ResultT], folder: Path, sha256: str) -> ResultT | None:
    """The finished result in folder, or None. Raises OutputError for one of other settings."""
    path = folder / RESULT
    if not path.is_file():
        return None
    try:
        result = kind(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise OutputError(f"{path} is damaged; delete it to have it made again") from error
    if result.sha256 != sha256:
        raise OutputError(
            f"{path} is the result of other settings. Name another folder, or delete {folder} to "
            "have it made again"
        )
    return result


def progress_line(name: str, total: int, left: int, done: Sequence[PartResult]) -> str:
    """What is told before a part, of which left are left, this one included."""
    line = f"Part {total - left + 1} of {total}: {name}"
    if not done:
        return line
    hours, minutes = divmod(round(left * np.mean([d.seconds for d in done]) / 60), 60)
    return f"{line}; about {hours} h {minutes:02d} min left"
