# SPDX-License-Identifier: Apache-2.0
"""Which end of a centerline is the tip, where exactly, and how sure that is.

Two witnesses are heard: the end of the outline, and the peak of the network's tip heatmap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedefm_core.config import Settings
from fedefm_core.perception.centerline import end_direction
from fedefm_core.perception.contract import TIP_STRIDE
from fedefm_core.perception.types import FloatArray

_CUT_BACK_PX = 40  # a tip on a loop lies at most so far from where the loop closes
_TOUCH_PX = 20.0  # a line that ends so near its own body ends by touching it


class TipSettings(Settings):
    """How tips are found. Lengths in network pixels.

    An end within border_px of the view's border is where an instrument enters. A guidewire's end
    within mouth_px (plus half the catheter's width) of a catheter's end is where it leaves that
    catheter. A peak counts for an end within peak_px of it, or three times that where the end
    touches a wire, so that the outline does not show it. Standard deviations of the outline's end
    along and across the wire: end_along_px, end_across_px, and touching_px along where it touches
    a wire; of a tip never less than floor_px. An end that the heatmap supports by less than
    min_support is the end of what was seen, and no tip.
    """

    border_px: float = Field(default=4.0, ge=0)
    mouth_px: float = Field(default=8.0, ge=0)
    peak_px: float = Field(default=12.0, gt=0)
    end_along_px: float = Field(default=1.0, gt=0)
    end_across_px: float = Field(default=0.7, gt=0)
    touching_px: float = Field(default=8.0, gt=0)
    floor_px: float = Field(default=0.5, gt=0)
    min_support: float = Field(default=0.03, ge=0, le=1)


@dataclass(frozen=True)
class Line:
    """points: (N, 2) x, y of a centerline; width: of its mask.

    touching: does the first, the last point end at another line, or at this one itself?
    """

    points: FloatArray
    width: float
    touching: tuple[bool, bool] = (False, False)


@dataclass(frozen=True)
class Peak:
    """A maximum of the tip heatmap: position (2,) x, y; value 0 to 1; sigma_px, its spread."""

    position: FloatArray
    value: float
    sigma_px: float


@dataclass(frozen=True)
class Tip:
    """position (2,) x, y, heading_rad, covariance (2, 2) and support 0 to 1 by the heatmap."""

    position: FloatArray
    heading_rad: float
    covariance: FloatArray
    support: float


@dataclass(frozen=True)
class Surroundings:
    """What a centerline's ends are judged by.

    size: (height, width) of the view. heatmap: (h, w) of the kind, its cell (0, 0) centered on
    heatmap_origin (x, y). mouths: (M, 3) x, y, radius: the free ends of the catheters that a
    guidewire may leave.
    """

    size: tuple[int, int]
    heatmap: npt.NDArray[np.float32]
    heatmap_origin: FloatArray
    mouths: FloatArray


def orient(
    line: Line, around: Surroundings, settings: TipSettings
) -> tuple[FloatArray, Tip | None]:
    """The line (N, 2) from where it enters to its tip; and the tip, None when not in view."""
    ends = (line.points[0], line.points[-1])
    enters = [_at_border(end, around.size, settings.border_px) for end in ends]
    leaves = [_at_mouth(end, around.mouths) for end in ends]
    peaks = [
        find_peak(around, end, settings.peak_px * (3 if touching else 1))
        for end, touching in zip(ends, line.touching, strict=True)
    ]
    tip_end = _choose(enters, leaves, [peak.value for peak in peaks], line.points, around.size)
    if tip_end is None:
        backwards = all(enters) and leaves[1] > leaves[0]
        return (line.points[::-1] if backwards else line.points), None
    ordered = line.points if tip_end == 1 else line.points[::-1]
    other = 1 - tip_end
    rival = 0.0 if enters[other] or leaves[other] else peaks[other].value
    peak, along = peaks[tip_end], settings.end_along_px
    support = max(0.0, peak.value - 0.5 * rival)
    if support < settings.min_support:
        return ordered, None
    if line.touching[tip_end]:
        ordered, along = _carried_on(ordered, peak.position), settings.touching_px
    return _measure(ordered, peak, support, along, settings)


def _choose(
    enters: Sequence[bool],
    leaves: Sequence[bool],
    peaks: Sequence[float],
    line: FloatArray,
    size: tuple[int, int],
) -> int | None:
    """Index of the end (0 first, 1 last) that is the tip, or None."""
    if leaves[0] != leaves[1]:  # it comes out of a catheter: the tip is the far end, if in view
        far = int(leaves[0])
        return None if enters[far] else far
    if all(enters):
        return None
    if enters[0] != enters[1]:
        return int(enters[0])
    if abs(peaks[0] - peaks[1]) > 0.1:
        return int(peaks[1] > peaks[0])
    return int(_border_distance(line[-1], size) >= _border_distance(line[0], size))


def _border_distance(point: FloatArray, size: tuple[int, int]) -> float:
    height, width = size
    x, y = float(point[0]), float(point[1])
    return min(x + 0.5, y + 0.5, width - 0.5 - x, height - 0.5 - y)


def _at_border(point: FloatArray, size: tuple[int, int], margin: float) -> bool:
    return _border_distance(point, size) <= margin


def _at_mouth(point: FloatArray, mouths: FloatArray) -> bool:
    if len(mouths) == 0:
        return False
    return bool((np.hypot(*(mouths[:, :2] - point).T) <= mouths[:, 2]).any())


def find_peak(around: Surroundings, point: FloatArray, radius: float) -> Peak:
    """Best peak of the heatmap within radius of point, near ones preferred.

    Sub-cell by a parabola through the logarithms, exact for a Gaussian.
    """
    heat = around.heatmap
    center = (point - around.heatmap_origin) / TIP_STRIDE
    reach = radius / TIP_STRIDE
    low = np.maximum(np.ceil(center - reach), 0).astype(int)
    high = np.minimum(np.floor(center + reach) + 1, heat.shape[::-1]).astype(int)
    patch = np.nan_to_num(heat[low[1] : high[1], low[0] : high[0]].astype(np.float64))
    if patch.size == 0:
        return Peak(point, 0.0, radius)
    dx = np.arange(low[0], high[0]) - center[0]
    dy = np.arange(low[1], high[1]) - center[1]
    nearness = np.exp(-0.5 * (dx[None] ** 2 + dy[:, None] ** 2) / (0.6 * reach) ** 2)
    row, column = np.unravel_index(np.argmax(patch * nearness), patch.shape)
    cell = np.array([low[0] + column, low[1] + row])
    shift, spread = _sub_cell(heat, int(cell[1]), int(cell[0]))
    position = (cell + shift) * TIP_STRIDE + around.heatmap_origin
    value = float(np.clip(patch[row, column], 0.0, 1.0))
    return Peak(position, value, spread * TIP_STRIDE)


def _sub_cell(heat: npt.NDArray[np.float32], row: int, column: int) -> tuple[FloatArray, float]:
    """Shift (x, y) of the true maximum from a cell, and the peak's mean spread, both in cells."""
    shifts, spreads = [], []
    rows, columns = heat.shape
    for before, after in (
        (heat[row, max(column - 1, 0)], heat[row, min(column + 1, columns - 1)]),
        (heat[max(row - 1, 0), column], heat[min(row + 1, rows - 1), column]),
    ):
        a, b, c = (_log(float(value)) for value in (before, heat[row, column], after))
        bend = 2 * b - a - c
        if bend < 0.25:  # flatter than a spread of two cells: no peak to speak of
            shifts.append(0.0)
            spreads.append(2.0)
        else:
            shifts.append(min(0.5, max(-0.5, 0.5 * (c - a) / bend)))
            spreads.append(bend**-0.5)
    return np.array(shifts), float(np.mean(spreads))


def _log(value: float) -> float:
    return math.log(min(max(value, 1e-4), 1.0)) if math.isfinite(value) else math.log(1e-4)


def _measure(
    line: FloatArray, peak: Peak, support: float, along: float, settings: TipSettings
) -> tuple[FloatArray, Tip]:
    """The line cut or drawn out to its tip; and the tip, from the outline's end and the peak.

    The two are weighed by their covariances. Where they disagree the outline is doubted, as much
    as the peak is high: faint tips are cut off in label maps, and touching ones are hidden.
    """
    direction = end_direction(line)
    axes = np.column_stack((direction, (-direction[1], direction[0])))
    end = axes @ np.diag((along**2, settings.end_across_px**2)) @ axes.T
    # a low peak says little: its variance grows as its value falls
    heat = np.eye(2) * (0.5 * peak.sigma_px) ** 2 / max(peak.value, 1e-3)
    gap = peak.position - line[-1]
    misfit = float(gap @ np.linalg.solve(end + heat, gap))
    end = end * max(1.0, misfit * peak.value)
    gain = end @ np.linalg.inv(end + heat)
    position = line[-1] + gain @ gap
    leftover = max(1.0, float(gap @ np.linalg.solve(end + heat, gap)))
    covariance = (np.eye(2) - gain) @ end * leftover + settings.floor_px**2 * np.eye(2)
    line, direction = _ending_at(line, position)
    heading = float(np.arctan2(direction[1], direction[0]))
    return line, Tip(position, heading, 0.5 * (covariance + covariance.T), support)


def _carried_on(line: FloatArray, peak: FloatArray) -> FloatArray:
    """A line that ends by touching itself, cut back or carried on along itself to below the peak.

    The last turn of a loop lies on the wire's own body, where no outline shows its end.
    """
    body = line[:-_CUT_BACK_PX]
    if len(body) == 0:
        return line
    touched = int(np.argmin(np.hypot(*(body - line[-1]).T)))
    overlap = line[touched : touched + _CUT_BACK_PX]
    gaps = np.hypot(*(overlap - peak).T)
    closes = np.hypot(*(line[touched] - line[-1])) < _TOUCH_PX
    if not closes or gaps.min() >= np.hypot(*(line[-_CUT_BACK_PX:] - peak).T).min():
        return line
    return np.concatenate((line, overlap[1 : int(np.argmin(gaps)) + 1]))


def _ending_at(line: FloatArray, tip: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The line cut back, or drawn out, to end at tip; and the direction of its end."""
    tail = line[-_CUT_BACK_PX:]
    nearest = len(line) - len(tail) + int(np.argmin(np.hypot(*(tail - tip).T)))
    nearest = max(nearest, 1)
    return np.concatenate((line[:nearest], tip[None])), end_direction(line[: nearest + 1])
