# SPDX-License-Identifier: Apache-2.0
"""How much of each instrument is found, by its width and by how well it shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from fedefm_core.perception.types import INSTRUMENT_KINDS, FloatArray, LabelMap

WIDTHS_PX = (2.0, 4.0, 8.0)
CONTRASTS = (1.5, 3.0, 6.0)


@dataclass(frozen=True)
class LineTruth:
    """One visible stretch: centerline_px (N, 2) x, y; None where the truth does not say."""

    kind: str
    centerline_px: FloatArray
    width_px: float | None
    contrast_to_noise: float | None


@dataclass(frozen=True)
class LineScore:
    """Points of a stretch; those near any predicted instrument; those near one of its kind."""

    line: LineTruth
    points: int
    found: int
    found_as_kind: int


def score_line(line: LineTruth, label_map: LabelMap, tolerance_px: float) -> LineScore:
    """Count the points within tolerance of a predicted pixel of label_map (H, W)."""
    found = _near(line.centerline_px, label_map > 0, tolerance_px)
    same = label_map == 1 + INSTRUMENT_KINDS.index(line.kind)
    as_kind = _near(line.centerline_px, same, tolerance_px)
    return LineScore(line, len(line.centerline_px), found, as_kind)


def summarise_lines(scores: Sequence[LineScore]) -> dict[str, dict[str, dict[str, Any]]]:
    """{'width_px' | 'contrast_to_noise': {BIN: {n, recall, recall_as_kind}}}; bins in order.

    Recalls are pooled over points: every pixel of length weighs the same.
    """
    strata: dict[str, tuple[Callable[[LineTruth], float | None], Sequence[float]]] = {
        "width_px": (lambda line: line.width_px, WIDTHS_PX),
        "contrast_to_noise": (lambda line: line.contrast_to_noise, CONTRASTS),
    }
    summary = {}
    for name, (value_of, edges) in strata.items():
        bins: dict[str, list[LineScore]] = {label: [] for label in _labels(edges)}
        for score in scores:
            value = value_of(score.line)
            if value is not None:
                bins[_labels(edges)[int(np.searchsorted(edges, value, side="right"))]].append(
                    score
                )
        summary[name] = {label: _recall(members) for label, members in bins.items()}
    return summary


def _near(points: FloatArray, mask: Any, tolerance_px: float) -> int:
    if not mask.any():
        return 0
    away = np.logical_not(mask).astype(np.uint8)
    distance = cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    height, width = mask.shape
    x = np.clip(np.rint(points[:, 0]).astype(int), 0, width - 1)
    y = np.clip(np.rint(points[:, 1]).astype(int), 0, height - 1)
    return int(np.count_nonzero(distance[y, x] <= tolerance_px))


def _labels(edges: Sequence[float]) -> list[str]:
    inner = [f"{a:g} to {b:g}" for a, b in pairwise(edges)]
    return [f"< {edges[0]:g}", *inner, f">= {edges[-1]:g}"]


def _recall(scores: Sequence[LineScore]) -> dict[str, Any]:
    points = sum(score.points for score in scores)
    return {
        "n": len(scores),
        "recall": sum(s.found for s in scores) / points if points else None,
        "recall_as_kind": sum(s.found_as_kind for s in scores) / points if points else None,
    }
