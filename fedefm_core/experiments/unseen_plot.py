# SPDX-License-Identifier: Apache-2.0
"""Curves with their range over seeds, panels side by side, fit for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from fedefm_core.errors import OutputError

# Okabe and Ito's, told apart by color-blind readers; with dashes they serve more than eight.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", ":", "-.")
_MARKERS = "osD^v<>"
_FEW = 6  # so many places on the x axis are named each


@dataclass(frozen=True)
class Curve:
    """number: decides its looks, the same in every plot. ys: of each x, a score a seed, 0..1."""

    title: str
    number: int
    xs: Sequence[float]
    ys: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Panel:
    """Curves under one title."""

    title: str
    curves: Sequence[Curve]


def draw_panels(panels: Sequence[Panel], x_title: str, path: Path, logarithmic: bool) -> None:
    """Draw means as lines and ranges as bands, in points. Raises OutputError."""
    size = (2.9 * len(panels) + 1.7, 2.6)
    figure = Figure(figsize=size, dpi=300, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    named: dict[str, Line2D] = {}
    for axis, panel in zip(axes, panels, strict=True):
        for curve in panel.curves:
            points = zip(curve.xs, curve.ys, strict=True)
            there = [(x, y) for x, y in points if len(y) and (x > 0 or not logarithmic)]
            if not there:
                continue
            xs = [x for x, _ in there]
            middle, low, high = (
                [100 * float(of(y)) for _, y in there] for of in (np.mean, np.min, np.max)
            )
            color = _COLORS[curve.number % len(_COLORS)]
            (line,) = axis.plot(
                xs,
                middle,
                _DASHES[curve.number // len(_COLORS) % len(_DASHES)],
                marker=_MARKERS[curve.number % len(_MARKERS)],
                color=color,
                linewidth=1.2,
                markersize=3,
            )
            axis.fill_between(xs, low, high, color=color, alpha=0.15, linewidth=0)
            named.setdefault(curve.title, line)
        if logarithmic:
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(NullFormatter())
        ticks = sorted({x for curve in panel.curves for x in curve.xs})
        if len(ticks) <= _FEW:
            axis.set_xticks(ticks, [f"{x:.3g}" for x in ticks])
            axis.minorticks_off()
        axis.set_title(panel.title, fontsize=8)
        axis.set_xlabel(x_title, fontsize=7)
        axis.tick_params(labelsize=7, length=2)
        axis.grid(alpha=0.25, linewidth=0.5)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("balanced accuracy [points]", fontsize=7)
    figure.legend(
        list(named.values()), list(named), loc="outside right center", fontsize=6.5, frameon=False
    )
    try:
        figure.savefig(path)
    except OSError as error:
        raise OutputError(f"Cannot write the plot {path}: {error.strerror}") from error
