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
_BEND_PX = 20  # points from which the bend of an end is taken


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
    line = _centered(line, mask, hidden, stroke.width, 0)
    line = resample(_stretched(line, mask, stroke))
    return _centered(line, mask, hidden, stroke.width, 1 + round(0.25 * stroke.width))


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
    kernel = _gaussian(radius, sigma)
    head = 2 * values[0] - values[radius:0:-1]
    tail = 2 * values[-1] - values[-2 : -radius - 2 : -1]
    padded = np.concatenate((head, values, tail))
    return np.column_stack([np.convolve(column, kernel, "valid") for column in padded.T])


@cache
def _gaussian(radius: int, sigma: float) -> FloatArray:
    """(2 * radius + 1,) weights that sum to 1."""
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.asarray(kernel / kernel.sum())


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
    """Free ends carried on to where the mask ends, by a width and a bit at most."""
    parts = [line]
    if not stroke.touching[0]:
        parts.insert(0, _beyond(line[::-1], mask, stroke.width)[::-1])
    if not stroke.touching[1]:
        parts.append(_beyond(line, mask, stroke.width))
    return np.concatenate(parts)


def _beyond(line: FloatArray, mask: npt.NDArray[np.uint8], width: float) -> FloatArray:
    """(M, 2) the way on from the last point of line, bending as it does, as far as mask goes.

    Followed by three parallel probes, whose mean reach is taken.
    """
    step = 0.25
    tail = line[-min(len(line), _BEND_PX) :]
    _, slope, bend = _parabola_fit(len(tail)) @ tail
    ahead = np.arange(0.0, width + 3.0, step)
    way = line[-1] + ahead[:, None] * slope + ahead[:, None] ** 2 * bend
    sideways = 0.5 * np.array([-slope[1], slope[0]]) * np.array([[-1.0], [0.0], [1.0]])
    probes = way[None, 1:] - 0.5 * (way[1:] - way[:-1]) + sideways[:, None]
    inside = np.minimum.accumulate(sample(mask, probes) > 127, axis=1)
    reach = float(inside.sum() / 3)  # in steps
    whole = int(reach)
    last = way[whole] + (reach - whole) * (way[min(whole + 1, len(way) - 1)] - way[whole])
    return np.concatenate((way[4 : whole - 2 : 4], last[None]))


@cache
def _parabola_fit(count: int) -> FloatArray:
    """(3, count) weights: of values 1 px apart, their fit's last value, slope and half bend."""
    s = np.arange(1.0 - count, 1.0)
    degree = 2 if count >= 8 else min(1, count - 1)
    weights = np.zeros((3, count))
    weights[: degree + 1] = np.linalg.pinv(np.vander(s, degree + 1, increasing=True))
    return weights


def _centered(
    line: FloatArray,
    mask: npt.NDArray[np.uint8],
    hidden: npt.NDArray[np.uint8],
    width: float,
    ends: int,
) -> FloatArray:
    """Line moved across itself to the middle of the mask, wherever its full width is seen.

    The first and last `ends` points, where a flat end may lie aslant, move with their neighbors.
    """
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
    usable[:ends] = usable[len(usable) - ends :] = False
    if not usable.any():
        return line
    index = np.arange(len(line))
    shift = (profile * offsets).sum(axis=1)[usable] / total[usable]
    shift = np.interp(index, index[usable], shift)
    radius = min(int(3 * SMOOTHING_PX), len(shift) - 1)
    shift = np.convolve(
        np.pad(shift, radius, mode="reflect"), _gaussian(radius, SMOOTHING_PX), "valid"
    )
    return line + shift[:, None] * normal
