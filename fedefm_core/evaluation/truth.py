# SPDX-License-Identifier: Apache-2.0
"""What is true of an image: its mask (PNG, 0/1/2) and, from truth.json, its kind and its tips."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedefm_core.errors import FrameError, TruthError
from fedefm_core.evaluation.strata import LineTruth
from fedefm_core.frames.raster import declared_size, decode_still, still_format
from fedefm_core.perception.types import (
    CLASS_NAMES,
    INSTRUMENT_KINDS,
    UNKNOWN,
    FloatArray,
    LabelMap,
)

TRUTH_FILE = "truth.json"
ALL = "all"  # the group of all frames, so no kind of image may be called that
_LINE = "'centerline_px' must be a list of points, 'width_px' and 'contrast_to_noise' numbers"
_PNG_COLOR_TYPE = 25  # position of this byte in every PNG file; 0 is grey


@dataclass(frozen=True)
class FrameTruth:
    """kind: of image, or None when unknown. tips: by instrument kind, (T, 2) x, y in pixels.

    lines: visible stretches, where the truth has centerlines. instruments: how many there are,
    None where nobody counted.
    """

    kind: str | None
    tips: Mapping[str, FloatArray]
    lines: tuple[LineTruth, ...] = ()
    instruments: int | None = None


def read_mask(folder: Path, name: str, shape: tuple[int, int]) -> LabelMap:
    """The mask of frame name: (H, W) uint8 of shape, values of CLASS_NAMES.

    Raises TruthError, naming the file, when it is missing, unreadable, not grey, of another size
    or holds other values.
    """
    path = folder / f"{name}.png"
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise TruthError(f"The image '{name}' has no mask: {path} is missing") from error
    except OSError as error:
        raise TruthError(f"Cannot read the mask {path}: {error.strerror}") from error
    try:
        if still_format(data) != "PNG":
            raise FrameError("its first bytes are not those of a PNG")
        width, height = declared_size(data, "PNG")
        if (height, width) != shape:
            raise TruthError(
                f"The mask {path} must have the size of its image, {shape[1]} x {shape[0]} pixels "
                f"(got {width} x {height} pixels)"
            )
        mask = decode_still(data, formats=("PNG",))
    except FrameError as error:
        raise TruthError(f"The mask {path} is no readable PNG file: {error}") from error
    if data[_PNG_COLOR_TYPE] != 0:
        raise TruthError(f"The mask {path} must be grey (it has colors, a palette or alpha)")
    if mask.max() >= len(CLASS_NAMES):
        legend = ", ".join(f"{value} {label}" for value, label in enumerate(CLASS_NAMES))
        hint = "; 255, 'unknown', is for training alone" if mask.max() == UNKNOWN else ""
        raise TruthError(
            f"The mask {path} may hold only {legend} (got the value {mask.max()}{hint})"
        )
    return np.asarray(mask, dtype=np.uint8)


def find_truth(masks: Path) -> Path | None:
    """The truth.json beside a folder of masks, as 'fedefm_core simulate' writes it, or None."""
    path = masks.resolve().parent / TRUTH_FILE
    return path if path.is_file() else None


def read_truth(path: Path) -> dict[str, FrameTruth]:
    """Truth by frame name. Raises TruthError that names the file, the frame and what is wrong."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TruthError(f"Cannot read the truth file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise TruthError(f"The truth file {path} is not valid JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        raise TruthError(f"The truth file {path} must be an object with a list 'frames'")
    truth: dict[str, FrameTruth] = {}
    for number, entry in enumerate(content["frames"]):
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise TruthError(f"Frame {number} in {path} must be an object with a text 'name'")
        if name in truth:
            raise TruthError(f"{path} names the frame '{name}' twice")
        truth[name] = _parse_frame(entry, f"Frame '{name}' in {path}")
    return truth


def _parse_frame(entry: dict[str, Any], where: str) -> FrameTruth:
    kind = entry.get("kind")
    if kind is not None and (not isinstance(kind, str) or kind == ALL):
        raise TruthError(f"{where}: 'kind' must be text other than '{ALL}' (got {kind!r})")
    instruments = entry.get("instruments")
    if not isinstance(instruments, list):
        raise TruthError(f"{where} must have a list 'instruments'")
    tips: dict[str, list[list[float]]] = {name: [] for name in INSTRUMENT_KINDS}
    lines: list[LineTruth] = []
    for instrument in instruments:
        if not isinstance(instrument, dict) or instrument.get("kind") not in INSTRUMENT_KINDS:
            raise TruthError(
                f"{where}: each instrument must be an object of kind {' or '.join(tips)}"
            )
        tip = instrument.get("tip_px")
        if tip is not None:
            tips[instrument["kind"]].append(_parse_point(tip, where))
        if instrument.get("centerline_px") is not None:
            lines.append(_parse_line(instrument, where))
    arrays = {name: np.reshape(points, (-1, 2)) for name, points in tips.items()}
    return FrameTruth(kind, arrays, tuple(lines), len(instruments))


def _parse_line(instrument: dict[str, Any], where: str) -> LineTruth:
    try:
        points = np.array(instrument["centerline_px"], np.float64)
        values = [instrument.get(key) for key in ("width_px", "contrast_to_noise")]
        width, contrast = (None if value is None else float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise TruthError(f"{where}: {_LINE} ({error})") from error
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise TruthError(f"{where}: {_LINE} (got an array of shape {points.shape})")
    return LineTruth(instrument["kind"], points, width, contrast)


def _parse_point(value: Any, where: str) -> list[float]:
    try:
        point = [float(part) for part in value] if isinstance(value, list) else []
    except (TypeError, ValueError, OverflowError):
        point = []
    if len(point) != 2 or not np.isfinite(point).all():
        raise TruthError(f"{where}: 'tip_px' must be two finite numbers or null (got {value!r})")
    return point
