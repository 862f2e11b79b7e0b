# SPDX-License-Identifier: Apache-2.0
"""Guidewires and catheters: shapes, attenuation profiles, outlines and truth.

Sizes follow the products: guidewires of 0.36 to 0.89 mm with a denser coil at the tip, catheters
of 4.5 to 8.4 French (1.5 to 2.8 mm) with a wall that is denser than the lumen. Pixel pitches of
0.25 to 0.36 mm at the patient make that 1 to 3.6 and 4 to 11 pixels of a 512-pixel image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedefm_core.perception.types import CATHETER, GUIDEWIRE
from fedefm_core.simulation.anatomy import border_entry
from fedefm_core.simulation.curves import (
    Curve,
    arc_length,
    cut,
    heading_at_end,
    integrate_heading,
    smooth_noise,
    visible_stretches,
)
from fedefm_core.simulation.drawing import Mask, draw_parts, draw_profile, outline, shorten
from fedefm_core.simulation.truth import InstrumentTruth

Rng = np.random.Generator
Layers = list[tuple[float, float]]
MIN_LABEL_WIDTH = 3.0  # pixels at 512 x 512: thinner wires would vanish in metrics and training


@dataclass(frozen=True)
class Design:
    """One physical instrument, straight from the shelf.

    path: its axis from outside the image to the far end of travel. begin, end: arc lengths of
    the part that exists; for a guidewire in a catheter, hidden_until is where the catheter's
    mouth frees it. layers: (width px, attenuation) of the shaft; tip_layers over the last
    tip_length px. bands: arc lengths before the tip of marker bands, with their length.
    """

    kind: str
    path: Curve
    end: float
    width: float
    layers: Layers
    tip_layers: Layers
    tip_length: float
    hidden_until: float = 0.0
    bands: tuple[tuple[float, float], ...] = ()


def random_designs(rng: Rng, size: int, scale: float, empty_fraction: float) -> list[Design]:
    """A random set of instruments; guidewires come after the catheters that they lie on."""
    if rng.random() < empty_fraction:
        return []
    pitch_mm = rng.uniform(0.25, 0.36) / scale
    choice = rng.choice(5, p=(0.27, 0.23, 0.27, 0.15, 0.08))
    if choice == 0:
        return [random_guidewire(rng, size, scale, pitch_mm)]
    if choice == 1:
        return [random_catheter(rng, size, scale, pitch_mm)]
    if choice == 2:
        return list(random_pair(rng, size, scale, pitch_mm))
    catheter = random_catheter(rng, size, scale, pitch_mm)
    if choice == 3:
        return [catheter, random_guidewire(rng, size, scale, pitch_mm)]
    return [*random_pair(rng, size, scale, pitch_mm), catheter][::-1]


def random_guidewire(rng: Rng, size: int, scale: float, pitch_mm: float) -> Design:
    """A guidewire of its own, from a border."""
    path = _random_path(rng, size, scale, _guidewire_tip(rng, scale))
    return _guidewire(rng, path, float(arc_length(path)[-1]), 0.0, pitch_mm, scale)


def random_catheter(rng: Rng, size: int, scale: float, pitch_mm: float) -> Design:
    """A catheter of its own, from a border, with a shaped tip."""
    path = _random_path(rng, size, scale, _catheter_tip(rng, scale))
    return _catheter(rng, path, float(arc_length(path)[-1]), pitch_mm, scale)


def random_pair(rng: Rng, size: int, scale: float, pitch_mm: float) -> tuple[Design, Design]:
    """A catheter with a guidewire that leaves its mouth."""
    path = _random_path(rng, size, scale, _guidewire_tip(rng, scale))
    total = float(arc_length(path)[-1])
    mouth = total - rng.uniform(0.1, 0.6) * total - 12 * scale
    catheter = _catheter(rng, path, mouth, pitch_mm, scale)
    return catheter, _guidewire(rng, path, total, mouth, pitch_mm, scale)


def _random_path(rng: Rng, size: int, scale: float, tip: npt.NDArray[np.float64]) -> Curve:
    """A smooth path from the border whose tip is, nine times in ten, inside the image."""
    wanted_inside = rng.random() < 0.9
    margin = 6 * scale
    for _ in range(30):
        start, heading = border_entry(rng, size)
        length = int(rng.uniform(0.2, 1.5) * size)
        curvature = smooth_noise(rng, length, rng.uniform(25, 90) * scale)
        curvature /= np.exp(rng.uniform(np.log(45), np.log(400))) * scale
        path = integrate_heading(start, heading, np.concatenate([curvature, tip]))
        inside = np.all((path[4:] > margin) & (path[4:] < size - 1 - margin), axis=1)
        ends_inside = bool(inside[len(inside) // 3 :].all())
        if ends_inside == wanted_inside:
            break
    return path


def _guidewire_tip(rng: Rng, scale: float) -> npt.NDArray[np.float64]:
    """Curvature of the last pixels: straight, angled, J or looped."""
    sign = rng.choice([-1.0, 1.0])
    shape = rng.choice(4, p=(0.4, 0.3, 0.22, 0.08))
    turn, radius = (
        (0.0, 1.0),
        (rng.uniform(0.3, 1.2), rng.uniform(8, 25)),
        (rng.uniform(2.2, 3.8), rng.uniform(5, 12)),
        (rng.uniform(4.5, 7.5), rng.uniform(10, 25)),
    )[int(shape)]
    steps = max(1, round(turn * radius * scale))
    straight = np.zeros(int(rng.uniform(0, 12) * scale))
    return np.concatenate([np.full(steps, sign * turn / steps), straight])


def _catheter_tip(rng: Rng, scale: float) -> npt.NDArray[np.float64]:
    """Curvature of the last pixels: straight, angled, double-curved or pigtail."""
    sign = rng.choice([-1.0, 1.0])
    shape = int(rng.choice(4, p=(0.35, 0.3, 0.2, 0.15)))
    if shape == 0:
        return np.zeros(1)
    bends = {
        1: [(rng.uniform(0.4, 1.4), rng.uniform(12, 40))],
        2: [(rng.uniform(0.8, 1.8), rng.uniform(18, 45)), (-rng.uniform(0.5, 1.6), 18)],
        3: [(rng.uniform(4.5, 6.8), rng.uniform(11, 20))],
    }[shape]
    parts = []
    for turn, radius in bends:
        steps = max(2, round(abs(turn) * radius * scale))
        parts.append(np.full(steps, sign * turn / steps))
    return np.concatenate(parts)


def _guidewire(
    rng: Rng, path: Curve, end: float, mouth: float, pitch_mm: float, scale: float
) -> Design:
    width = max(rng.choice([0.36, 0.46, 0.64, 0.81, 0.89]) / pitch_mm, 1.0)
    strength = rng.uniform(0.5, 1.1) * (0.25 + 0.75 * min(width / (3 * scale), 1.2))
    coil = strength * rng.uniform(1.0, 2.2)
    return Design(
        kind="guidewire",
        path=path,
        end=end,
        width=float(width),
        layers=_rod(width, strength),
        tip_layers=_rod(width * rng.uniform(0.85, 1.15), coil),
        tip_length=float(rng.choice([0.0, rng.uniform(15, 110)])) * scale,
        hidden_until=mouth,
    )


def _catheter(rng: Rng, path: Curve, end: float, pitch_mm: float, scale: float) -> Design:
    width = float(rng.uniform(1.5, 2.8) / pitch_mm)
    wall = rng.uniform(0.12, 0.3)  # of the outer radius
    strength = float(np.exp(rng.uniform(np.log(0.2), np.log(0.8))))
    layers = _tube(width, wall, strength)
    bands: tuple[tuple[float, float], ...] = ()
    if rng.random() < 0.35:
        gap = rng.uniform(8, 40) * scale
        bands = tuple(
            (2.0 * scale + i * gap, rng.uniform(3, 7) * scale) for i in range(rng.integers(1, 4))
        )
    soft_tip = float(rng.choice([1.0, rng.uniform(0.6, 1.5)]))
    return Design(
        kind="catheter",
        path=path,
        end=end,
        width=width,
        layers=layers,
        tip_layers=[(w, v * soft_tip) for w, v in layers],
        tip_length=float(rng.uniform(4, 25)) * scale,
        bands=bands,
    )


def _rod(width: float, strength: float) -> Layers:
    """Staircase of a solid cylinder's thickness, strength on the axis."""
    fractions = (1.0, 0.85, 0.6, 0.3)
    return [(width * f, strength * float(np.sqrt(1 - (f - 0.08) ** 2))) for f in fractions]


def _tube(width: float, wall: float, strength: float) -> Layers:
    """Staircase of a hollow cylinder's thickness, strength at the inner wall, lumen paler."""
    inner = 1 - wall
    layers = []
    for f in (1.0, 0.97, inner + 0.4 * wall, inner, inner * 0.9, inner * 0.7, inner * 0.35):
        g = max(f - 0.03, 0.0)
        outer_part = np.sqrt(max(1 - g * g, 0.0))
        lumen_part = np.sqrt(max(inner**2 - g * g, 0.0))
        layers.append((width * f, strength * float(outer_part - lumen_part)))
    peak = max(v for _, v in layers)
    return [(w, v * strength / peak) for w, v in layers]


def draw_instruments(attenuation: npt.NDArray[np.float32], designs: Sequence[Design]) -> None:
    """Add the instruments' attenuation to the map, in place."""
    for design in designs:
        axis = shorten(cut(design.path, 0.0, design.end), design.width / 2)
        tip_at = design.end - design.tip_length
        shaft = cut(axis, 0.0, tip_at)
        tip = cut(axis, tip_at, design.end)
        draw_parts(attenuation, [(shaft, design.layers), (tip, design.tip_layers)])
        for before_tip, length in design.bands:
            at = design.end - before_tip - length
            band = shorten(cut(axis, at, at + length), design.width / 2, begin=True)
            draw_profile(attenuation, band, [(design.width, 0.9)])


def label_instruments(designs: Sequence[Design], size: int, scale: float) -> npt.NDArray[np.uint8]:
    """(size, size) uint8 label map: physical outlines, never narrower than MIN_LABEL_WIDTH."""
    labels = np.zeros((size, size), np.uint8)
    for design in sorted(designs, key=lambda d: d.kind != "catheter"):
        width = max(design.width, MIN_LABEL_WIDTH * scale)
        visible = cut(design.path, design.hidden_until, design.end)
        if design.hidden_until > 0:
            visible = shorten(visible[::-1], width / 2)[::-1]
        mask = outline(visible, width, labels.shape)
        labels[mask] = CATHETER if design.kind == "catheter" else GUIDEWIRE
    return labels


def truth_of(design: Design, seen: Mask) -> list[InstrumentTruth]:
    """The visible stretches of the instrument, in order; of them only the last can hold the tip.

    seen: (H, W), True where the image shows what is in the beam.
    """
    axis = cut(design.path, design.hidden_until, design.end)
    return [
        InstrumentTruth(
            kind=design.kind,
            centerline_px=stretch,
            tip_px=stretch[-1] if ends else None,
            heading_rad=heading_at_end(stretch) if ends else None,
            width_px=design.width,
        )
        for stretch, ends in visible_stretches(axis, seen)
    ]
