# SPDX-License-Identifier: Apache-2.0
"""The pelvis: iliac wings, sacrum, hip joints, pubis; each half seen at its own obliquity."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedefm_core.simulation.bones import add_bone, random_sharpness
from fedefm_core.simulation.curves import Curve
from fedefm_core.simulation.outlines import (
    Image,
    Rng,
    add_canvas,
    arc,
    blank,
    jittered,
    paint_lines,
    placed,
    spline,
)
from fedefm_core.simulation.textures import patches

# Landmarks of the right half, in widths of half a pelvis: x outwards, y down, origin between
# the sacroiliac joints.
_WING = [(0.28, -0.05), (0.32, -0.3), (0.6, -0.52), (0.95, -0.42), (1.05, -0.12), (0.92, 0.18),
         (0.78, 0.42), (0.5, 0.45), (0.36, 0.3)]  # fmt: skip
_RING = [(0.45, 0.4), (0.8, 0.45), (0.82, 0.72), (0.55, 0.78), (0.2, 0.8), (0.04, 0.78),
         (0.05, 0.95), (0.25, 1.1), (0.5, 1.22), (0.62, 1.15), (0.55, 0.95),
         (0.72, 0.8)]  # fmt: skip
_SACRUM = [(-0.34, -0.1), (0.0, -0.16), (0.34, -0.1), (0.28, 0.2), (0.12, 0.5), (0.0, 0.6),
           (-0.12, 0.5), (-0.28, 0.2)]  # fmt: skip
_FEMUR = [(0.98, 0.55), (0.9, 0.75), (1.02, 0.95), (1.0, 1.4), (1.02, 6.0), (1.28, 6.0),
          (1.3, 1.2), (1.35, 0.85), (1.25, 0.7), (1.12, 0.78)]  # fmt: skip
_BRIM = [(0.3, 0.02), (0.42, 0.28), (0.46, 0.5), (0.3, 0.72), (0.03, 0.78)]
_JOINT = [(0.27, -0.1), (0.33, 0.05), (0.29, 0.2), (0.22, 0.34)]
_OBTURATOR = (0.33, 0.95)
_HIP = (0.88, 0.62)


def add_pelvis(rng: Rng, image: Image, unit: float, width: float, strength: float) -> None:
    """Add a pelvis of that half width in pixels, anywhere in or around the view."""
    size = len(image)
    center = np.array([0.5, 0.4]) * size + rng.normal(0, 0.45, 2) * width
    angle, blur = float(rng.normal(0, 0.12)), random_sharpness(rng, unit)
    sacrum = placed(spline(jittered(rng, _SACRUM, 0.02), closed=True), center, angle, width)
    add_bone(rng, image, [sacrum], 0.3 * width, unit, strength * 0.6, blur)
    _add_foramina(rng, image, center, angle, width, unit, strength)
    for side in (-1.0, 1.0):
        scale = width * np.array([side * rng.uniform(0.7, 1.1), rng.uniform(0.9, 1.1)])
        _add_half(rng, image, center, angle, scale, unit, strength, blur)


def _add_half(
    rng: Rng, image: Image, center: Curve, angle: float, scale: Curve, unit: float,
    strength: float, blur: float,
) -> None:  # fmt: skip
    def at(points: npt.ArrayLike, closed: bool = False) -> Curve:
        return placed(spline(jittered(rng, points, 0.02), closed), center, angle, scale)

    radius = 0.13 * abs(scale[0])
    add_bone(rng, image, [at(_WING, True)], radius, unit, strength * 0.7, blur)
    add_bone(rng, image, [at(_RING, True)], 0.6 * radius, unit, strength * 0.7, blur)
    hip = placed(np.array([_HIP]), center, angle, scale)[0]
    head = placed(arc(0, 2 * np.pi, 40), hip, 0, abs(scale) * 0.155)
    femur = [at(_FEMUR, True)]
    add_bone(rng, image, [head], 0.155 * abs(scale[0]), unit, strength * 0.8, blur)
    add_bone(rng, image, femur, 0.8 * radius, unit, strength, blur)
    lines = blank(len(image))
    cup = placed(arc(np.pi * 0.9, np.pi * 2.0, 30), hip, angle, abs(scale) * 0.185)
    rim = placed(arc(np.pi * 0.6, np.pi * 1.5, 30), hip, angle, abs(scale) * (0.21, 0.2))
    hole = placed(arc(0, 2 * np.pi, 30) * (0.13, 0.1) + _OBTURATOR, center, angle, scale)
    curves = [at(_BRIM), at(_JOINT), at(_JOINT), cup, rim, hole, at(_WING[1:5])]
    kept = [curve for curve in curves if rng.random() < 0.85]
    for curve in kept:
        paint_lines(lines, [curve], rng.uniform(0.8, 3.5) * unit, rng.uniform(90, 255))
    fading = patches(rng, image.shape, 50 * unit)
    add_canvas(image, lines, strength * rng.uniform(0.2, 0.7), min(blur, 1.5), fading)


def _add_foramina(
    rng: Rng, image: Image, center: Curve, angle: float, width: float, unit: float, strength: float
) -> None:
    lines = blank(len(image))
    for row in range(4):
        for side in (-1, 1):
            spot = (side * (0.17 - 0.025 * row), -0.02 + 0.12 * row)
            ring = arc(np.pi * 0.9, np.pi * 2.1, 14) * (0.05, 0.035) + spot
            ring = jittered(rng, ring, 0.002)
            paint_lines(lines, [placed(ring, center, angle, width)], 1.6 * unit, 200)
    add_canvas(image, lines, strength * rng.uniform(0.15, 0.5), random_sharpness(rng, unit))
