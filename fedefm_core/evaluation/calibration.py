# SPDX-License-Identifier: Apache-2.0
"""Whether a model is as sure as it is right: of its pixels, and of where it puts tips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedefm_core.evaluation.metrics import FloatArray, TipMatch
from fedefm_core.perception.types import Instrument

BINS = 15
LEVELS = (0.5, 0.9, 0.95)  # of the ellipses whose coverage is told


def calibration_counts(probability: FloatArray, right: npt.NDArray[np.bool_]) -> FloatArray:
    """(BINS, 3): in each of BINS equal bins of the probability of being right, the number of
    pixels, the sum of their probabilities, and the number that are right. Arrays of one shape."""
    where = np.minimum((probability * BINS).astype(np.int64), BINS - 1).ravel()
    columns = (None, probability.ravel(), right.ravel().astype(np.float64))
    bins = [np.bincount(where, column, BINS) for column in columns]
    counts: FloatArray = np.stack(bins, axis=1)
    return counts


def expected_calibration_error(counts: FloatArray) -> FloatArray:
    """Of counts (..., BINS, 3): mean over pixels of |share right - mean probability| of their bin
    (Naeini et al., AAAI 2015; Guo et al., ICML 2017). NaN without pixels."""
    number, said, right = np.moveaxis(counts, -1, 0)
    total = number.sum(-1)
    gap = np.abs(right - said).sum(-1)
    error: FloatArray = np.full(total.shape, np.nan)
    np.divide(gap, total, out=error, where=total > 0)
    return error


def squared_mahalanobis(
    match: TipMatch, instruments: Sequence[Instrument], true: FloatArray
) -> FloatArray:
    """(K,): of each pair, the squared error in units of the tip's own covariance.

    instruments: those of the match's predicted tips, in that order. true: (T, 2). Pairs whose
    instrument names no covariance, or one that is not positive, are left out.
    """
    values = []
    for predicted, index in match.pairs:
        instrument = instruments[int(predicted)]
        if instrument.tip_px is None or instrument.covariance_px is None:
            continue
        error = np.asarray(instrument.tip_px, np.float64) - true[int(index)]
        covariance = np.asarray(instrument.covariance_px, np.float64)
        if np.linalg.eigvalsh(covariance).min() > 0:
            values.append(float(error @ np.linalg.solve(covariance, error)))
    return np.array(values, dtype=np.float64)


def ellipse_limit(level: float) -> float:
    """The squared Mahalanobis distance that level of a normal distribution in the plane lie
    within: the quantile of chi² with two degrees of freedom, -2 ln(1 - level)."""
    return float(-2 * np.log1p(-level))
