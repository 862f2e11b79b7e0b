# SPDX-License-Identifier: Apache-2.0
"""What instruments are made of, as X-rays see it: rods, lumens, helices, bands.

Places are distances before the tip, in pixels, so that they move with the tip when the instrument
advances. Strengths are relative to the design's own, which is the attenuation on its axis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedefm_core.simulation.draws import log_uniform

Rng = np.random.Generator
Array = npt.NDArray[np.float64]
_GUIDEWIRE_MM = (0.36, 0.36, 0.46, 0.64, 0.81, 0.89, 0.89, 0.97)
# Microcatheters, 4 to 8 French diagnostic and guiding catheters, sheaths.
_CATHETER_MM = (1.0, 1.0, 1.35, 1.35, 1.67, 1.67, 1.67, 2.0, 2.0, 2.33, 2.67, 3.3, 4.0)
NARROWEST_CATHETER, WIDEST_CATHETER = 2.5, 14.0  # pixels at 512 x 512
WIDEST_GUIDEWIRE = 6.5


@dataclass(frozen=True)
class Rod:
    """A round part of an instrument, from near to far pixels before the tip.

    strength: on its axis; negative for what is hollow. fade: pixels over which it begins and
    ends. wave: (amplitude px, period px, phase rad) of a helix seen from the side.
    """

    width: float
    strength: float
    near: float = 0.0
    far: float = np.inf
    fade: float = 1.0
    wave: tuple[float, float, float] | None = None

    def strength_at(self, before_tip: Array) -> Array:
        """(N,) strengths at distances before the tip."""
        fade = max(self.fade, 1e-6)
        begins = np.clip((before_tip - self.near) / fade + 0.5, 0, 1) if self.near > 0 else 1.0
        ends = np.clip((self.far - before_tip) / fade + 0.5, 0, 1)
        return np.asarray(self.strength * begins * ends)


@dataclass(frozen=True)
class Band:
    """A short cylinder with flat ends: a marker or an electrode. center: pixels before the tip."""

    center: float
    length: float
    width: float
    strength: float


@dataclass(frozen=True)
class Profile:
    """The parts of one instrument. taper: (length px, width at the tip over that of the shaft)."""

    width: float
    strength: float
    rods: tuple[Rod, ...]
    bands: tuple[Band, ...] = ()
    taper: tuple[float, float] = (0.0, 1.0)


def random_pitch(rng: Rng) -> float:
    """Millimetres at the patient for a pixel of a 512-pixel image: zoom is log-uniform."""
    return log_uniform(rng, 0.15, 0.45)


def least_strength(width: float) -> float:
    """Attenuation on the axis that an eye finds at ordinary noise, by width at 512 x 512.

    Scatter halves contrast and noise is several per cent; an eye integrates over the area.
    """
    return float(0.36 / np.sqrt(max(width, 1.0)))


def guidewire_profile(rng: Rng, scale: float, pitch_mm: float, faintest: float = 1.0) -> Profile:
    """A solid wire, mostly with a denser coil over the last 2 to 30 cm.

    faintest: the least strength over what shows at ordinary noise.
    """
    wide = float(np.clip(rng.choice(_GUIDEWIRE_MM) / pitch_mm, 1.0, WIDEST_GUIDEWIRE))
    least = min(faintest * least_strength(wide), 1.2)
    strength = log_uniform(rng, least, 1.7)
    width, tip_width = wide * scale, wide * scale * rng.uniform(0.9, 1.1)
    rods: tuple[Rod, ...] = (Rod(width, 1.0),)
    if rng.random() < 0.6:
        coil = log_uniform(rng, 20, 300) / pitch_mm * scale
        # A shaft is fainter than the coil, but it is labelled, so it must show.
        shaft = max(1 / rng.uniform(1.15, 4.0), min(0.75 * least / strength, 1.0))
        fade = rng.uniform(1, 12) * scale
        rods = (Rod(width, shaft, near=coil, fade=fade), Rod(tip_width, 1.0, far=coil, fade=fade))
        if rng.random() < 0.15 and wide >= 2:
            rods += (_helix(rng, rods[-1], rng.uniform(0.2, 0.6)),)
    bands = _balloon_markers(rng, width, scale, pitch_mm) if rng.random() < 0.07 else ()
    return Profile(width, strength, rods, bands)


def catheter_profile(
    rng: Rng, scale: float, pitch_mm: float, faintest: float = 1.0, narrowest: float = 0.0
) -> Profile:
    """A tube: like solid (braided, radiopaque), two-walled, or filled with contrast medium.

    faintest: the least strength over what shows at ordinary noise. narrowest: its least width,
    pixels at 512 x 512.
    """
    wide = float(rng.choice(_CATHETER_MM)) / pitch_mm
    wide = float(np.clip(wide, max(NARROWEST_CATHETER, narrowest), WIDEST_CATHETER))
    width, kind = wide * scale, rng.choice(4, p=(0.45, 0.22, 0.23, 0.1))
    # A tube is paler between its walls: it takes more of it to be seen.
    least = faintest * least_strength(wide) * (1.3 if kind == 1 else 1.0)
    strength = log_uniform(rng, min(least, 0.9), 1.0)
    rods: tuple[Rod, ...] = (Rod(width, 1.0),)
    if kind == 1:
        rods = _tube(width, wall=rng.uniform(0.12, 0.34), empty=rng.uniform(0.75, 1.0))
    elif kind == 2:
        lumen = rng.uniform(0.5, 0.8)
        rods += (Rod(width * lumen, rng.uniform(0.3, 1.6), near=rng.uniform(0, 6) * scale),)
    elif kind == 3:
        rods += (_helix(rng, rods[0], rng.uniform(0.15, 0.5)),)
        rods += (replace(_helix(rng, rods[0], 0.0), strength=rods[-1].strength),)
    if rng.random() < 0.15:
        rods += (_core(rng, width, scale),)
    if rng.random() < 0.35:
        soft = rng.uniform(1.5, 9) / pitch_mm * scale
        rods = _softened(rods, soft, rng.uniform(0.45, 0.85), rng.uniform(1, 6) * scale)
    bands: tuple[Band, ...] = ()
    if rng.random() < (0.7 if wide < 4.5 else 0.25):
        bands = _tip_markers(rng, width, strength, scale, pitch_mm)
    taper = (0.0, 1.0)
    if rng.random() < 0.25:
        taper = rng.uniform(3, 20) / pitch_mm * scale, rng.uniform(0.5, 0.85)
    return Profile(width, strength, rods, bands, taper)


def electrode_profile(rng: Rng, scale: float, pitch_mm: float, faintest: float = 1.0) -> Profile:
    """An electrophysiology catheter: dark electrodes along a fainter shaft.

    faintest: the least strength over what shows at ordinary noise.
    """
    wide = float(np.clip(rng.uniform(1.3, 2.7) / pitch_mm, NARROWEST_CATHETER, WIDEST_CATHETER))
    width, least = wide * scale, faintest * least_strength(wide)
    strength = log_uniform(rng, min(least, 0.5), 0.6)
    ring, gap = rng.uniform(1.0, 2.2), rng.uniform(1.5, 7)
    dark = max(rng.uniform(0.5, 1.8), 1.5 * strength) / strength
    count = int(rng.choice([2, 4, 4, 8, 10, 20]))
    end = rng.uniform(1.5, 8)  # the round electrode at the very tip, longest for ablation
    place, centers = end, []
    for index in range(1, count):
        place += (gap if index % 2 or count < 8 else 2 * gap) + ring
        centers.append(place - ring / 2)
    per_mm = scale / pitch_mm
    rods = Rod(width, 1.0), Rod(width, dark, far=max(end * per_mm, 0.75 * width))
    bands = tuple(Band(c * per_mm, ring * per_mm, width * 1.04, dark) for c in centers)
    return Profile(width, strength, rods, bands)


def _tube(width: float, wall: float, empty: float) -> tuple[Rod, ...]:
    """A cylinder less the lumen's, 1 where the beam passes most wall. wall: of the radius."""
    inner = 1 - wall
    densest = np.sqrt(1 - inner**2)  # the chord just inside the wall, of the cylinder's
    return (
        Rod(width, 1 / densest),
        Rod(width * inner, -empty * inner / densest),
    )


def _core(rng: Rng, width: float, scale: float) -> Rod:
    """A guidewire that has not left the catheter, from wall to wall of its lumen."""
    wave = rng.uniform(0, 0.15) * width, rng.uniform(60, 250) * scale, rng.uniform(0, 2 * np.pi)
    thin, near = rng.uniform(0.2, 0.5) * width, log_uniform(rng, 3, 250) * scale
    return Rod(thin, rng.uniform(0.3, 1.5), near=near, wave=wave)


def _helix(rng: Rng, around: Rod, strength: float) -> Rod:
    """The strand of a coil or braid, wound along the rod's surface."""
    thin = 0.3 * around.width
    period = rng.uniform(0.5, 1.4) * around.width
    wave = (0.35 * around.width, max(period, 2.0), rng.uniform(0, 2 * np.pi))
    return replace(around, width=thin, strength=strength, wave=wave)


def _softened(rods: tuple[Rod, ...], length: float, share: float, fade: float) -> tuple[Rod, ...]:
    """The same rods with a paler tip of that length."""
    shaft = tuple(replace(rod, near=max(rod.near, length), fade=fade) for rod in rods)
    tip = tuple(
        replace(
            rod, far=length, fade=fade if rod.near == 0 else 1.0, strength=rod.strength * share
        )
        for rod in rods
    )
    return shaft + tuple(rod for rod in tip if rod.near < length)


def _tip_markers(
    rng: Rng, width: float, strength: float, scale: float, pitch_mm: float
) -> tuple[Band, ...]:
    length = rng.uniform(0.8, 2.5) / pitch_mm * scale
    dark = rng.uniform(0.3, 1.5) / strength
    first = length / 2 + rng.choice([0.0, rng.uniform(0.3, 3)]) / pitch_mm * scale
    gap = log_uniform(rng, 5, 40) / pitch_mm * scale
    count = int(rng.choice([1, 1, 1, 2, 3]))
    return tuple(Band(first + i * gap, length, width, dark) for i in range(count))


def _balloon_markers(rng: Rng, width: float, scale: float, pitch_mm: float) -> tuple[Band, ...]:
    """The two ends of a balloon or stent that rides on the wire."""
    length, apart = rng.uniform(0.8, 1.6), rng.uniform(8, 35)
    near = rng.uniform(8, 90)
    return tuple(
        Band(mm / pitch_mm * scale, length / pitch_mm * scale, width * 1.25, rng.uniform(1.0, 2.5))
        for mm in (near, near + apart)
    )
