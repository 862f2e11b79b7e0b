# SPDX-License-Identifier: Apache-2.0
"""What simulators draw: vessels of glass, shaded solids, clean bones on a flat ground; no noise.

Maps are line integrals of attenuation (dimensionless), float32, as if the picture were a
radiograph; lengths are pixels of a 512-pixel image, which 'scale' stretches to other sizes.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.simulation.draws import log_uniform
from fedefm_core.simulation.phantom import smooth_field, vascular_model
from fedefm_core.simulation.tubes import SHIFT, Lumen, Tube, fixed, lumen, rounded_path

Image = npt.NDArray[np.float32]
Rng = np.random.Generator


def rendering(rng: Rng, size: int, scale: float) -> Image:
    """(size, size) attenuation of a random scene of a simulator."""
    image = _ground(rng, size)
    if rng.random() < 0.12:
        image += _floor(rng, size, scale)
    if rng.random() < 0.35:
        image += _organs(rng, size)
    if rng.random() < 0.3:
        image += _spine(rng, size, scale)
    if rng.random() < 0.22:
        image += _ribs(rng, size, scale)
    if rng.random() < 0.72:
        image += _vessels(rng, size, scale)
    return np.maximum(image, 0)


def _ground(rng: Rng, size: int) -> Image:
    """Flat, or with a gradient, or a soft light."""
    image = np.full((size, size), rng.uniform(0.4, 2.0), np.float32)
    sort = rng.random()
    if sort < 0.3:
        across = np.linspace(-1, 1, size, dtype=np.float32) * np.float32(rng.normal(0, 0.25))
        image += across[:, None] if rng.random() < 0.7 else across
    elif sort < 0.5:
        image += np.float32(rng.uniform(0.02, 0.2)) * smooth_field(rng, size, 3)
    return image


def _floor(rng: Rng, size: int, scale: float) -> Image:
    """The checks or the lines of an empty world."""
    pitch, angle = rng.uniform(40, 160) * scale, rng.choice([0.0, rng.uniform(0, np.pi)])
    ramp = np.arange(size, dtype=np.float32)
    c, s = np.float32(np.cos(angle) / pitch), np.float32(np.sin(angle) / pitch)
    u, v = c * ramp + s * ramp[:, None], c * ramp[:, None] - s * ramp
    if rng.random() < 0.5:
        pattern = (np.floor(u) + np.floor(v)) % 2
    else:
        line = np.float32(max(1.2 * scale, 1.0) / pitch)
        pattern = ((u % 1 < line) | (v % 1 < line)).astype(np.float32)
    return np.asarray(pattern * np.float32(rng.uniform(0.02, 0.2)), np.float32)


def _organs(rng: Rng, size: int) -> Image:
    """Smooth closed bodies: heart, lungs, liver, the outline of a patient."""
    canvas = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        angles = np.linspace(0, 2 * np.pi, 7, endpoint=False)
        reach = rng.uniform(0.2, 0.6) * rng.uniform(0.7, 1.3, 7) * size
        corners = np.stack([np.cos(angles), np.sin(angles)], axis=1) * reach[:, None]
        corners += rng.uniform(0, 1, 2) * size
        outline = rounded_path(np.concatenate([corners, corners[:1]]), 0.12 * size)
        body = np.zeros((size, size), np.uint8)
        cv2.fillPoly(body, [fixed(outline[::5])], 255, cv2.LINE_AA, SHIFT)
        sigma = rng.uniform(1, 6) if rng.random() < 0.5 else 0.5
        canvas += cv2.GaussianBlur(body, (0, 0), sigma) * np.float32(rng.uniform(-0.3, 0.5) / 255)
    return canvas


def _spine(rng: Rng, size: int, scale: float) -> Image:
    """A column of meshes: bodies with waists, two pedicles, a process."""
    canvas = np.zeros((size, size), np.uint8)
    period, x = rng.uniform(45, 110) * scale, rng.uniform(0.2, 0.8) * size
    half, lean = period * rng.uniform(0.45, 0.7), rng.normal(0, 0.12)
    for y in np.arange(-period, size + period, period):
        spot = np.array([x + lean * (y - size / 2), y])
        body = _VERTEBRA * [half, 0.43 * period] + spot
        cv2.fillPoly(canvas, [fixed(body)], int(rng.integers(120, 150)), cv2.LINE_AA, SHIFT)
        for side in (-0.55, 0.55):
            pedicle = fixed(spot + np.array([side * half, -0.12 * period])).tolist()
            radii = fixed([0.15 * half, 0.18 * period]).tolist()
            cv2.ellipse(canvas, pedicle, radii, 0, 0, 360, 200, -1, cv2.LINE_AA, SHIFT)
        process = np.array([[-0.07, 0], [0.07, 0], [0.12, 0.5], [-0.12, 0.5]]) * period + spot
        cv2.fillPoly(canvas, [fixed(process)], 190, cv2.LINE_AA, SHIFT)
    soft = cv2.GaussianBlur(canvas, (0, 0), float(rng.uniform(0.6, 5) * scale + 0.2))
    return np.asarray(soft * np.float32(rng.uniform(0.1, 0.7) / 255), np.float32)


_VERTEBRA = np.array(
    [[-1, -1], [0, -0.93], [1, -1], [0.86, 0], [1, 1], [0, 0.93], [-1, 1], [-0.86, 0]], np.float64
)


def _ribs(rng: Rng, size: int, scale: float) -> Image:
    """Smooth arcs to both sides, as tubes with or without marrow."""
    radius, spacing = rng.uniform(6, 15) * scale, rng.uniform(45, 100) * scale
    middle, slope = rng.uniform(0.3, 0.7) * size, rng.uniform(0.1, 0.7)
    ribs = []
    for y in np.arange(-0.3 * size, size, spacing):
        for side in (-1, 1):
            reach = np.array([0.06, 0.25, 0.5, 0.9]) * size
            drop = y + slope * reach + 0.35 * reach**2 / size
            path = rounded_path(np.stack([middle + side * reach, drop], axis=1), 0.06 * size)
            ribs.append(Tube(path, np.full(len(path), radius)))
    space = lumen(ribs, size)
    bone = space.chord() - np.float32(rng.uniform(0.0, 0.9)) * space.chord(0.3 * radius)
    return np.asarray(bone * np.float32(rng.uniform(0.1, 0.5) / (2 * radius)), np.float32)


def _vessels(rng: Rng, size: int, scale: float) -> Image:
    tubes = vascular_model(rng, size, scale)
    space = lumen(tubes, size)
    radius = float(np.median([tube.radii.mean() for tube in tubes]))
    sort = rng.random()
    strength = log_uniform(rng, 0.05, 0.8)
    if sort < 0.35:
        image = _glass(rng, space, radius)
    elif sort < 0.6:
        image = _shaded(rng, space, radius)
    elif sort < 0.8:
        image = np.clip(space.depth, 0, 1) * np.float32(rng.choice([-0.6, 1.0]))
    else:
        image = space.chord() / np.float32(2 * radius)
    if rng.random() < 0.12:
        image = image + 0.5 * _wireframe(rng, tubes, size)
    return np.asarray(image * np.float32(strength), np.float32)


def _glass(rng: Rng, space: Lumen, radius: float) -> Image:
    """Translucent walls: the flatter one looks along them, the darker they are."""
    share = np.clip(space.depth / np.float32(0.8 * radius), 0, 1)
    rim = (1 - share) ** np.float32(rng.uniform(1.5, 6)) * np.clip(space.depth, 0, 1)
    inside = np.clip(space.depth, 0, 1)
    return np.asarray(rim + np.float32(rng.uniform(-0.3, 0.5)) * inside, np.float32)


def _shaded(rng: Rng, space: Lumen, radius: float) -> Image:
    """Opaque tubes in the light of a lamp."""
    angle = rng.uniform(0, 2 * np.pi)
    height = space.chord() / np.float32(2)
    dx = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / 8)
    dy = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / 8)
    lamp = dx * np.float32(np.cos(angle)) + dy * np.float32(np.sin(angle))
    light = lamp / cv2.sqrt(1 + dx * dx + dy * dy)
    inside = np.clip(space.depth, 0, 1)
    level = np.float32(rng.uniform(-0.5, 1.0))
    return np.asarray(inside * (level + np.float32(rng.uniform(0.3, 0.9)) * light), np.float32)


def _wireframe(rng: Rng, tubes: list[Tube], size: int) -> Image:
    """Rings and lines of the mesh."""
    canvas = np.zeros((size, size), np.uint8)
    for tube in tubes:
        along = np.gradient(tube.path, axis=0)
        along /= np.maximum(np.hypot(*along.T), 1e-9)[:, None]
        across = np.stack([-along[:, 1], along[:, 0]], axis=1) * tube.radii[:, None]
        sides = [tube.path + share * across for share in np.sin(np.linspace(-1.5, 1.5, 7))]
        cv2.polylines(canvas, [fixed(s[::4]) for s in sides], False, 255, 1, cv2.LINE_AA, SHIFT)
        pitch = max(int(0.5 * tube.radii[0]), 4)
        rings = [fixed(np.stack([a, b])) for a, b in zip(sides[0], sides[-1], strict=True)]
        cv2.polylines(canvas, rings[::pitch], False, 255, 1, cv2.LINE_AA, SHIFT)
    return np.asarray(canvas / np.float32(255), np.float32)
