# SPDX-License-Identifier: Apache-2.0
"""Bones as X-rays show them: a shell whose edge is a sharp dark line, filled with trabeculae.

unit: pixels of the feature that is a pixel wide in a 512-pixel image at usual magnification.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.simulation.curves import Curve
from fedefm_core.simulation.outlines import (
    Canvas,
    Image,
    Rng,
    add_canvas,
    arc,
    blank,
    jittered,
    paint_area,
    paint_lines,
    placed,
    soften,
    spline,
)
from fedefm_core.simulation.textures import patches, trabeculae


def random_sharpness(rng: Rng, unit: float) -> float:
    """Sigma in pixels of the edges of one structure: mostly crisp."""
    sigma = float(rng.choice([0.5, 0.8, rng.uniform(0.6, 3.0)]))
    return sigma * max(0.6, float(np.sqrt(unit)))


def shell(area: Canvas, radius: float, cortex: float, marrow: float) -> Image:
    """(H, W) chord length through a shell, in radii: a tube of that radius seen from the side.

    area: painted outline. cortex: thickness of the wall in pixels. marrow: share of the
    attenuation that the inside lacks. The wall is densest one cortex from the edge.
    """
    inside = cv2.threshold(area, 127, 255, cv2.THRESH_BINARY)[1]
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
    levels = cv2.convertScaleAbs(depth, alpha=255 / radius)
    below = np.linspace(0, radius, 256)
    share = marrow * (radius - cortex) / radius
    profile = _chord(below, radius) - share * _chord(below - cortex, max(radius - cortex, 1.0))
    return np.asarray(cv2.LUT(levels, profile.astype(np.float32)), np.float32)


def _chord(depth: npt.NDArray[np.float64], radius: float) -> npt.NDArray[np.float64]:
    """Half the chord of a circle at depth below its edge, in radii."""
    return np.sqrt(1 - (1 - np.clip(depth / radius, 0, 1)) ** 2)


def add_bone(
    rng: Rng,
    image: Image,
    outlines: Sequence[Curve],
    radius: float,
    unit: float,
    strength: float,
    blur: float,
) -> None:
    """Add bones that do not overlap each other, in place, within their bounding box."""
    box = _box(outlines, image.shape)
    if box is None:
        return
    area = np.zeros(image.shape, np.uint8)[box]
    corner = np.array([box[1].start, box[0].start])
    for outline in outlines:
        paint_area(area, outline - corner)
    cortex = float(rng.uniform(1.2, 4.0)) * unit
    wall = shell(area, max(radius, 2.0), min(cortex, 0.5 * radius), float(rng.uniform(0.55, 0.95)))
    wall *= trabeculae(rng, area.shape, unit) * patches(rng, area.shape, 60 * unit)
    image[box] += soften(wall, blur) * np.float32(strength)


def _box(outlines: Sequence[Curve], shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    points = np.concatenate(outlines)
    x0, y0 = np.clip(points.min(axis=0) - 8, 0, None).astype(int)
    x1, y1 = np.minimum(points.max(axis=0) + 8, shape[1::-1]).astype(int)
    if x1 - x0 < 4 or y1 - y0 < 4:
        return None
    return slice(int(y0), int(y1)), slice(int(x0), int(x1))


def add_ribs(
    rng: Rng, image: Image, unit: float, spacing: float, width: float, strength: float
) -> None:
    """Both walls of a rib cage: each rib runs down from the spine, turns, and comes back."""
    size = len(image)
    reach = rng.uniform(2.5, 6.0) * spacing  # from the spine to the side
    top = rng.uniform(-1.0, 0.0) * spacing
    spine_x = rng.uniform(-0.4, 1.4) * size
    slope, flat = rng.uniform(0.1, 0.7), rng.uniform(0.15, 0.5)
    lean = rng.normal(0, 0.15)
    back: list[Curve] = []
    front: list[Curve] = []
    half_back, half_front = arc(-np.pi * 0.62, np.pi * 0.05), arc(np.pi * 0.05, np.pi * 0.7)
    sides = (1.0, -1.0) if rng.random() < 0.55 else (float(rng.choice([-1.0, 1.0])),)
    for start in np.arange(top - 2 * spacing, size + 4 * spacing, spacing):
        bend = rng.normal(0, 0.02)
        for side in sides:
            for half, group in ((half_back, back), (half_front, front)):
                local = half * (reach, reach * (flat + bend))
                local[:, 1] += slope * local[:, 0]
                group.append(placed(local * (side, 1), (spine_x, start), lean, 1))
    for group, share in ((back, 1.0), (front, rng.uniform(0.1, 0.9))):
        _add_rib_wall(rng, image, group, unit, width, strength * share)


def _add_rib_wall(
    rng: Rng, image: Image, curves: Sequence[Curve], unit: float, width: float, strength: float
) -> None:
    area, size = blank(len(image)), len(image)
    curves = [c for c in curves if np.any(np.all((c > -width) & (c < size + width), axis=1))]
    paint_lines(area, curves, width)
    cortex = float(rng.uniform(1.0, 2.6)) * unit
    paint_lines(area, curves, max(width - 2 * cortex, 1.0), rng.uniform(90, 200))
    blur = random_sharpness(rng, unit)
    fading = patches(rng, image.shape, 70 * unit)
    add_canvas(image, area, strength, blur, fading)
    if rng.random() < 0.5:  # the groove below a rib: one edge is a sharper line
        edge = blank(len(image))
        paint_lines(
            edge, [c + np.array([0, 0.46 * width]) for c in curves], rng.uniform(0.8, 2) * unit
        )
        add_canvas(image, edge, 0.4 * strength, min(blur, 1.0), fading)


def add_long_bones(rng: Rng, image: Image, unit: float, strength: float) -> None:
    """One or two shafts, with ends that flare at a joint."""
    size = len(image)
    angle, center = rng.uniform(0, np.pi), rng.uniform(0.2, 0.8, 2) * size
    half = rng.uniform(16, 55) * unit
    across = np.array([-np.sin(angle), np.cos(angle)])
    _add_jointed(rng, image, center, angle, half, unit, strength)
    if rng.random() < 0.5:  # radius and ulna, tibia and fibula
        shift = across * half * rng.uniform(1.8, 4.0) * rng.choice([-1, 1])
        _add_jointed(
            rng, image, center + shift, angle + rng.normal(0, 0.05), half * rng.uniform(0.4, 0.9),
            unit, strength,
        )  # fmt: skip


def _add_jointed(
    rng: Rng, image: Image, center: Curve, angle: float, half: float, unit: float, strength: float
) -> None:
    """Two bones that meet at a joint near center, or a shaft without one."""
    blur = random_sharpness(rng, unit)
    along = np.array([np.cos(angle), np.sin(angle)])
    far = 2.5 * len(image)
    if rng.random() < 0.4:
        outline = placed([(-1, -1), (1, -1), (1, 1), (-1, 1)], center, angle, (far, half))
        add_bone(rng, image, [outline], half, unit, strength, blur)
        return
    gap = rng.uniform(1.5, 6) * unit
    flare = rng.uniform(1.3, 2.2)
    length = far / half
    for turn in (0.0, np.pi):
        end = jittered(rng, _EPIPHYSIS, 0.06) * (1, flare)
        shaft = np.array([(length, 0.9), (length, -0.9)])
        spur = np.concatenate([spline(end), shaft])
        place = center + along * (gap / 2) * (1 if turn == 0 else -1)
        outline = placed(spur, place, angle + turn + rng.normal(0, 0.1), half)
        add_bone(rng, image, [outline], half * flare, unit, strength, blur)
        plate = blank(len(image))
        paint_lines(plate, [outline[20:50]], rng.uniform(1.0, 3.0) * unit)
        add_canvas(image, plate, 0.3 * strength, min(blur, 1.0))


_EPIPHYSIS = np.array(
    [(3.2, -0.55), (1.8, -0.65), (0.8, -0.95), (0.25, -0.9), (0.02, -0.5), (0.12, 0.0),
     (0.02, 0.5), (0.25, 0.9), (0.8, 0.95), (1.8, 0.65), (3.2, 0.55)]
)  # fmt: skip


def add_clavicle(rng: Rng, image: Image, unit: float, strength: float) -> None:
    """An S-shaped bone across the view."""
    size = len(image)
    half = rng.uniform(9, 22) * unit
    length = rng.uniform(0.5, 1.3) * size
    landmarks = [(-0.5, 0.0), (-0.2, 0.1), (0.15, -0.08), (0.5, 0.05)]
    center, angle = rng.uniform(0.1, 0.9, 2) * size, rng.normal(0, 0.6)
    axis = placed(spline(jittered(rng, landmarks, 0.03)), center, angle, length)
    along = np.linspace(-1, 1, len(axis))
    widths = half * (0.8 + 0.9 * np.abs(along) ** 3 + 0.15 * np.sin(5 * along))
    side = np.gradient(axis, axis=0)[:, ::-1] * (1, -1)
    side *= (widths / np.linalg.norm(side, axis=1))[:, None]
    outline = np.concatenate([axis + side, (axis - side)[::-1]])
    add_bone(rng, image, [outline], 1.3 * half, unit, strength, random_sharpness(rng, unit))
