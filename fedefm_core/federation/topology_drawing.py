# SPDX-License-Identifier: Apache-2.0
"""Drawings of topologies, for a paper: silos at their places on a plain map, links as lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import withStroke

from fedefm_core.errors import OutputError
from fedefm_core.federation.topology import Link, Matcha, Multigraph, Topology
from fedefm_core.federation.topology_map import Map, Point, city, fits, lay_out
from fedefm_core.federation.underlays import Underlay

_DPI = 300
_PANEL_INCHES = 3.5  # width of a column of a paper
_COLUMNS = 2
# Okabe and Ito's blue and vermilion: told apart by color-blind readers and in grey print.
_LINK, _SERVER, _SILO = "#0072B2", "#D55E00", "#222222"
_UNDERLAY, _FAINT, _GRID, _INK = "#7A828A", "#C8CDD2", "#E9ECEF", "#444444"
_MAX_ARROWS = 100  # more of them only hide the lines
_MANY_SILOS = 40  # more of them are drawn smaller
_TEXT_POINTS = 5.0
_HALO = (withStroke(linewidth=1.2, foreground="white"),)


def draw_topologies(
    topologies: Sequence[Topology],
    underlay: Underlay,
    report: Mapping[str, Any],
    folder: Path,
) -> list[Path]:
    """Draw each topology in UNDERLAY_TOPOLOGY.png; all of them and the underlay in UNDERLAY.png.

    report: as of topology_report, for the cycle times in the titles. Returns the files written.
    Raises OutputError when one cannot be written.
    """
    ground = lay_out(underlay.places)
    height = 0.95 * _PANEL_INCHES * ground.height_to_width + 0.3
    paths = []
    for topology in topologies:
        figure, (axis,) = _figure(1, 1, height)
        _draw_topology(axis, topology, underlay, ground, report)
        paths.append(_save(figure, folder / f"{underlay.name}_{topology.name}.png"))
    figure, axes = _figure(-(-(len(topologies) + 1) // _COLUMNS), _COLUMNS, height)
    _draw_underlay(axes[0], underlay, ground)
    for axis, topology in zip(axes[1:], topologies, strict=False):
        _draw_topology(axis, topology, underlay, ground, report)
    for axis in axes[1 + len(topologies) :]:
        axis.set_axis_off()
    return [*paths, _save(figure, folder / f"{underlay.name}.png")]


def _figure(rows: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    layout = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.03, wspace=0, hspace=0)
    size = (columns * _PANEL_INCHES, rows * height)
    figure = Figure(figsize=size, dpi=_DPI, layout=layout)
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def _save(figure: Figure, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise OutputError(f"Cannot write the drawing {path}: {error.strerror}") from error
    return path


def _draw_underlay(axis: Axes, underlay: Underlay, ground: Map) -> None:
    _draw_ground(axis, ground)
    _draw_lines(axis, ground, list(underlay.graph.edges), _UNDERLAY, width=0.5, alpha=0.6)
    _draw_silos(axis, ground)
    _draw_names(axis, ground)
    axis.set_title(
        f"underlay: {len(underlay.places)} nodes, {underlay.graph.number_of_edges()} links",
        fontsize=7,
        loc="left",
        pad=3,
    )


def _draw_topology(
    axis: Axes, topology: Topology, underlay: Underlay, ground: Map, report: Mapping[str, Any]
) -> None:
    _draw_ground(axis, ground)
    note, background, links = "", list(underlay.graph.edges), topology.links
    if isinstance(topology, Matcha):
        note, background, links = " (one round)", list(topology.links), topology.active(0)
    if isinstance(topology, Multigraph):
        note = " (thin: at rest in most rounds)"
    _draw_lines(axis, ground, background, _FAINT, width=0.3, alpha=0.5)
    _draw_links(axis, ground, topology, links)
    _draw_silos(axis, ground, topology.server)
    taken = _draw_names(axis, ground)
    if isinstance(topology, Multigraph):
        _draw_shares(axis, ground, topology, taken)
    figures = report[topology.name]
    times = f"{figures['gossip_ms']:.1f} ms, MFD {figures['mfd_ms']:.1f} ms"
    axis.set_title(f"{topology.name}{note}: {times}", fontsize=7, loc="left", pad=3)


def _draw_ground(axis: Axes, ground: Map) -> None:
    """Set limits and proportions; draw meridians and parallels."""
    axis.set_xlim(ground.left, ground.right)
    axis.set_ylim(ground.bottom, ground.top)
    axis.set_aspect(ground.stretch, adjustable="box")
    meridians, parallels = ground.meridians(), ground.parallels()
    axis.set_xticks(meridians, [_degrees((x + 180) % 360 - 180, "EW") for x in meridians])
    axis.set_yticks(parallels, [_degrees(y, "NS") for y in parallels])
    axis.tick_params(length=0, labelsize=_TEXT_POINTS, labelcolor=_INK, pad=1.5)
    axis.grid(color=_GRID, linewidth=0.4)
    axis.set_axisbelow(True)
    for spine in axis.spines.values():
        spine.set(color=_FAINT, linewidth=0.5)


def _degrees(value: float, sides: str) -> str:
    side = "" if value == 0 else sides[int(value < 0)]
    return f"{abs(value):g}°{side}"


def _draw_links(axis: Axes, ground: Map, topology: Topology, links: Sequence[Link]) -> None:
    """Draw a line for two links there and back, and an arrow for one that goes one way only."""
    known = set(links)
    one_way = [link for link in links if link[::-1] not in known]
    alpha = float(np.clip(4 / math.sqrt(len(links)), 0.08, 0.9))
    if len(one_way) > _MAX_ARROWS:
        _draw_lines(axis, ground, links, _LINK, width=0.6, alpha=alpha)
        return
    both = [link for link in links if link[::-1] in known and link[0] < link[1]]
    _draw_lines(axis, ground, both, _LINK, width=0.9, alpha=alpha)
    every = dict(zip(links, getattr(topology, "every", [1] * len(links)), strict=True))
    for link in one_way:
        *departures, (start, end) = ground.courses(link)
        width = 0.35 + 0.85 / every[link]
        for line in departures:
            axis.plot(*zip(*line, strict=True), color=_LINK, linewidth=width, alpha=alpha)
        arrow = FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=5,
            shrinkA=0 if departures else 1.5,
            shrinkB=1.5,
            linewidth=width,
            color=_LINK,
            alpha=alpha,
            zorder=3,
        )
        axis.add_patch(arrow)


def _draw_lines(
    axis: Axes, ground: Map, links: Sequence[Link], color: str, *, width: float, alpha: float
) -> None:
    lines = [course for link in links for course in ground.courses(link)]
    axis.add_collection(
        LineCollection(lines, colors=color, linewidths=width, alpha=alpha, zorder=2)
    )


def _draw_silos(axis: Axes, ground: Map, server: str | None = None) -> None:
    size = 2.5 if len(ground.points) <= _MANY_SILOS else 1.7
    for silo, point in ground.points.items():
        axis.plot(
            *point,
            marker="s" if silo == server else "o",
            markersize=4.5 if silo == server else size,
            color=_SERVER if silo == server else _SILO,
            markeredgecolor="white",
            markeredgewidth=0.3,
            zorder=4.5 if silo == server else 4,
        )


def _draw_names(axis: Axes, ground: Map) -> list[tuple[float, float, float, float]]:
    """Name each city once, where there is room for it; return the boxes that are taken."""
    tall, letter = _text_size(ground)
    gap = 2.5 * ground.width / (_PANEL_INCHES * 72)
    taken = [(x - gap, x + gap, y - gap, y + gap) for x, y in ground.points.values()]
    named: set[str] = set()
    for silo, (x, y) in ground.points.items():
        name = city(silo)
        wide = letter * len(name)
        for side, height in ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1)):
            middle = (
                x + side * (1.4 * gap + wide / 2),
                y + height * (tall / 2 + gap),
            )
            box = _box(middle, wide, tall)
            if name not in named and fits(box, taken, ground):
                _write(axis, middle, name, _INK)
                taken.append(box)
                named.add(name)
    return taken


def _draw_shares(
    axis: Axes,
    ground: Map,
    topology: Multigraph,
    taken: list[tuple[float, float, float, float]],
) -> None:
    """Write on each link that rests how often it is in use, where there is room."""
    tall, letter = _text_size(ground)
    for link, every in zip(topology.links, topology.every, strict=True):
        start, end = np.array(ground.courses(link)[-1])
        for share in (0.5, 0.4, 0.6, 0.3, 0.7, 0.8, 0.9):
            x, y = start + share * (end - start)
            box = _box((x, y), 3 * letter, tall)
            if every > 1 and fits(box, taken, ground):
                _write(axis, (x, y), f"1/{every}", _LINK)
                taken.append(box)
                break


def _text_size(ground: Map) -> tuple[float, float]:
    """Height of a line and width of a letter, in degrees of the map."""
    degrees = ground.width / (0.92 * _PANEL_INCHES * 72)
    return 1.1 * _TEXT_POINTS * degrees / ground.stretch, 0.56 * _TEXT_POINTS * degrees


def _box(middle: Point, wide: float, tall: float) -> tuple[float, float, float, float]:
    x, y = middle
    return x - wide / 2, x + wide / 2, y - tall / 2, y + tall / 2


def _write(axis: Axes, middle: Point, text: str, color: str) -> None:
    axis.text(
        *middle,
        text,
        fontsize=_TEXT_POINTS,
        color=color,
        ha="center",
        va="center",
        zorder=5,
        path_effects=_HALO,
    )
