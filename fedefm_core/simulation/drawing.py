# SPDX-License-Identifier: Apache-2.0
"""Curves to pixels with sub-pixel truth: drawn at a multiple of the resolution, then averaged."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.simulation.curves import Curve, arc_length, cut

Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
SUPERSAMPLING = 4
_SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates


def draw_profile(image: Image, curve: Curve, layers: Sequence[tuple[float, float]]) -> None:
    """Add a ribbon along curve to image, in place, over its bounding box only.

    layers: (width in pixels, value), widest first; a narrower layer replaces the wider ones under
    it, so that a cross-section is a staircase from the edge to the axis. Ends are round and
    reach half the first width beyond the curve's ends.
    """
    box = _bounding_box(curve, layers[0][0], image.shape)
    if box is None:
        return
    peak = max(abs(value) for _, value in layers) or 1.0
    canvas = _canvas(box)
    for width, value in layers:
        _polyline(canvas, curve, box, width, round(255 * abs(value) / peak))
    sign = -1.0 if layers[0][1] < 0 else 1.0
    y0, y1, x0, x1 = box
    image[y0:y1, x0:x1] += _shrink(canvas) * np.float32(sign * peak / 255)


def outline(curve: Curve, width: float, shape: tuple[int, ...]) -> Mask:
    """(H, W) bool: pixels at least half covered by the ribbon of that width, whose round ends
    touch the ends of the curve."""
    mask = np.zeros(shape[:2], dtype=bool)
    core = shorten(curve, width / 2)
    box = _bounding_box(core, width, shape)
    if box is not None:
        canvas = _canvas(box)
        _polyline(canvas, core, box, width, 255)
        y0, y1, x0, x1 = box
        mask[y0:y1, x0:x1] = _shrink(canvas) >= 127.5
    return mask


def shorten(curve: Curve, amount: float, begin: bool = False) -> Curve:
    """Take amount off the end (and the beginning) so that a round cap ends where the curve did."""
    total = float(arc_length(curve)[-1]) if len(curve) > 1 else 0.0
    first = amount if begin else 0.0
    if total - amount - first <= 0.1:
        return curve[-1:] if len(curve) else curve
    return cut(curve, first, total - amount)


def _bounding_box(
    curve: Curve, width: float, shape: tuple[int, ...]
) -> tuple[int, int, int, int] | None:
    if len(curve) == 0:
        return None
    margin = width / 2 + 2
    x0, y0 = np.maximum(np.floor(curve.min(axis=0) - margin), 0).astype(int)
    x1, y1 = np.ceil(curve.max(axis=0) + margin).astype(int)
    x1, y1 = min(x1, shape[1]), min(y1, shape[0])
    return (y0, y1, x0, x1) if x1 > x0 and y1 > y0 else None


def _canvas(box: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
    y0, y1, x0, x1 = box
    return np.zeros(((y1 - y0) * SUPERSAMPLING, (x1 - x0) * SUPERSAMPLING), np.uint8)


def _polyline(
    canvas: npt.NDArray[np.uint8],
    curve: Curve,
    box: tuple[int, int, int, int],
    width: float,
    value: int,
) -> None:
    y0, _, x0, _ = box
    fine = (curve - (x0, y0) + 0.5) * SUPERSAMPLING - 0.5
    points = np.round(fine * (1 << _SHIFT)).astype(np.int32)
    thickness = max(1, round(width * SUPERSAMPLING))
    if len(points) == 1:
        points = np.repeat(points, 2, axis=0)
    cv2.polylines(canvas, [points], False, value, thickness, cv2.LINE_8, _SHIFT)


def _shrink(canvas: npt.NDArray[np.uint8]) -> Image:
    size = (canvas.shape[1] // SUPERSAMPLING, canvas.shape[0] // SUPERSAMPLING)
    return cv2.resize(canvas, size, interpolation=cv2.INTER_AREA).astype(np.float32)
