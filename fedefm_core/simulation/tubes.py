# SPDX-License-Identifier: Apache-2.0
"""Thickness maps of round tubes that branch and widen: the shadow of a vessel or of a hose.

The union of the tubes is drawn as a silhouette; the distance to its edge and the local radius
then give the chord that a ray sees. So walls open where a branch leaves its trunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.simulation.curves import Curve, arc_length

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]
Points = npt.NDArray[np.int32]
SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates
_OUTLINE = 0.5  # pixels by which OpenCV fills beyond an outline


@dataclass(frozen=True)
class Tube:
    """path: (N, 2) axis in pixels. radii: (N,) pixels, 1 or more."""

    path: Curve
    radii: Array


@dataclass(frozen=True)
class Lumen:
    """Where tubes are. depth: (size, size) distance to the edge in pixels, positive inside.
    radius: (size, size) of the widest tube there, pixels."""

    depth: Image
    radius: Image

    def chord(self, wall: float = 0.0) -> Image:
        """(size, size) pixels of ray within the tubes, or within their hollow, for a wall > 0."""
        # In place: fresh arrays of this size cost more than the arithmetic.
        radius, depth = self.radius - np.float32(wall), self.depth - np.float32(wall)
        np.maximum(radius, np.float32(0.5), out=radius)
        np.maximum(depth, np.float32(0), out=depth)
        np.minimum(depth, radius, out=depth)
        radius *= 2
        radius -= depth
        depth *= radius
        np.sqrt(depth, out=depth)
        depth *= 2
        return np.asarray(depth, np.float32)


def lumen(tubes: Sequence[Tube], size: int) -> Lumen:
    """The union of the tubes in a (size, size) image.

    Distances are smooth, so they are found at half the resolution.
    """
    half = (size + 1) // 2
    mask = np.zeros((2 * half, 2 * half), np.uint8)
    radius = np.zeros((half, half), np.uint8)
    for tube in sorted(tubes, key=lambda tube: float(tube.radii.mean())):
        _fill(mask, radius, tube.path, tube.radii)
    cover = np.asarray(cv2.resize(mask, (half, half), interpolation=cv2.INTER_AREA), np.uint8)
    depth = cv2.GaussianBlur(_signed_distance(cover), (0, 0), 1.3)
    return Lumen(_doubled(depth, size) * 2, _doubled(cv2.blur(radius, (5, 5)), size))


def _fill(mask: Mask, radius: Mask, path: Curve, radii: Array) -> None:
    along = np.gradient(path, axis=0)
    along /= np.maximum(np.hypot(*along.T), 1e-9)[:, None]
    drawn = np.maximum(radii - _OUTLINE, 0.5)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) * drawn[:, None]
    sides = np.concatenate([(path + across)[::3], (path - across)[::-3]])
    cv2.fillPoly(mask, [fixed(sides)], 255, 8, SHIFT)
    places = np.append(np.arange(0, len(path) - 1, max(int(radii.mean()), 6)), len(path) - 1)
    middle = len(mask) / 2
    spots, widths = path[places], radii[places]
    seen = np.abs(spots - middle).max(axis=1) < middle + widths + 8
    reach = fixed(np.stack([drawn[places], widths / 2 + 4], axis=1))
    centers = zip(fixed(spots)[seen].tolist(), reach[seen].tolist(), widths[seen], strict=True)
    for (x, y), (disc, near), width in centers:
        # Discs mend the polygon where it folds on itself.
        cv2.circle(mask, (x, y), disc, 255, -1, 8, SHIFT)
        cv2.circle(radius, (x // 2, y // 2), near, min(float(width), 255.0), -1, 8, SHIFT)


def _signed_distance(cover: Mask) -> Image:
    """Pixels to the edge, positive inside, with what partly covered pixels tell of its place."""
    solid = (cover >= 128).astype(np.uint8)
    farthest = np.float32(sum(solid.shape))  # OpenCV: infinite where there is no edge at all
    inside = np.minimum(cv2.distanceTransform(solid, cv2.DIST_L2, 5), farthest)
    outside = np.minimum(cv2.distanceTransform(1 - solid, cv2.DIST_L2, 3), farthest)
    # Counted from pixel centres by OpenCV, here from the edge.
    distance = inside - outside - solid + np.float32(0.5)
    partly = ((cover > 0) & (cover < 255)).astype(np.float32)
    offset = (cover / np.float32(255) - np.float32(0.5) - distance) * partly
    offset = cv2.blur(offset, (9, 9)) / (cv2.blur(partly, (9, 9)) + np.float32(1e-4))
    return np.asarray(distance + offset, np.float32)


def fixed(points: npt.ArrayLike) -> Points:
    """OpenCV's fixed-point coordinates with SHIFT fractional bits."""
    return np.rint(np.asarray(points, np.float64) * (1 << SHIFT)).astype(np.int32)


def _doubled(image: npt.NDArray[np.generic], size: int) -> Image:
    whole = cv2.resize(image.astype(np.float32), None, fx=2, fy=2)
    return np.asarray(whole[:size, :size], np.float32)


def rounded_path(corners: npt.ArrayLike, sigma: float) -> Curve:
    """A curve a pixel a step along straight lines, its corners rounded over sigma pixels."""
    points = np.asarray(corners, np.float64)
    length = arc_length(points)
    step = float(np.clip(sigma / 4, 1, 8))  # smooth curves need few points
    path = _interpolated(points, length, max(int(length[-1] / step), 2))
    smooth = cv2.GaussianBlur(
        path,
        (1, 0),
        sigmaX=1e-3,
        sigmaY=max(sigma / step, 0.5),
        borderType=cv2.BORDER_REPLICATE,
    )
    smooth[0], smooth[-1] = path[0], path[-1]
    curve: Curve = np.asarray(smooth, np.float64)
    length = arc_length(curve)
    return _interpolated(curve, length, max(int(length[-1]), 2))


def _interpolated(points: Curve, length: Array, count: int) -> Curve:
    places = np.linspace(0, length[-1], count)
    return np.stack([np.interp(places, length, axis) for axis in points.T], axis=1)
