# SPDX-License-Identifier: Apache-2.0
"""Score perception against truth: a frame at a time, then summed up by kind of image.

Instruments are taken as found in each frame alone, before tracking: frames of a data set are
mostly no sequence, and a tracker would hide what the network gets wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field, NonNegativeInt

from fedefm_core.config import Settings
from fedefm_core.evaluation.metrics import (
    REGION_METRICS,
    BoolArray,
    FloatArray,
    IntArray,
    RegionCounts,
    TipMatch,
    bootstrap_interval,
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

Statistic = Callable[[FloatArray], FloatArray]


class EvaluationSettings(Settings):
    """centerline_tolerance_px: of centerline precision, recall and F1. tip_gate_px: a predicted
    tip this far from every true one is false, not inexact. Bootstrap: resamples of the frames,
    seed, and the share of resamples inside an interval. All lengths in pixels of the input.
    """

    centerline_tolerance_px: float = Field(default=3.0, ge=0, le=100)
    tip_gate_px: float = Field(default=20.0, gt=0, le=10_000)
    bootstrap_resamples: int = Field(default=1000, ge=1, le=100_000)
    bootstrap_seed: NonNegativeInt = 0
    confidence: float = Field(default=0.95, gt=0, lt=1)


@dataclass(frozen=True)
class FrameScore:
    """One frame reduced to counts. kind: of image. tips: by instrument kind; None: unknown.

    lines: one score for each visible stretch of an instrument, where the truth has them.
    """

    name: str
    kind: str | None
    regions: Mapping[str, RegionCounts]
    tips: Mapping[str, TipMatch] | None
    lines: tuple[LineScore, ...] = ()


def score_frame(
    name: str,
    label_map: LabelMap,
    instruments: Sequence[Instrument],
    mask: LabelMap,
    truth: FrameTruth | None,
    settings: EvaluationSettings,
) -> FrameScore:
    """Compare one frame's label map (H, W) and instruments with its mask (H, W) and truth."""
    regions = {}
    for region in REGIONS:
        predicted, true = _region(label_map, region), _region(mask, region)
        regions[region] = count_region(
            predicted,
            true,
            skeleton(predicted),
            skeleton(true),
            settings.centerline_tolerance_px,
        )
    if truth is None:
        return FrameScore(name, None, regions, None)
    tips = {
        kind: match_tips(_tips(instruments, kind), truth.tips[kind], settings.tip_gate_px)
        for kind in INSTRUMENT_KINDS
    }
    tolerance = settings.centerline_tolerance_px
    lines = tuple(score_line(line, label_map, tolerance) for line in truth.lines)
    return FrameScore(name, truth.kind, regions, tips, lines)


def summarise(scores: Sequence[FrameScore], settings: EvaluationSettings) -> dict[str, Any]:
    """Metrics of all frames and, where kinds of image are known, of each kind; plain JSON.

    {'all': group, KIND: group, ...}; group: {'frames': n, 'regions': {REGION: {METRIC: {mean, n,
    pooled, and intervals}}}, 'tips': {INSTRUMENT: {error_px, missed, false}}, 'lines': recall by
    width and contrast}.
    Undefined values are None; see docs/metrics.md.
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
    return {"name": score.name, "kind": score.kind, "regions": regions, "tips": tips}


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
    return {"frames": len(scores), "regions": regions, "tips": tips, "lines": by}


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
    interval = bootstrap_interval(
        statistic,
        np.asarray(frames, dtype=np.float64),
        settings.bootstrap_seed,
        settings.bootstrap_resamples,
        settings.confidence,
    )
    return {
        name: _number(statistic(np.asarray(frames, dtype=np.float64))),
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


def _tips(instruments: Sequence[Instrument], kind: str) -> FloatArray:
    tips = [i.tip_px for i in instruments if i.kind == kind and i.tip_px is not None]
    return np.reshape(np.asarray(tips, dtype=np.float64), (-1, 2))


def _number(value: Any) -> float | None:
    number = float(value)
    return round(number, 6) if math.isfinite(number) else None
