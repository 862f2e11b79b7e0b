# SPDX-License-Identifier: Apache-2.0
"""Procedural backgrounds: everything in the beam that is not a catheter or a guidewire.

Each function returns or adds to a map of line integrals of attenuation (dimensionless), float32.
Lengths are pixels of a 512-pixel image; 'scale' stretches them to other sizes.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from fedefm_core.simulation.animal import animal
from fedefm_core.simulation.human import human
from fedefm_core.simulation.spine import add_spine
from fedefm_core.simulation.textures import Image, Rng, octaves, rotated_grid
from fedefm_core.simulation.vessels import random_vessels, vessel_tree


def background(rng: Rng, kind: str, size: int, scale: float) -> Image:
    """(size, size) attenuation of a random scene of one of the four kinds."""
    image = _PAINTERS[kind](rng, size, scale)
    vessels = random_vessels(rng, kind, size, scale)
    return image if vessels is None else np.asarray(image + vessels, np.float32)


def _phantom(rng: Rng, size: int, scale: float) -> Image:
    image = 1.0 + 0.12 * octaves(rng, size, (2, 3, 5), 0.5)
    if rng.random() < 0.5:  # fine texture of 3-D print or gel
        image += 0.02 * octaves(rng, size, (40, 90, 200), 0.8)
    if rng.random() < 0.6:  # silicone or water: weak, either sign against the filling
        image += vessel_tree(rng, size, scale, rng.choice([-1.0, 1.0]) * rng.uniform(0.03, 0.2))
    if rng.random() < 0.6:
        _add_fixtures(rng, image, scale)
    if rng.random() < 0.25:
        _add_grid(rng, image, scale)
    return np.asarray(image, np.float32)


def _simulation(rng: Rng, size: int, scale: float) -> Image:
    image = 1.0 + rng.uniform(0.0, 0.12) * octaves(rng, size, (2, 4), 0.5)
    image = np.asarray(image, np.float32)
    if rng.random() < 0.4:
        add_spine(rng, image, scale, rng.uniform(60, 100) * scale, rng.normal(0, 0.1), 0.5)
    return image


_PAINTERS: dict[str, Callable[[Rng, int, float], Image]] = {
    "human": human,
    "animal": animal,
    "phantom": _phantom,
    "simulation": _simulation,
}


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
    across, along = rotated_grid(size, rng.uniform(0, np.pi), rng.uniform(0, size, 2))
    for axis in (across, along):
        near = np.abs(np.mod(axis, np.float32(pitch)) - pitch / 2) < max(0.8, scale)
        image += near * np.float32(0.08)
