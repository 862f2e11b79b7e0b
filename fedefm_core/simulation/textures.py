# SPDX-License-Identifier: Apache-2.0
"""Random fields: clouds of soft tissue, grain of bone, coordinates along and across a line."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
Rng = np.random.Generator


def octaves(rng: Rng, size: int, cells: tuple[int, ...], persistence: float = 0.55) -> Image:
    """(size, size) smooth noise: cubic upsamplings of random grids, finer ones weaker."""
    total: npt.NDArray[Any] = np.zeros((2, 2), np.float32)
    for level, count in enumerate(cells):
        side = min(4 * count, size)  # each octave at the resolution that it needs
        total = cv2.resize(total, (side, side), interpolation=cv2.INTER_CUBIC)
        grid = rng.standard_normal((count, count), dtype=np.float32)
        octave = cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
        total = cv2.scaleAdd(octave, persistence**level, total)
    return np.asarray(cv2.resize(total, (size, size)), np.float32)


def grain(rng: Rng, shape: tuple[int, ...], cell: tuple[float, float]) -> Image:
    """(H, W) noise of about unit deviation whose grains measure cell = (x, y) pixels."""
    columns, rows = (max(2, round(n / c)) for n, c in zip(shape[1::-1], cell, strict=True))
    grid = 1.3 * rng.standard_normal((rows, columns), dtype=np.float32)
    return _enlarged(grid, shape)


def _enlarged(grid: Image, shape: tuple[int, ...]) -> Image:
    """Cubic up to four samples a cell, the rest linear: several times faster, and as smooth."""
    width, height = min(shape[1], 4 * grid.shape[1]), min(shape[0], 4 * grid.shape[0])
    smooth = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    full = cv2.resize(smooth, shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(full, np.float32)


def trabeculae(rng: Rng, shape: tuple[int, ...], unit: float) -> Image:
    """(H, W) factor around 1: the lattice inside bone, finest along one direction."""
    stretch = float(rng.uniform(1.0, 3.0))
    fine = max(1.6, float(rng.uniform(1.5, 3.5)) * unit)
    cells = [(fine, fine * stretch), (fine * 2.5, fine * 2)]
    if rng.random() < 0.5:
        cells = [(y, x) for x, y in cells]
    lattice = grain(rng, shape, cells[0]) + grain(rng, shape, cells[1])
    return np.asarray(1 + np.float32(rng.uniform(0.02, 0.16)) * lattice, np.float32)


def patches(rng: Rng, shape: tuple[int, ...], cell: float) -> Image:
    """(H, W) factor of 0.15 to 1 that comes and goes over cells of that many pixels.

    Edges of bones are seen where rays touch them; elsewhere they fade.
    """
    coarse = tuple(max(2, n // 4) for n in shape)
    field = np.clip(0.65 + 0.35 * grain(rng, coarse, (cell / 4, cell / 4)), 0.15, 1)
    return np.asarray(cv2.resize(field, shape[1::-1]), np.float32)


def warped(rng: Rng, image: Image, amount: float, cell: float) -> Image:
    """The image, bent smoothly by about that many pixels, so that nothing is quite regular."""
    size = len(image)
    positions = np.arange(size, dtype=np.float32)
    maps = []
    for straight in (positions[None], positions[:, None]):
        shift = grain(rng, (48, 48), (cell * 48 / size,) * 2) * np.float32(amount)
        maps.append(cv2.resize(shift, (size, size)) + straight)
    moved = cv2.remap(image, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(moved, np.float32)


def rotated_grid(size: int, angle: float, center: npt.ArrayLike) -> tuple[Image, Image]:
    """(across, along): two (size, size) maps of coordinates about center, turned by angle."""
    x, y = (np.arange(size, dtype=np.float32) - np.float32(c) for c in np.asarray(center))
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return c * x[None] + s * y[:, None], c * y[:, None] - s * x[None]
