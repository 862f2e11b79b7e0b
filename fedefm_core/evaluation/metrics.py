# SPDX-License-Identifier: Apache-2.0
"""Definitions of every metric, in numpy alone; docs/metrics.md says the same in words.

A frame is reduced to counts once (RegionCounts, TipMatch). Every region metric is a function of
counts, so one formula serves a frame, a pool of frames (its summed counts) and all resamples of a
bootstrap. NaN means undefined: the frame says nothing about this metric and is left out of means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BLOCK_ELEMENTS = 4_000_000  # of one block of bootstrap resamples, to bound memory


class RegionCounts(NamedTuple):
    """Pixels of one region (a class, or all foreground) in one frame, or their sums.

    Fields are integers or integer arrays of one shape; each counts pixels.
    """

    common: IntArray  # predicted and true
    predicted: IntArray
    true: IntArray
    predicted_skeleton: IntArray
    predicted_skeleton_in_truth: IntArray  # inside the true mask
    predicted_skeleton_near: IntArray  # within the tolerance of the true skeleton
    true_skeleton: IntArray
    true_skeleton_in_prediction: IntArray  # inside the predicted mask
    true_skeleton_near: IntArray  # within the tolerance of the predicted skeleton


def count_region(
    predicted: BoolArray,
    true: BoolArray,
    predicted_skeleton: BoolArray,
    true_skeleton: BoolArray,
    tolerance_px: float,
) -> RegionCounts:
    """Count one frame; all masks (H, W) bool. Near means Euclidean distance <= tolerance_px."""
    shapes = {predicted.shape, true.shape, predicted_skeleton.shape, true_skeleton.shape}
    if len(shapes) > 1:
        raise ValueError(f"All masks must have one shape (got {sorted(shapes)})")
    return RegionCounts(
        common=_count(predicted & true),
        predicted=_count(predicted),
        true=_count(true),
        predicted_skeleton=_count(predicted_skeleton),
        predicted_skeleton_in_truth=_count(predicted_skeleton & true),
        predicted_skeleton_near=_count(predicted_skeleton & widen(true_skeleton, tolerance_px)),
        true_skeleton=_count(true_skeleton),
        true_skeleton_in_prediction=_count(true_skeleton & predicted),
        true_skeleton_near=_count(true_skeleton & widen(predicted_skeleton, tolerance_px)),
    )


def widen(mask: BoolArray, radius_px: float) -> BoolArray:
    """(H, W) bool: the pixels at Euclidean distance <= radius_px from one of mask."""
    reach = int(np.floor(radius_px))
    ys, xs = np.nonzero(mask)
    padded = np.zeros((mask.shape[0] + 2 * reach, mask.shape[1] + 2 * reach), dtype=np.bool_)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dx * dx + dy * dy <= radius_px * radius_px:
                padded[ys + dy + reach, xs + dx + reach] = True
    return padded[reach : reach + mask.shape[0], reach : reach + mask.shape[1]]


def dice(counts: RegionCounts) -> FloatArray:
    """2 |P ∩ T| / (|P| + |T|). NaN when both are empty, 0 when one is."""
    return _ratio(2 * np.asarray(counts.common), np.asarray(counts.predicted) + counts.true)


def iou(counts: RegionCounts) -> FloatArray:
    """|P ∩ T| / |P or T|, the Jaccard index. NaN when both are empty, 0 when one is."""
    union = np.asarray(counts.predicted) + counts.true - counts.common
    return _ratio(np.asarray(counts.common), union)


def cl_dice(counts: RegionCounts) -> FloatArray:
    """Centerline Dice of Shit et al., CVPR 2021 (arXiv 2003.07311), on hard masks.

    Harmonic mean of topology precision |S_P ∩ T| / |S_P| and topology sensitivity
    |S_T ∩ P| / |S_T|; S is the skeleton. NaN when both masks are empty, 0 when one is.
    """
    return harmonic_mean(
        counts.predicted_skeleton_in_truth,
        counts.predicted_skeleton,
        counts.true_skeleton_in_prediction,
        counts.true_skeleton,
    )


def centerline_precision(counts: RegionCounts) -> FloatArray:
    """Share of the predicted skeleton near the true one. NaN when nothing was predicted."""
    return _ratio(counts.predicted_skeleton_near, counts.predicted_skeleton)


def centerline_recall(counts: RegionCounts) -> FloatArray:
    """Share of the true skeleton near the predicted one. NaN when there is nothing to find."""
    return _ratio(counts.true_skeleton_near, counts.true_skeleton)


def centerline_f1(counts: RegionCounts) -> FloatArray:
    """Harmonic mean of both. NaN when both skeletons are empty, 0 when one is."""
    return harmonic_mean(
        counts.predicted_skeleton_near,
        counts.predicted_skeleton,
        counts.true_skeleton_near,
        counts.true_skeleton,
    )


REGION_METRICS: dict[str, Callable[[RegionCounts], FloatArray]] = {
    "dice": dice,
    "iou": iou,
    "cldice": cl_dice,
    "centerline_precision": centerline_precision,
    "centerline_recall": centerline_recall,
    "centerline_f1": centerline_f1,
}


def confusion(predicted: npt.NDArray[np.uint8], true: npt.NDArray[np.uint8]) -> IntArray:
    """(3, 3): pixels by true class (row) and predicted class (column); both (H, W) of 0, 1, 2."""
    pairs = 3 * true.astype(np.int64).ravel() + predicted.ravel()
    return np.bincount(pairs, minlength=9).reshape(3, 3)


def mean_iou(counts: npt.ArrayLike, with_background: bool) -> FloatArray:
    """Mean over classes of the Jaccard index of confusion matrices (..., 3, 3), the background
    among them or not. A class that is neither there nor predicted is left out."""
    matrix = np.asarray(counts, dtype=np.float64)
    common = np.diagonal(matrix, axis1=-2, axis2=-1)
    union = matrix.sum(-1) + matrix.sum(-2) - common
    by_class = _ratio(common, union)
    return nan_mean(by_class if with_background else by_class[..., 1:])


def pixel_accuracy(counts: npt.ArrayLike) -> FloatArray:
    """Share of all pixels, background too, whose class is right; of (..., 3, 3)."""
    matrix = np.asarray(counts, dtype=np.float64)
    return _ratio(np.trace(matrix, axis1=-2, axis2=-1), matrix.sum((-2, -1)))


CLASS_METRICS: dict[str, Callable[[npt.ArrayLike], FloatArray]] = {
    "miou_with_background": lambda counts: mean_iou(counts, True),
    "miou_without_background": lambda counts: mean_iou(counts, False),
    "accuracy": pixel_accuracy,
}


@dataclass(frozen=True)
class TipMatch:
    """Predicted tips of one kind in one frame against the true ones.

    pairs: (K, 2) int, index of the predicted and of the true tip. errors_px: (K,) distances.
    """

    pairs: IntArray
    errors_px: FloatArray
    n_predicted: int
    n_true: int

    @property
    def missed(self) -> int:
        """True tips without a predicted one."""
        return self.n_true - len(self.pairs)

    @property
    def false(self) -> int:
        """Predicted tips without a true one."""
        return self.n_predicted - len(self.pairs)


def match_tips(predicted: FloatArray, true: FloatArray, gate_px: float) -> TipMatch:
    """Pair predicted (P, 2) with true (T, 2) tips, one to one, at least cost.

    Of all pairings with min(P, T) pairs, the one with the least sum of min(distance, gate_px) is
    taken, then its pairs at gate_px or further are undone. (The cut-off distance of OSPA:
    Schuhmacher, Vo and Vo, IEEE Trans. Signal Processing 2008.)
    """
    distance = np.linalg.norm(predicted[:, None, :] - true[None, :, :], axis=2)
    pairs = assign(np.minimum(distance, gate_px))
    errors = distance[pairs[:, 0], pairs[:, 1]]
    close = errors < gate_px
    return TipMatch(pairs[close], errors[close], len(predicted), len(true))


def assign(cost: FloatArray) -> IntArray:
    """Minimum-cost assignment of (R, C) finite costs: (min(R, C), 2) row, column; rows ascending.

    Shortest augmenting paths with dual prices (Kuhn 1955, Jonker and Volgenant 1987).
    """
    if cost.shape[0] > cost.shape[1]:
        swapped = assign(cost.T)[:, ::-1]
        return swapped[np.argsort(swapped[:, 0])]
    rows, columns = cost.shape
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    row_of = np.full(columns, -1)
    for row in range(rows):
        column, previous = _cheapest_path(cost, row, row_price, column_price, row_of)
        while column >= 0:  # shift the assignments along the path back to the new row
            before = previous[column]
            row_of[column] = row if before < 0 else row_of[before]
            column = before
    taken = np.flatnonzero(row_of >= 0)
    pairs = np.stack([row_of[taken], taken], axis=1)
    return pairs[np.argsort(pairs[:, 0])].astype(np.int64)


def _cheapest_path(
    cost: FloatArray, row: int, row_price: FloatArray, column_price: FloatArray, row_of: IntArray
) -> tuple[int, IntArray]:
    """Dijkstra from row to a free column over reduced costs; updates both prices.

    Returns that column and, for each column, the one before it on its path (-1: the new row).
    """
    columns = cost.shape[1]
    distance = np.full(columns, np.inf)
    previous = np.full(columns, -1)
    done = np.zeros(columns, dtype=np.bool_)
    current_row, current_column, length = row, -1, 0.0
    while True:
        reach = length + cost[current_row] - row_price[current_row] - column_price
        shorter = ~done & (reach < distance)
        distance[shorter], previous[shorter] = reach[shorter], current_column
        current_column = int(np.argmin(np.where(done, np.inf, distance)))
        length = distance[current_column]
        if row_of[current_column] < 0:
            break
        done[current_column] = True
        current_row = row_of[current_column]
    row_price[row] += length
    row_price[row_of[done]] += length - distance[done]
    column_price[done] -= length - distance[done]
    return current_column, previous


def bootstrap_interval(
    statistic: Callable[[FloatArray], FloatArray],
    frames: FloatArray,
    seed: int,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> tuple[float, float] | None:
    """Percentile interval of statistic over frames drawn with replacement (Efron 1979).

    frames: (n, ...) what is known of each frame. statistic: (B, n, ...) to (B,), NaN where
    undefined; such resamples are left out. None with fewer than two frames for which it is
    defined: drawn again and again, one frame would seem to be sure.
    """
    n = len(frames)
    if resamples < 1 or np.count_nonzero(np.isfinite(statistic(frames[:, None]))) < 2:
        return None
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK_ELEMENTS // max(1, frames.size))
    values = np.concatenate(
        [
            statistic(frames[rng.integers(0, n, (min(block, resamples - start), n))])
            for start in range(0, resamples, block)
        ]
    )
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def nan_mean(values: FloatArray) -> FloatArray:
    """Mean over the last axis, NaN entries left out; NaN when none is left."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(-1), known.sum(-1))


def nan_quantile(values: FloatArray, q: float) -> FloatArray:
    """Quantile over the last axis by linear interpolation, NaN left out; NaN when none is left."""
    ordered = np.sort(values, axis=-1)  # NaN sorts last
    last = (~np.isnan(ordered)).sum(-1) - 1
    position = np.maximum(last, 0) * q
    below = np.floor(position).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(last, 0))
    low = np.take_along_axis(ordered, below[..., None], axis=-1)[..., 0]
    high = np.take_along_axis(ordered, above[..., None], axis=-1)[..., 0]
    return np.asarray(low + (high - low) * (position - below))


def _count(mask: BoolArray) -> IntArray:
    return np.asarray(np.count_nonzero(mask))


def _ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> FloatArray:
    top = np.asarray(numerator, dtype=np.float64)
    bottom = np.asarray(denominator, dtype=np.float64)
    result = np.full(np.broadcast_shapes(top.shape, bottom.shape), np.nan)
    np.divide(top, bottom, out=result, where=bottom > 0)
    return result


def harmonic_mean(
    hits_a: npt.ArrayLike, total_a: npt.ArrayLike, hits_b: npt.ArrayLike, total_b: npt.ArrayLike
) -> FloatArray:
    """Of hits_a / total_a and hits_b / total_b; 0 when one total is 0, NaN when both are."""
    a, na, b, nb = (np.asarray(x, dtype=np.float64) for x in (hits_a, total_a, hits_b, total_b))
    mean = np.nan_to_num(_ratio(2 * a * b, a * nb + b * na))
    return np.where(na + nb > 0, mean, np.nan)
