# SPDX-License-Identifier: Apache-2.0
"""What 'predict' writes: a mask and an overlay per frame, and a line in predictions.jsonl.

A frame's images are complete, or not there, at any moment; its line follows them. So a run that
was cut off leaves a folder that says exactly what was done.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.errors import OutputError
from fedefm_core.perception.types import Instrument, Perception

PREDICTIONS_FILE = "predictions.jsonl"
_RESULT = re.compile(r"[^/\\]+_(mask|overlay)\.png")


class PredictionWriter:
    """Writes results into one folder; use as a context manager.

    folder must be empty or absent, unless overwrite: then the results that its predictions.jsonl
    names are removed first, so that two runs never mix. Raises OutputError, at any write.
    """

    def __init__(self, folder: Path, overwrite: bool = False) -> None:
        self.folder = folder
        self.frames = 0
        self._taken: dict[str, str] = {}  # name without case: source
        check_output_folder(folder, overwrite)
        with _named(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _remove_results(folder)
            self._lines: BinaryIO = (folder / PREDICTIONS_FILE).open("wb", buffering=0)

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._lines.close()

    def write(
        self,
        name: str,
        row: dict[str, Any],
        mask: npt.NDArray[np.uint8],
        overlay: npt.NDArray[np.uint8],
    ) -> None:
        """Write NAME_mask.png, NAME_overlay.png and the line of this frame, in this order."""
        self._claim(name, str(row["source"]))
        files = {"mask": f"{name}_mask.png", "overlay": f"{name}_overlay.png"}
        write_png(self.folder / files["mask"], mask)
        write_png(self.folder / files["overlay"], overlay)
        line = json.dumps({"name": name, **row, **files}, allow_nan=False) + "\n"
        with _named(self.folder / PREDICTIONS_FILE):
            _append(self._lines, line.encode())
        self.frames += 1

    def _claim(self, name: str, source: str) -> None:
        earlier = self._taken.get(name.casefold())
        if earlier is not None:
            raise OutputError(
                f"{earlier} and {source} would both be written as {name}_mask.png; "
                "rename one, or predict them into two folders"
            )
        self._taken[name.casefold()] = source


def check_output_folder(folder: Path, overwrite: bool | None = None) -> None:
    """Raise OutputError unless results may be written to folder; changes nothing.

    overwrite: None where the verb has no such option.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"The output {folder} must be a folder (it is a file)")
    with _named(folder):
        visible = folder.is_dir() and any(p.name[0] != "." for p in folder.iterdir())
    if visible and not overwrite:
        option = ", or add --overwrite to replace what an earlier 'predict' wrote there"
        raise OutputError(
            f"The output folder {folder} is not empty; name a new one"
            f"{'' if overwrite is None else option}"
        )


def frame_row(source: str, number: int, perception: Perception, model: str) -> dict[str, Any]:
    """What predictions.jsonl says of one frame, but for its name and files; see docs/cli.md."""
    height, width = perception.label_map.shape
    return {
        "source": source,
        "frame": number,
        "stamp_ns": perception.stamp_ns,
        "width": width,
        "height": height,
        "model": model,
        "state": perception.state.value,
        "instruments": [_instrument(found) for found in perception.instruments],
        "tracked": {kind: _instrument(found) for kind, found in perception.tracked.items()},
        "timings_ms": {k: round(float(v), 3) for k, v in perception.timings_ms.items()},
    }


def _instrument(found: Instrument) -> dict[str, Any]:
    return {
        "kind": found.kind,
        "tip_px": _rounded(found.tip_px),
        "heading_rad": _rounded(found.heading_rad),
        "covariance_px": _rounded(found.covariance_px),
        "confidence": _rounded(found.confidence),
        "length_px": _rounded(found.length_px),
    }


def _rounded(value: Any) -> Any:
    """As plain JSON, which has no NaN and no infinity: what is not finite is unknown."""
    if value is None or not np.isfinite(value).all():
        return None
    return np.round(np.asarray(value, dtype=np.float64), 4).tolist()


def _remove_results(folder: Path) -> None:
    """Remove what an earlier run wrote, and nothing else."""
    index = folder / PREDICTIONS_FILE
    if not index.is_file():
        return
    for line in index.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            names = [row["mask"], row["overlay"]]
        except (ValueError, KeyError, TypeError):
            continue  # the last line of a run that was cut off
        for name in names:
            if isinstance(name, str) and _RESULT.fullmatch(name):
                (folder / name).unlink(missing_ok=True)
    index.unlink()


def write_png(path: Path, image: npt.NDArray[np.uint8]) -> None:
    """Write an image whole, or not at all. Raises OutputError when that cannot be done."""
    done, data = cv2.imencode(".png", image)
    if not done:
        raise OutputError(f"Cannot encode {path} as PNG: {image.dtype} of shape {image.shape}")
    partial = path.with_name(f".{path.name}.part")
    with _named(path):
        try:
            partial.write_bytes(data.tobytes())
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


def _append(stream: BinaryIO, data: bytes) -> None:
    """All of data or nothing: half a line would spoil the file for its readers."""
    start = stream.seek(0, os.SEEK_END)
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[stream.write(rest) :]
    except OSError:
        stream.truncate(start)
        raise


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}") from error
