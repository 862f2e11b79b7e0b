# SPDX-License-Identifier: Apache-2.0
"""Guidewires as polylines, in the layout of Guide3D (T. Jianu et al., 2024)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.corpora.adapters.folders import files, found
from fedefm_core.corpora.records import DataSet, Mask, Record
from fedefm_core.errors import ManifestError, TruthError

GUIDEWIRES = ("background", "guidewire")
_SUB_PIXEL_BITS = 4


def polylines(path: Path, width_px: float) -> DataSet:
    """PATH/annotations/*.json or PATH/*.json, one file: a list of videos {"frames": [frame, ...]}.

    A frame holds cameras by name, {"cameraA": {"image": NAME, "points": [[x, y], ...]}}; NAME is
    relative to PATH. The line is drawn width_px wide, round, with its pixels' centres at whole
    numbers. The frames of a video are one group. Raises ManifestError for a file that is no such
    thing, TruthError when it names an image that is not there.
    """
    annotations = _annotations(path)
    records = []
    for number, video in enumerate(_videos(annotations)):
        for image, points in video:
            if not (path / image).is_file():
                raise TruthError(f"{annotations} names the image '{image}', which {path} has not")
            draw = partial(_draw, points, width_px)
            records.append(Record(path / image, f"video{number}", None, draw, (annotations,)))
    records.sort(key=lambda record: record.path)
    return DataSet(found(records, path, "a list of videos with frames"), GUIDEWIRES)


def _annotations(path: Path) -> Path:
    there = files(path / "annotations", (".json",)) or files(path, (".json",))
    if len(there) != 1:
        raise ManifestError(
            f"{path} must hold one file of polylines, annotations/*.json or *.json "
            f"(it holds {len(there)})"
        )
    return there[0]


def _videos(path: Path) -> list[list[tuple[str, npt.NDArray[np.float64]]]]:
    try:
        return [
            [_camera(camera) for frame in video["frames"] for camera in _cameras(frame)]
            for video in json.loads(path.read_text())
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(
            f"{path} is no list of videos with polylines: {type(error).__name__}: {error}"
        ) from error


def _cameras(frame: dict[str, Any]) -> list[dict[str, Any]]:
    return [value for _, value in sorted(frame.items()) if isinstance(value, dict)]


def _camera(camera: dict[str, Any]) -> tuple[str, npt.NDArray[np.float64]]:
    points = np.asarray(camera["points"], np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError(f"'points' of {camera['image']} must be [x, y] pairs")
    return str(camera["image"]), points


def _draw(
    points: npt.NDArray[np.float64], width_px: float, shape: tuple[int, int]
) -> Iterator[Mask]:
    """Pixels whose centre is at most half a width from the line."""
    scale = 4  # OpenCV's widths are whole numbers: draw larger, then ask the pixels' centres
    canvas = np.zeros((shape[0] * scale, shape[1] * scale), np.uint8)
    fixed = np.rint(((points + 0.5) * scale - 0.5) * 2**_SUB_PIXEL_BITS).astype(np.int32)
    thickness = max(1, round(width_px * scale))
    cv2.polylines(canvas, [fixed], False, 255, thickness, shift=_SUB_PIXEL_BITS)
    covered = cv2.resize(canvas, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    yield (np.asarray(covered) >= 128).astype(np.uint8)
