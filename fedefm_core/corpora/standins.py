# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for kinds of image that the simulator does not draw: angiograms and fundus images.

They are there so that an experiment on six kinds of image runs without any files. They look
like their kind at a glance and to a small network; nobody should measure vessels on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.frames import to_grey8
from fedefm_core.simulation import SimulationSettings, simulate_frame

Rng = np.random.Generator
Grey = npt.NDArray[np.uint8]
Image = npt.NDArray[np.float32]
Point = npt.NDArray[np.float64]
_STREAM = 3  # keeps these random numbers apart from those of the simulated frame beneath
_BITS = 4
_MIN_WIDTH = 0.9  # pixels of a 256-pixel image; thinner vessels end


@dataclass(frozen=True)
class Vessel:
    """points_px: (N, 2) x, y. width_px: at its root; it tapers by a third to its end."""

    points_px: Point
    width_px: float


def draw_angiogram(seed: int, index: int, size: int) -> tuple[Grey, Grey]:
    """(size, size) grey and vessel mask: contrast-filled arteries over a simulated chest."""
    rng = np.random.default_rng([seed, index, _STREAM])
    plain = SimulationSettings(size=size, empty_fraction=1.0, inverted_fraction=0.0)
    frame = simulate_frame(seed, index, plain, "human")
    beneath = to_grey8(frame.frame).astype(np.float32)
    vessels = []
    for _ in range(int(rng.integers(1, 3))):
        root = rng.uniform(0.2, 0.45, 2) * size
        heading = rng.uniform(-0.4, np.pi / 2)
        bend = rng.uniform(0.3, 1.2) / (0.6 * size)
        width = rng.uniform(3.5, 6.0) * size / 256
        length = rng.uniform(0.5, 0.75) * size
        vessels += list(_grow(rng, root, heading, width, length, size, bend))
    filling = _filling(vessels, size)
    seen = cv2.GaussianBlur(filling, (0, 0), 0.8 * size / 256)
    grey = beneath * cv2.exp(-seen * np.float32(rng.uniform(0.5, 1.0)))
    return np.rint(grey).astype(np.uint8), _outline(vessels, size)


def draw_retina(seed: int, index: int, size: int) -> tuple[Grey, Grey]:
    """(size, size) grey and vessel mask: a fundus with optic disc, macula and vessels."""
    rng = np.random.default_rng([seed, index, _STREAM])
    center = size / 2 + rng.normal(0, 0.01, 2) * size
    radius = rng.uniform(0.44, 0.52) * size
    side = float(rng.choice([-1.0, 1.0]))
    disc = center + np.array([side * 0.42, rng.normal(0, 0.05)]) * radius
    macula = center + np.array([-side * 0.2, rng.normal(0, 0.05)]) * radius
    vessels = list(_fundus_vessels(rng, disc, side, radius, size))
    fundus = _fundus(rng, disc, macula, radius, size)
    seen = cv2.GaussianBlur(_filling(vessels, size), (0, 0), 0.7 * size / 256)
    fundus *= cv2.exp(-seen * np.float32(rng.uniform(0.3, 0.6)))
    fundus += rng.normal(0, 0.012, fundus.shape).astype(np.float32)
    inside = _distance(center, size) <= radius
    grey = np.clip(fundus * 255, 2, 255) * inside
    return np.rint(grey).astype(np.uint8), _outline(vessels, size) * inside.astype(np.uint8)


def _fundus(rng: Rng, disc: Point, macula: Point, radius: float, size: int) -> Image:
    """Brightness without vessels, in 0..1."""
    patches = cv2.resize(
        rng.normal(0, 1, (6, 6)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC
    )
    level = rng.uniform(0.3, 0.55)
    image = level * (1 + 0.08 * patches)
    image *= 1 - 0.35 * (_distance(disc, size) / (2 * radius)) ** 2
    image *= 1 - rng.uniform(0.2, 0.4) * _bump(_distance(macula, size), 0.22 * radius)
    image += rng.uniform(0.3, 0.45) * _bump(_distance(disc, size), 0.15 * radius) ** 2
    return np.asarray(image, np.float32)


def _fundus_vessels(
    rng: Rng, disc: Point, side: float, radius: float, size: int
) -> Iterator[Vessel]:
    """Two arcades above and below the macula, and smaller vessels to the nasal side."""
    towards_macula = np.pi if side > 0 else 0.0
    for vertical in (-1.0, 1.0):
        for _ in range(2):
            outwards = side * vertical * rng.uniform(0.9, 1.4)
            heading = towards_macula - outwards
            bend = outwards * rng.uniform(0.5, 0.8) / (0.9 * radius)
            width = rng.uniform(2.6, 4.2) * size / 256
            yield from _grow(rng, disc, heading, width, 1.3 * radius, size, bend)
        nasal = (0.0 if side > 0 else np.pi) + vertical * rng.uniform(0.4, 1.0)
        width = rng.uniform(2.0, 3.0) * size / 256
        yield from _grow(rng, disc, nasal, width, 0.7 * radius, size)


def _grow(
    rng: Rng,
    root: Point,
    heading: float,
    width: float,
    length: float,
    size: int,
    bend: float = 0.0,
) -> Iterator[Vessel]:
    """A winding vessel and its branches; bend: radians a pixel of its own course."""
    if width < _MIN_WIDTH * size / 256 or length < 0.04 * size:
        return
    step = size / 128
    count = max(int(length / step), 2)
    turns = bend * step + rng.normal(0, 0.09, count)
    headings = heading + np.cumsum(turns)
    moves = np.stack([np.cos(headings), np.sin(headings)], 1) * step
    points = root + np.cumsum(moves, 0)
    yield Vessel(np.vstack([root, points]), width)
    for fork in np.sort(rng.uniform(0.1, 0.95, int(rng.integers(2, 5)))):
        at = int(fork * (count - 1))
        angle = headings[at] + float(rng.choice([-1, 1])) * rng.uniform(0.4, 1.0)
        narrower = width * rng.uniform(0.5, 0.75)
        yield from _grow(rng, points[at], angle, narrower, length * rng.uniform(0.35, 0.6), size)


def _filling(vessels: list[Vessel], size: int) -> Image:
    """Depth of contrast in 0..1: deepest in the widest vessel."""
    widest = max(vessel.width_px for vessel in vessels)
    depth = np.zeros((size, size), np.uint8)
    for vessel in sorted(vessels, key=lambda vessel: vessel.width_px):
        level = round(255 * (0.4 + 0.6 * vessel.width_px / widest))
        _draw(depth, vessel, level, cv2.LINE_AA)
    return np.asarray(depth.astype(np.float32) / np.float32(255), np.float32)


def _outline(vessels: list[Vessel], size: int) -> Grey:
    mask = np.zeros((size, size), np.uint8)
    for vessel in vessels:
        _draw(mask, vessel, 1, cv2.LINE_8)
    return mask


def _draw(canvas: Grey, vessel: Vessel, level: int, line: int) -> None:
    """Draw a vessel in three stretches, each narrower than the one before."""
    thirds = np.array_split(np.arange(len(vessel.points_px)), 3)
    for taper, part in zip((1.0, 0.85, 0.67), thirds, strict=True):
        points = vessel.points_px[max(part[0] - 1, 0) : part[-1] + 1] if len(part) else None
        if points is not None:
            fixed = np.rint(points * 2**_BITS).astype(np.int32)
            width = max(1, round(vessel.width_px * taper))
            cv2.polylines(canvas, [fixed], False, level, width, line, _BITS)


def _distance(point: Point, size: int) -> Image:
    y, x = np.mgrid[:size, :size].astype(np.float32)
    return np.asarray(np.hypot(x - np.float32(point[0]), y - np.float32(point[1])), np.float32)


def _bump(distance: Image, width: float) -> Image:
    return np.asarray(cv2.exp(-0.5 * (distance / np.float32(width)) ** 2), np.float32)
