# SPDX-License-Identifier: Apache-2.0
"""A bar a variant: how far its score lies from that of the reference, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fedefm_core.errors import OutputError

# Okabe and Ito's: told apart by color-blind readers and in grey print.
_BLUE, _ORANGE, _DARK = "#56B4E9", "#E69F00", "#333333"


@dataclass(frozen=True)
class Effect:
    """One variant. simulated, real: difference, interval and by_seed in 0..1; real may be None."""

    title: str
    simulated: Mapping[str, Any]
    real: Mapping[str, Any] | None


def draw_effects(effects: Sequence[Effect], reference: str, path: Path) -> None:
    """Draw differences in points of F1: bars, 95 % intervals as lines, seeds as dots.

    Raises OutputError when path cannot be written.
    """
    columns = 2 if any(effect.real for effect in effects) else 1
    size = (3.6 * columns + 0.6, 0.9 + 0.28 * len(effects))
    figure = Figure(figsize=size, dpi=300, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    _bars(axes[0], [e.simulated for e in effects], _BLUE, "imitated clinical frames")
    if columns == 2:
        _bars(axes[1], [e.real for e in effects], _ORANGE, "marked catheters, real frames")
    axes[0].set_yticks(range(len(effects)), [e.title for e in effects], fontsize=7)
    axes[0].invert_yaxis()
    figure.supxlabel(f"difference of centerline F1 from “{reference}” [points]", fontsize=7)
    try:
        figure.savefig(path)
    except OSError as error:
        raise OutputError(f"Cannot write the plot {path}: {error.strerror}") from error


def _bars(
    axis: Axes, estimates: Sequence[Mapping[str, Any] | None], color: str, name: str
) -> None:
    for row, estimate in enumerate(estimates):
        if estimate is None:
            continue
        axis.barh(row, 100 * estimate["difference"], height=0.62, color=color)
        if estimate["interval"] is not None:
            bounds = 100 * np.array(estimate["interval"])
            axis.plot(bounds, [row, row], color=_DARK, linewidth=1)
        seeds = 100 * np.array(estimate["by_seed"])
        axis.plot(seeds, np.full(len(seeds), row), "o", color=_DARK, markersize=2.2, mfc="white")
    axis.axvline(0, color=_DARK, linewidth=0.8)
    axis.set_title(name, fontsize=8)
    axis.tick_params(labelsize=7, length=2)
    axis.spines[["top", "right"]].set_visible(False)
