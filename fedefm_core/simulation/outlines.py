# SPDX-License-Identifier: Apache-2.0
"""Smooth outlines through a few landmarks, placed, and painted as areas or lines.

Canvases are uint8 of the image's size; what is painted on one does not add up. Curves are (N, 2)
arrays of x, y in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.simulation.curves import Curve

Image = npt.NDArray[np.float32]
Canvas = npt.NDArray[np.uint8]
Rng = np.random.Generator
_CATMULL_ROM = 0.5 * np.array([[-1, 3, -3, 1], [2, -5, 4, -1], [-1, 0, 1, 0], [0, 2, 0, 0]])
_SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates


def spline(points: npt.ArrayLike, closed: bool = False, samples: int = 8) -> Curve:
    """Catmull-Rom curve through the points, samples to a segment."""
    p = np.asarray(points, np.float64)
    padded = np.concatenate([p[-1:], p, p[:2]] if closed else [p[:1], p, p[-1:]])
    t = np.arange(samples) / samples
    powers = np.stack([t**3, t**2, t, np.ones(samples)], axis=1)
    windows = np.stack([padded[i : len(padded) - 3 + i] for i in range(4)], axis=1)
    curve = (powers @ _CATMULL_ROM @ windows).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-1:]])


def placed(
    points: npt.ArrayLike, center: npt.ArrayLike, angle: float, size: npt.ArrayLike
) -> Curve:
    """Points in units of size (a number or x and y), turned by angle, moved to center."""
    c, s = np.cos(angle), np.sin(angle)
    stretched = np.asarray(points, np.float64) * np.asarray(size, np.float64)
    return np.asarray(stretched @ np.array([[c, s], [-s, c]]) + np.asarray(center, np.float64))


def arc(begin: float, end: float, count: int = 24) -> Curve:
    """Points of the unit circle between two angles in radians."""
    angles = np.linspace(begin, end, count)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def jittered(rng: Rng, points: npt.ArrayLike, amount: float) -> Curve:
    """The points, each moved by Gaussian noise."""
    p = np.asarray(points, np.float64)
    return p + rng.normal(0, amount, p.shape)


def blank(size: int) -> Canvas:
    """An empty canvas."""
    return np.zeros((size, size), np.uint8)


def paint_area(canvas: Canvas, outline: Curve, level: float = 255) -> None:
    """Fill a closed outline."""
    cv2.fillPoly(canvas, [_fixed(outline)], round(level), cv2.LINE_AA, _SHIFT)


def paint_lines(
    canvas: Canvas, curves: Sequence[Curve], width: float, level: float = 255, closed: bool = False
) -> None:
    """Draw curves; those thinner than the thinnest line that OpenCV draws become paler."""
    level = level * min(1.0, max(width, 0.3) / 1.4)
    points = [_fixed(curve) for curve in curves if len(curve) > 1]
    thickness = max(1, round(width - 0.5))
    cv2.polylines(canvas, points, closed, round(level), thickness, cv2.LINE_AA, _SHIFT)


def add_canvas(
    image: Image, canvas: Canvas, value: float, blur: float = 0.0, fading: Image | None = None
) -> None:
    """Add a canvas to an image, in place: 255 counts as value; blur is a Gaussian's sigma.

    fading: (H, W) factor, of places where the canvas shows less.
    """
    x, y, width, height = cv2.boundingRect(canvas)
    if width == 0:
        return
    margin = int(4 * blur) + 1
    box = np.s_[max(y - margin, 0) : y + height + margin, max(x - margin, 0) : x + width + margin]
    soft = soften(canvas[box], blur) * np.float32(value / 255)
    image[box] += soft if fading is None else soft * fading[box]


def soften(image: npt.NDArray[Any], sigma: float) -> npt.NDArray[Any]:
    """Gaussian blur; a wide one on a smaller copy, which is faster and looks the same."""
    if sigma <= 0.3:
        return image
    factor = int(sigma / 1.5)
    if factor < 2 or min(image.shape) < 4 * factor:
        return cv2.GaussianBlur(image, (0, 0), sigma)
    small = (image.shape[1] // factor, image.shape[0] // factor)
    reduced = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    reduced = cv2.GaussianBlur(reduced.astype(np.float32), (0, 0), sigma / factor)
    return cv2.resize(reduced, image.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _fixed(curve: Curve) -> npt.NDArray[np.int32]:
    return np.rint(curve * (1 << _SHIFT)).astype(np.int32)
