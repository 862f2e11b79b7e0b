# SPDX-License-Identifier: Apache-2.0
"""Two sets of images compared: which numbers differ, and can a classifier tell them apart?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedefm_core.errors import FrameError
from fedefm_core.simulation.statistics import ImageStatistics, features

Values = npt.NDArray[np.float64]

LEAST_IMAGES = 10  # of either set
_FOLDS = 5
_PENALTY = 1.0  # on the squared weights, for standardised features
_STEPS = 25
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def compare(
    simulated: Sequence[ImageStatistics], real: Sequence[ImageStatistics], seed: int = 0
) -> dict[str, Any]:
    """How far two sets of images are apart, as plain JSON.

    auc: by group of features, and for all, that of a logistic regression on images it has not
    seen: 0.5 when it cannot tell the sets apart, 1 when it always can. features: for each, the
    quantiles 5, 25, 50, 75, 95 % of either set, the shift of the median in standard deviations
    of the real set and the Kolmogorov-Smirnov distance. seed: of the split into folds.
    Raises FrameError when a set has fewer than LEAST_IMAGES images.
    """
    require_enough(len(simulated), "simulated")
    require_enough(len(real), "real")
    tables = [_table(images) for images in (simulated, real)]
    groups = {group: _matrices(tables, group) for group in tables[0]}
    pairs = list(groups.values())
    groups["all"] = [np.concatenate([pair[side] for pair in pairs], axis=1) for side in (0, 1)]
    return {
        "images": {"simulated": len(simulated), "real": len(real)},
        "auc": {
            group: cross_validated_auc(pair[0], pair[1], seed) for group, pair in groups.items()
        },
        "features": {
            group: {
                name: _difference(values, tables[1][group][name])
                for name, values in columns.items()
            }
            for group, columns in tables[0].items()
        },
    }


def require_enough(count: int, name: str) -> None:
    """Raise FrameError when a set has too few images for a comparison."""
    if count < LEAST_IMAGES:
        raise FrameError(
            f"A comparison needs {LEAST_IMAGES} images of each set at least (got {count} {name} "
            "ones)"
        )


def _table(images: Sequence[ImageStatistics]) -> dict[str, dict[str, Values]]:
    """Group and name of every feature, with its values (N,)."""
    rows = [features(image) for image in images]
    return {
        group: {name: np.array([row[group][name] for row in rows]) for name in names}
        for group, names in rows[0].items()
    }


def _matrices(tables: Sequence[dict[str, dict[str, Values]]], group: str) -> list[Values]:
    return [np.stack(list(table[group].values()), axis=1) for table in tables]


def _difference(simulated: Values, real: Values) -> dict[str, Any]:
    shift = float(np.median(simulated) - np.median(real))
    return {
        "simulated": np.quantile(simulated, _QUANTILES).tolist(),
        "real": np.quantile(real, _QUANTILES).tolist(),
        "shift": shift / max(float(real.std()), 1e-6),
        "ks": kolmogorov_smirnov(simulated, real),
    }


def kolmogorov_smirnov(one: Values, other: Values) -> float:
    """Largest distance of the two empirical distribution functions, 0..1."""
    at = np.sort(np.concatenate([one, other]))
    shares = [np.searchsorted(np.sort(v), at, side="right") / len(v) for v in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


def cross_validated_auc(one: Values, other: Values, seed: int = 0) -> float:
    """AUC of a logistic regression that tells rows of one from rows of other, on unseen rows.

    one, other: (N, F) and (M, F). Scores of each of five folds come from a model of the other
    four. They are compared within their fold only, and the mean over folds is taken.
    """
    rng = np.random.default_rng(seed)
    folds = [np.array_split(rng.permutation(len(rows)), _FOLDS) for rows in (one, other)]
    areas = []
    for held_out in range(_FOLDS):
        parts = [folds[side][held_out] for side in (0, 1)]
        kept = (np.delete(one, parts[0], axis=0), np.delete(other, parts[1], axis=0))
        scores = _fitted_score(*kept)
        areas.append(area_under_curve(scores(one[parts[0]]), scores(other[parts[1]])))
    return float(np.mean(areas))


def area_under_curve(positive: Values, negative: Values) -> float:
    """Chance that a positive score exceeds a negative one; ties count half (Mann-Whitney)."""
    larger = (positive[:, None] > negative).mean()
    equal = (positive[:, None] == negative).mean()
    return float(larger + equal / 2)


def _fitted_score(one: Values, other: Values) -> Callable[[Values], Values]:
    """Logistic regression with an L2 penalty by Newton's method; returns rows -> log odds."""
    rows = np.concatenate([one, other])
    center, width = rows.mean(axis=0), rows.std(axis=0)
    width[width < 1e-9] = 1.0

    def design(raw: Values) -> Values:
        return np.concatenate([(raw - center) / width, np.ones((len(raw), 1))], axis=1)

    inputs = design(rows)
    labels = np.concatenate([np.ones(len(one)), np.zeros(len(other))])
    balance = np.where(labels == 1, 0.5 / len(one), 0.5 / len(other)) * len(rows)
    penalty = np.full(inputs.shape[1], _PENALTY)
    penalty[-1] = 1e-9  # none on the constant
    weights = np.zeros(inputs.shape[1])
    for _ in range(_STEPS):
        odds = 1 / (1 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        slope = inputs.T @ (balance * (odds - labels)) + penalty * weights
        curvature = (inputs.T * (balance * odds * (1 - odds))) @ inputs + np.diag(penalty)
        weights -= np.linalg.solve(curvature, slope)
    return lambda raw: design(raw) @ weights


def largest_gaps(report: dict[str, Any], count: int = 12) -> list[tuple[str, dict[str, Any]]]:
    """The features of a report by 'compare' that differ most, each as 'group/name'."""
    flat = [
        (f"{group}/{name}", difference)
        for group, names in report["features"].items()
        for name, difference in names.items()
    ]
    return sorted(flat, key=lambda item: -item[1]["ks"])[:count]
