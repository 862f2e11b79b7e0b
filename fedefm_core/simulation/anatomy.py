# SPDX-License-Identifier: Apache-2.0
"""Procedural backgrounds: everything in the beam that is not a catheter or a guidewire.

Each function returns or adds to a map of line integrals of attenuation (dimensionless), float32.
Lengths are pixels of a 512-pixel image; 'scale' stretches them to other sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.simulation.curves import Curve, wandering_path

Image = npt.NDArray[np.float32]
Rng = np.random.Generator


def background(rng: Rng, kind: str, size: int, scale: float) -> Image:
    """(size, size) attenuation of a random scene of one of the four kinds."""
    image = _PAINTERS[kind](rng, size, scale)
    if rng.random() < _VESSEL_CHANCE[kind]:
        image += vessel_tree(rng, size, scale, strength=_vessel_strength(rng, kind))
    if kind in ("human", "animal"):
        _add_foreign_bodies(rng, image, scale)
    return image


# Fluoroscopy for navigation is mostly without contrast; vessels of silicone are always there.
_VESSEL_CHANCE = {"human": 0.25, "animal": 0.25, "phantom": 0.6, "simulation": 0.5}


def _vessel_strength(rng: Rng, kind: str) -> float:
    if kind == "phantom":  # silicone or water: weak, either sign against the filling
        return float(rng.choice([-1.0, 1.0]) * rng.uniform(0.03, 0.2))
    return float(rng.uniform(0.1, 0.8))


def octaves(rng: Rng, size: int, cells: tuple[int, ...], persistence: float = 0.55) -> Image:
    """(size, size) smooth noise: cubic upsamplings of random grids, finer ones weaker."""
    total = np.zeros((size, size), np.float32)
    for level, count in enumerate(cells):
        grid = rng.standard_normal((count, count), dtype=np.float32)
        total += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) * (
            np.float32(persistence) ** level
        )
    return total


def _human(rng: Rng, size: int, scale: float) -> Image:
    image = 2.2 + 0.35 * octaves(rng, size, (3, 6, 12, 24, 48, 110), rng.uniform(0.4, 0.62))
    if rng.random() < 0.6:
        image += _soft_ellipses(rng, size, count=int(rng.integers(1, 5)), strength=0.5)
    if rng.random() < 0.65:
        _add_spine(rng, image, scale, angle=rng.normal(0, 0.15), period=rng.uniform(60, 110))
    if rng.random() < 0.55:
        _add_ribs(rng, image, scale, spacing=rng.uniform(55, 110), width=rng.uniform(14, 34))
    if rng.random() < 0.25:
        _add_gas(rng, image, scale)
    if rng.random() < 0.25:
        _add_long_bone(rng, image, scale)
    return image


def _animal(rng: Rng, size: int, scale: float) -> Image:
    image = 1.4 + 0.3 * octaves(rng, size, (3, 6, 14, 30, 60, 128), rng.uniform(0.45, 0.66))
    image += _soft_ellipses(rng, size, count=int(rng.integers(1, 4)), strength=0.4)
    if rng.random() < 0.8:
        angle = np.pi / 2 + rng.normal(0, 0.2)
        _add_spine(rng, image, scale, angle=angle, period=rng.uniform(28, 55))
    if rng.random() < 0.8:
        _add_ribs(rng, image, scale, spacing=rng.uniform(24, 50), width=rng.uniform(5, 12))
    if rng.random() < 0.5:
        _add_gas(rng, image, scale)
    return image


def _phantom(rng: Rng, size: int, scale: float) -> Image:
    image = 1.0 + 0.12 * octaves(rng, size, (2, 3, 5), 0.5)
    if rng.random() < 0.5:  # fine texture of 3-D print or gel
        image += 0.02 * octaves(rng, size, (40, 90, 200), 0.8)
    if rng.random() < 0.6:
        _add_fixtures(rng, image, scale)
    if rng.random() < 0.25:
        _add_grid(rng, image, scale)
    return image


def _simulation(rng: Rng, size: int, scale: float) -> Image:
    image = 1.0 + rng.uniform(0.0, 0.12) * octaves(rng, size, (2, 4), 0.5)
    if rng.random() < 0.4:
        _add_spine(rng, image, scale, angle=rng.normal(0, 0.1), period=rng.uniform(60, 100))
    return image


_PAINTERS: dict[str, Callable[[Rng, int, float], Image]] = {
    "human": _human,
    "animal": _animal,
    "phantom": _phantom,
    "simulation": _simulation,
}


def vessel_tree(rng: Rng, size: int, scale: float, strength: float) -> Image:
    """Tapering, branching vessels filled with contrast medium; (size, size) attenuation."""
    canvas = np.zeros((size, size), np.uint8)
    start, heading = border_entry(rng, size)
    width = np.exp(rng.uniform(np.log(5), np.log(30))) * scale
    stack = [(start, heading, width, int(rng.uniform(0.5, 1.2) * size))]
    branches = 0
    while stack and branches < 28:
        start, heading, width, length = stack.pop(0)
        branches += 1
        path = wandering_path(rng, start, heading, length, 70 * scale, 45 * scale)
        _draw_tapered(canvas, path, width, width * 0.55)
        for _ in range(int(rng.integers(1, 5))):
            at = int(rng.uniform(0.1, 0.95) * (len(path) - 1))
            direction = np.arctan2(*(path[min(at + 1, len(path) - 1)] - path[at - 1])[::-1])
            thinner = width * rng.uniform(0.3, 0.7)
            if thinner > 1.6 * scale:
                turn = rng.choice([-1, 1]) * rng.uniform(0.3, 1.2)
                stack.append((path[at], direction + turn, thinner, int(length * 0.6) + 4))
    soft = cv2.GaussianBlur(canvas, (0, 0), max(1.0, 1.4 * scale))
    return np.asarray(soft * np.float32(strength / 255), np.float32)


def border_entry(rng: Rng, size: int) -> tuple[npt.NDArray[np.float64], float]:
    """A point just outside a random border and a heading into the image, in radians."""
    along = rng.uniform(0.08, 0.92) * (size - 1)
    side = int(rng.integers(4))
    points = [(-2.0, along), (size + 1.0, along), (along, -2.0), (along, size + 1.0)]
    inward = [0.0, np.pi, np.pi / 2, -np.pi / 2]
    return np.array(points[side]), inward[side] + rng.normal(0, 0.4)


def _draw_tapered(canvas: npt.NDArray[np.uint8], path: Curve, begin: float, end: float) -> None:
    pieces = max(2, min(8, len(path) // 12))
    bounds = np.linspace(0, len(path) - 1, pieces + 1).astype(int)
    for index, (a, b) in enumerate(pairwise(bounds)):
        width = begin + (end - begin) * (index + 0.5) / pieces
        points = np.round(path[a : b + 1] * 16).astype(np.int32)
        cv2.polylines(canvas, [points], False, 255, max(1, round(width)), cv2.LINE_AA, 4)


def _strokes(image: Image, curves: list[Curve], width: float, value: float, blur: float) -> None:
    canvas = np.zeros(image.shape, np.uint8)
    points = [np.round(curve * 16).astype(np.int32) for curve in curves]
    cv2.polylines(canvas, points, False, 255, max(1, round(width)), cv2.LINE_AA, 4)
    image += cv2.GaussianBlur(canvas, (0, 0), blur) * np.float32(value / 255)


def _soft_ellipses(rng: Rng, size: int, count: int, strength: float) -> Image:
    canvas = np.zeros((128, 128), np.float32)
    for _ in range(count):
        layer = np.zeros(canvas.shape, np.float32)
        center = tuple(int(v) for v in rng.uniform(-10, 138, 2))
        axes = tuple(int(v) for v in rng.uniform(15, 75, 2))
        cv2.ellipse(layer, center, axes, rng.uniform(0, 180), 0, 360, 1.0, -1)
        soft = cv2.GaussianBlur(layer, (0, 0), float(rng.uniform(0.6, 6)))
        canvas += soft * np.float32(rng.uniform(-1, 1) * strength)
    return np.asarray(cv2.resize(canvas, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)


def _add_spine(rng: Rng, image: Image, scale: float, angle: float, period: float) -> None:
    size = len(image)
    period = period * scale
    across, along = _rotated_grid(size, angle, rng.uniform(0.15, 0.85, 2) * size)
    across += np.float32(rng.normal(0, 12) * scale) * np.sin(along / np.float32(0.7 * size))
    phase = along * np.float32(2 * np.pi / period)
    wave = np.cos(phase)
    half = period * rng.uniform(0.5, 0.75)
    waist = np.abs(across) - half * (0.93 + 0.07 * wave)  # bodies are narrower in the middle
    body = 1 / (1 + cv2.exp(waist / np.float32(rng.uniform(1.5, 7) * scale)))
    endplates = cv2.exp(8 * (wave - 1)) * 0.3
    pedicles = cv2.exp(-(((np.abs(across) - 0.55 * half) / (0.16 * half)) ** 2)) * cv2.exp(
        3 * (np.cos(phase + 1.5) - 1)
    )
    cortex = cv2.exp(-((waist / np.float32(2.5 * scale)) ** 2)) * rng.uniform(0.02, 0.15)
    texture = 1 + 0.15 * octaves(rng, size, (10, 24, 60), 0.7)
    bone = body * (0.5 + endplates + 0.3 * pedicles) * texture + cortex
    image += bone * np.float32(rng.uniform(0.2, 0.8))


def _rotated_grid(size: int, angle: float, center: npt.NDArray[np.float64]) -> tuple[Image, Image]:
    ys, xs = np.mgrid[0:size, 0:size].astype(np.float32)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = xs - np.float32(center[0]), ys - np.float32(center[1])
    return c * x + s * y, c * y - s * x


def _add_ribs(rng: Rng, image: Image, scale: float, spacing: float, width: float) -> None:
    size = len(image)
    slope, bow = rng.normal(0, 0.35), rng.uniform(-0.25, 0.25)
    x = np.linspace(-20, size + 20, 60)
    offsets = np.arange(-0.4 * size, 1.4 * size, spacing * scale)
    curves = [
        np.stack([x, o + slope * x + bow * (x - size / 2) ** 2 / size], axis=1) for o in offsets
    ]
    if rng.random() < 0.5:  # the far side of the cage crosses the near one
        curves += [np.stack([size - c[:, 0], c[:, 1] + spacing / 3], axis=1) for c in curves]
    strength, wide = rng.uniform(0.1, 0.45), width * scale
    blur = rng.uniform(0.6, 2.0) * scale
    _strokes(image, curves, wide, strength, blur)
    _strokes(image, curves, max(wide - 5 * scale, 1), -0.55 * strength, blur)


def _add_long_bone(rng: Rng, image: Image, scale: float) -> None:
    size = len(image)
    across, _ = _rotated_grid(size, rng.uniform(0, np.pi), rng.uniform(0.1, 0.9, 2) * size)
    half = rng.uniform(25, 80) * scale
    thickness = np.sqrt(np.maximum(half**2 - across**2, 0))
    marrow = np.sqrt(np.maximum((half * rng.uniform(0.6, 0.85)) ** 2 - across**2, 0))
    image += (thickness - 0.8 * marrow) * np.float32(rng.uniform(0.4, 1.4) / half)


def _add_gas(rng: Rng, image: Image, scale: float) -> None:
    canvas = np.zeros(image.shape, np.uint8)
    for _ in range(int(rng.integers(2, 14))):
        center = tuple(int(v) for v in rng.uniform(0, len(image), 2))
        axes = tuple(max(2, int(v * scale)) for v in rng.uniform(6, 45, 2))
        cv2.ellipse(canvas, center, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1)
    soft = cv2.GaussianBlur(canvas, (0, 0), 2.5 * scale).astype(np.float32)
    image -= soft * np.float32(rng.uniform(0.1, 0.4) / 255)


def _add_fixtures(rng: Rng, image: Image, scale: float) -> None:
    """Screws, plates, edges of the tank that holds a silicone phantom."""
    size = len(image)
    canvas = np.zeros(image.shape, np.uint8)
    for _ in range(int(rng.integers(1, 6))):
        center = rng.uniform(0, size, 2)
        if rng.random() < 0.5:
            radius = max(2, int(rng.uniform(4, 20) * scale))
            thickness = int(rng.choice([-1, max(1, round(2 * scale))]))
            cv2.circle(canvas, (int(center[0]), int(center[1])), radius, 255, thickness)
        else:
            box = (center.tolist(), (rng.uniform(10, 300) * scale, rng.uniform(6, 60) * scale), 0)
            rectangle = cv2.boxPoints((box[0], box[1], float(rng.uniform(0, 180))))
            cv2.fillPoly(
                canvas, [np.round(rectangle).astype(np.int32)], int(rng.integers(60, 255))
            )
    soft = cv2.GaussianBlur(canvas, (0, 0), 0.7).astype(np.float32)
    image += soft * np.float32(rng.uniform(0.05, 0.8) / 255)


def _add_grid(rng: Rng, image: Image, scale: float) -> None:
    size, pitch = len(image), rng.uniform(30, 90) * scale
    across, along = _rotated_grid(size, rng.uniform(0, np.pi), rng.uniform(0, size, 2))
    for axis in (across, along):
        near = np.abs(np.mod(axis, np.float32(pitch)) - pitch / 2) < max(0.8, scale)
        image += near * np.float32(0.08)


def _add_foreign_bodies(rng: Rng, image: Image, scale: float) -> None:
    """Metal and cables that are no instruments: clips, sternal wires, leads, the table's edge."""
    if rng.random() < 0.2:
        _add_clips(rng, image, scale)
    if rng.random() < 0.1:
        _add_sternal_wires(rng, image, scale)
    if rng.random() < 0.12:
        _add_cable(rng, image, scale)
    if rng.random() < 0.15:
        across, _ = _rotated_grid(len(image), rng.uniform(0, np.pi), rng.uniform(0, len(image), 2))
        image += np.float32(rng.uniform(0.1, 0.4)) / (1 + cv2.exp(-across / np.float32(0.8)))


def _add_clips(rng: Rng, image: Image, scale: float) -> None:
    spot, curves = rng.uniform(0.1, 0.9, 2) * len(image), []
    for _ in range(int(rng.integers(1, 8))):
        a = spot + rng.normal(0, 60 * scale, 2)
        curves.append(np.stack([a, a + rng.normal(0, 7 * scale, 2)]))
    _strokes(image, curves, rng.uniform(1.5, 4) * scale, rng.uniform(0.5, 1.5), 0.5)


def _add_sternal_wires(rng: Rng, image: Image, scale: float) -> None:
    x, y = rng.uniform(0.2, 0.8) * len(image), rng.uniform(0, 80) * scale
    angle = np.linspace(0, 2 * np.pi, 40)
    curves = []
    while y < len(image):
        radius = rng.uniform(10, 20, 2) * scale
        loop = np.stack([x + radius[0] * np.cos(angle), y + radius[1] * np.sin(angle)], axis=1)
        twist = np.stack([loop[0], loop[0] + rng.normal(0, 8 * scale, 2)])
        curves += [loop, twist]
        y += rng.uniform(50, 100) * scale
    _strokes(image, curves, rng.uniform(2, 3.5) * scale, rng.uniform(0.4, 1.2), 0.5)


def _add_cable(rng: Rng, image: Image, scale: float) -> None:
    """An ECG lead with its electrode: a pale cable that ends in a ring or snap."""
    size = len(image)
    start, heading = border_entry(rng, size)
    path = wandering_path(rng, start, heading, int(rng.uniform(0.3, 1.6) * size), 200 * scale, 90)
    width = rng.uniform(5, 10) * scale
    strength = rng.uniform(0.05, 0.2)
    _strokes(image, [path], width, strength, 0.8)
    _strokes(image, [path], max(1, width * 0.3), strength, 0.6)
    canvas = np.zeros(image.shape, np.uint8)
    end = tuple(int(v) for v in np.clip(path[-1], -50, size + 50))
    cv2.circle(canvas, end, max(3, int(rng.uniform(8, 18) * scale)), 255, int(rng.choice([-1, 3])))
    image += cv2.GaussianBlur(canvas, (0, 0), 0.8) * np.float32(rng.uniform(0.2, 0.8) / 255)
