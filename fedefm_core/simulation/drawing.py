# SPDX-License-Identifier: Apache-2.0
"""Curves to pixels with sub-pixel truth, at a cost that grows with the curve and not the image.

A rod's shadow is the sum of discs along its axis: the line integral across a disc of even density
is its chord, 2 sqrt(R^2 - d^2), which is the thickness of a cylinder at distance d from its axis.
So rods need no supersampling, and where they cross themselves their attenuation adds up, as it
does in the beam.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedefm_core.simulation.curves import Curve

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
_EDGE = 0.5  # pixels over which a disc's edge goes from full to half: the detector element's own
_SAMPLES = 4  # a pixel and direction, of a band


def draw_rod(image: Image, points: Curve, widths: Array, strengths: Array, step: float) -> None:
    """Add the shadow of a round rod to image, in place.

    points: (N, 2) on its axis, step pixels apart. widths: (N,) pixels. strengths: (N,)
    attenuation on the axis, of any sign. The rod ends half a width beyond the end points.
    """
    near = _near_image(points, float(widths.max(initial=0.0)) / 2 + 1, image.shape)
    points, widths, strengths = points[near], widths[near], strengths[near]
    if not len(points):
        return
    radii = widths / 2
    drawn = np.maximum(radii, _EDGE)
    index, distance, corner, size = _patches(points, float(drawn.max()) + _EDGE)
    cover = np.clip(drawn.astype(np.float32)[:, None, None] + _EDGE - np.sqrt(distance), 0, 1)
    # Its pixels make up the mass of the exact disc, wherever between pixels it lies.
    mass = strengths / np.maximum(widths, 1e-6) * step * np.pi * radii**2
    cover *= (mass / cover.sum(axis=(1, 2))).astype(np.float32)[:, None, None]
    total = np.bincount(index.ravel(), cover.ravel(), minlength=size[0] * size[1])
    _add(image, total.reshape(size).astype(np.float32), corner)


def draw_band(
    image: Image, center: Array, heading_rad: float, length: float, width: float, strength: float
) -> None:
    """Add a short cylinder with flat ends to image, in place: a marker band or an electrode.

    strength: attenuation on its axis.
    """
    reach = int(np.ceil(np.hypot(length, width) / 2 + 1))
    x0, y0 = np.round(center).astype(int) - reach
    fine = (np.arange((2 * reach + 1) * _SAMPLES) + 0.5) / _SAMPLES - 0.5
    xs, ys = fine + x0 - center[0], fine[:, None] + y0 - center[1]
    along = xs * np.cos(heading_rad) + ys * np.sin(heading_rad)
    across = ys * np.cos(heading_rad) - xs * np.sin(heading_rad)
    thickness = np.sqrt(np.maximum(1 - (across * 2 / width) ** 2, 0)) * (abs(along) < length / 2)
    pixels = thickness.reshape(2 * reach + 1, _SAMPLES, -1, _SAMPLES).mean(axis=(1, 3))
    _add(image, (strength * pixels).astype(np.float32), (int(x0), int(y0)))


def outline(points: Curve, widths: Array, shape: tuple[int, ...]) -> Mask:
    """(H, W) bool: pixels at least half covered by a rod through points, a pixel apart or less.

    A straight edge that covers half of a pixel passes through its centre, so these are the
    pixels whose centres lie in the rod.
    """
    mask = np.zeros(shape[:2], dtype=bool)
    near = _near_image(points, float(widths.max(initial=0.0)) / 2, shape)
    points, radii = points[near], widths[near] / 2
    if len(points):
        index, distance, corner, size = _patches(points, float(radii.max()))
        inside = distance <= (radii.astype(np.float32) ** 2)[:, None, None]
        patch = np.zeros(size[0] * size[1], dtype=bool)
        patch[index[inside]] = True
        rows, columns, own = _overlap(mask.shape, size, corner)
        mask[rows, columns] = patch.reshape(size)[own]
    return mask


def _near_image(points: Curve, reach: float, shape: tuple[int, ...]) -> Mask:
    limits = np.array([shape[1], shape[0]]) - 1 + reach
    return np.asarray(np.all((points >= -reach) & (points <= limits), axis=1))


def _patches(
    points: Curve, reach: float
) -> tuple[npt.NDArray[np.int64], Image, tuple[int, int], tuple[int, int]]:
    """The square of pixels around each point: their flat indices in a window of the image's
    plane and squared distances to the point, (N, rows, columns) both; and the window's corner
    (x, y) and size (rows, columns).
    """
    half = int(np.ceil(reach))
    offsets = np.arange(2 * half)
    first = np.floor(points).astype(np.int64) - half + 1
    corner = first.min(axis=0)
    columns, rows = first.max(axis=0) - corner + len(offsets)
    fraction = (first - points).astype(np.float32)
    dx2 = (fraction[:, 0, None] + offsets.astype(np.float32)) ** 2
    dy2 = (fraction[:, 1, None] + offsets.astype(np.float32)) ** 2
    start = (first[:, 1] - corner[1]) * columns + first[:, 0] - corner[0]
    index = start[:, None, None] + offsets[:, None] * columns + offsets
    window = int(rows), int(columns)
    return index, dy2[:, :, None] + dx2[:, None, :], (int(corner[0]), int(corner[1])), window


def _add(image: Image, patch: Image, corner: tuple[int, int]) -> None:
    rows, columns, own = _overlap(image.shape, patch.shape, corner)
    image[rows, columns] += patch[own]


def _overlap(
    shape: tuple[int, ...], size: tuple[int, ...], corner: tuple[int, int]
) -> tuple[slice, slice, tuple[slice, slice]]:
    """Where a window at corner (x, y) meets the image: in the image, and in the window."""
    x0, y0 = max(corner[0], 0), max(corner[1], 0)
    x1 = max(min(corner[0] + size[1], shape[1]), x0)
    y1 = max(min(corner[1] + size[0], shape[0]), y0)
    own = slice(y0 - corner[1], y1 - corner[1]), slice(x0 - corner[0], x1 - corner[0])
    return slice(y0, y1), slice(x0, x1), own
