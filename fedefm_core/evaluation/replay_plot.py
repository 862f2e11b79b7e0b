# SPDX-License-Identifier: Apache-2.0
"""The figure of a replay: what differs, over the time of the recording."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedefm_core.evaluation.replay import Difference
from fedefm_core.perception.overlay import plot_color
from fedefm_core.perception.types import INSTRUMENT_KINDS

DPI = 160


def draw_replay(differences: Sequence[Difference], path: Path) -> None:
    """Distances between tips, tips that only one of them tells, and pixels that changed."""
    figure = Figure(figsize=(7.5, 5.5), dpi=DPI, layout="constrained")
    moved, told, changed = figure.subplots(3, sharex=True, height_ratios=(2, 1, 1.5))
    seconds = np.array([one.seconds for one in differences])
    for row, kind in enumerate(INSTRUMENT_KINDS):
        color = plot_color(kind)
        distances = np.array([one.moved_px(kind) for one in differences], np.float64)
        moved.plot(seconds, distances, ".", ms=3, color=color, label=kind)
        _draw_presence(told, seconds, differences, kind, row)
    moved.set(ylabel="tip moved (pixels)", title="From the recorded to the replayed tip")
    moved.set_yscale("symlog", linthresh=1.0)
    moved.set_ylim(bottom=0)
    moved.legend()
    told.set_yticks(range(len(INSTRUMENT_KINDS)), INSTRUMENT_KINDS)
    told.set(ylim=(-0.6, len(INSTRUMENT_KINDS) - 0.4), title="Tips that only one of them tells")
    told.legend(loc="upper right")
    shares = np.array([one.changed for one in differences], np.float64)
    changed.plot(seconds, 100 * shares, "k-", lw=0.8)
    changed.set(xlabel="time (s)", ylabel="pixels (%)", title="Labels that changed")
    changed.set_ylim(bottom=0)
    figure.savefig(path)


def _draw_presence(
    axes: Axes, seconds: np.ndarray, differences: Sequence[Difference], kind: str, row: int
) -> None:
    recorded = np.array([kind in one.recorded_tips for one in differences])
    replayed = np.array([kind in one.replayed_tips for one in differences])
    for only, color, label in (
        (recorded & ~replayed, "crimson", "recorded"),
        (replayed & ~recorded, "seagreen", "replayed"),
    ):
        at = seconds[only]
        axes.plot(at, np.full(len(at), row), "|", ms=9, color=color, label=label * (row == 0))
