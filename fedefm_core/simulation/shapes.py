# SPDX-License-Identifier: Apache-2.0
"""Paths of instruments: vessels that they follow, slack, loops, tips off the shelf, placement.

A shape is a sequence of turns (radians), one every STEP pixels of a 512-pixel image. Tips are in
millimetres, as products are; pitch_mm is the size of such a pixel at the patient.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.simulation.curves import (
    Curve,
    integrate_heading,
    resample,
    smooth_noise,
)
from fedefm_core.simulation.draws import log_uniform

Rng = np.random.Generator
Turns = npt.NDArray[np.float64]
STEP = 0.5
_EXTENSION = 1100.0  # pixels by which a path is led back so that it starts outside the image
_OUTSIDE = 16.0  # pixels beyond the border where a path starts: more than the widest radius
_MARGIN = 5.0  # pixels between the border and a tip that is in view
_CANDIDATES = 48


def straight(length: float) -> Turns:
    """No turn over length pixels."""
    return np.zeros(max(round(length / STEP), 1))


def bend(turn: float, radius: float) -> Turns:
    """A circular arc through turn radians; its sign is the side."""
    steps = max(round(abs(turn) * radius / STEP), 2)
    return np.full(steps, turn / steps)


def wandering(rng: Rng, length: float, radius: float, correlation: float) -> Turns:
    """Gentle turns to either side; typical radius, correlated over correlation pixels."""
    count = max(round(length / STEP), 2)
    return smooth_noise(rng, count, correlation / STEP) * STEP / radius


def trunk(rng: Rng, kind: str) -> Turns:
    """What the body of an instrument follows, by a random pattern that suits its kind."""
    patterns = (_stiff, _wander, _arch, _serpentine, _slack)
    chances = (0.22, 0.3, 0.2, 0.16, 0.12) if kind == "guidewire" else (0.25, 0.3, 0.3, 0.13, 0.02)
    turns = patterns[int(rng.choice(5, p=chances))](rng)
    loops = 0.14 if kind == "guidewire" else 0.04
    while rng.random() < loops:
        at = int(rng.uniform(0.3, 1.0) * len(turns))
        smallest = 6.0 if kind == "guidewire" else 18.0
        loop = bend(_side(rng) * rng.uniform(5.2, 8.0), log_uniform(rng, smallest, 60))
        turns = np.concatenate([turns[:at], loop, turns[at:]])
    return turns


def _stiff(rng: Rng) -> Turns:
    return wandering(rng, rng.uniform(100, 600), log_uniform(rng, 700, 5000), 120)


def _wander(rng: Rng) -> Turns:
    radius, correlation = log_uniform(rng, 50, 500), rng.uniform(25, 110)
    return wandering(rng, rng.uniform(100, 700), radius, correlation)


def _arch(rng: Rng) -> Turns:
    """Up an artery, round the aortic arch, and into a branch."""
    side = _side(rng)
    return np.concatenate(
        [
            wandering(rng, rng.uniform(40, 300), 600, 90),
            bend(side * rng.uniform(2.2, 3.5), log_uniform(rng, 35, 130)),
            wandering(rng, rng.uniform(10, 220), 400, 60),
            bend(_side(rng) * rng.uniform(0.3, 1.7), log_uniform(rng, 14, 70)),
            wandering(rng, rng.uniform(10, 180), 200, 50),
        ]
    )


def _serpentine(rng: Rng) -> Turns:
    side, parts = _side(rng), []
    for _ in range(int(rng.integers(2, 6))):
        parts.append(bend(side * rng.uniform(0.4, 2.4), log_uniform(rng, 15, 110)))
        parts.append(wandering(rng, rng.uniform(5, 90), 400, 40))
        side = -side
    return np.concatenate(parts)


def _slack(rng: Rng) -> Turns:
    """A wire that is pushed and buckles into waves."""
    length, period = rng.uniform(120, 450), rng.uniform(28, 130)
    along = np.arange(0, length, STEP)
    swing = rng.uniform(0.25, 1.2) * np.sin(np.pi * along / length)
    phase = 2 * np.pi * along / period + 1.5 * smooth_noise(rng, len(along), 160 / STEP)
    waves = np.diff(swing * np.sin(phase), append=0.0)
    return np.concatenate([wandering(rng, rng.uniform(20, 250), 500, 90), waves])


def guidewire_tip(rng: Rng, pitch_mm: float) -> Turns:
    """Straight, angled, J, looped or knuckled: folded back on the shaft."""
    side = _side(rng)
    after = straight(rng.uniform(0, 4) / pitch_mm)
    shape = int(rng.choice(5, p=(0.36, 0.26, 0.2, 0.09, 0.09)))
    if shape == 0:
        return straight(1)
    if shape == 1:
        turn, radius = rng.uniform(0.3, 1.5), rng.uniform(1.5, 7)
    elif shape == 2:
        turn, radius = rng.uniform(2.0, 4.2), rng.uniform(1.2, 5)
    elif shape == 3:
        turn, radius = rng.uniform(4.5, 11.0), rng.uniform(2, 7)
    else:
        turn, radius = rng.uniform(2.7, 3.3), rng.uniform(0.7, 2.2)
        after = wandering(rng, rng.uniform(3, 25) / pitch_mm, 150, 40)
    return np.concatenate([bend(side * turn, max(radius / pitch_mm, 2.5)), after])


# Bends of catheters as (turn in degrees, radius mm, straight part after it mm), from the shaft on.
_CATHETER_TIPS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "straight": (),
    "judkins left": ((150, 14, 32), (85, 6, 8)),
    "judkins right": ((35, 28, 30), (90, 8, 9)),
    "amplatz": ((-60, 30, 2), (215, 14, 4), (-40, 9, 3)),
    "pigtail": ((370, 5.5, 0),),
    "angled pigtail": ((-35, 12, 30), (350, 5.5, 0)),
    "cobra": ((-55, 22, 8), (130, 11, 9)),
    "simmons": ((185, 12, 45), (-75, 8, 7)),
    "vertebral": ((42, 10, 12),),
    "multipurpose": ((55, 16, 22),),
    "hook": ((200, 8, 3),),
}
_TIP_CHANCES = (0.2, 0.13, 0.13, 0.07, 0.1, 0.05, 0.07, 0.06, 0.09, 0.06, 0.04)


def catheter_tip(rng: Rng, pitch_mm: float) -> Turns:
    """A shape off the shelf, opened somewhat by the vessel that holds it."""
    shape = list(_CATHETER_TIPS)[int(rng.choice(len(_CATHETER_TIPS), p=_TIP_CHANCES))]
    side, size, opened = _side(rng), rng.uniform(0.7, 1.3), rng.uniform(0.55, 1.05)
    parts = [straight(1)]
    for degrees, radius, after in _CATHETER_TIPS[shape]:
        turn = side * np.deg2rad(degrees) * opened * rng.uniform(0.85, 1.15)
        parts.append(bend(turn, max(radius * size / pitch_mm, 5.0)))
        parts.append(wandering(rng, max(after * size / pitch_mm, 1.0), 400, 40))
    return np.concatenate(parts)


def place(rng: Rng, turns: Turns, size: int, scale: float) -> Curve:
    """Lay the shape into a (size, size) image: from outside to a tip that is mostly in view.

    Seven times in eight the path, once in the image, stays there up to its tip; else it may
    leave and come back, or end outside. One in twenty-five starts in the image.
    """
    led_back = wandering(rng, _EXTENSION, log_uniform(rng, 350, 4000), 150)
    turns = cv2.GaussianBlur(np.concatenate([led_back, turns])[None], (0, 0), 1.5 / STEP)[0]
    shape = integrate_heading((0, 0), 0.0, np.asarray(turns, np.float64), STEP)
    in_view = rng.random() < 0.875
    anchor = -1 if in_view else int(rng.uniform(0.6, 1.0) * (len(shape) - 1))
    angles = rng.uniform(0, 2 * np.pi, _CANDIDATES)
    spots = rng.uniform(_MARGIN, 511 - _MARGIN, (_CANDIDATES, 2))
    lengths = _lengths_in_view(shape, angles, spots)
    best = int(np.argmin(np.abs(lengths - rng.uniform(80, 850)))) if in_view else 0
    path = _without_lead(_posed(shape, anchor, angles[best], spots[best]), in_view)
    if rng.random() < 0.04:
        path = path[int(rng.uniform(0.1, 0.4) * len(path)) :]
    return resample((path + 0.5) * scale - 0.5, 1.0)


def beside(rng: Rng, path: Curve, distance: float) -> Curve:
    """A path that runs along another at about that distance (pixels), to either side."""
    drift = distance * (1 + 0.25 * smooth_noise(rng, len(path), 150))
    offset = _side(rng) * drift[:, None] * normals(path)
    sigma = max(distance / 2, 2.0)
    rows = 2 * round(3 * sigma) + 1
    smooth = cv2.GaussianBlur(
        path + offset, (1, rows), sigma, sigmaY=sigma, borderType=cv2.BORDER_REPLICATE
    )
    return resample(np.asarray(smooth, np.float64).reshape(-1, 2), 1.0)


def normals(path: Curve) -> Curve:
    """(N, 2) unit vectors across the path."""
    along = np.gradient(path, axis=0) if len(path) > 1 else np.array([[1.0, 0.0]])
    along /= np.maximum(np.hypot(*along.T), 1e-9)[:, None]
    return np.stack([-along[:, 1], along[:, 0]], axis=1)


def _posed(shape: Curve, anchor: int, angle: float, spot: npt.NDArray[np.float64]) -> Curve:
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[cosine, sine], [-sine, cosine]])
    return np.asarray((shape - shape[anchor]) @ turn + spot, np.float64)


def _lengths_in_view(shape: Curve, angles: Turns, spots: Curve) -> Turns:
    """For each pose of the end of the path: pixels up to the end over which it stays in view."""
    x, y = (shape[::-8] - shape[-1]).T
    cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
    posed = np.stack([x * cosine - y * sine, x * sine + y * cosine]) + spots.T[:, :, None]
    out = ((posed < _MARGIN) | (posed > 511 - _MARGIN)).any(axis=0)
    points = np.where(out.any(axis=1), out.argmax(axis=1), len(x))
    return np.asarray(points * 8 * STEP, np.float64)


def _without_lead(path: Curve, in_view: bool) -> Curve:
    """Cut off what is far outside, up to the (last, if in_view) entry."""
    outside = np.maximum(-path, path - 511).max(axis=1)
    if in_view:
        before = np.flatnonzero(outside > _OUTSIDE)
        return path[before[-1] :] if len(before) else path
    inside = np.flatnonzero(outside < _OUTSIDE)
    return path[max(inside[0] - 1, 0) :] if len(inside) else path


def _side(rng: Rng) -> float:
    return float(rng.choice([-1.0, 1.0]))
