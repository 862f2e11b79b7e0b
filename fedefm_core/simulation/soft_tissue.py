# SPDX-License-Identifier: Apache-2.0
"""Everything in the body that is no bone: silhouettes, lungs, gas, folds, calcified vessels."""

from __future__ import annotations

import cv2
import numpy as np

from fedefm_core.simulation.bones import shell
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
from fedefm_core.simulation.textures import octaves


def tissue(rng: Rng, size: int, level: float, contrast: float) -> Image:
    """(size, size) clouds of soft tissue around a level, of all sizes from the view's own."""
    clouds = octaves(rng, size, (2, 4, 8, 16, 32, 64, 128), rng.uniform(0.4, 0.65))
    return np.asarray(clouds * np.float32(contrast) + np.float32(level), np.float32)


def add_silhouette(rng: Rng, image: Image, radius: float, value: float, blur: float) -> Curve:
    """Heart, liver or another organ: a smooth large shape with a definite edge. Its outline."""
    size = len(image)
    center = rng.uniform(-0.1, 1.1, 2) * size
    shape = spline(jittered(rng, arc(0, 5.5, 8), 0.12), closed=True, samples=12)
    outline = placed(shape, center, rng.uniform(0, np.pi), radius * rng.uniform(0.6, 1.3, 2))
    area = blank(size)
    paint_area(area, outline)
    add_canvas(image, area, value, blur)
    return outline


def add_diaphragm(rng: Rng, image: Image, value: float, blur: float) -> None:
    """A dome at the lower part, denser below a sharp edge."""
    size = len(image)
    radius = rng.uniform(0.5, 1.6) * size
    top = np.array([rng.uniform(-0.2, 1.2), rng.uniform(0.35, 1.05)]) * size
    dome = placed(
        arc(0, 2 * np.pi, 160),
        top + np.array([0, radius]),
        0,
        (radius * rng.uniform(0.6, 1.3), radius),
    )
    area = blank(size)
    paint_area(area, dome)
    add_canvas(image, area, value, blur)


def add_lung(rng: Rng, image: Image, unit: float, value: float) -> None:
    """A large pale field with vessels that branch from its root."""
    size = len(image)
    add_silhouette(rng, image, rng.uniform(0.6, 1.7) * size, -value, float(rng.uniform(1.5, 9)))
    add_lung_markings(rng, image, unit)


def add_lung_markings(rng: Rng, image: Image, unit: float) -> None:
    """Vessels of the lung, soft and pale, tapering as they branch, and dots seen end on."""
    size = len(image)
    lines = blank(size)
    root = rng.uniform(-0.1, 1.1, 2) * size
    stack = [
        (root + rng.normal(0, 10 * unit, 2), rng.uniform(0, 2 * np.pi), rng.uniform(3, 8) * unit)
        for _ in range(int(rng.integers(3, 8)))
    ]
    for _ in range(60):
        if not stack:
            break
        start, heading, width = stack.pop(0)
        step = (width * rng.uniform(8, 22) + 8) / 8
        headings = heading + np.cumsum(rng.normal(0, 0.12, 8))
        heading = float(headings[-1])
        steps = step * np.stack([np.cos(headings), np.sin(headings)], axis=1)
        path = np.concatenate([start[None], start + np.cumsum(steps, axis=0)])
        paint_lines(lines, [path], width, 60 + 190 * min(1, width / (6 * unit)))
        for turn in (rng.uniform(0.1, 0.5), -rng.uniform(0.1, 0.7)):
            thinner = width * rng.uniform(0.5, 0.85)
            if thinner > 0.8 * unit:
                stack.append((path[-1], heading + turn, thinner))
    for _ in range(int(rng.integers(0, 14))):
        dot = placed(
            arc(0, 2 * np.pi, 10), rng.uniform(0, 1, 2) * size, 0, rng.uniform(1, 4) * unit
        )
        paint_area(lines, dot, rng.uniform(100, 255))
    add_canvas(image, lines, float(rng.uniform(0.03, 0.2)), float(rng.uniform(0.7, 2.5)))


def add_bowel_gas(rng: Rng, image: Image, unit: float, depth: float) -> None:
    """Loops of bowel: chains of bubbles, pinched by haustra whose folds cross part of the way."""
    size = len(image)
    gas, folds = blank(size), blank(size)
    radius = rng.uniform(9, 34) * unit
    for _ in range(int(rng.integers(1, 4))):
        start, heading = rng.uniform(0, 1, 2) * size, rng.uniform(0, 2 * np.pi)
        length = int(rng.uniform(2, 14) * radius)
        path = wandering_path(rng, start, heading, length, 3 * radius, 2 * radius)
        step = max(2, int(radius * rng.uniform(0.45, 0.9)))
        for place, ahead in zip(path[:-2:step], path[1:-1:step], strict=True):
            angle = float(np.arctan2(*(ahead - place)[::-1]))
            bubble = spline(jittered(rng, arc(0, 5.4, 7), 0.07), closed=True, samples=5)
            paint_area(gas, placed(bubble, place, angle, radius * rng.uniform(0.75, 1.1, 2)))
            side = float(rng.choice([-1, 1]))
            fold = np.array([(0.55, 1.1), (0.5, 0.6), (0.52, rng.uniform(-0.3, 0.3))]) * (1, side)
            paint_lines(folds, [placed(spline(fold), place, angle, radius)], 2.2 * unit, 180)
    for _ in range(int(rng.integers(0, 14))):
        bubble = placed(arc(0, 2 * np.pi, 12), rng.uniform(0, 1, 2) * size, rng.uniform(0, 3), 1)
        paint_area(gas, (bubble - bubble.mean(0)) * rng.uniform(2, 14, 2) * unit + bubble.mean(0))
    np.minimum(folds, gas, out=folds)
    chord = shell(gas, radius, 0.1, 0.0)
    blur = float(rng.uniform(0.6, 2.5))
    image -= np.asarray(cv2.GaussianBlur(chord, (0, 0), blur), np.float32) * np.float32(depth)
    add_canvas(image, folds, depth * float(rng.uniform(0.2, 0.7)), blur)


def add_stomach(rng: Rng, image: Image, unit: float, depth: float) -> None:
    """A bubble above a level line of fluid."""
    size = len(image)
    center, radius = rng.uniform(0.1, 0.9, 2) * size, rng.uniform(25, 90) * unit
    shape = spline(jittered(rng, arc(0, 5.5, 8), 0.1), closed=True, samples=12)
    outline = placed(shape, center, 0, radius * np.array([rng.uniform(0.9, 1.8), 1.0]))
    level = center[1] + rng.uniform(-0.4, 0.6) * radius
    outline[:, 1] = np.minimum(outline[:, 1], level)
    gas = blank(size)
    paint_area(gas, outline)
    add_canvas(image, gas, -depth, float(rng.uniform(0.5, 1.8)))


def add_folds(rng: Rng, image: Image, count: int) -> None:
    """Edges of skin and fat: sharp on one side, fading over the other."""
    size = len(image)
    for _ in range(count):
        angle = rng.uniform(0, 2 * np.pi)
        edge = np.stack([np.linspace(-1.2, 1.2, 7), rng.normal(0, 0.06, 7)], axis=1)
        line = placed(spline(edge), rng.uniform(0, 1, 2) * size, angle, size)
        far = np.array([-np.sin(angle), np.cos(angle)]) * 3 * size
        area = np.full((size, size), 255, np.uint8)
        paint_area(area, np.concatenate([line, line[::-1] + far]), 0)
        depth = cv2.distanceTransform(area, cv2.DIST_L2, 3)
        fade = cv2.exp(depth * np.float32(-1 / rng.uniform(4, 60))) * (depth > 0.5)
        image += np.asarray(cv2.GaussianBlur(fade, (0, 0), rng.uniform(0.5, 2))) * np.float32(
            rng.uniform(0.03, 0.25) * rng.choice([-1, 1])
        )


def add_skin(rng: Rng, image: Image) -> None:
    """The outline of the body: next to nothing in the beam outside."""
    size = len(image)
    angle = float(rng.choice([0, np.pi])) + rng.normal(0, 0.3)
    edge = np.stack([np.linspace(-1.5, 1.5, 6), rng.normal(0, 0.05, 6)], axis=1)
    at = (0.5 + 0.5 * rng.uniform(0.5, 0.95) * np.array([np.cos(angle), np.sin(angle)])) * size
    line = placed(spline(edge), at, angle + np.pi / 2, size)
    far = np.array([np.cos(angle), np.sin(angle)]) * 3 * size
    outside = blank(size)
    paint_area(outside, np.concatenate([line, line[::-1] + far]))
    depth = cv2.distanceTransform(255 - outside, cv2.DIST_L2, 3)
    inside = 1 - cv2.exp(depth * np.float32(-1 / rng.uniform(15, 90)))
    image *= np.asarray(0.05 + 0.95 * cv2.GaussianBlur(inside, (0, 0), 0.8), np.float32)


def add_calcifications(rng: Rng, image: Image, unit: float) -> None:
    """Walls of calcified arteries: hair-thin broken pairs of lines, and stones."""
    size = len(image)
    lines = blank(size)
    start = rng.uniform(0, 1, 2) * size
    path = wandering_path(
        rng, start, rng.uniform(0, 6.3), int(rng.uniform(60, 400) * unit), 90 * unit, 60 * unit
    )
    step = np.gradient(path, axis=0)[:, ::-1] * (1, -1)
    for wall in (-0.5, 0.5):
        edge = path + step * wall * rng.uniform(4, 26) * unit
        at = 0
        while at < len(edge) - 3:
            piece = int(rng.uniform(2, 30) * unit) + 2
            width, level = rng.uniform(0.5, 2.2) * unit, rng.uniform(80, 255)
            paint_lines(lines, [edge[at : at + piece]], width, level)
            at += piece + int(rng.uniform(2, 40) * unit) + 1
    for _ in range(int(rng.integers(0, 6))):
        stone = placed(arc(0, 5.8, 9), rng.uniform(0, 1, 2) * size, 0, rng.uniform(1, 5) * unit)
        paint_area(lines, jittered(rng, stone, 0.5 * unit), rng.uniform(100, 255))
    add_canvas(image, lines, float(rng.uniform(0.05, 0.35)), float(rng.uniform(0.4, 1.2)))
