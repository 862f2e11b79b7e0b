# SPDX-License-Identifier: Apache-2.0
"""Two models on the same frames: differences by frame, a paired test, where they differ most."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from fedefm_core.evaluation.evaluate import EvaluationSettings, FrameScore
from fedefm_core.evaluation.metrics import (
    REGION_METRICS,
    FloatArray,
    bootstrap_interval,
    mean_iou,
    nan_mean,
)
from fedefm_core.perception.types import LabelMap

METRICS: Mapping[str, Callable[[FrameScore], float]] = {
    "foreground_dice": lambda score: float(REGION_METRICS["dice"](score.regions["foreground"])),
    "catheter_dice": lambda score: float(REGION_METRICS["dice"](score.regions["catheter"])),
    "guidewire_dice": lambda score: float(REGION_METRICS["dice"](score.regions["guidewire"])),
    "foreground_cldice": lambda score: float(
        REGION_METRICS["cldice"](score.regions["foreground"])
    ),
    "foreground_centerline_f1": lambda score: float(
        REGION_METRICS["centerline_f1"](score.regions["foreground"])
    ),
    "miou_without_background": lambda score: float(mean_iou(score.confusion, False)),
}
FLIPS = 10_000  # random signs of the test
_BLOCK = 1_000  # of them at a time, to bound memory
_COLORS = {1: (0.337, 0.706, 0.914), 2: (0.902, 0.624, 0.0)}  # Okabe and Ito, as everywhere


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


def draw_differences(
    rows: Sequence[tuple[str, Any, Sequence[LabelMap]]], titles: Sequence[str], path: Path
) -> None:
    """Draw a row a frame to path: its image, and the image under each label map.

    rows: caption, grey image (H, W) uint8, label maps (H, W). titles: of the label maps. Raises
    OSError when path cannot be written.
    """
    columns = 1 + len(titles)
    layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure(figsize=(2.2 * columns, 2.4 * len(rows)), dpi=150, layout=layout)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, (caption, grey, maps) in zip(axes, rows, strict=True):
        for axis in row:
            axis.set_axis_off()
            axis.imshow(grey, cmap="gray", vmin=0, vmax=255)
        row[0].set_title(caption, fontsize=6, loc="left", pad=2)
        for axis, title, label_map in zip(row[1:], titles, maps, strict=True):
            axis.set_title(title, fontsize=6, loc="left", pad=2)
            tint(axis, label_map)
    figure.savefig(path)


def tint(axis: Axes, label_map: LabelMap) -> None:
    """Lay the classes of label_map (H, W) over an image: catheter blue, guidewire orange."""
    layer = np.zeros((*label_map.shape, 4))
    for label, color in _COLORS.items():
        layer[label_map == label] = (*color, 0.75)
    axis.imshow(layer, interpolation="nearest")


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
