# SPDX-License-Identifier: Apache-2.0
"""Vascular phantoms on the bench: silicone vessels in air or water, and what holds them.

Maps are line integrals of attenuation (dimensionless), float32; lengths are pixels of a 512-pixel
image, which 'scale' stretches to other sizes. Nothing here is an instrument: walls come in pairs
that are wider than catheters.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.simulation.curves import Curve, smooth_noise
from fedefm_core.simulation.draws import log_uniform
from fedefm_core.simulation.fixtures import add_canvas, add_fixtures, connector
from fedefm_core.simulation.tubes import SHIFT, Lumen, Tube, fixed, lumen, rounded_path
from fedefm_core.simulation.vessels import BEDS, Bed, grow

Image = npt.NDArray[np.float32]
Rng = np.random.Generator
Sketch = list[tuple[Curve, float, float]]  # corners in a unit square, first and last radius

_THINNEST = 7.0  # pixels: radius of the narrowest vessel, twice that of a catheter


def phantom(rng: Rng, size: int, scale: float, foreign_bodies: bool = True) -> Image:
    """(size, size) attenuation of a random phantom on its bench, with or without fixtures."""
    image = bench(rng, size, scale)
    behind = rng.random() < 0.5
    density = float(rng.choice([0.0, 0.5, 1.0, 1.6], p=[0.12, 0.33, 0.37, 0.18]))
    if behind:
        add_fixtures(rng, image if foreign_bodies else image.copy(), scale, density)
    if rng.random() < 0.9:
        _add_vessels(rng, image, scale)
    if not behind:
        add_fixtures(rng, image if foreign_bodies else image.copy(), scale, density)
    return np.maximum(image, 0)


def bench(rng: Rng, size: int, scale: float) -> Image:
    """(size, size) what lies under all: table, water, gel; flat, shaded, or with a texture."""
    image = np.full((size, size), rng.uniform(0.4, 2.6), np.float32)
    image += np.float32(np.exp(rng.uniform(-4.5, -1.3))) * smooth_field(rng, size, 3)
    if rng.random() < 0.35:
        cells = int(rng.integers(5, 12))
        image += np.float32(np.exp(rng.uniform(-5, -2.7))) * smooth_field(rng, size, cells)
    if rng.random() < 0.3:  # foam, gel, towels
        cells = round(np.exp(rng.uniform(3.0, 5.3)))
        image += np.float32(rng.uniform(0.005, 0.04)) * smooth_field(rng, size, cells)
    if rng.random() < 0.3:
        image += np.float32(rng.uniform(0.1, 0.6)) * _block(rng, size)
    return image


def smooth_field(rng: Rng, size: int, cells: int) -> Image:
    """(size, size) smooth noise of deviation near 1, from a random grid of cells by cells."""
    grid = rng.standard_normal((cells, cells), dtype=np.float32)
    # Cubic where it matters, linear where it is fine enough: a fraction of the time.
    middle = min(max(128, 4 * cells), size)
    smooth = cv2.resize(grid, (middle, middle), interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.resize(smooth, (size, size)), np.float32)


def _block(rng: Rng, size: int) -> Image:
    """A slab of silicone or gel with rounded outline, 0..1: one sharp edge, closed."""
    angles = np.linspace(0, 2 * np.pi, int(rng.integers(4, 9)), endpoint=False)
    reach = rng.uniform(0.3, 0.8, len(angles)) * size
    corners = rng.uniform(0.2, 0.8, 2) * size + reach[:, None] * np.stack(
        [np.cos(angles), np.sin(angles)], axis=1
    )
    outline = rounded_path(np.concatenate([corners, corners[:1]]), rng.uniform(5, 60))
    canvas = np.zeros((size, size), np.uint8)
    cv2.fillPoly(canvas, [fixed(outline[::4])], 255, cv2.LINE_AA, SHIFT)
    soft = cv2.GaussianBlur(canvas, (0, 0), float(np.exp(rng.uniform(-0.3, 1.8))))
    return np.asarray(soft / np.float32(255), np.float32)


def _add_vessels(rng: Rng, image: Image, scale: float) -> None:
    size = len(image)
    tubes = vascular_model(rng, size, scale)
    image += _walled(rng, lumen(tubes, size), tubes)
    if rng.random() < 0.5:
        _add_fittings(rng, image, tubes)
    if rng.random() < 0.15:  # tubing that leads to the model, or a second model behind it
        more = _place(rng, _tubing(rng), size, scale)
        image += _walled(rng, lumen(more, size), more)


def vascular_model(rng: Rng, size: int, scale: float) -> list[Tube]:
    """Tubes of a random model: an arch, the iliac arteries, the brain's, a test track, a tree."""
    return _place(rng, _MODELS[int(rng.integers(len(_MODELS)))](rng), size, scale)


def _walled(rng: Rng, space: Lumen, tubes: list[Tube]) -> Image:
    """Attenuation of tubes with walls: darkest along both sides, lighter or darker within."""
    radius = float(np.median([tube.radii.mean() for tube in tubes]))
    wall = float(np.clip(rng.uniform(0.06, 0.28) * radius, 1.5, 12))
    outer, inner = space.chord(), space.chord(wall)
    density = log_uniform(rng, 0.04, 0.6)
    if rng.random() < 0.15:  # cast in a block: a lumen without a wall of its own
        density = 0.0
    peak = 2 * np.sqrt(radius**2 - (radius - wall) ** 2)
    outer -= inner
    outer *= np.float32(density / peak)
    inner *= np.float32(_filling(rng, density) / (2 * radius))
    outer += inner
    return outer


def _filling(rng: Rng, density: float) -> float:
    """What is within, against what is without: air, water, blood substitute, contrast medium."""
    sort = rng.random()
    if sort < 0.45:
        return float(rng.normal(0, 0.06))
    if sort < 0.65:
        return float(-rng.uniform(0.05, 0.4))
    if sort < 0.88 or density == 0.0:
        return float(rng.uniform(0.08, 0.4))
    return float(rng.uniform(0.3, 1.2))


def _add_fittings(rng: Rng, image: Image, tubes: list[Tube]) -> None:
    canvas = np.zeros(image.shape, np.uint8)
    for tube in tubes:
        if rng.random() < 0.6:
            along = tube.path[-1] - tube.path[-min(9, len(tube.path))]
            angle = float(np.arctan2(along[1], along[0]))
            connector(rng, canvas, tube.path[-1], angle, 2.1 * float(tube.radii[-1]))
    add_canvas(rng, image, canvas, float(rng.uniform(0.1, 0.9)))


def _place(rng: Rng, sketch: Sketch, size: int, scale: float) -> list[Tube]:
    """Turn, mirror, enlarge and shift a sketch; corners are rounded as silicone is."""
    zoom, angle = np.exp(rng.uniform(np.log(0.7), np.log(1.9))), rng.normal(0, 0.5)
    if rng.random() < 0.3:
        angle += rng.choice([np.pi / 2, np.pi, -np.pi / 2])
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * zoom
    matrix[0] *= rng.choice([-1.0, 1.0])
    shift = rng.uniform(0.3, 0.7, 2) * size
    thickness = float(np.exp(rng.normal(0, 0.3)))
    rounding = rng.uniform(0.025, 0.07) * zoom * size
    winding = rng.uniform(0, 1.6) if rng.random() < 0.75 else 0.0  # glass and hoses are straight
    tubes = []
    for corners, first, last in sketch:
        points = (np.asarray(corners) - 0.5) @ matrix * size + shift
        path = _wound(rng, rounded_path(points, rounding), winding * zoom * first * size)
        radii = np.linspace(first, last, len(path)) * zoom * thickness * 512
        tubes.append(Tube(path, np.maximum(radii, _THINNEST) * scale))
    return tubes


def _wound(rng: Rng, path: Curve, amplitude: float) -> Curve:
    """The path with swings of about amplitude pixels to the side; its first point stays."""
    correlation = max(7 * amplitude, 25.0)
    swings = np.stack([smooth_noise(rng, len(path), correlation) for _ in range(2)], axis=1)
    begin = np.minimum(np.arange(len(path)) / correlation, 1.0)[:, None]
    return np.asarray(path + amplitude * begin * (swings - swings[0]), np.float64)


def _jitter(rng: Rng, corners: npt.ArrayLike, amount: float = 0.02) -> Curve:
    points = np.asarray(corners, np.float64)
    return points + rng.normal(0, amount, points.shape)


def _arch(rng: Rng) -> Sketch:
    """Aorta with its arch and three branches that leave it high (type I) to low (type III)."""
    wide = rng.uniform(0.04, 0.075)
    span, top, drop = rng.uniform(0.1, 0.24), rng.uniform(0.3, 0.45), rng.uniform(0.0, 0.22)
    turn = np.linspace(np.pi, 0, 9)
    arc = np.stack([0.5 + span * np.cos(turn), top - span * np.sin(turn)], axis=1)
    root = [[0.5 - span + rng.normal(0, 0.05), rng.choice([0.75, 1.0, 1.6])]]
    aorta = np.concatenate([root, arc, [[0.5 + span + rng.normal(0, 0.08), 1.6]]])
    sketch: Sketch = [(_jitter(rng, aorta, 0.008), wide, 0.75 * wide)]
    for index, share in enumerate((-0.75, -0.15, 0.5)):
        x = 0.5 + share * span
        y = top - span * np.sqrt(1 - share**2) + drop * (0.5 - share) / 1.3
        lean = (index - 1) * 0.12 + rng.normal(0, 0.04)
        end = [x + lean, y - rng.uniform(0.35, 1.0)]
        middle = [x + 0.3 * lean + rng.normal(0, 0.03), (y + end[1]) / 2]
        radius = wide * rng.uniform(0.3, 0.5)
        sketch.append((np.array([[x, y], middle, end]), radius, 0.8 * radius))
        if index == 0:
            fork = np.array([middle, [middle[0] - 0.1, middle[1] - 0.08], [x - 0.4, y - 0.2]])
            sketch.append((_jitter(rng, fork), 0.75 * radius, 0.6 * radius))
    return sketch


def _iliac(rng: Rng) -> Sketch:
    """Abdominal aorta, maybe an aneurysm, renal arteries, the iliac bifurcation and beyond."""
    wide, fork = rng.uniform(0.035, 0.07), rng.uniform(0.4, 0.6)
    x = 0.5 + rng.normal(0, 0.03)
    trunk = [[x, -0.5], [0.5 + rng.normal(0, 0.04), 0.2], [x, fork]]
    sketch: Sketch = [(np.array(trunk), wide, 0.85 * wide)]
    if rng.random() < 0.4:
        sac = np.array([[x - 0.01, fork - 0.22], [x + 0.01, fork - 0.12]])
        bulge = wide * rng.uniform(1.4, 2.4)
        sketch.append((sac, bulge, bulge))
    for side in (-1, 1):
        knee = [x + side * rng.uniform(0.08, 0.16), fork + rng.uniform(0.15, 0.25)]
        leg = [[x, fork - 0.02], knee, [x + side * rng.uniform(0.15, 0.3), 1.5]]
        sketch.append((_jitter(rng, leg), 0.6 * wide, 0.5 * wide))
        if rng.random() < 0.6:
            inner = [knee, [x + side * 0.1, fork + 0.4], [x + side * 0.03, fork + 0.6]]
            sketch.append((_jitter(rng, inner), 0.4 * wide, 0.3 * wide))
        if rng.random() < 0.6:
            y = rng.uniform(-0.05, 0.2)
            renal = [[x, y], [x + side * 0.2, y + 0.06], [x + side * 0.45, y + 0.02]]
            sketch.append((_jitter(rng, renal), 0.35 * wide, 0.28 * wide))
    return sketch


def _cerebral(rng: Rng) -> Sketch:
    """Carotids with siphons, the circle of Willis and the arteries that leave it."""
    radius = rng.uniform(0.016, 0.028)
    sketch: Sketch = []
    for side in (-1, 1):
        x = 0.5 + side * rng.uniform(0.12, 0.2)
        siphon = [[x, 1.5], [x, 0.85], [x - 0.08 * side, 0.75], [x + 0.07 * side, 0.66]]
        siphon += [[x - 0.03 * side, 0.56], [x, 0.5]]
        sketch.append((_jitter(rng, siphon), 1.3 * radius, radius))
        middle = [
            [x, 0.5],
            [x + 0.15 * side, 0.45],
            [x + 0.25 * side, 0.3],
            [x + 0.3 * side, -0.2],
        ]
        sketch.append((_jitter(rng, middle, 0.035), radius, 0.6 * radius))
        anterior = [[x, 0.5], [0.5 + 0.03 * side, 0.42], [0.5 + 0.03 * side, -0.3]]
        sketch.append((_jitter(rng, anterior, 0.03), 0.8 * radius, 0.6 * radius))
        back = [[x, 0.52], [0.5 + 0.06 * side, 0.62], [0.5, 0.7]]
        sketch.append((_jitter(rng, back, 0.015), 0.6 * radius, 0.7 * radius))
    if rng.random() < 0.5:
        sketch.append((_jitter(rng, [[0.5, 0.7], [0.5, 1.0], [0.52, 1.5]]), radius, radius))
    if rng.random() < 0.4:
        spot = sketch[1][0][1]
        bulge = radius * rng.uniform(1.5, 3.5)
        sketch.append((np.array([spot, spot + 0.01]), bulge, bulge))
    return sketch


def _tubing(rng: Rng) -> Sketch:
    """A test track: straight runs, hairpins, loops, a few side ports."""
    radius = rng.uniform(0.016, 0.05)
    rows = int(rng.integers(1, 4))
    corners, x = [], rng.uniform(0.1, 0.4)
    for row in range(rows + 1):
        ends = (-0.4, 0.8) if row % 2 == 0 else (0.8, -0.1)
        corners += [[x + rng.normal(0, 0.02), y] for y in ends]
        x += rng.uniform(2.8, 7) * radius
    sketch: Sketch = [(_jitter(rng, corners), radius, radius * rng.uniform(0.7, 1.0))]
    for begin, end in pairwise(corners[: int(rng.integers(1, 4))]):
        root = np.array(begin) + rng.uniform(0.3, 0.7) * (np.array(end) - begin)
        port = [root, root + rng.uniform(-0.5, 0.5, 2)]
        sketch.append((np.array(port), 0.7 * radius, 0.7 * radius))
    return sketch


def _tree(rng: Rng) -> Sketch:
    """Coronary arteries or any other tree in silicone."""
    template = BEDS[str(rng.choice(["coronary", "peripheral", "aortic"]))]
    bed = Bed(
        width=(22, 60),
        reach=(7, 18),
        generations=(1, 2),
        spacing=(1.5, 5),
        angle=template.angle,
        share=(0.4, 0.8),
        swing=template.swing,
        winding=template.winding,
        taper=(0.55, 0.95),
        trunks=(1, 2),
    )
    vessels = [v for v in grow(rng, bed, 512, 1.0) if v.widths[0] > 2 * _THINNEST][:9]
    return [(v.path[::12] / 512, v.widths[0] / 1024, v.widths[-1] / 1024) for v in vessels]


_MODELS: tuple[Callable[[Rng], Sketch], ...] = (_arch, _arch, _iliac, _cerebral, _tubing, _tree)
