# SPDX-License-Identifier: Apache-2.0
"""Score perception against truth: a frame at a time, then summed up by kind of image.

Instruments are taken as found in each frame alone, before tracking: frames of a data set are
mostly no sequence, and a tracker would hide what the network gets wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pydantic import Field, NonNegativeInt

from fedefm_core.config import Settings
from fedefm_core.evaluation.calibration import (
    LEVELS,
    calibration_counts,
    ellipse_limit,
    expected_calibration_error,
    squared_mahalanobis,
)
from fedefm_core.evaluation.distances import (
    F1_TOLERANCES_PX,
    centerline_distance,
    f1_at,
    hausdorff95,
    near_counts,
    skeleton_gaps,
)
from fedefm_core.evaluation.metrics import (
    CLASS_METRICS,
    REGION_METRICS,
    BoolArray,
    FloatArray,
    IntArray,
    RegionCounts,
    TipMatch,
    bootstrap_interval,
    confusion,
    count_region,
    match_tips,
    nan_mean,
    nan_quantile,
)
from fedefm_core.evaluation.strata import LineScore, score_line, summarise_lines
from fedefm_core.evaluation.truth import ALL, FrameTruth
from fedefm_core.perception.thinning import thin
from fedefm_core.perception.types import INSTRUMENT_KINDS, Instrument, LabelMap

FOREGROUND = "foreground"
REGIONS = (*INSTRUMENT_KINDS, FOREGROUND)
MANY = ">= 3"  # instruments in a frame
_BRIEF = ("dice", "centerline_f1")

Statistic = Callable[[FloatArray], FloatArray]


class EvaluationSettings(Settings):
    """centerline_tolerance_px: of centerline precision, recall and F1. tip_gate_px: a predicted
    tip this far from every true one is false, not inexact. pck_px: how near a tip counts as found
    in the percentage of correct keypoints. Bootstrap: resamples of the frames,
    seed, and the share of resamples inside an interval. All lengths in pixels of the input.
    """

    centerline_tolerance_px: float = Field(default=3.0, ge=0, le=100)
    tip_gate_px: float = Field(default=20.0, gt=0, le=10_000)
    pck_px: tuple[float, ...] = (3.0, 9.0)
    bootstrap_resamples: int = Field(default=1000, ge=1, le=100_000)
    bootstrap_seed: NonNegativeInt = 0
    confidence: float = Field(default=0.95, gt=0, lt=1)


@dataclass(frozen=True)
class RegionDistances:
    """hausdorff95_px, centerline_px: NaN where undefined. near: as near_counts gives it."""

    hausdorff95_px: float
    centerline_px: float
    near: IntArray


@dataclass(frozen=True)
class FrameScore:
    """One frame reduced to counts. kind: of image. tips: by instrument kind; None: unknown.

    lines: one score for each visible stretch of an instrument, where the truth has them.
    confusion: (3, 3). distances: by region. calibration: (2, BINS, 3), of all pixels and of those
    called an instrument; None where probabilities are unknown. tip_deviations: squared, in units
    of each tip's covariance. mm_per_px: None where unknown. instruments: how many the truth has.
    """

    name: str
    kind: str | None
    regions: Mapping[str, RegionCounts]
    tips: Mapping[str, TipMatch] | None
    lines: tuple[LineScore, ...] = ()
    confusion: IntArray = field(default_factory=lambda: np.zeros((3, 3), np.int64))
    distances: Mapping[str, RegionDistances] = field(default_factory=dict)
    calibration: FloatArray | None = None
    tip_deviations: Mapping[str, FloatArray] = field(default_factory=dict)
    mm_per_px: float | None = None
    instruments: int | None = None


def score_frame(
    name: str,
    label_map: LabelMap,
    instruments: Sequence[Instrument],
    mask: LabelMap,
    truth: FrameTruth | None,
    settings: EvaluationSettings,
    probability: FloatArray | None = None,
    mm_per_px: float | None = None,
) -> FrameScore:
    """Compare one frame's label map (H, W) and instruments with its mask (H, W) and truth.

    probability: (H, W), 0 to 1, that 'an instrument' or 'none' is right, as the label map has it.
    """
    regions, distances = {}, {}
    for region in REGIONS:
        predicted, true = _region(label_map, region), _region(mask, region)
        skeletons = skeleton(predicted), skeleton(true)
        gaps = skeleton_gaps(*skeletons)
        tolerance = settings.centerline_tolerance_px
        regions[region] = count_region(predicted, true, *skeletons, tolerance)
        distances[region] = RegionDistances(
            hausdorff95(predicted, true), centerline_distance(gaps), near_counts(gaps)
        )
    score = FrameScore(
        name,
        None,
        regions,
        None,
        confusion=confusion(label_map, mask),
        distances=distances,
        calibration=None if probability is None else _calibration(probability, label_map, mask),
        mm_per_px=mm_per_px,
    )
    return score if truth is None else _with_truth(score, label_map, instruments, truth, settings)


def _with_truth(
    score: FrameScore,
    label_map: LabelMap,
    instruments: Sequence[Instrument],
    truth: FrameTruth,
    settings: EvaluationSettings,
) -> FrameScore:
    tips, deviations = {}, {}
    for kind in INSTRUMENT_KINDS:
        with_tip = [i for i in instruments if i.kind == kind and i.tip_px is not None]
        tips[kind] = match_tips(_tips(with_tip), truth.tips[kind], settings.tip_gate_px)
        deviations[kind] = squared_mahalanobis(tips[kind], with_tip, truth.tips[kind])
    tolerance = settings.centerline_tolerance_px
    return replace(
        score,
        kind=truth.kind,
        tips=tips,
        lines=tuple(score_line(line, label_map, tolerance) for line in truth.lines),
        tip_deviations=deviations,
        instruments=truth.instruments,
    )


def _calibration(probability: FloatArray, label_map: LabelMap, mask: LabelMap) -> FloatArray:
    right = (label_map > 0) == (mask > 0)
    called = label_map > 0
    return np.stack(
        [
            calibration_counts(probability, right),
            calibration_counts(probability[called], right[called]),
        ]
    )


def summarise(scores: Sequence[FrameScore], settings: EvaluationSettings) -> dict[str, Any]:
    """Metrics of all frames and, where kinds of image are known, of each kind; plain JSON.

    {'all': group, KIND: group, ...}; docs/metrics.md has the layout of a group. Undefined values
    are None.
    """
    kinds = sorted({score.kind for score in scores if score.kind is not None})
    groups = {ALL: list(scores)}
    groups |= {kind: [score for score in scores if score.kind == kind] for kind in kinds}
    return {name: _summarise_group(members, settings) for name, members in groups.items()}


def frame_row(score: FrameScore) -> dict[str, Any]:
    """Metrics of one frame as plain JSON."""
    regions = {
        region: {name: _number(metric(counts)) for name, metric in REGION_METRICS.items()}
        for region, counts in score.regions.items()
    }
    tips = None
    if score.tips is not None:
        tips = {kind: _tip_row(match) for kind, match in score.tips.items()}
    return {
        "name": score.name,
        "kind": score.kind,
        "regions": regions,
        "tips": tips,
        "classes": {key: _number(of(score.confusion)) for key, of in CLASS_METRICS.items()},
        "distances": {region: _distance_row(d) for region, d in score.distances.items()},
    }


def _distance_row(distances: RegionDistances) -> dict[str, Any]:
    at = zip(F1_TOLERANCES_PX, f1_at(distances.near), strict=True)
    return {
        "hausdorff95_px": _number(distances.hausdorff95_px),
        "centerline_px": _number(distances.centerline_px),
        "centerline_f1_at": {str(tolerance): _number(value) for tolerance, value in at},
    }


def _tip_row(match: TipMatch) -> dict[str, Any]:
    errors = [round(float(error), 3) for error in match.errors_px]
    return {"error_px": errors, "missed": match.missed, "false": match.false}


def _summarise_group(scores: Sequence[FrameScore], settings: EvaluationSettings) -> dict[str, Any]:
    regions = {
        region: _summarise_region(np.array([s.regions[region] for s in scores]), settings)
        for region in REGIONS
    }
    known = [score.tips for score in scores if score.tips is not None]
    tips = None
    if known:
        tips = {
            kind: _summarise_tips([[match[kind]] for match in known], settings)
            for kind in INSTRUMENT_KINDS
        }
        tips[ALL] = _summarise_tips([list(match.values()) for match in known], settings)
    lines = [line for score in scores for line in score.lines]
    by = summarise_lines(lines) if lines else None
    return {
        "frames": len(scores),
        "regions": regions,
        "classes": _summarise_classes(scores, settings),
        "distances": {
            region: _summarise_distances(scores, region, settings) for region in REGIONS
        },
        "calibration": _summarise_calibration(scores, settings),
        "tips": tips,
        "tips_more": _summarise_tips_more(scores, settings) if known else None,
        "lines": by,
        "by_instruments": _by_instruments(scores, settings),
    }


def _summarise_classes(
    scores: Sequence[FrameScore], settings: EvaluationSettings
) -> dict[str, Any]:
    counts = np.array([score.confusion for score in scores])
    summary = {}
    for name, metric in CLASS_METRICS.items():

        def pooled(frames: FloatArray, metric: Any = metric) -> FloatArray:
            return np.asarray(metric(frames.sum(-3)))

        summary[name] = {
            **_estimate("mean", nan_mean, metric(counts), settings),
            **_estimate("pooled", pooled, counts, settings),
        }
    return summary


def _summarise_distances(
    scores: Sequence[FrameScore], region: str, settings: EvaluationSettings
) -> dict[str, Any]:
    known = [score.distances[region] for score in scores]
    summary: dict[str, Any] = {}
    for name in ("hausdorff95_px", "centerline_px"):
        values = np.array([getattr(distances, name) for distances in known])
        n = int(np.count_nonzero(~np.isnan(values)))
        summary[name] = {**_estimate("mean", nan_mean, values, settings), "n": n}
    near = np.array([distances.near for distances in known])
    summary["centerline_f1_at"] = {
        str(tolerance): {
            **_estimate("mean", nan_mean, f1_at(near[:, index]), settings),
            **_estimate("pooled", lambda frames: f1_at(frames.sum(-2)), near[:, index], settings),
        }
        for index, tolerance in enumerate(F1_TOLERANCES_PX)
    }
    return summary


def _summarise_calibration(
    scores: Sequence[FrameScore], settings: EvaluationSettings
) -> dict[str, Any] | None:
    """Expected calibration error and the bins behind it; None where nothing is known."""
    known = [score.calibration for score in scores if score.calibration is not None]
    if not known:
        return None
    counts = np.array(known)

    def error(frames: FloatArray) -> FloatArray:
        return expected_calibration_error(frames.sum(-3))

    summary = {}
    for index, name in enumerate(("all_pixels", "called_instrument")):
        number, said, right = counts[:, index].sum(0).T
        used = number > 0
        summary[name] = {
            **_estimate("ece", error, counts[:, index], settings),
            "pixels": [int(value) for value in number[used]],
            "mean_probability": [_number(value) for value in (said[used] / number[used])],
            "share_right": [_number(value) for value in (right[used] / number[used])],
        }
    return summary


def _summarise_tips_more(
    scores: Sequence[FrameScore], settings: EvaluationSettings
) -> dict[str, Any]:
    """PCK, errors in mm and coverage of the covariances, of each kind and of all."""
    known = [score for score in scores if score.tips is not None]
    groups: dict[str, tuple[str, ...]] = {kind: (kind,) for kind in INSTRUMENT_KINDS}
    groups[ALL] = INSTRUMENT_KINDS
    return {name: _tips_of(known, kinds, settings) for name, kinds in groups.items()}


def _tips_of(
    scores: Sequence[FrameScore], kinds: Sequence[str], settings: EvaluationSettings
) -> dict[str, Any]:
    matches = [[score.tips[kind] for kind in kinds] for score in scores if score.tips is not None]
    errors = [np.concatenate([match.errors_px for match in frame]) for frame in matches]
    true = [sum(match.n_true for match in frame) for frame in matches]
    pck = {}
    for limit in settings.pck_px:
        near = [int(np.count_nonzero(found <= limit)) for found in errors]
        pck[f"{limit:g}"] = _summarise_share(np.array([near, true]).T, settings)
    deviations = [np.concatenate([s.tip_deviations[kind] for kind in kinds]) for s in scores]
    sizes = [len(values) for values in deviations]
    coverage = {}
    for level in LEVELS:
        inside = [int(np.count_nonzero(d <= ellipse_limit(level))) for d in deviations]
        coverage[f"{level:g}"] = _summarise_share(np.array([inside, sizes]).T, settings)
    spaced = [
        found * score.mm_per_px
        for found, score in zip(errors, scores, strict=True)
        if score.mm_per_px is not None
    ]
    in_mm = np.concatenate(spaced) if spaced else np.zeros(0)
    return {
        "pck": pck,
        "covariance_coverage": coverage,
        "error_mm": {
            "n": len(in_mm),
            "median": _number(np.median(in_mm)) if len(in_mm) else None,
            "p95": _number(np.percentile(in_mm, 95)) if len(in_mm) else None,
        },
    }


def _by_instruments(
    scores: Sequence[FrameScore], settings: EvaluationSettings
) -> dict[str, Any] | None:
    """Dice and centreline F1 of the foreground, by how many instruments the truth has."""
    known = [(score.instruments, score) for score in scores if score.instruments is not None]
    if not known:
        return None
    summary = {}
    for label in ("0", "1", "2", MANY):
        members = [s for number, s in known if (str(number) if number < 3 else MANY) == label]
        if members:
            counts = np.array([s.regions[FOREGROUND] for s in members])
            values = {name: REGION_METRICS[name](RegionCounts(*counts.T)) for name in _BRIEF}
            summary[label] = {
                "frames": len(members),
                **{name: _estimate("mean", nan_mean, v, settings) for name, v in values.items()},
            }
    return summary


def _summarise_region(counts: IntArray, settings: EvaluationSettings) -> dict[str, Any]:
    """counts: (n, fields of RegionCounts)."""
    summary = {}
    for name, metric in REGION_METRICS.items():

        def pooled(frames: FloatArray, metric: Any = metric) -> FloatArray:
            return np.asarray(metric(RegionCounts(*np.moveaxis(frames.sum(-2), -1, 0))))

        values = metric(RegionCounts(*counts.T))
        summary[name] = {
            **_estimate("mean", nan_mean, values, settings),
            "n": int(np.count_nonzero(~np.isnan(values))),
            **_estimate("pooled", pooled, counts, settings),
        }
    return summary


def _summarise_tips(
    matches: Sequence[Sequence[TipMatch]], settings: EvaluationSettings
) -> dict[str, Any]:
    """matches: for each frame, those of one kind of instrument, or of all."""
    errors = [np.concatenate([match.errors_px for match in frame]) for frame in matches]
    padded = np.full((len(errors), max(1, *(len(e) for e in errors))), np.nan)
    for row, values in zip(padded, errors, strict=True):
        row[: len(values)] = values
    missed = np.array([[sum(m.missed for m in f), sum(m.n_true for m in f)] for f in matches])
    false = np.array([[sum(m.false for m in f), sum(m.n_predicted for m in f)] for f in matches])
    return {
        "error_px": {
            "n": sum(len(e) for e in errors),
            **_estimate("median", _quantile_of_all(0.5), padded, settings),
            **_estimate("mean", lambda x: nan_mean(_flat(x)), padded, settings),
            **_estimate("p95", _quantile_of_all(0.95), padded, settings),
        },
        "missed": _summarise_share(missed, settings),
        "false": _summarise_share(false, settings),
    }


def _summarise_share(counts: IntArray, settings: EvaluationSettings) -> dict[str, Any]:
    """counts: (frames, 2), those of interest and all."""
    count, total = counts.sum(axis=0)
    return {"count": int(count), "n": int(total), **_estimate("rate", _share, counts, settings)}


def _share(frames: FloatArray) -> FloatArray:
    count, total = np.moveaxis(frames.sum(-2).astype(np.float64), -1, 0)
    return np.asarray(np.divide(count, total, out=np.full(total.shape, np.nan), where=total > 0))


def _quantile_of_all(q: float) -> Statistic:
    return lambda frames: nan_quantile(_flat(frames), q)


def _flat(frames: FloatArray) -> FloatArray:
    return frames.reshape(*frames.shape[:-2], -1)


def _estimate(
    name: str, statistic: Statistic, frames: FloatArray | IntArray, settings: EvaluationSettings
) -> dict[str, Any]:
    """{name: statistic of the frames, name_interval: its bootstrap interval}."""
    values = np.asarray(frames, dtype=np.float64)
    interval = bootstrap_interval(
        statistic,
        values,
        settings.bootstrap_seed,
        settings.bootstrap_resamples,
        settings.confidence,
    )
    return {
        name: _number(statistic(values)),
        f"{name}_interval": interval and [_number(bound) for bound in interval],
    }


def _region(label_map: LabelMap, region: str) -> BoolArray:
    if region == FOREGROUND:
        return np.asarray(label_map > 0)
    return np.asarray(label_map == 1 + INSTRUMENT_KINDS.index(region))


def skeleton(mask: BoolArray) -> BoolArray:
    """(H, W) bool: skeleton of mask, by the thinning that perception uses, to the very end."""
    padded = np.pad(mask.astype(np.uint8), 1)
    thin(padded, max_iterations=max(mask.shape))
    return padded[1:-1, 1:-1] > 0


def _tips(instruments: Sequence[Instrument]) -> FloatArray:
    tips = [instrument.tip_px for instrument in instruments]
    return np.reshape(np.asarray(tips, dtype=np.float64), (-1, 2))


def _number(value: Any) -> float | None:
    number = float(value)
    return round(number, 6) if math.isfinite(number) else None
