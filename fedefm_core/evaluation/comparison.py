# SPDX-License-Identifier: Apache-2.0
"""Two models on the same frames: differences by frame, a paired test, where they differ most."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fedefm_core.evaluation.evaluate import EvaluationSettings, FrameScore
from fedefm_core.evaluation.metrics import (
    REGION_METRICS,
    FloatArray,
    bootstrap_interval,
    mean_iou,
    nan_mean,
)


def _of_region(region: str, metric: str) -> Callable[[FrameScore], float]:
    return lambda score: float(REGION_METRICS[metric](score.regions[region]))


METRICS: Mapping[str, Callable[[FrameScore], float]] = {
    "foreground_dice": _of_region("foreground", "dice"),
    "catheter_dice": _of_region("catheter", "dice"),
    "guidewire_dice": _of_region("guidewire", "dice"),
    "foreground_cldice": _of_region("foreground", "cldice"),
    "foreground_centerline_f1": _of_region("foreground", "centerline_f1"),
    "miou_without_background": lambda score: float(mean_iou(score.confusion, False)),
}
FLIPS = 10_000  # random signs of the test
_BLOCK = 1_000  # of them at a time, to bound memory


def compare(
    first: Sequence[FrameScore], second: Sequence[FrameScore], settings: EvaluationSettings
) -> dict[str, Any]:
    """By metric: means of both over the frames where both are defined, the mean of second minus
    first with its bootstrap interval, the p value, and how often which is better; plain JSON.

    Raises ValueError unless both are of the same frames in the same order.
    """
    if [score.name for score in first] != [score.name for score in second]:
        raise ValueError("Both models must be scored on the same frames in the same order")
    return {name: _compared(of, first, second, settings) for name, of in METRICS.items()}


def sign_flip_p(differences: FloatArray, seed: int, flips: int = FLIPS) -> float:
    """Two-sided p value of mean 0, by giving paired differences (n,) random signs (Fisher 1935).

    The share of sign patterns, the true one counted in, whose mean is at least as far from 0.
    """
    rng = np.random.default_rng(seed)
    least = abs(differences.mean()) * (1 - 1e-12)
    as_far = 1
    for start in range(0, flips, _BLOCK):
        signs = rng.choice((-1.0, 1.0), (min(_BLOCK, flips - start), len(differences)))
        as_far += int(np.count_nonzero(np.abs((signs * differences).mean(axis=1)) >= least))
    return as_far / (flips + 1)


def most_different(
    first: Sequence[FrameScore], second: Sequence[FrameScore], metric: str, count: int
) -> list[int]:
    """Indices of the frames on which the two differ most in a metric, the largest first."""
    of = METRICS[metric]
    gap = np.array([abs(of(b) - of(a)) for a, b in zip(first, second, strict=True)])
    known = np.flatnonzero(np.isfinite(gap))
    return [int(i) for i in known[np.argsort(-gap[known], kind="stable")][:count]]


def _compared(
    of: Callable[[FrameScore], float],
    first: Sequence[FrameScore],
    second: Sequence[FrameScore],
    settings: EvaluationSettings,
) -> dict[str, Any]:
    values = np.array([[of(a), of(b)] for a, b in zip(first, second, strict=True)])
    known = values[np.isfinite(values).all(axis=1)]
    if not len(known):
        return {"n": 0}
    differences = known[:, 1] - known[:, 0]
    interval = bootstrap_interval(
        nan_mean,
        differences,
        settings.bootstrap_seed,
        settings.bootstrap_resamples,
        settings.confidence,
    )
    return {
        "n": len(known),
        "first": float(known[:, 0].mean()),
        "second": float(known[:, 1].mean()),
        "difference": float(differences.mean()),
        "difference_interval": interval and list(interval),
        "p": sign_flip_p(differences, settings.bootstrap_seed),
        "second_better": int(np.count_nonzero(differences > 0)),
        "first_better": int(np.count_nonzero(differences < 0)),
    }
