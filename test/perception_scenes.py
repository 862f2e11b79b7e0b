# SPDX-License-Identifier: Apache-2.0
"""Label maps of wires whose centerlines are known exactly, for the tests of perception."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.perception import (
    CATHETER,
    GUIDEWIRE,
    Instrument,
    InstrumentSettings,
    NetworkOutput,
    find_instruments,
)
from fedefm_core.perception.preprocess import fit

FloatArray = npt.NDArray[np.float64]
SIZE = 512
WIDTHS = {CATHETER: 9.0, GUIDEWIRE: 4.0}
_SCALE = 8  # supersampling of the drawings


@dataclass(frozen=True)
class Wire:
    """label: of its class. line: (N, 2) x, y from entry to tip. shows_tip: is the tip in view?"""

    label: int
    line: FloatArray
    shows_tip: bool = True


def label_map(wires: Sequence[Wire], size: int = SIZE) -> npt.NDArray[np.uint8]:
    """(size, size): a pixel belongs to the last wire that covers at least half of it.

    Ribbons are flat at their ends: a filled polygon, drawn _SCALE times as large.
    """
    labels = np.zeros((size, size), np.uint8)
    for wire in wires:
        canvas = np.zeros((size * _SCALE, size * _SCALE), np.uint8)
        tangent = np.gradient(wire.line, axis=0)
        tangent /= np.hypot(*tangent.T)[:, None]
        side = 0.5 * WIDTHS[wire.label] * np.column_stack((-tangent[:, 1], tangent[:, 0]))
        left, right = wire.line + side, wire.line - side
        quads = np.stack((left[:-1], left[1:], right[1:], right[:-1]), axis=1)
        fine = np.rint(((quads + 0.5) * _SCALE - 0.5) * 16).astype(np.int32)
        for quad in fine:
            cv2.fillConvexPoly(canvas, quad, 255, cv2.LINE_8, 4)
        share = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
        labels[share >= 128] = wire.label
    return labels


def tip_heatmap(wires: Sequence[Wire], size: int = SIZE, sigma: float = 1.2) -> npt.NDArray:
    """(2, size / 4, size / 4) with a Gaussian of that spread, in cells, at each visible tip."""
    cells = np.arange(size // 4)
    heat = np.zeros((2, len(cells), len(cells)), np.float32)
    for wire in wires:
        if wire.shows_tip:
            x, y = (wire.line[-1] - 1.5) / 4
            bump = np.outer(gaussian(cells - y, sigma), gaussian(cells - x, sigma))
            heat[wire.label - 1] = np.maximum(heat[wire.label - 1], bump)
    return heat


def gaussian(distance: npt.NDArray, sigma: float) -> npt.NDArray:
    """Gaussian of peak 1."""
    return np.exp(-0.5 * (distance / sigma) ** 2)


def network_output(
    labels: npt.NDArray[np.uint8], heat: npt.NDArray | None = None, probability: int = 230
) -> NetworkOutput:
    """What a network would say: labels as given, one probability everywhere."""
    height, width = labels.shape
    if heat is None:
        heat = np.zeros((2, height // 4, width // 4), np.float32)
    return NetworkOutput(labels, np.full(labels.shape, probability, np.uint8), heat)


def perceive(
    wires: Sequence[Wire], settings: InstrumentSettings | None = None
) -> tuple[Instrument, ...]:
    """Instruments found in a perfect label map of wires, with a perfect tip heatmap."""
    output = network_output(label_map(wires), tip_heatmap(wires))
    return find_instruments(output, fit((SIZE, SIZE), (SIZE, SIZE)), settings)


def segment(start: Sequence[float], stop: Sequence[float]) -> FloatArray:
    """(N, 2) straight line, about a point a pixel."""
    length = float(np.hypot(stop[0] - start[0], stop[1] - start[1]))
    return np.linspace(start, stop, round(length) + 2)


def arc(center: Sequence[float], radius: float, first: float, last: float) -> FloatArray:
    """(N, 2) from one angle to another, radians, y down."""
    angle = np.linspace(first, last, round(abs(last - first) * radius) + 2)
    return np.asarray(center) + radius * np.column_stack((np.cos(angle), np.sin(angle)))


def turtle(start: Sequence[float], heading: float, *moves: tuple[float, float]) -> FloatArray:
    """(N, 2) smooth line of moves: (length, curvature in radians per pixel, right is positive)."""
    step = 0.5
    bend = np.concatenate([np.full(round(length / step), bend) for length, bend in moves])
    direction = heading + step * np.cumsum(bend)
    moved = step * np.column_stack((np.cos(direction), np.sin(direction)))
    return np.asarray(start, float) + np.concatenate((np.zeros((1, 2)), np.cumsum(moved, axis=0)))


def path(*parts: FloatArray) -> FloatArray:
    """Parts joined, where each begins at the end of the one before."""
    return np.concatenate([parts[0], *(part[1:] for part in parts[1:])])


def distance_to(points: FloatArray, line: FloatArray) -> FloatArray:
    """(N,) distance of each point (N, 2) to a polyline (M, 2)."""
    start, step = line[:-1], np.diff(line, axis=0)
    along = np.einsum("nmk,mk->nm", points[:, None] - start, step) / (step**2).sum(axis=1)
    nearest = start + np.clip(along, 0, 1)[..., None] * step
    return np.sqrt(((points[:, None] - nearest) ** 2).sum(axis=2)).min(axis=1)


def angle_between(a: float, b: float) -> float:
    """Absolute difference of two directions, radians, 0 to pi."""
    return float(abs(np.angle(np.exp(1j * (a - b)))))


def heading(line: FloatArray) -> float:
    """Direction in which a line ends."""
    return float(np.arctan2(*(line[-1] - line[-2])[::-1]))
