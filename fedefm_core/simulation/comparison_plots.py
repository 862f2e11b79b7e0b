# SPDX-License-Identifier: Apache-2.0
"""One page of plots: the statistics of simulated and real images over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fedefm_core.simulation.statistics import (
    FREQUENCY_BINS,
    GREY_BINS,
    RIDGE_SIGMAS,
    WIDEST_EDGE_PX,
    ImageStatistics,
)

Values = npt.NDArray[np.float64]
Sets = Mapping[str, Sequence[ImageStatistics]]

# Okabe and Ito's vermilion and blue: told apart by color-blind readers and in grey print.
_COLORS = {"simulated": "#D55E00", "real": "#0072B2"}
_STYLES = {"simulated": "-", "real": "--"}


def draw_comparison(sets: Sets, report: Mapping[str, Any], path: Path) -> None:
    """Draw the page. sets: 'simulated' and 'real'; report: what compare gave for them.

    Lines are medians over images, bands hold half of them. Raises OSError when path cannot be
    written.
    """
    figure = Figure(figsize=(7.2, 4.6), dpi=300, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3).ravel()
    _grey(axes[0], sets)
    _noise(axes[1], sets)
    _gradients(axes[2], sets)
    _edges(axes[3], sets)
    _ridges(axes[4], sets)
    _areas(axes[5], report["auc"])
    for letter, axis in zip("abcdef", axes, strict=True):
        axis.set_title(letter, loc="left", fontsize=8, fontweight="bold", pad=3)
        axis.tick_params(labelsize=6, length=2)
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.label.set_fontsize(7)
        axis.yaxis.label.set_fontsize(7)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=7, frameon=False)
    figure.savefig(path)


def _band(axis: Axes, x: Values, rows: Values, name: str) -> None:
    low, middle, high = np.quantile(rows, (0.25, 0.5, 0.75), axis=0)
    axis.fill_between(x, low, high, color=_COLORS[name], alpha=0.2, linewidth=0)
    axis.plot(x, middle, _STYLES[name], color=_COLORS[name], linewidth=1.2, label=name)


def _grey(axis: Axes, sets: Sets) -> None:
    x = (np.arange(GREY_BINS) + 0.5) * 256 / GREY_BINS
    for name, images in sets.items():
        _band(axis, x, np.array([image.histogram for image in images]) * 100, name)
    axis.set(xlabel="grey level", ylabel="share of pixels [%]", xlim=(0, 255))


def _noise(axis: Axes, sets: Sets) -> None:
    x = (np.arange(FREQUENCY_BINS) + 0.5) / (2 * FREQUENCY_BINS)
    for name, images in sets.items():
        _band(axis, x, np.array([image.noise_power for image in images]), name)
    axis.set(xlabel="spatial frequency [1/px]", ylabel="noise power [grey levels²]", yscale="log")


def _gradients(axis: Axes, sets: Sets) -> None:
    bins = np.linspace(np.log10(0.1), np.log10(60), 26)
    for percentile, index, style in ((50, 2, "-"), (99.5, 5, ":")):
        for name, images in sets.items():
            values = np.log10([max(image.gradients[index], 0.1) for image in images])
            share, _ = np.histogram(values, bins, density=True)
            label = f"{name}, {percentile} %"
            axis.plot(10 ** bins[:-1], share, style, color=_COLORS[name], linewidth=1, label=label)
    axis.set(xlabel="gradient percentile [grey levels/px]", ylabel="density", xscale="log")
    axis.legend(fontsize=5, frameon=False, loc="upper left")


def _edges(axis: Axes, sets: Sets) -> None:
    bins = np.linspace(0, WIDEST_EDGE_PX, 31)
    for name, images in sets.items():
        rows = [
            np.histogram(image.edge_widths, bins, density=True)[0]
            for image in images
            if len(image.edge_widths)
        ]
        if rows:
            _band(axis, (bins[1:] + bins[:-1]) / 2, np.array(rows), name)
    axis.set(xlabel="edge width, sigma [px]", ylabel="density", xlim=(0, WIDEST_EDGE_PX))


def _ridges(axis: Axes, sets: Sets) -> None:
    for offset, (name, images) in zip((-0.18, 0.18), sets.items(), strict=True):
        boxes = axis.boxplot(
            [[image.ridges[sigma][-1] for image in images] for sigma in RIDGE_SIGMAS],
            positions=np.arange(len(RIDGE_SIGMAS)) + offset,
            widths=0.3,
            showfliers=False,
            patch_artist=True,
        )
        for part in ("boxes", "medians", "whiskers", "caps"):
            for artist in boxes[part]:
                artist.set(color=_COLORS[name], linewidth=0.8)
        for box in boxes["boxes"]:
            box.set_facecolor("none")
    axis.set_xticks(range(len(RIDGE_SIGMAS)), [f"{sigma:g}" for sigma in RIDGE_SIGMAS])
    axis.set(xlabel="ridge sigma [px]", ylabel="contrast to noise, 99.7 %", yscale="log")


def _areas(axis: Axes, areas: Mapping[str, float]) -> None:
    axis.barh(list(areas), list(areas.values()), color="#999999", height=0.6)
    axis.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    for row, area in enumerate(areas.values()):
        axis.text(area + 0.01, row, f"{area:.2f}", va="center", fontsize=6)
    axis.invert_yaxis()
    axis.set(xlabel="AUC of the classifier", xlim=(0.4, 1.1))
