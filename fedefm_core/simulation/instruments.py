# SPDX-License-Identifier: Apache-2.0
"""Guidewires and catheters: which of them are in the beam, how they are drawn, their truth.

Sizes follow the products: guidewires of 0.36 to 0.97 mm, catheters of 3 to 12 French (1 to 4 mm).
Pixel pitches of 0.15 to 0.45 mm at the patient make that 1 to 6.5 and 2.5 to 14 pixels of a
512-pixel image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedefm_core.perception.types import CATHETER, GUIDEWIRE
from fedefm_core.simulation.curves import (
    Curve,
    arc_length,
    cut,
    heading_at_end,
    resample,
    visible_stretches,
)
from fedefm_core.simulation.drawing import Array, Mask, draw_band, draw_rod, outline
from fedefm_core.simulation.profiles import (
    Band,
    Profile,
    Rod,
    catheter_profile,
    electrode_profile,
    guidewire_profile,
    random_pitch,
)
from fedefm_core.simulation.shapes import (
    beside,
    catheter_tip,
    guidewire_tip,
    normals,
    place,
    straight,
    trunk,
    wandering,
)
from fedefm_core.simulation.truth import InstrumentTruth

Rng = np.random.Generator
MIN_LABEL_WIDTH = 3.0  # pixels at 512 x 512: thinner wires would vanish in metrics and training
_UNBROKEN = 1.5  # pixels at any size: a narrower label passes between pixels and has gaps


@dataclass(frozen=True)
class Design:
    """One physical instrument in its place.

    path: its axis from outside the image (seldom from inside) to the far end of travel, points at
    most a pixel apart. end: arc length of its tip; hidden_until: where the mouth of its catheter
    frees it. width: of the shaft, pixels. strength: attenuation on the shaft's axis that
    those of rods and bands are relative to. taper: (length px, width at the tip over that of
    the shaft).
    """

    kind: str
    path: Curve
    end: float
    width: float
    strength: float
    rods: tuple[Rod, ...]
    bands: tuple[Band, ...] = ()
    taper: tuple[float, float] = (0.0, 1.0)
    hidden_until: float = 0.0


def random_designs(
    rng: Rng, size: int, scale: float, empty_fraction: float, faintest: float = 1.0
) -> list[Design]:
    """A random set of instruments; guidewires come after the catheters that they lie on.

    faintest: the least strength over what shows at the noise of ordinary fluoroscopy; more where
    there is more noise or texture, less where there is less.
    """
    if rng.random() < empty_fraction:
        return []
    pitch_mm = random_pitch(rng)
    kit = _KITS[int(rng.choice(len(_KITS), p=_KIT_CHANCES))]
    designs: list[Design] = []
    for name in kit:
        designs += _MAKERS[name](rng, size, scale, pitch_mm, faintest)
    if rng.random() < 0.08:
        designs.append(_companion(rng, designs[-1], scale, pitch_mm, faintest))
    return designs


def random_guidewire(
    rng: Rng, size: int, scale: float, pitch_mm: float, faintest: float = 1.0
) -> Design:
    """A guidewire of its own."""
    turns = np.concatenate([trunk(rng, "guidewire"), guidewire_tip(rng, pitch_mm)])
    path = place(rng, turns, size, scale)
    return _design("guidewire", path, guidewire_profile(rng, scale, pitch_mm, faintest))


def random_catheter(
    rng: Rng, size: int, scale: float, pitch_mm: float, faintest: float = 1.0
) -> Design:
    """A catheter of its own, with a shaped tip."""
    turns = np.concatenate([trunk(rng, "catheter"), catheter_tip(rng, pitch_mm)])
    path = place(rng, turns, size, scale)
    return _design("catheter", path, catheter_profile(rng, scale, pitch_mm, faintest))


def random_pair(
    rng: Rng, size: int, scale: float, pitch_mm: float, faintest: float = 1.0
) -> tuple[Design, Design]:
    """A catheter with a guidewire that leaves its mouth."""
    path, mouth = _shared_path(rng, size, scale, pitch_mm)
    catheter = catheter_profile(rng, scale, pitch_mm, faintest)
    wire = _fitting_wire(rng, scale, pitch_mm, faintest, catheter.width)
    return (
        _design("catheter", path, catheter, end=mouth),
        _design("guidewire", path, wire, hidden_until=mouth),
    )


def random_coaxial(
    rng: Rng, size: int, scale: float, pitch_mm: float, faintest: float = 1.0
) -> list[Design]:
    """A catheter that leaves a sheath or guide, mostly with a guidewire that leaves it."""
    path, mouth = _shared_path(rng, size, scale, pitch_mm)
    inner = catheter_profile(rng, scale, pitch_mm, faintest)
    outer = catheter_profile(rng, scale, pitch_mm, faintest, 1.35 * inner.width / scale)
    sheath = _design("catheter", path, outer, end=mouth * rng.uniform(0.25, 0.9))
    if rng.random() < 0.3:
        return [sheath, _design("catheter", path, inner)]
    wire = _fitting_wire(rng, scale, pitch_mm, faintest, inner.width)
    return [
        sheath,
        _design("catheter", path, inner, end=mouth),
        _design("guidewire", path, wire, hidden_until=mouth),
    ]


def random_electrode_catheter(
    rng: Rng, size: int, scale: float, pitch_mm: float, faintest: float = 1.0
) -> Design:
    """An electrophysiology catheter."""
    shape = (straight(1), wandering(rng, rng.uniform(10, 60) / pitch_mm, 60, 30))
    turns = np.concatenate([trunk(rng, "catheter"), shape[int(rng.integers(2))]])
    path = place(rng, turns, size, scale)
    return _design("catheter", path, electrode_profile(rng, scale, pitch_mm, faintest))


_MAKERS = {
    "wire": lambda *how: [random_guidewire(*how)],
    "catheter": lambda *how: [random_catheter(*how)],
    "pair": lambda *how: list(random_pair(*how)),
    "coaxial": random_coaxial,
    "electrodes": lambda *how: [random_electrode_catheter(*how)],
}
_KITS = (
    ("wire",),
    ("catheter",),
    ("pair",),
    ("coaxial",),
    ("electrodes",),
    ("electrodes", "electrodes", "catheter"),
    ("catheter", "wire"),
    ("wire", "wire"),
    ("catheter", "pair"),
    ("catheter", "catheter", "wire", "wire"),
)
_KIT_CHANCES = (0.24, 0.2, 0.19, 0.07, 0.03, 0.02, 0.11, 0.06, 0.05, 0.03)


def _shared_path(rng: Rng, size: int, scale: float, pitch_mm: float) -> tuple[Curve, float]:
    """A path of a wire that has left a catheter, and the arc length of the catheter's mouth."""
    ahead = trunk(rng, "guidewire")[: int(rng.uniform(20, 800))]
    ahead = np.concatenate([ahead, guidewire_tip(rng, pitch_mm)])
    held = 0.6 * catheter_tip(rng, pitch_mm)  # the wire in it straightens it
    path = place(rng, np.concatenate([trunk(rng, "catheter"), held, ahead]), size, scale)
    total = float(arc_length(path)[-1])
    return path, max(total - 0.5 * scale * len(ahead), 0.1 * total)


def _fitting_wire(
    rng: Rng, scale: float, pitch_mm: float, faintest: float, catheter_px: float
) -> Profile:
    """A guidewire that fits into a catheter of that width."""
    return guidewire_profile(rng, scale, max(pitch_mm, 1.6 * scale / catheter_px), faintest)


def _companion(rng: Rng, other: Design, scale: float, pitch_mm: float, faintest: float) -> Design:
    """A guidewire that runs beside another instrument for all or part of its way."""
    path = beside(rng, other.path, float(rng.uniform(5, 40)) * scale)
    path = path[: int(rng.uniform(0.4, 1.0) * (len(path) - 1)) + 1]
    return _design("guidewire", path, guidewire_profile(rng, scale, pitch_mm, faintest))


def _design(
    kind: str, path: Curve, profile: Profile, end: float | None = None, hidden_until: float = 0.0
) -> Design:
    return Design(
        kind=kind,
        path=path,
        end=float(arc_length(path)[-1]) if end is None else end,
        width=profile.width,
        strength=profile.strength,
        rods=profile.rods,
        bands=profile.bands,
        taper=profile.taper,
        hidden_until=hidden_until,
    )


def draw_instruments(attenuation: npt.NDArray[np.float32], designs: Sequence[Design]) -> None:
    """Add the instruments' attenuation to the map, in place."""
    for design in designs:
        for rod in design.rods:
            _draw_rod(attenuation, design, rod)
        for band in design.bands:
            _draw_band(attenuation, design, band)


def _draw_band(attenuation: npt.NDArray[np.float32], design: Design, band: Band) -> None:
    """One band, straight between its ends."""
    middle, half = design.end - band.center, band.length / 2
    ends = cut(design.path, middle - half, middle + half)
    if len(ends):
        draw_band(
            attenuation,
            center=(ends[0] + ends[-1]) / 2,
            heading_rad=float(np.arctan2(*(ends[-1] - ends[0])[::-1])),
            length=band.length,
            width=band.width * float(_narrowing(design, np.array([band.center]))[0]),
            strength=band.strength * design.strength,
        )


def _draw_rod(attenuation: npt.NDArray[np.float32], design: Design, rod: Rod) -> None:
    """One rod; no part of it reaches beyond the round end that touches the tip."""
    cap = design.width / 2 * float(_narrowing(design, np.zeros(1))[0])
    first = rod.width / 2 if _starts_inside(design.path, attenuation.shape) else 0.0
    begin = max(design.end - rod.far - rod.fade, first)
    axis = cut(design.path, begin, design.end - max(cap, rod.near - rod.fade))
    if not len(axis):
        return
    length = float(arc_length(axis)[-1])
    points = resample(axis, float(np.clip(rod.width / 5, 0.35, 1.0)))
    step = length / max(len(points) - 1, 1)
    before_tip = design.end - begin - np.linspace(0.0, length, len(points))
    narrowing = _narrowing(design, before_tip)
    if rod.wave is not None:
        amplitude, period, phase = rod.wave
        wave = narrowing * amplitude * np.sin(2 * np.pi * before_tip / period + phase)
        points = points + wave[:, None] * normals(points)
    strengths = design.strength * rod.strength_at(before_tip) * narrowing
    draw_rod(attenuation, points, rod.width * narrowing, strengths, step)


def _narrowing(design: Design, before_tip: Array) -> Array:
    """(N,) width over that of the shaft at distances before the tip."""
    length, ratio = design.taper
    if length <= 0:
        return np.ones_like(before_tip)
    return np.asarray(ratio + (1 - ratio) * np.clip(before_tip / length, 0, 1))


def _starts_inside(path: Curve, shape: tuple[int, ...]) -> bool:
    limits = np.array([shape[1], shape[0]]) - 1
    return bool(((path[0] >= 0) & (path[0] <= limits)).all())


def label_instruments(designs: Sequence[Design], size: int, scale: float) -> npt.NDArray[np.uint8]:
    """(size, size) uint8 label map: physical outlines, never narrower than MIN_LABEL_WIDTH."""
    labels = np.zeros((size, size), np.uint8)
    least = max(MIN_LABEL_WIDTH * scale, _UNBROKEN)
    for design in sorted(designs, key=lambda d: d.kind != "catheter"):
        mask = _outline(design, least, labels.shape)
        labels[mask] = CATHETER if design.kind == "catheter" else GUIDEWIRE
    return labels


def _outline(design: Design, least: float, shape: tuple[int, ...]) -> Mask:
    """Pixels of the visible part, whose round ends touch the tip and the catheter's mouth."""

    def widths(before_tip: Array) -> Array:
        return np.maximum(design.width * _narrowing(design, before_tip), least)

    visible = cut(design.path, design.hidden_until, design.end)
    begin, end = design.hidden_until, design.end - float(widths(np.zeros(1))[0]) / 2
    if design.hidden_until > 0 or _starts_inside(design.path, shape):
        begin += float(widths(np.array([design.end - begin]))[0]) / 2
    core = cut(design.path, begin, end)
    if len(core) < 2:
        return outline(visible[-1:], widths(np.zeros(len(visible[-1:]))), shape)
    points = resample(core, min(least / 4, 1.0))
    return outline(points, widths(design.end - np.linspace(begin, end, len(points))), shape)


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
