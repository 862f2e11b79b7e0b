# SPDX-License-Identifier: Apache-2.0
"""A stroke of whole pixels to a sub-pixel centerline that reaches the ends of the outline."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.perception.strokes import Stroke
from fedefm_core.perception.types import FloatArray

SMOOTHING_PX = 2.5  # standard deviation along the arc; shrinks a bend of 15 px radius by 0.2 px
_STEP = 0.5  # of the samples across the wire


def refine(
    stroke: Stroke, mask: npt.NDArray[np.uint8], hidden: npt.NDArray[np.uint8]
) -> FloatArray:
    """(N, 2) x, y about 1 px apart: the middle of mask along stroke.

    mask, hidden: (H, W) of 0 or 255, the wire and what may lie over it.

    Where the wire is hidden or crosses another, the line goes on smoothly between what is seen.
    Free ends are stretched to the end of the mask. Fewer than two points mean: too short.
    """
    points = _without_loose_ends(stroke)
    line = smooth(resample(points))
    if len(line) < 2 or stroke.closed:
        return line
    line = resample(_stretched(line, mask, stroke))
    return _centered(line, mask, hidden, stroke.width)


def _without_loose_ends(stroke: Stroke) -> FloatArray:
    """The points less the last ones at free ends, where a skeleton bends into a corner."""
    cut = 0 if stroke.closed else min(round(0.4 * stroke.width), (len(stroke.points) - 2) // 3)
    first, last = (0 if touching else max(cut, 0) for touching in stroke.touching)
    return stroke.points[first : len(stroke.points) - last]


def arc_length(line: FloatArray) -> FloatArray:
    """(N,) length from the first point, in pixels."""
    steps = np.hypot(*np.diff(line, axis=0).T)
    return np.concatenate(([0.0], np.cumsum(steps)))


def resample(line: FloatArray, step: float = 1.0) -> FloatArray:
    """The same line with equal steps of about `step` pixels; both ends stay."""
    s = arc_length(line)
    if s[-1] <= 0:
        return line[:1]
    at = np.linspace(0.0, s[-1], max(2, round(s[-1] / step) + 1))
    return np.column_stack((np.interp(at, s, line[:, 0]), np.interp(at, s, line[:, 1])))


def smooth(values: FloatArray, sigma: float = SMOOTHING_PX) -> FloatArray:
    """Gaussian along the first axis of (N, K), mirrored through its ends, which stay in place."""
    radius = min(int(3 * sigma), len(values) - 1)
    if radius < 1:
        return values
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    head = 2 * values[0] - values[radius:0:-1]
    tail = 2 * values[-1] - values[-2 : -radius - 2 : -1]
    padded = np.concatenate((head, values, tail))
    return np.column_stack([np.convolve(column, kernel, "valid") for column in padded.T])


def end_direction(line: FloatArray, length: float = 12.0) -> FloatArray:
    """(2,) unit direction in which line ends, fitted to its last `length` pixels.

    A parabola in the arc length, and its slope at three quarters of the way: the slope at the
    very end is noisy, that of a straight line lags behind the bend of a curved tip.
    """
    tail = line[-min(len(line), round(length) + 1) :]
    slope = _slope_weights(len(tail)) @ tail
    return np.asarray(slope / max(1e-9, float(np.hypot(*slope))))


@cache
def _slope_weights(count: int) -> FloatArray:
    """(count,) weights of equally spaced values that give their slope at three quarters."""
    s = np.linspace(0.0, 1.0, count)
    degree = 2 if count >= 5 else 1
    slope_of_powers = np.array([0.0, 1.0, 2 * 0.75])[: degree + 1]
    return np.asarray(slope_of_powers @ np.linalg.pinv(np.vander(s, degree + 1, increasing=True)))


def normals(line: FloatArray) -> FloatArray:
    """(N, 2) unit normals of a line."""
    tangent = np.gradient(line, axis=0)
    tangent /= np.maximum(np.hypot(tangent[:, 0], tangent[:, 1]), 1e-9)[:, None]
    return np.column_stack((-tangent[:, 1], tangent[:, 0]))


def sample(image: npt.NDArray[np.uint8], points: FloatArray) -> FloatArray:
    """Bilinear values of image at points (N, K, 2), in image units; 0 outside."""
    grid = points.astype(np.float32)
    values = cv2.remap(
        image, grid[..., 0], grid[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    return np.asarray(values, dtype=np.float64)


def _stretched(line: FloatArray, mask: npt.NDArray[np.uint8], stroke: Stroke) -> FloatArray:
    """Free ends extended straight to where the mask ends, by a width and a bit at most."""
    parts = [line]
    if not stroke.touching[0]:
        parts.insert(0, _beyond(line[::-1], mask, stroke.width))
    if not stroke.touching[1]:
        parts.append(_beyond(line, mask, stroke.width))
    return np.concatenate(parts)


def _beyond(line: FloatArray, mask: npt.NDArray[np.uint8], width: float) -> FloatArray:
    """(1, 2) the point where the mask ends beyond the last point of line."""
    direction = end_direction(line)
    return line[-1:] + direction * _run_length(line[-1], direction, mask, width + 3.0)


def _run_length(
    start: FloatArray, direction: FloatArray, mask: npt.NDArray[np.uint8], limit: float
) -> float:
    """How far the mask goes on from start, mean of three parallel probes."""
    step = 0.25
    ahead = np.arange(0.5 * step, limit, step)
    sideways = np.array([-direction[1], direction[0]]) * np.array([[-0.5], [0.0], [0.5]])
    probes = start + sideways[:, None] + ahead[None, :, None] * direction
    inside = np.minimum.accumulate(sample(mask, probes) > 127, axis=1)
    return float(inside.sum() * step / 3)


def _centered(
    line: FloatArray,
    mask: npt.NDArray[np.uint8],
    hidden: npt.NDArray[np.uint8],
    width: float,
) -> FloatArray:
    """Line moved across itself to the middle of the mask, wherever its full width is seen."""
    half = max(1, int((0.9 * width + 2.0) / _STEP))
    offsets = np.arange(-half, half + 1) * _STEP
    normal = normals(line)
    grid = line[:, None] + offsets[None, :, None] * normal[:, None]
    profile = sample(mask, grid) / 255.0
    covered = sample(hidden, grid).max(axis=1) > 127
    inside = profile >= 0.5
    profile[:, half:] *= np.minimum.accumulate(inside[:, half:], axis=1)
    profile[:, half::-1] *= np.minimum.accumulate(inside[:, half::-1], axis=1)
    total = profile.sum(axis=1)
    usable = inside[:, half] & ~covered & (total * _STEP < 1.4 * width + 1.0)
    if not usable.any():
        return line
    index = np.arange(len(line))
    shift = (profile * offsets).sum(axis=1)[usable] / total[usable]
    shift = np.interp(index, index[usable], shift)
    return line + smooth(shift[:, None]) * normal
