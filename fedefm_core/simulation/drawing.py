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
Layer = tuple[float, float]
Part = tuple[Curve, Sequence[Layer]]
SUPERSAMPLING = 4
_SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates


def draw_profile(image: Image, curve: Curve, layers: Sequence[Layer]) -> None:
    """Add a ribbon along curve to image, in place: the one-part case of draw_parts."""
    draw_parts(image, [(curve, layers)])


def draw_parts(image: Image, parts: Sequence[Part]) -> None:
    """Add one ribbon made of parts to image, in place, over its bounding box only.

    parts: curves, each with its layers: (width in pixels, value >= 0), widest first. A narrower
    layer replaces the wider ones under it, so that a cross-section is a staircase from the edge
    to the axis; where parts meet, their caps replace each other and never add up. Ends are
    round and reach half the layer's width beyond the curve's ends.
    """
    parts = [(curve, layers) for curve, layers in parts if len(curve)]
    if not parts:
        return
    widest = max(width for _, layers in parts for width, _ in layers)
    box = _bounding_box(np.concatenate([curve for curve, _ in parts]), widest, image.shape)
    if box is None:
        return
    peak = max(value for _, layers in parts for _, value in layers) or 1.0
    canvas = _canvas(box)
    below = [0.0] * len(parts)
    for depth in range(max(len(layers) for _, layers in parts)):
        for index, (curve, layers) in enumerate(parts):
            if depth < len(layers):
                width, value = layers[depth]
                _polyline(canvas, curve, box, width, 255 * value / peak, below[index])
                below[index] = 255 * value / peak
    y0, y1, x0, x1 = box
    image[y0:y1, x0:x1] += _shrink(canvas) * np.float32(peak / 255)


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
    value: float,
    below: float = 0.0,
) -> None:
    """Draw a ribbon of exactly that mean width on a canvas that holds below under it.

    OpenCV draws a line of even thickness t as t + 1 samples, and of 1 as one: only odd numbers
    of samples exist. The next wider one, drawn paler first, makes up for what is between.
    """
    y0, _, x0, _ = box
    fine = (curve - (x0, y0) + 0.5) * SUPERSAMPLING - 0.5
    points = np.round(fine * (1 << _SHIFT)).astype(np.int32)
    if len(points) == 1:
        points = np.repeat(points, 2, axis=0)
    pairs, rest = divmod(max(width * SUPERSAMPLING - 1, 0.0), 2)
    for thickness, share in ((2 * int(pairs) + 2, rest / 2), (max(2 * int(pairs), 1), 1.0)):
        level = round(below + share * (value - below))
        cv2.polylines(canvas, [points], False, level, thickness, cv2.LINE_8, _SHIFT)


def _shrink(canvas: npt.NDArray[np.uint8]) -> Image:
    size = (canvas.shape[1] // SUPERSAMPLING, canvas.shape[0] // SUPERSAMPLING)
    return cv2.resize(canvas, size, interpolation=cv2.INTER_AREA).astype(np.float32)
