# SPDX-License-Identifier: Apache-2.0
"""Metal, plastic and cables in the beam that are no guidewire and no catheter.

Each is drawn so that a person can tell it from an instrument: by its ends, its texture, its
regular shape, or a width that no catheter has.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from fedefm_core.simulation.curves import Curve, wandering_path
from fedefm_core.simulation.outlines import (
    Image,
    Rng,
    add_canvas,
    arc,
    blank,
    jittered,
    paint_area,
    paint_lines,
    placed,
    spline,
)
from fedefm_core.simulation.textures import rotated_grid

_Painter = Callable[[Rng, Image, float], None]


def add_foreign_bodies(rng: Rng, image: Image, unit: float, frequency: float = 1.0) -> None:
    """Add none, one or several, in place; frequency scales how often each occurs."""
    for painter, chance in _CHANCES:
        if rng.random() < chance * frequency:
            painter(rng, image, unit)


def _coarse(image: Image, unit: float) -> float:
    """The unit, or that of usual magnification if it is smaller.

    From afar, a blurred cable, zipper or lead could be a catheter: nobody could tell.
    """
    return max(unit, len(image) / 512)


def _crossing(rng: Rng, size: int, bend: float) -> Curve:
    """A path across the view that begins and ends outside it."""
    angle, spot = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.95, 2) * size
    start = spot - 0.9 * size * np.array([np.cos(angle), np.sin(angle)])
    return wandering_path(rng, start, angle, int(2.2 * size), bend, 0.3 * bend)


def _entering(rng: Rng, size: int, bend: float) -> Curve:
    """A path from outside the view that ends in it."""
    path = _crossing(rng, size, bend)
    inside = np.flatnonzero(np.all((path > 0) & (path < size), axis=1))
    last = int(rng.choice(inside)) if len(inside) else len(path)
    return path[: max(last, 3)]


def _add_electrode_lead(rng: Rng, image: Image, unit: float) -> None:
    """An ECG lead: a braided cable of many bends that ends in a snap on a disc."""
    unit = _coarse(image, unit)
    path = _entering(rng, len(image), 140 * unit)
    cable, core, snap = (blank(len(image)) for _ in range(3))
    width = rng.uniform(7, 14) * unit
    paint_lines(cable, [path], width)
    paint_lines(core, [path], 0.35 * width)
    value = float(rng.uniform(0.03, 0.2))
    add_canvas(image, cable, value * 0.6, 0.8)
    add_canvas(image, core, value, 0.6)
    disc = placed(arc(0, 6.1, 24), path[-1], 0, rng.uniform(14, 30) * unit)
    paint_area(snap, disc, 60)
    ring = placed(arc(0, 6.1, 20), path[-1], 0, rng.uniform(5, 9) * unit)
    paint_area(snap, ring, rng.uniform(120, 255))
    add_canvas(image, snap, float(rng.uniform(0.3, 1.2)), 0.7)


def _add_clips(rng: Rng, image: Image, unit: float) -> None:
    """A handful of short, dense surgical clips, some of them V-shaped."""
    canvas, spot = blank(len(image)), rng.uniform(0.05, 0.95, 2) * len(image)
    long, width = rng.uniform(5, 14) * unit, rng.uniform(1.2, 3.5) * unit
    for _ in range(int(rng.integers(1, 12))):
        shape = (
            [(-0.5, 0), (0.5, 0)] if rng.random() < 0.6 else [(-0.5, 0.2), (0.5, 0), (-0.5, -0.2)]
        )
        place = spot + rng.normal(0, 45 * unit, 2)
        clip = placed(shape, place, rng.uniform(0, 6.3), long * rng.uniform(0.6, 1.1))
        paint_lines(canvas, [clip], width, rng.uniform(150, 255))
    add_canvas(image, canvas, float(rng.uniform(0.4, 1.8)), 0.5)


def _add_staples(rng: Rng, image: Image, unit: float) -> None:
    """A regular row of skin staples, or of the sutures of a valve or graft."""
    path = _crossing(rng, len(image), 300 * unit)
    canvas, step = blank(len(image)), max(3, int(rng.uniform(7, 24) * unit))
    long, width = rng.uniform(4, 12) * unit, rng.uniform(0.8, 2) * unit
    for place in path[::step]:
        tack = [(-0.5, 0.3), (-0.5, 0), (0.5, 0), (0.5, 0.3)]
        angle = np.arctan2(*(path[-1] - path[0])[::-1]) + np.pi / 2 + rng.normal(0, 0.12)
        paint_lines(canvas, [placed(tack, place, angle, long)], width)
    add_canvas(image, canvas, float(rng.uniform(0.2, 1.0)), 0.5)


def _add_sternal_wires(rng: Rng, image: Image, unit: float) -> None:
    """Loops of steel, one below the other, each with its twisted ends."""
    canvas, x = blank(len(image)), rng.uniform(0.1, 0.9) * len(image)
    y, step = rng.uniform(-40, 60) * unit, rng.uniform(45, 110) * unit
    width, lean = rng.uniform(1.2, 3.0) * unit, rng.normal(0, 0.15)
    while y < len(image) + step:
        loop = spline(jittered(rng, arc(0, 5.5, 9), 0.12), closed=True)
        spot = (x + lean * y, y)
        loop = placed(loop, spot, rng.normal(0, 0.3), rng.uniform(7, 18, 2) * unit)
        if rng.random() < 0.4:  # an eight
            paint_lines(canvas, [loop + np.array([0, 22 * unit])], width, closed=True)
        paint_lines(canvas, [loop], width, closed=True)
        twist = np.stack([np.linspace(0, 12, 9), 1.6 * np.tile([1, -1, 1], 3)], axis=1)
        paint_lines(canvas, [placed(twist, loop[0], rng.uniform(0, 6.3), unit)], 0.8 * width)
        y += step * rng.uniform(0.8, 1.2)
    add_canvas(image, canvas, float(rng.uniform(0.4, 1.5)), 0.5)


def _add_pacemaker(rng: Rng, image: Image, unit: float) -> None:
    """A generator with header and coiled leads, whose helix shows as beads."""
    size = len(image)
    unit = _coarse(image, unit)
    center, angle = rng.uniform(0.05, 0.95, 2) * size, rng.uniform(0, 6.3)
    can, inner, lead = (blank(size) for _ in range(3))
    side = rng.uniform(45, 90) * min(unit, 1.3 * size / 512)
    box = [
        (-1, -0.6),
        (-0.6, -0.9),
        (0.6, -0.9),
        (1, -0.6),
        (1, 0.5),
        (0.5, 0.95),
        (-0.5, 0.95),
        (-1, 0.5),
    ]
    paint_area(can, placed(spline(box, closed=True), center, angle, side))
    for part in (
        [(-0.8, -0.7), (0.8, -0.7), (0.8, -0.1), (-0.8, -0.1)],
        [(-0.7, 0), (0.4, 0), (0.4, 0.7), (-0.6, 0.7)],
    ):
        paint_area(inner, placed(jittered(rng, part, 0.05), center, angle, side))
    for _ in range(int(rng.integers(1, 4))):
        path = wandering_path(
            rng,
            center,
            rng.uniform(0, 6.3),
            int(rng.uniform(0.5, 2.0) * size),
            90 * unit,
            90 * unit,
        )
        paint_lines(lead, [path], 2.5 * unit, 70)
        beads = [path[i : i + 2] for i in range(0, len(path) - 2, max(4, int(6 * unit)))]
        paint_lines(lead, beads, 5 * unit, 230)
        coil = path[-max(4, int(rng.uniform(20, 90) * unit)) : -2]
        paint_lines(lead, [coil], 7 * unit, 255)
    add_canvas(image, lead, float(rng.uniform(0.3, 0.9)), 0.6)
    add_canvas(image, can, float(rng.uniform(0.8, 2.0)), 0.6)
    add_canvas(image, inner, float(rng.uniform(0.3, 1.0)), 0.6)


def _add_stent(rng: Rng, image: Image, unit: float) -> None:
    """A mesh: two families of fine waves around a tube, denser along its sides."""
    size = len(image)
    half, length = rng.uniform(5, 40) * unit, int(rng.uniform(40, 240) * unit)
    axis = wandering_path(
        rng, rng.uniform(0.1, 0.9, 2) * size, rng.uniform(0, 6.3), length, 160 * unit, 80 * unit
    )
    side = np.gradient(axis, axis=0)[:, ::-1] * (1, -1)
    canvas, strands = blank(size), int(rng.integers(3, 9))
    pitch = half * rng.uniform(1.0, 4.0)
    along = np.arange(len(axis)) / pitch
    waves = [
        axis + side * (half * np.cos(2 * np.pi * (sign * along + k / strands)))[:, None]
        for k in range(strands)
        for sign in (-1, 1)
    ]
    paint_lines(canvas, waves, rng.uniform(0.6, 1.8) * unit)
    add_canvas(image, canvas, float(rng.uniform(0.05, 0.6)), 0.5)


def _add_table_edge(rng: Rng, image: Image, unit: float) -> None:
    """A straight edge, or the rail beside it, parallel to a border."""
    angle = float(rng.choice([0, np.pi / 2])) + rng.normal(0, 0.06)
    across, _ = rotated_grid(len(image), angle, rng.uniform(0, len(image), 2))
    edge = 1 / (1 + cv2.exp(np.clip(across / np.float32(rng.uniform(0.4, 1.5)), -40, 40)))
    image += np.asarray(edge, np.float32) * np.float32(rng.uniform(0.1, 0.6))
    if rng.random() < 0.5:
        width = rng.uniform(8, 40) * unit
        rail = (np.abs(across + 1.5 * width) < width).astype(np.float32)
        image += cv2.GaussianBlur(rail, (0, 0), 0.7) * np.float32(rng.uniform(0.1, 1.5))


def _add_tube(rng: Rng, image: Image, unit: float) -> None:
    """A drain or a breathing tube: pale, far wider than a catheter, with a radiopaque stripe."""
    unit = _coarse(image, unit)
    path = _entering(rng, len(image), 250 * unit)
    half = rng.uniform(11, 26) * unit
    side = np.gradient(path, axis=0)[:, ::-1] * (1, -1)
    walls, body, stripe = (blank(len(image)) for _ in range(3))
    paint_lines(body, [path], 2 * half)
    paint_lines(walls, [path + side * half, path - side * half], 2.5 * unit)
    line = path + side * half * rng.uniform(-0.9, 0.9)
    dash = max(2, int(rng.uniform(4, 20) * unit))
    dashes = [line[i : i + dash] for i in range(0, len(line) - 2, 2 * dash)]
    paint_lines(stripe, dashes if rng.random() < 0.8 else [line], rng.uniform(1.5, 4) * unit)
    value = float(rng.uniform(0.03, 0.15))
    add_canvas(image, body, 0.5 * value, 1.0)
    add_canvas(image, walls, value, 0.8)
    add_canvas(image, stripe, value * float(rng.uniform(1.5, 4)), 0.6)


def _add_tool(rng: Rng, image: Image, unit: float) -> None:
    """Forceps, clamp or needle holder: two dense bars that cross at a joint and end in rings."""
    size = len(image)
    joint, angle = rng.uniform(-0.1, 1.1, 2) * size, rng.uniform(0, 6.3)
    canvas, length = blank(size), rng.uniform(70, 220) * unit
    for sign in (-1, 1):
        bar = [
            (-0.5, -0.03),
            (0, 0.05),
            (0.5, 0.02),
            (1.0, 0.2),
            (1.0, 0.26),
            (0.5, 0.09),
            (0, -0.05),
            (-0.5, 0.0),
        ]
        paint_area(canvas, placed(np.array(bar) * (1, sign), joint, angle, length), 220)
        ring = arc(0, 6.1, 20) * (0.16, 0.11) + (1.12, 0.25)
        ring = placed(ring * (1, sign), joint, angle, length)
        paint_lines(canvas, [ring], rng.uniform(5, 10) * unit, 220, closed=True)
    add_canvas(image, canvas, float(rng.uniform(1.0, 3.0)), 0.7)


def _add_beads(rng: Rng, image: Image, unit: float) -> None:
    """Spherical markers: a few at random, or a row of them."""
    canvas, size = blank(len(image)), len(image)
    radius, count = rng.uniform(1.2, 6) * unit, int(rng.integers(1, 14))
    spots = rng.uniform(0, size, (count, 2))
    if rng.random() < 0.5:
        spots = _crossing(rng, size, 500 * unit)[:: max(2, int(rng.uniform(15, 70) * unit))]
    for spot in spots:
        paint_area(canvas, placed(arc(0, 6.1, 14), spot, 0, radius))
    add_canvas(image, canvas, float(rng.uniform(0.3, 1.5)), 0.5)


def _add_zipper(rng: Rng, image: Image, unit: float) -> None:
    """Two interlocked rows of teeth."""
    unit = _coarse(image, unit)
    path = _crossing(rng, len(image), 350 * unit)
    step, half = max(3, int(rng.uniform(4, 9) * unit)), rng.uniform(3, 7) * unit
    side = np.gradient(path, axis=0)[:, ::-1] * (1, -1)
    teeth = []
    for index, at in enumerate(range(0, len(path), step)):
        sign = 1 if index % 2 else -1
        teeth.append(
            np.stack([path[at] - 0.2 * sign * half * side[at], path[at] + sign * half * side[at]])
        )
    canvas = blank(len(image))
    paint_lines(canvas, teeth, 0.45 * step)
    add_canvas(image, canvas, float(rng.uniform(0.3, 1.2)), 0.6)


def _add_cables(rng: Rng, image: Image, unit: float) -> None:
    """A bundle of straight thick cables with copper cores, side by side."""
    size = len(image)
    unit = _coarse(image, unit)
    path = _crossing(rng, size, 600 * unit)
    side = np.gradient(path, axis=0)[:, ::-1] * (1, -1)
    cover, core = blank(size), blank(size)
    width = rng.uniform(9, 20) * unit
    for index in range(int(rng.integers(1, 4))):
        cable = path + side * index * width * rng.uniform(0.9, 1.6)
        paint_lines(cover, [cable], width)
        strands = [cable + side * 0.25 * width * s for s in (-1, 0, 1)]
        paint_lines(core, strands, 0.16 * width)
    add_canvas(image, cover, float(rng.uniform(0.05, 0.2)), 0.8)
    add_canvas(image, core, float(rng.uniform(0.1, 0.5)), 0.6)


def _add_implant(rng: Rng, image: Image, unit: float) -> None:
    """Pedicle screws, a plate or a nail: massive metal with threads or holes."""
    size = len(image)
    canvas, holes = blank(size), blank(size)
    center, angle = rng.uniform(0, 1, 2) * size, rng.uniform(0, 6.3)
    half, length = rng.uniform(5, 16) * unit, rng.uniform(40, 240) * unit
    bar = np.array([(-1, -1), (1, -1), (1.05, 0), (1, 1), (-1, 1), (-1.05, 0)])
    paint_area(canvas, placed(bar, center, angle, (length / 2, half)))
    pitch = half * rng.uniform(0.5, 3.0)
    for at in np.arange(-length / 2, length / 2, pitch):
        if pitch > 1.6 * half:
            paint_area(holes, placed(arc(0, 6.1, 12) * 0.5 * half + (at, 0), center, angle, 1))
        else:
            thread = np.array([(at, -1.15 * half), (at + 0.4 * pitch, 1.15 * half)])
            paint_lines(canvas, [placed(thread, center, angle, 1)], 0.3 * pitch)
    value = float(rng.uniform(0.8, 2.5))
    add_canvas(image, canvas, value, 0.6)
    add_canvas(image, holes, -0.8 * value, 0.6)


_CHANCES: list[tuple[_Painter, float]] = [
    (_add_electrode_lead, 0.07),
    (_add_clips, 0.14),
    (_add_staples, 0.06),
    (_add_sternal_wires, 0.07),
    (_add_pacemaker, 0.03),
    (_add_stent, 0.07),
    (_add_table_edge, 0.1),
    (_add_tube, 0.07),
    (_add_tool, 0.04),
    (_add_beads, 0.06),
    (_add_zipper, 0.02),
    (_add_cables, 0.05),
    (_add_implant, 0.035),
]
