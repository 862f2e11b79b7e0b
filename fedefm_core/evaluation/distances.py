# SPDX-License-Identifier: Apache-2.0
"""How far a predicted region lies from the true one, in pixels; docs/metrics.md says it in words.

NaN means undefined: one of the two is empty, so there is no distance.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from fedefm_core.evaluation.metrics import BoolArray, FloatArray, IntArray, harmonic_mean

F1_TOLERANCES_PX = (1, 2, 3, 5)


def hausdorff95(predicted: BoolArray, true: BoolArray) -> float:
    """95 % Hausdorff distance of two masks (H, W) in pixels, as MONAI has it.

    The larger of the two 95th percentiles of the distances from the border of one mask to that of
    the other; a border pixel is one of the mask with a neighbour (of four) outside of it.
    """
    if not predicted.any() or not true.any():
        return float("nan")
    ours, theirs = _border(predicted), _border(true)
    one = np.percentile(_distance_to(theirs)[ours], 95)
    other = np.percentile(_distance_to(ours)[theirs], 95)
    return float(max(one, other))


class SkeletonGaps(NamedTuple):
    """Distances in pixels: of each predicted skeleton pixel to the true skeleton (P,), and of each
    true one to the predicted (T,); infinite where the other has none."""

    there: FloatArray
    back: FloatArray


def skeleton_gaps(predicted_skeleton: BoolArray, true_skeleton: BoolArray) -> SkeletonGaps:
    """How far two skeletons (H, W) lie apart, pixel by pixel."""
    return SkeletonGaps(
        _distance_to(true_skeleton)[predicted_skeleton],
        _distance_to(predicted_skeleton)[true_skeleton],
    )


def centerline_distance(gaps: SkeletonGaps) -> float:
    """Mean distance in pixels between two skeletons, over the pixels of both."""
    there, back = gaps
    if not there.size or not back.size:
        return float("nan")
    return float(np.concatenate([there, back]).mean())


def near_counts(gaps: SkeletonGaps) -> IntArray:
    """(len(F1_TOLERANCES_PX), 4): predicted pixels near the true skeleton, predicted pixels, true
    ones near the predicted skeleton, true ones; near means within the row's tolerance."""
    there, back = gaps
    rows = [
        (np.count_nonzero(there <= t), there.size, np.count_nonzero(back <= t), back.size)
        for t in F1_TOLERANCES_PX
    ]
    return np.array(rows, dtype=np.int64)


def f1_at(counts: IntArray) -> FloatArray:
    """Harmonic mean of precision and recall of counts (..., 4); NaN when both are empty."""
    return harmonic_mean(*np.moveaxis(counts, -1, 0))


def _border(mask: BoolArray) -> BoolArray:
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = cv2.erode(np.pad(mask.astype(np.uint8), 1), cross)[1:-1, 1:-1]
    return np.asarray(mask & (inner == 0))


def _distance_to(mask: BoolArray) -> FloatArray:
    """(H, W): Euclidean distance to the nearest pixel of mask, infinite where there is none."""
    if not mask.any():
        return np.full(mask.shape, np.inf)
    away = np.logical_not(mask).astype(np.uint8)
    distance = cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance, dtype=np.float64)
