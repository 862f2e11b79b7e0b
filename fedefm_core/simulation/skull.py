# SPDX-License-Identifier: Apache-2.0
"""The head: vault of two tables, sutures, vascular grooves, orbits, petrous ridges, teeth."""

from __future__ import annotations

import numpy as np

from fedefm_core.simulation.bones import add_bone, random_sharpness
from fedefm_core.simulation.curves import Curve, smooth_noise, wandering_path
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
from fedefm_core.simulation.textures import grain, patches


def add_skull(rng: Rng, image: Image, unit: float, radius: float, strength: float) -> None:
    """Add a head whose vault has that mean radius in pixels, from the front or from the side."""
    size = len(image)
    center = 0.5 * size + rng.normal(0, 0.5, 2) * radius
    angle, blur = float(rng.normal(0, 0.3)), random_sharpness(rng, unit)
    axes = radius * np.array([rng.uniform(0.85, 1.25), 1.0])
    vault = placed(spline(jittered(rng, arc(0, 6.0, 16), 0.012), closed=True), center, angle, axes)
    wall = float(rng.uniform(0.04, 0.08)) * radius
    add_bone(rng, image, [vault], radius, wall / 3, strength * 1.2, blur)
    _add_tables(rng, image, center, angle, axes, unit, strength)
    _add_sutures(rng, image, center, angle, axes, unit, strength)
    _add_grooves(rng, image, center, radius, unit, strength)
    _add_base(rng, image, center, angle, axes, unit, strength)
    if rng.random() < 0.6:
        _add_teeth(rng, image, center, angle, radius, unit, strength)


def _add_tables(
    rng: Rng, image: Image, center: Curve, angle: float, axes: Curve, unit: float, strength: float
) -> None:
    lines = blank(len(image))
    for share in (1.0, rng.uniform(0.9, 0.96)):
        rim = spline(jittered(rng, arc(0, 6.0, 18) * share, 0.006), closed=True)
        paint_lines(lines, [placed(rim, center, angle, axes)], rng.uniform(1, 3.5) * unit)
    add_canvas(image, lines, strength * rng.uniform(0.2, 0.7), random_sharpness(rng, unit))


def _add_sutures(
    rng: Rng, image: Image, center: Curve, angle: float, axes: Curve, unit: float, strength: float
) -> None:
    """Zigzags across the vault: dark where their edges are seen end on, lucent beside it."""
    lines = blank(len(image))
    for _ in range(int(rng.integers(1, 5))):
        ends = arc(0, 2 * np.pi, 60)[rng.integers(0, 60, 2)] * 0.95
        bow = rng.normal(0, 0.25, 2)
        t = np.linspace(0, 1, 240)[:, None]
        line = ends[0] + (ends[1] - ends[0]) * t + 4 * t * (1 - t) * bow
        line = placed(line, center, angle, axes)
        wiggle = smooth_noise(rng, len(line), 2.2) + 0.6 * smooth_noise(rng, len(line), 1.2)
        line = line + wiggle[:, None] * rng.normal(0, 2.5, 2) * unit
        paint_lines(lines, [line], rng.uniform(0.8, 1.8) * unit, rng.uniform(120, 255))
    blur = min(random_sharpness(rng, unit), 1.2)
    add_canvas(image, lines, strength * float(rng.choice([-1, 1])) * rng.uniform(0.06, 0.3), blur)


def _add_grooves(
    rng: Rng, image: Image, center: Curve, radius: float, unit: float, strength: float
) -> None:
    """Branching channels of the meningeal vessels: thin and lucent."""
    lines = blank(len(image))
    for _ in range(int(rng.integers(1, 4))):
        start = center + rng.normal(0, 0.4, 2) * radius
        heading = rng.uniform(0, 2 * np.pi)
        for _ in range(int(rng.integers(1, 5))):
            path = wandering_path(rng, start, heading, int(0.7 * radius), 90 * unit, 30 * unit)
            paint_lines(lines, [path], rng.uniform(1, 3.5) * unit, rng.uniform(100, 255))
            start, heading = path[len(path) // 3], heading + rng.normal(0, 0.5)
    add_canvas(image, lines, -strength * rng.uniform(0.04, 0.2), random_sharpness(rng, unit))


def _add_base(
    rng: Rng, image: Image, center: Curve, angle: float, axes: Curve, unit: float, strength: float
) -> None:
    """Orbits, petrous ridges, sphenoid wings, sinuses with their septa."""
    blur = random_sharpness(rng, unit)
    lines, dense, air = (blank(len(image)) for _ in range(3))
    drop, spread = rng.uniform(0.1, 0.5), rng.uniform(0.3, 0.45)
    for side in (-1, 1):
        spot = np.array([side * spread * rng.uniform(0.8, 1.1), drop])
        orbit = spline(jittered(rng, arc(0, 5.6, 10), 0.08), closed=True)
        orbit = placed(orbit * (0.26, 0.22) + spot, center, angle, axes)
        paint_lines(lines, [orbit], rng.uniform(1.2, 4) * unit, rng.uniform(140, 255), closed=True)
        landmarks = [(0.1, 0.1), (0.3, 0.02), (0.6, -0.08), (0.75, 0.0), (0.62, 0.12), (0.3, 0.16)]
        ridge = jittered(rng, landmarks, 0.02) * (side, 1) + (0, drop - rng.uniform(-0.2, 0.15))
        ridge = placed(spline(ridge, closed=True), center, angle, axes)
        paint_area(dense, ridge, 170)
        paint_lines(lines, [ridge], rng.uniform(1, 3) * unit, 200, closed=True)
        wing = jittered(rng, [(0.12, 0.1), (0.3, -0.02), (0.5, -0.2), (0.62, -0.35)], 0.03)
        wing = placed(spline(wing * (side, 1) + (0, drop)), center, angle, axes)
        paint_lines(lines, [wing], rng.uniform(1, 2.5) * unit, rng.uniform(120, 255))
        sinus = spline(jittered(rng, arc(0, 5.6, 9), 0.15), closed=True)
        sinus = placed(sinus * (0.17, 0.22) + (side * 0.22, drop + 0.38), center, angle, axes)
        paint_area(air, sinus, 220)
        paint_lines(lines, [sinus], rng.uniform(0.8, 2) * unit, 150, closed=True)
    for _ in range(int(rng.integers(2, 7))):  # septa, floor of the skull, clivus
        begin = rng.normal(0, 0.35, 2) + np.array([0, drop + 0.1])
        bow = np.array([begin, begin + rng.normal(0, 0.15, 2), begin + rng.normal(0, 0.3, 2)])
        line = placed(spline(bow), center, angle, axes)
        paint_lines(lines, [line], rng.uniform(0.8, 2.5) * unit, rng.uniform(90, 255))
    add_canvas(image, dense, strength * rng.uniform(0.4, 1.2), 1.5 * blur)
    add_canvas(image, air, -strength * rng.uniform(0.1, 0.5), blur)
    fading = patches(rng, image.shape, 50 * unit)
    add_canvas(image, lines, strength * rng.uniform(0.25, 0.9), blur, fading)
    cells = grain(rng, image.shape, (6 * unit, 6 * unit)) * (dense > 100)
    image += cells * np.float32(0.08 * strength)


def _add_teeth(
    rng: Rng,
    image: Image,
    center: Curve,
    angle: float,
    radius: float,
    unit: float,
    strength: float,
) -> None:
    """Two rows of dense teeth with pale pulp, some of them filled with metal."""
    teeth, pulp, metal = (blank(len(image)) for _ in range(3))
    width = rng.uniform(0.05, 0.08) * radius
    for row, sign in ((0.92, -1), (1.02, 1)):
        for index in range(-6, 7):
            spot = np.array(
                [index * width * 1.02, (row * radius) - 0.5 * abs(index) * 0.3 * width]
            )
            crown = [(-0.48, 0), (-0.42, 0.6), (-0.2, 1.9), (0.2, 1.9), (0.42, 0.6), (0.48, 0)]
            tooth = jittered(rng, crown, 0.05) * (width, sign * width * rng.uniform(0.9, 1.2))
            tooth = placed(tooth + spot, center, angle, 1)
            paint_area(teeth, tooth, 200)
            root = placed(
                np.array([(0, 0.3), (0, 1.5)]) * (1, sign * width) + spot, center, angle, 1
            )
            paint_lines(pulp, [root], 0.2 * width)
            if rng.random() < 0.15:
                box = np.array([(-0.4, 0), (0.4, 0), (0.35, 0.5), (-0.3, 0.4)])
                box = jittered(rng, box, 0.06) * (width, sign * width)
                paint_area(metal, placed(box + spot, center, angle, 1))
    add_canvas(image, teeth, strength * rng.uniform(0.5, 1.2), 0.8)
    add_canvas(image, pulp, -0.3 * strength, 0.8)
    add_canvas(image, metal, float(rng.uniform(0.8, 2.0)), 0.5)
