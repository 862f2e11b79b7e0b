# SPDX-License-Identifier: Apache-2.0
"""A page that shows what a simulated data set holds: frames as they are, and with their truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from fedefm_core.errors import OutputError
from fedefm_core.frames import Frame, to_grey8

MAX_FRAMES = 12
_FRAMES_A_ROW = 3
_TILE_INCHES = 1.55
# Okabe and Ito's sky blue and orange: told apart by color-blind readers and in grey print.
_COLORS = {"catheter": "#56B4E9", "guidewire": "#E69F00"}
_TIP_MARKERS = {"catheter": "s", "guidewire": "o"}

Entry = Mapping[str, Any]


def draw_contact_sheet(folder: Path, entries: Sequence[Entry], path: Path) -> None:
    """Draw up to MAX_FRAMES frames, evenly spaced over the data set, each beside its truth.

    entries: frames of truth.json; their images are read from folder. Raises OSError when path
    cannot be written, OutputError when an image cannot be read.
    """
    chosen = np.unique(np.linspace(0, len(entries) - 1, MAX_FRAMES).astype(int))
    rows = -(-len(chosen) // _FRAMES_A_ROW)
    columns = min(len(chosen), _FRAMES_A_ROW)
    size = (2 * columns * _TILE_INCHES, rows * (_TILE_INCHES + 0.2) + 0.3)
    layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure(figsize=size, dpi=300, layout=layout)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 2 * columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for position, index in enumerate(chosen):
        _draw_pair(axes[2 * position], axes[2 * position + 1], folder, entries[index])
    figure.legend(
        handles=_legend(), loc="outside lower center", ncols=4, fontsize=6, frameon=False
    )
    figure.savefig(path)


def _draw_pair(plain: Axes, marked: Axes, folder: Path, entry: Entry) -> None:
    grey = _read_grey(folder / entry["image"])
    for axis in (plain, marked):
        axis.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
    plain.set_title(f"{entry['name']}  {entry['kind']}", fontsize=6, loc="left", pad=2)
    for instrument in entry["instruments"]:
        color = _COLORS[instrument["kind"]]
        x, y = np.transpose(instrument["centerline_px"])
        marked.plot(x, y, color=color, linewidth=0.8)
        if instrument["tip_px"] is not None:
            marker = _TIP_MARKERS[instrument["kind"]]
            marked.plot(*instrument["tip_px"], marker, color=color, **_TIP_STYLE)
    marked.set_xlim(plain.get_xlim())
    marked.set_ylim(plain.get_ylim())


_TIP_STYLE: dict[str, Any] = {"markersize": 4, "markerfacecolor": "none", "markeredgewidth": 0.8}


def _legend() -> list[Line2D]:
    lines = [Line2D([], [], color=color, label=kind) for kind, color in _COLORS.items()]
    return lines + [
        Line2D(
            [],
            [],
            color=color,
            linestyle="",
            marker=_TIP_MARKERS[kind],
            label=f"{kind} tip",
            **_TIP_STYLE,
        )
        for kind, color in _COLORS.items()
    ]


def _read_grey(path: Path) -> npt.NDArray[np.uint8]:
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise OutputError(f"The image {path} is damaged; delete it to have it drawn again")
    return to_grey8(Frame(pixels=pixels))
