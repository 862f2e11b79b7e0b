# SPDX-License-Identifier: Apache-2.0
"""Vessels filled with contrast medium: what an instrument must not be mistaken for.

Vessels taper, branch, wind, narrow and fade; instruments keep their width. Maps are line
integrals of attenuation (dimensionless), float32; lengths are pixels of a 512-pixel image, which
'scale' stretches to other sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.simulation.curves import Curve, smooth_noise
from fedefm_core.simulation.draws import log_uniform
from fedefm_core.simulation.tubes import SHIFT, Tube, fixed, lumen

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]
Rng = np.random.Generator


@dataclass(frozen=True)
class Bed:
    """How the vessels of a part of the body look; ranges are (low, high).

    width: of the trunk. reach: length of the trunk over its width. generations: of branches.
    spacing: between branches, over the width of the parent. angle: of a branch, radians.
    share: width of a branch over that of its parent. swing: of its direction, radians.
    winding: length of a swing over the width. taper: end over beginning of one vessel.
    trunks: how many of them start together.
    """

    width: tuple[float, float]
    reach: tuple[float, float]
    generations: tuple[int, int]
    spacing: tuple[float, float]
    angle: tuple[float, float]
    share: tuple[float, float]
    swing: tuple[float, float]
    winding: tuple[float, float]
    taper: tuple[float, float]
    trunks: tuple[int, int]


BEDS = {
    "coronary": Bed(
        width=(9, 20),
        reach=(28, 55),
        generations=(2, 3),
        spacing=(2, 8),
        angle=(0.35, 1.2),
        share=(0.25, 0.75),
        swing=(0.25, 0.6),
        winding=(3, 8),
        taper=(0.3, 0.6),
        trunks=(1, 3),
    ),
    "cerebral": Bed(
        width=(7, 20),
        reach=(25, 55),
        generations=(2, 4),
        spacing=(1.5, 5),
        angle=(0.4, 1.4),
        share=(0.3, 0.8),
        swing=(0.4, 0.9),
        winding=(1.5, 4),
        taper=(0.35, 0.7),
        trunks=(1, 2),
    ),
    "aortic": Bed(
        width=(26, 90),
        reach=(6, 14),
        generations=(1, 2),
        spacing=(0.6, 2.5),
        angle=(0.5, 1.5),
        share=(0.12, 0.45),
        swing=(0.1, 0.35),
        winding=(3, 8),
        taper=(0.6, 0.95),
        trunks=(1, 1),
    ),
    "peripheral": Bed(
        width=(7, 26),
        reach=(20, 60),
        generations=(1, 3),
        spacing=(2, 10),
        angle=(0.25, 0.8),
        share=(0.2, 0.85),
        swing=(0.06, 0.3),
        winding=(5, 14),
        taper=(0.5, 0.9),
        trunks=(1, 2),
    ),
    "visceral": Bed(
        width=(6, 20),
        reach=(22, 45),
        generations=(3, 4),
        spacing=(1.5, 4),
        angle=(0.4, 1.0),
        share=(0.35, 0.8),
        swing=(0.25, 0.6),
        winding=(2, 6),
        taper=(0.35, 0.6),
        trunks=(1, 2),
    ),
    "single": Bed(  # as wide as a catheter and hardly branching: the hardest to tell from one
        width=(4, 12),
        reach=(40, 90),
        generations=(0, 1),
        spacing=(6, 20),
        angle=(0.4, 1.2),
        share=(0.25, 0.6),
        swing=(0.15, 0.6),
        winding=(4, 10),
        taper=(0.25, 0.7),
        trunks=(1, 2),
    ),
}
_BED_CHANCE = {
    "human": (0.42, 0.16, 0.1, 0.12, 0.1, 0.1),
    "animal": (0.25, 0.05, 0.2, 0.25, 0.15, 0.1),
    "simulation": (0.2, 0.1, 0.4, 0.15, 0.05, 0.1),
}
_CHANCE = {"human": 0.45, "animal": 0.35, "simulation": 0.4}
_NEGATIVE = {"human": 0.06, "animal": 0.06, "simulation": 0.1}  # CO2, or a roadmap's mask
_MOST_VESSELS = 45
_RIPPLES, _FINE = 4096, 16.0  # samples of noise that all vessels of a tree share; correlation


@dataclass(frozen=True)
class Vessel:
    """path: (N, 2), a pixel a step. widths: (N,) pixels. travelled: (N,) pixels from the root."""

    path: Curve
    widths: Array
    travelled: Array


def random_vessels(rng: Rng, kind: str, size: int, scale: float) -> Image | None:
    """Vessels as often and as strong as they are in that kind of image; None without any.

    Phantoms bring their own: there it is always None.
    """
    if kind not in _CHANCE or rng.random() >= _CHANCE[kind]:
        return None
    strength = log_uniform(rng, 0.1, 1.3)
    if rng.random() < _NEGATIVE[kind]:
        strength *= -0.5
    bed = str(rng.choice(list(BEDS), p=_BED_CHANCE[kind]))
    filling = float(rng.uniform(0.2, 1.0)) if rng.random() < 0.35 else 1.0
    image = vessel_tree(rng, size, scale, strength, filling, bed)
    if rng.random() < 0.25:  # a second artery, or veins that fill later
        second = str(rng.choice(list(BEDS), p=_BED_CHANCE[kind]))
        image += vessel_tree(rng, size, scale, strength * rng.uniform(0.2, 0.9), 1.0, second)
    return image


def vessel_tree(
    rng: Rng,
    size: int,
    scale: float,
    strength: float,
    filling: float = 1.0,
    bed: str | None = None,
) -> Image:
    """(size, size) attenuation of a tree of vessels.

    strength: of the trunk's middle, dimensionless, of either sign. filling: the part of the tree
    that contrast medium has reached, 0..1. bed: a key of BEDS; None draws one.
    """
    chosen = BEDS[bed if bed is not None else str(rng.choice(list(BEDS)))]
    vessels = grow(rng, chosen, size, scale)
    widest = max(float(vessel.widths[0]) for vessel in vessels)
    emphasis = rng.uniform(0.55, 0.95)  # scatter and film make thin vessels show more than thin
    shade = _Shade(rng, vessels, filling)
    large = [vessel for vessel in vessels if vessel.widths[0] > 16]
    small = [vessel for vessel in vessels if vessel.widths[0] <= 16]
    image = np.zeros((size, size), np.float32)
    if large:
        image += _wide(large, size, shade) / np.float32(widest)
    middle = len(small) // 2 if rng.random() < 0.7 else len(small)
    order = rng.permutation(len(small))
    for layer in (order[:middle], order[middle:]):  # near and far: where they cross, they add up
        if len(layer):
            image += _narrow([small[i] for i in layer], size, shade, widest, emphasis)
    if rng.random() < 0.3:
        image += _blush(rng, image, size)
    return np.asarray(image * np.float32(strength), np.float32)


def grow(rng: Rng, bed: Bed, size: int, scale: float) -> list[Vessel]:
    """The vessels of one tree, trunks first, in a (size, size) image and around it."""
    width = float(np.exp(rng.uniform(*np.log(bed.width)))) * scale
    root, heading = _root(rng, size)
    ripples = smooth_noise(rng, _RIPPLES, _FINE)
    vessels: list[Vessel] = []
    stack = []
    generations = int(rng.integers(bed.generations[0], bed.generations[1] + 1))
    for _ in range(int(rng.integers(bed.trunks[0], bed.trunks[1] + 1))):
        stack.append((root, heading + rng.normal(0, 0.45), width, 0.0, generations))
        width *= rng.uniform(0.7, 1.0)
    while stack and len(vessels) < _MOST_VESSELS:
        start, heading, width, travelled, left = stack.pop(0)
        vessel = _vessel(rng, bed, ripples, start, heading, width, travelled, size, scale)
        vessels.append(vessel)
        if left > 0:
            stack.extend(_branches(rng, bed, vessel, left, size, scale))
    return vessels


def _root(rng: Rng, size: int) -> tuple[npt.NDArray[np.float64], float]:
    """Where contrast medium comes from: outside of the image or, as from a catheter, in it."""
    if rng.random() < 0.45:
        spot = rng.uniform(0.08, 0.92, 2) * size
        dx, dy = rng.uniform(0.25, 0.75, 2) * size - spot
        return spot, float(np.arctan2(dy, dx) + rng.normal(0, 0.5))
    angle = rng.uniform(0, 2 * np.pi)
    spot = size / 2 + 0.72 * size * np.array([np.cos(angle), np.sin(angle)])
    return np.clip(spot, -10, size + 10), float(angle + np.pi + rng.normal(0, 0.35))


def _vessel(
    rng: Rng,
    bed: Bed,
    ripples: Array,
    start: Curve,
    heading: float,
    width: float,
    travelled: float,
    size: int,
    scale: float,
) -> Vessel:
    length = int(np.clip(rng.uniform(*bed.reach) * width, max(24 * scale, 8), 1.3 * size))
    swing, winding = rng.uniform(*bed.swing), rng.uniform(*bed.winding) * width
    along = np.linspace(0, 1, length)
    # A sweep over the organ, swings that grow towards the periphery, and fine ripple.
    theta = swing * _noise(rng, ripples, length, winding) * (0.6 + 0.8 * along)
    theta += rng.uniform(0, 0.5) * swing * _noise(rng, ripples, length, winding / 3)
    theta += heading - theta[0] + rng.normal(0, 0.8) * along
    steps = np.stack([np.cos(theta), np.sin(theta)], axis=1)
    path = start + np.cumsum(steps, axis=0) - steps[0]
    widths = width * (1 - (1 - rng.uniform(*bed.taper)) * along ** rng.uniform(0.7, 1.8))
    widths *= 1 + rng.uniform(0, 0.1) * _noise(rng, ripples, length, 1.5 * width)
    for _ in range(int(rng.poisson(0.35))):
        widths *= _lesion(rng, along, width / length)
    return Vessel(path, np.maximum(widths, 0.6), travelled + np.arange(length, dtype=np.float64))


def _noise(rng: Rng, ripples: Array, length: int, correlation: float) -> Array:
    """(length,) a random piece of ripples, stretched to the correlation length in pixels."""
    places = rng.uniform(0, 2000) + np.arange(length) * (_FINE / max(correlation, 4.0))
    return np.asarray(ripples[places.astype(int) % _RIPPLES], np.float64)


def _lesion(rng: Rng, along: Array, relative_width: float) -> Array:
    """Factors on the width: a stenosis, an aneurysm, or a string of beads."""
    at, extent = rng.uniform(0.05, 0.95), relative_width * rng.uniform(0.5, 2.5)
    near = np.exp(-(((along - at) / extent) ** 2))
    sort = rng.random()
    if sort < 0.6:
        return 1 - rng.uniform(0.2, 0.85) * near
    if sort < 0.8:
        return 1 + rng.uniform(0.2, 0.9) * near
    wide = np.exp(-(((along - at) / (6 * extent)) ** 2))
    return 1 + 0.3 * wide * np.sin(2 * np.pi * along / (2.2 * relative_width))


def _branches(
    rng: Rng, bed: Bed, vessel: Vessel, left: int, size: int, scale: float
) -> Iterator[tuple[Curve, float, float, float, int]]:
    side, middle = rng.choice([-1.0, 1.0]), size / 2
    at = rng.uniform(0.3, 1.0) * rng.uniform(*bed.spacing) * vessel.widths[0]
    while at < len(vessel.path) - 2:
        index = int(at)
        parent = float(vessel.widths[index])
        share = float(rng.uniform(*bed.share))
        near = abs(vessel.path[index] - middle).max() < 1.15 * middle
        if near and parent * share > 0.9 * scale:
            dx, dy = vessel.path[index + 1] - vessel.path[index]
            # Murray: what a branch takes, its parent's cube of the width loses.
            vessel.widths[index:] *= (1 - 0.6 * share**3) ** (1 / 3)
            angle = side * rng.uniform(*bed.angle)
            travelled = float(vessel.travelled[index])
            heading = float(np.arctan2(dy, dx) + angle)
            yield vessel.path[index], heading, parent * share, travelled, left - 1
        side = -side if rng.random() < 0.75 else side
        at += rng.uniform(*bed.spacing) * max(parent, 6 * scale)
    if rng.random() < 0.6:  # the end parts in two
        end, width = vessel.path[-1], float(vessel.widths[-1])
        dx, dy = vessel.path[-1] - vessel.path[-4]
        fork = rng.uniform(0.2, 0.7)
        for turn, share in ((fork, 0.85), (-fork * rng.uniform(0.5, 1), 0.7)):
            if width * share > 0.9 * scale:
                heading = float(np.arctan2(dy, dx) + turn)
                yield end, heading, width * share, float(vessel.travelled[-1]), left - 1


class _Shade:
    """How full of contrast medium a vessel is, from 0 to 1, by the way from the root."""

    def __init__(self, rng: Rng, vessels: list[Vessel], filling: float) -> None:
        longest = max(float(vessel.travelled[-1]) for vessel in vessels)
        self._front = filling * longest
        self._softness = longest * rng.uniform(0.03, 0.25)
        self._tail = -np.inf if rng.random() < 0.85 else rng.uniform(0.05, 0.5) * longest
        self._fade = rng.uniform(0.0, 0.75)  # distal dilution
        self._longest = longest
        self._full = filling >= 1.0
        self._phase, self._period = rng.uniform(0, 6.3), rng.uniform(40, 200)
        self._mixing = rng.uniform(0, 0.35) if rng.random() < 0.5 else 0.0

    def __call__(self, travelled: Array) -> Array:
        part = 1 - self._fade * travelled / self._longest
        if not self._full:
            part = part / (1 + np.exp(np.clip((travelled - self._front) / self._softness, -9, 9)))
        if np.isfinite(self._tail):  # washed out from the root on
            part = part / (1 + np.exp(np.clip((self._tail - travelled) / self._softness, -9, 9)))
        streaks = 1 + self._mixing * np.sin(2 * np.pi * travelled / self._period + self._phase)
        return np.asarray(part * streaks, np.float64)


def _wide(vessels: list[Vessel], size: int, shade: _Shade) -> Image:
    """(size, size) chords in pixels of vessels that are wider than a few pixels, as filled."""
    space = lumen([Tube(v.path, np.maximum(v.widths / 2, 1.5)) for v in vessels], size)
    quarter = -(-size // 4)
    fill = np.zeros((quarter, quarter), np.uint8)
    for vessel in vessels:
        levels = shade(vessel.travelled)
        for at in range(0, len(vessel.path), max(int(vessel.widths[0] / 4), 4)):
            spot = fixed(vessel.path[at] / 4).tolist()
            reach = round((vessel.widths[at] / 8 + 2) * (1 << SHIFT))
            cv2.circle(fill, spot, reach, min(160 * levels[at], 255), -1, 8, SHIFT)
    soft = cv2.resize(cv2.GaussianBlur(fill, (0, 0), 2.0), (size, size))
    return np.asarray(space.chord() * (soft.astype(np.float32) / np.float32(160)), np.float32)


def _narrow(
    vessels: list[Vessel], size: int, shade: _Shade, widest: float, emphasis: float
) -> Image:
    """(size, size) relative attenuation, strokes within strokes, as a cylinder is."""
    strokes = []
    for vessel in vessels:
        points = fixed(vessel.path * 2 + 0.5)
        begins = np.arange(0, max(len(points) - 4, 1), max(int(2.5 * vessel.widths[0]), 10))
        counts = np.diff(np.append(begins, len(points)))
        widths = np.add.reduceat(vessel.widths, begins) / counts
        values = np.add.reduceat(shade(vessel.travelled), begins) / counts
        values = 230 * values * (widths / widest) ** emphasis
        for begin, count, width, value in zip(begins, counts, widths, values, strict=True):
            part = [points[begin : begin + count + 1]]
            for across in _LEVELS[: 1 + (width > 1.5) + (width > 4) + (width > 8)]:
                wide = 2 * width * across
                drawn = max(round(wide), 1)
                level = value * (1 - (across - 0.12) ** 2) ** 0.5 * min(1.0, wide / drawn)
                strokes.append((level, drawn, part))
    canvas = np.zeros((2 * size, 2 * size), np.uint8)
    for level, drawn, part in sorted(strokes, key=lambda stroke: stroke[0]):
        cv2.polylines(canvas, part, False, min(level, 255), drawn, 8, SHIFT)
    small = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), 0.7) / np.float32(230), np.float32)


_LEVELS = (1.0, 0.72, 0.88, 0.45)  # of the width, in the order in which they matter


def _blush(rng: Rng, image: Image, size: int) -> Image:
    """Contrast medium in the tissue that the vessels feed."""
    small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(small, (0, 0), float(rng.uniform(2, 6)))
    grain = np.maximum(1 + 0.35 * rng.standard_normal((64, 64), dtype=np.float32), 0)
    soft = cv2.GaussianBlur(soft * grain, (0, 0), 1.0) * np.float32(rng.uniform(0.2, 1.0))
    blush = cv2.resize(soft, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.maximum(blush, 0), np.float32)
