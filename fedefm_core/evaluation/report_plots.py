# SPDX-License-Identifier: Apache-2.0
"""Plots of training runs and evaluations, as PNG and most as PDF for a paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from fedefm_core.evaluation.run_records import RunRecord
from fedefm_core.perception.overlay import plot_color
from fedefm_core.perception.types import INSTRUMENT_KINDS, LabelMap

# Okabe and Ito's colors, which color-blind readers tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_SMOOTH = 0.05  # of a curve's length is averaged into its bold line

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Example:
    """One frame: grey (H, W) uint8, and what is true and what was found, (H, W) label maps."""

    grey: Image
    truth: Image
    found: Image


def draw_losses(records: Sequence[RunRecord], folder: Path) -> Path:
    """Training loss over steps; thin: every step, bold: its running mean."""
    figure, axis = _figure()
    for color, record in zip(cycle(COLORS), records, strict=False):
        lines = record.split("train")
        steps = np.array([line["step"] for line in lines])
        loss = np.array([line["total"] for line in lines], np.float64)
        width = max(1, int(len(loss) * _SMOOTH))
        axis.plot(steps, loss, color=color, linewidth=0.4, alpha=0.4)
        if len(loss) >= width:
            mean = np.convolve(loss, np.ones(width) / width, "valid")
            axis.plot(steps[width - 1 :], mean, color=color, linewidth=1.6, label=record.name)
    axis.set(xlabel="step", ylabel="training loss")
    axis.legend(fontsize=7)
    return _save(figure, folder, "loss")


def draw_validation(records: Sequence[RunRecord], folder: Path) -> Path:
    """The metric that chose the best weights, over steps."""
    figure, axis = _figure()
    names = []
    for color, record in zip(cycle(COLORS), records, strict=False):
        metric = str(record.config.get("validation", {}).get("metric", "dice_mean"))
        names.append(metric)
        lines = [line for line in record.split("validation") if line.get(metric) is not None]
        steps, values = [line["step"] for line in lines], [line[metric] for line in lines]
        axis.plot(steps, values, "o-", color=color, markersize=3, label=record.name)
    axis.set(xlabel="step", ylabel=" / ".join(dict.fromkeys(names)), ylim=(0, 1))
    axis.legend(fontsize=7)
    return _save(figure, folder, "validation")


def draw_dice(evaluations: Mapping[str, Mapping[str, Any]], folder: Path) -> Path:
    """Dice of both instruments together, by kind of image, with bootstrap intervals."""
    figure, axis = _figure()
    groups = list(dict.fromkeys(name for each in evaluations.values() for name in each["groups"]))
    width = 0.8 / len(evaluations)
    for number, (color, (name, report)) in enumerate(
        zip(cycle(COLORS), evaluations.items(), strict=False)
    ):
        for place, group in enumerate(groups):
            dice = report["groups"].get(group, {}).get("regions", {}).get("foreground", {})
            value = dice.get("dice", {}).get("mean")
            if value is None:
                continue
            x = place - 0.4 + (number + 0.5) * width
            label = name if place == 0 else None
            axis.bar(x, value, width * 0.9, color=color, label=label)
            low, high = dice["dice"]["mean_interval"] or (value, value)
            axis.plot([x, x], [low, high], color="black", linewidth=1)
    axis.set(ylabel="Dice, instrument or not", ylim=(0, 1))
    axis.set_xticks(range(len(groups)), groups)
    axis.legend(fontsize=7)
    return _save(figure, folder, "dice")


def draw_reliability(evaluations: Mapping[str, Mapping[str, Any]], folder: Path) -> Path:
    """How often pixels called an instrument are one, against how sure the model was."""
    figure, axis = _figure()
    axis.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
    for color, (name, report) in zip(cycle(COLORS), evaluations.items(), strict=False):
        known = report["groups"]["all"]["calibration"]
        if known is not None:
            bins = known["called_instrument"]
            axis.plot(
                bins["mean_probability"],
                bins["share_right"],
                "o-",
                color=color,
                markersize=4,
                label=name,
            )
    axis.set(
        xlabel="probability that the model states",
        ylabel="share that is right",
        xlim=(0.33, 1.02),
        ylim=(0, 1.02),
    )
    axis.legend(fontsize=7)
    return _save(figure, folder, "reliability")


def draw_tips(evaluations: Mapping[str, Mapping[str, Any]], folder: Path) -> Path:
    """Share of all true tips that are found within a distance; missed ones never are."""
    figure, axis = _figure()
    for color, (name, report) in zip(cycle(COLORS), evaluations.items(), strict=False):
        tips = [tip for frame in report["frames"] for tip in (frame["tips"] or {}).values()]
        errors = np.sort([error for tip in tips for error in tip["error_px"]])
        total = len(errors) + sum(tip["missed"] for tip in tips)
        if total:
            share = np.arange(1, len(errors) + 1) / total
            axis.step([0.0, *errors], [0.0, *share], where="post", color=color, label=name)
    axis.set(xlabel="distance to the true tip, px", ylabel="share of true tips", ylim=(0, 1))
    axis.legend(fontsize=7)
    return _save(figure, folder, "tips")


def draw_examples(examples: Sequence[Example], name: str, folder: Path) -> Path:
    """A column a frame: the image, the truth on it, what was found on it."""
    columns = len(examples)
    figure = Figure(figsize=(2.3 * columns, 7), dpi=130, layout=_tight())
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, columns, squeeze=False)
    for column, example in enumerate(examples):
        for row, label_map in enumerate((None, example.truth, example.found)):
            axis = axes[row][column]
            axis.imshow(example.grey, cmap="gray", vmin=0, vmax=255)
            if label_map is not None:
                _tint(axis, label_map)
            axis.set_xticks([])
            axis.set_yticks([])
    for row, title in enumerate(("image", "truth", "found")):
        axes[row][0].set_ylabel(title, fontsize=9)
    return _save(figure, folder, f"examples_{name.replace('/', '_')}")


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
            _tint(axis, label_map)
    figure.savefig(path)


def _tint(axis: Axes, label_map: LabelMap) -> None:
    """Lay the classes of label_map (H, W) over an image: catheter blue, guidewire orange."""
    layer = np.zeros((*label_map.shape, 4))
    for label, kind in enumerate(INSTRUMENT_KINDS, start=1):
        layer[label_map == label] = (*plot_color(kind), 0.75)
    axis.imshow(layer, interpolation="nearest")


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.2, 3.6), dpi=150, layout=ConstrainedLayoutEngine())
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.grid(True, linewidth=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def _tight() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)


def _save(figure: Figure, folder: Path, name: str) -> Path:
    path = folder / f"{name}.png"
    figure.savefig(path)
    figure.savefig(folder / f"{name}.pdf")
    return path
