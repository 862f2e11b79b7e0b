# SPDX-License-Identifier: Apache-2.0
"""Smooth plane curves as (N, 2) float64 arrays of x, y in pixels, about one pixel a step."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Curve = npt.NDArray[np.float64]


def smooth_noise(rng: np.random.Generator, count: int, correlation: float) -> Curve:
    """(count,) Gaussian noise of mean 0 and deviation 1.2, correlated over correlation samples."""
    knots = rng.standard_normal((1, int(count / correlation) + 5))
    grid = np.linspace(1.5, knots.shape[1] - 2.5, count, dtype=np.float32)
    curve = cv2.remap(
        knots.astype(np.float32), grid[None], np.zeros_like(grid)[None], cv2.INTER_CUBIC
    )
    return np.asarray(curve[0], np.float64) * 1.3  # cubic interpolation alone: 0.92


def integrate_heading(
    start: npt.ArrayLike,
    heading_rad: float,
    curvature: npt.NDArray[np.float64],
    step: float = 1.0,
) -> Curve:
    """Walk step pixels at a time from start; curvature[i] is the turn in radians at step i."""
    theta = heading_rad + np.concatenate([[0.0], np.cumsum(curvature)])
    steps = step * np.stack([np.cos(theta), np.sin(theta)], axis=1)
    points: Curve = np.concatenate([[np.zeros(2)], np.cumsum(steps, axis=0)])
    return points + np.asarray(start, dtype=np.float64)


def wandering_path(
    rng: np.random.Generator,
    start: npt.ArrayLike,
    heading_rad: float,
    length: int,
    bend_radius: float,
    correlation: float,
) -> Curve:
    """A random smooth path; its turns have a typical radius of bend_radius pixels."""
    curvature = smooth_noise(rng, max(length, 2), correlation) / bend_radius
    return integrate_heading(start, heading_rad, curvature)


def arc_length(curve: Curve) -> npt.NDArray[np.float64]:
    """(N,) distance along the curve from its first point."""
    steps = np.hypot(*np.diff(curve, axis=0).T)
    return np.concatenate([[0.0], np.cumsum(steps)])


def resample(curve: Curve, spacing: float) -> Curve:
    """Points evenly spread along the curve, at most spacing apart, both ends kept."""
    length = arc_length(curve)
    places = np.linspace(0.0, length[-1], max(int(np.ceil(length[-1] / spacing)), 1) + 1)
    return np.stack([np.interp(places, length, axis) for axis in curve.T], axis=1)


def cut(curve: Curve, begin: float, end: float) -> Curve:
    """The part of the curve between two arc lengths, with exact interpolated end points."""
    length = arc_length(curve)
    begin, end = max(begin, 0.0), min(end, float(length[-1]))
    if end <= begin:
        return np.empty((0, 2))
    inner = (length > begin) & (length < end)
    ends = [[np.interp(s, length, axis) for axis in curve.T] for s in (begin, end)]
    return np.concatenate([ends[:1], curve[inner], ends[1:]])


def visible_stretches(curve: Curve, seen: npt.NDArray[np.bool_]) -> list[tuple[Curve, bool]]:
    """The parts of the curve that lie on seen pixels, in order; each of two points or more.

    seen: (H, W), True where the image shows what is in the beam. The flag says whether the
    part holds the curve's own end, or was cut before it.
    """
    columns, rows = np.rint(curve).astype(int).T
    height, width = seen.shape
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    inside[inside] = seen[rows[inside], columns[inside]]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    bounds = edges.reshape(-1, 2)
    return [(curve[a:b], bool(b == len(curve))) for a, b in bounds if b - a > 1]


def heading_at_end(curve: Curve, reach: float = 3.0) -> float:
    """Direction of advance at the last point, over the last reach pixels; atan2(dy, dx)."""
    total = float(arc_length(curve)[-1])
    tail = cut(curve, max(total - reach, 0.0), total)
    dx, dy = tail[-1] - tail[0]
    return float(np.arctan2(dy, dx))
