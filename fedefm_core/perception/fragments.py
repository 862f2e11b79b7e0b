# SPDX-License-Identifier: Apache-2.0
"""One wire again where another instrument, or a hole in the label map, cut it in two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedefm_core.perception.strokes import End, Stroke, best_pairs, link, turning_rad
from fedefm_core.perception.types import BACKGROUND, FloatArray

_DIRECTION_PX = 14  # length over which the direction of a fragment's end is taken


@dataclass(frozen=True)
class GapLimits:
    """Which fragments may be one wire; see InstrumentSettings for the three values."""

    bare_px: float
    hidden_px: float
    turn_rad: float


def join_fragments(
    strokes: Sequence[Stroke], labels: npt.NDArray[np.uint8], limits: GapLimits
) -> list[Stroke]:
    """Link strokes of one kind that continue each other across a gap of labels (H, W)."""
    closed = [stroke for stroke in strokes if stroke.closed]
    strokes = [stroke for stroke in strokes if not stroke.closed]
    ends: list[End] = [(i, e) for i in range(len(strokes)) for e in (0, 1)]
    pairs = best_pairs(_gap_cost(strokes, labels, limits)) if len(strokes) > 1 else []
    if not pairs:
        return closed + strokes
    partners = {ends[a]: ends[b] for i, j in pairs for a, b in ((i, j), (j, i))}
    crowded = {(i, e) for i, stroke in enumerate(strokes) for e in (0, 1) if stroke.touching[e]}
    pieces = []
    for i, stroke in enumerate(strokes):
        cut = _cut(stroke)
        first, last = (cut if (i, e) in partners else 0 for e in (0, 1))
        pieces.append(replace(stroke, points=stroke.points[first : len(stroke.points) - last]))
    return closed + link(pieces, partners, crowded)


def _cut(stroke: Stroke) -> int:
    """Points that an end is stripped of: a cut wire's skeleton bends into a corner of the cut."""
    return min(round(0.6 * stroke.width) + 3, (len(stroke.points) - 2) // 3)


def _gap_cost(
    strokes: Sequence[Stroke], labels: npt.NDArray[np.uint8], limits: GapLimits
) -> FloatArray:
    """(E, E) cost of joining ends, infinite where they do not continue each other."""
    tails = []
    for stroke in strokes:
        cut = _cut(stroke)
        inner = stroke.points[cut : len(stroke.points) - cut]
        tails += [inner[: _DIRECTION_PX + 1][::-1], inner[-_DIRECTION_PX - 1 :]]
    positions = np.array([tail[-1] for tail in tails])
    directions = np.array([tail[-1] - tail[0] for tail in tails])
    directions /= np.maximum(np.hypot(*directions.T), 1e-9)[:, None]
    gap = np.hypot(*np.moveaxis(positions[None] - positions[:, None], -1, 0))
    turn = turning_rad(positions, directions)
    slack = np.repeat([2.0 * _cut(stroke) for stroke in strokes], 2)
    possible = (turn <= limits.turn_rad) & (gap <= limits.hidden_px + slack[:, None])
    owner = np.arange(len(tails)) // 2
    cost = np.where(possible & (owner[:, None] != owner[None]), gap * (1 + turn), np.inf)
    for i, j in np.argwhere(np.isfinite(cost)):
        if _bare_px(positions[i], positions[j], labels) > limits.bare_px:
            cost[i, j] = np.inf
    return np.asarray(np.minimum(cost, cost.T))


def _bare_px(start: FloatArray, stop: FloatArray, labels: npt.NDArray[np.uint8]) -> float:
    """Length of the straight line between two points that lies on background."""
    line = np.rint(np.linspace(start, stop, 25)).astype(int)
    bare = labels[line[:, 1], line[:, 0]] == BACKGROUND
    return float(bare.mean() * np.hypot(*(stop - start)))
