# SPDX-License-Identifier: Apache-2.0
"""The spine: vertebra by vertebra, from the front, from the side or oblique."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fedefm_core.simulation.bones import random_sharpness
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
    spline,
)
from fedefm_core.simulation.textures import patches, trabeculae

_VARIANTS = 3  # vertebrae that are drawn in turn along one spine


@dataclass(frozen=True)
class _Build:
    """Shape that all vertebrae of a spine share, in half widths of a body.

    height: half of a body. obliqueness: -1..1, how far parts behind are shifted to the side.
    rim: how far front and back rim of an endplate are apart. waist: half width in the middle.
    line: width of edges in pixels. small: too few pixels for joints.
    """

    height: float
    obliqueness: float
    rim: float
    waist: float
    pedicle: tuple[float, float]
    spinous: tuple[float, float]
    wing: float
    lateral: bool
    line: float
    small: bool


@dataclass(frozen=True)
class _Part:
    """A curve of a vertebra, in half widths of a body, and the levels that it is painted with."""

    curve: Curve
    width: float
    edge: float = 0.0
    body: float = 0.0
    behind: float = 0.0
    closed: bool = True


@dataclass(frozen=True)
class _Canvases:
    bodies: Canvas
    lines: Canvas
    behind: Canvas


def add_spine(
    rng: Rng, image: Image, unit: float, period: float, angle: float, strength: float
) -> None:
    """Add vertebrae every period pixels along a slightly bent line; angle 0 runs downwards."""
    size = len(image)
    half = period * rng.uniform(0.52, 0.78)
    build = _random_build(rng, period, half, unit)
    axis = _axis(rng, size, period, angle)
    layers = _Canvases(blank(size), blank(size), blank(size))
    vertebrae = [_vertebra(rng, build) for _ in range(_VARIANTS)]
    for index, (place, heading) in enumerate(axis):
        _paint_vertebra(rng, layers, vertebrae[index % _VARIANTS], place, heading, half)
    blur = random_sharpness(rng, unit)
    bodies = cv2.GaussianBlur(layers.bodies, (0, 0), blur).astype(np.float32)
    bodies *= trabeculae(rng, bodies.shape, unit) * np.float32(strength / 255)
    image += bodies * np.float32(rng.uniform(0.15, 0.6))
    fading = patches(rng, image.shape, 0.5 * period)
    add_canvas(image, layers.behind, strength * rng.uniform(0.1, 0.4), blur, fading)
    add_canvas(image, layers.lines, strength * rng.uniform(0.2, 0.9), blur, fading)
    if rng.random() < 0.6:
        _add_muscles(rng, image, axis, half, strength)


def _random_build(rng: Rng, period: float, half: float, unit: float) -> _Build:
    lateral = bool(rng.random() < 0.25)
    return _Build(
        height=period / half * rng.uniform(0.36, 0.45),
        obliqueness=float(rng.normal(0, 0.35)),
        rim=float(rng.uniform(0.02, 0.16)),
        waist=float(rng.uniform(0.78, 0.93)),
        pedicle=(float(rng.uniform(0.1, 0.2)), float(rng.uniform(0.16, 0.3))),
        spinous=(float(rng.uniform(0.06, 0.16)), float(rng.uniform(0.2, 0.5))),
        wing=float(rng.uniform(1.2, 1.9)),
        lateral=lateral,
        line=float(rng.uniform(0.8, 3.2)) * unit,
        small=half < 16,
    )


def _axis(rng: Rng, size: int, period: float, angle: float) -> list[tuple[Curve, float]]:
    """Centres and headings of the vertebrae whose parts may reach the view."""
    middle = rng.uniform(0.05, 0.95, 2) * size
    bend = rng.normal(0, 0.25) * period / size
    count = int(1.0 * size / period) + 2
    places = []
    for sign in (1, -1):
        place, heading = middle.copy(), angle
        for index in range(count):
            if index or sign > 0:
                places.append((place.copy(), heading))
            heading += sign * bend
            place = place + sign * period * np.array([-np.sin(heading), np.cos(heading)])
    reach = 1.5 * period
    return [p for p in places if np.all(p[0] > -reach) and np.all(p[0] < size + reach)]


def _paint_vertebra(
    rng: Rng, layers: _Canvases, parts: list[_Part], place: Curve, heading: float, half: float
) -> None:
    heading += rng.normal(0, 0.025)
    half = half * rng.uniform(0.97, 1.03)
    for part in parts:
        curve = placed(part.curve, place, heading, half)
        if part.body > 0:
            paint_area(layers.bodies, curve, part.body)
        if part.behind > 0:
            paint_area(layers.behind, curve, part.behind)
        if part.edge > 0:
            paint_lines(layers.lines, [curve], part.width, part.edge, closed=part.closed)


def _vertebra(rng: Rng, build: _Build) -> list[_Part]:
    h, w = build.height, build.waist
    corners = [(-1, -h), (-0.5, -0.95 * h), (0.5, -0.95 * h), (1, -h), (w, 0), (1, h),
               (0.5, 0.95 * h), (-0.5, 0.95 * h), (-1, h), (-w, 0)]  # fmt: skip
    body = spline(jittered(rng, corners, 0.03), closed=True, samples=4)
    parts = [_Part(body, 0.8 * build.line, edge=110, body=200)]
    for sign in (-1, 1):
        rim = arc(0, 2 * np.pi, 20) * (rng.uniform(0.92, 1.0), build.rim)
        rim[:, 1] += sign * 0.97 * h
        parts.append(_Part(rim, build.line, edge=rng.uniform(150, 255), body=255))
    return parts + (_arch_from_side if build.lateral else _arch_from_front)(rng, build)


def _arch_from_front(rng: Rng, build: _Build) -> list[_Part]:
    h, shift, line = build.height, build.obliqueness, build.line
    ring, parts = arc(0, 2 * np.pi, 14), []
    for side in (-1, 1):
        x = side * rng.uniform(0.5, 0.6) + 0.3 * shift
        pedicle = jittered(rng, ring, 0.03) * build.pedicle + (x, -0.3 * h)
        parts.append(_Part(pedicle, line, edge=190, behind=130))
        wing = [(0.6, -0.35), (build.wing, -0.45), (build.wing * 1.03, -0.1), (0.6, 0.1)]
        process = jittered(rng, wing, 0.04) * (side, h) + (0.3 * shift, 0)
        parts.append(_Part(spline(process, closed=True, samples=4), line, behind=120))
        if build.small:
            continue
        facet = jittered(rng, [(0.3, 0.5), (0.5, 0.9), (0.45, 1.3)], 0.04)
        lamina = jittered(rng, [(0.1, 0.2), (0.35, 0.5), (0.5, 0.4)], 0.05)
        for landmarks in (facet, lamina):
            curve = spline(landmarks * (side, h) + (0.5 * shift, 0))
            parts.append(_Part(curve, line, edge=140, closed=False))
    tip = jittered(rng, ring, 0.05) * build.spinous + (0.7 * shift, 0.45 * h)
    return [*parts, _Part(tip, line, edge=170, behind=200)]


def _arch_from_side(rng: Rng, build: _Build) -> list[_Part]:
    h, side = build.height, 1.0 if build.obliqueness > 0 else -1.0
    arch = [(0.95, -0.7), (1.4, -0.6), (1.5, -1.2), (1.7, -0.6), (2.6, 0.5), (2.5, 1.0),
            (1.7, 0.5), (1.5, 1.0), (1.3, 0.2), (0.95, -0.1)]  # fmt: skip
    outline = spline(jittered(rng, arch, 0.05) * (side, h), closed=True, samples=5)
    return [_Part(outline, build.line, edge=150, behind=150)]


def _add_muscles(
    rng: Rng, image: Image, axis: list[tuple[Curve, float]], half: float, strength: float
) -> None:
    """The band of soft tissue along a spine, whose edge is a long smooth line."""
    if len(axis) < 2:
        return
    heading = axis[0][1]
    down, across = (
        np.array([-np.sin(heading), np.cos(heading)]),
        np.array([np.cos(heading), np.sin(heading)]),
    )
    places = np.array(sorted((place for place, _ in axis), key=down.dot))
    reach = half * rng.uniform(1.1, 2.4, 2)
    along = places[-1] - places[0]
    ends = [places[0] - along, *places, places[-1] + along]
    left = [p - across * reach[0] * rng.uniform(0.9, 1.1) for p in ends]
    right = [p + across * reach[1] * rng.uniform(0.9, 1.1) for p in ends[::-1]]
    band = blank(len(image))
    paint_area(band, np.concatenate([spline(left), spline(right)]))
    add_canvas(image, band, float(rng.uniform(0.05, 0.5)), float(rng.uniform(1.0, 10.0)))
