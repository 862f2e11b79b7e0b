# SPDX-License-Identifier: Apache-2.0
"""What stands around a phantom on the bench: tanks, rails, screws, hoses, rulers, cables, pumps.

Each painter draws one thing in grey levels on an uint8 canvas; 255 is what the thing attenuates
most. All of it is background: straight, repeated, closed or wide, as no instrument is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.simulation.curves import Curve
from fedefm_core.simulation.tubes import SHIFT, fixed, rounded_path

Canvas = npt.NDArray[np.uint8]
Image = npt.NDArray[np.float32]
Rng = np.random.Generator
Painter = Callable[[Rng, Canvas, float], None]


@dataclass(frozen=True)
class Fixture:
    """paint: draws it. chance: that a phantom's picture holds it. attenuation: (low, high);
    both negative where it takes the place of something denser."""

    paint: Painter
    chance: float
    attenuation: tuple[float, float]


def add_fixtures(rng: Rng, image: Image, scale: float, density: float = 1.0) -> None:
    """Add random fixtures to image, in place. density multiplies their chances."""
    for fixture in FIXTURES.values():
        if rng.random() < fixture.chance * density:
            canvas = np.zeros(image.shape, np.uint8)
            fixture.paint(rng, canvas, scale)
            low, high = np.log(np.abs(fixture.attenuation))
            sign = np.sign(fixture.attenuation[0])
            add_canvas(rng, image, canvas, float(sign * np.exp(rng.uniform(low, high))))


def add_canvas(rng: Rng, image: Image, canvas: Canvas, attenuation: float) -> None:
    """Add a painted canvas to image, in place, slightly soft as a shadow is."""
    sigma = float(rng.uniform(0.5, 1.2))
    x, y, width, height = cv2.boundingRect(canvas)
    box = (slice(max(y - 5, 0), y + height + 5), slice(max(x - 5, 0), x + width + 5))
    if width and height:
        image[box] += cv2.GaussianBlur(canvas[box], (0, 0), sigma) * np.float32(attenuation / 255)


def connector(rng: Rng, canvas: Canvas, end: Curve, angle: float, width: float) -> None:
    """A barbed fitting in the end of a hose of that width, with a clamp or a zip tie."""
    along = np.array([np.cos(angle), np.sin(angle)])
    for index in range(int(rng.integers(2, 5))):  # barbs: cones one after another
        spot = end + along * index * 0.32 * width
        _fill(canvas, _cone(spot, angle, 0.3 * width, 1.05 * width, 0.8 * width), 120)
    _fill(canvas, _box(end + along * 1.7 * width, angle, 0.8 * width, 1.4 * width), 150)
    _fill(canvas, _box(end + along * 2.5 * width, angle, 1.2 * width, 0.6 * width), 110)
    if rng.random() < 0.6:
        spot = end - along * rng.uniform(0.1, 0.5) * width
        _clamp(rng, canvas, spot, angle, width)


def _clamp(rng: Rng, canvas: Canvas, spot: Curve, angle: float, width: float) -> None:
    across = np.array([-np.sin(angle), np.cos(angle)])
    level = int(rng.integers(160, 256))
    _fill(canvas, _box(spot, angle, rng.uniform(0.12, 0.4) * width, 1.25 * width), level)
    head = spot + across * 0.7 * width * rng.choice([-1, 1])
    _fill(canvas, _box(head, angle, 0.45 * width, 0.35 * width), 255)


def _tank(rng: Rng, canvas: Canvas, scale: float) -> None:
    """Walls of a box: long double lines, some of which leave the picture."""
    size = len(canvas)
    sides, angle = rng.uniform(0.5, 1.7, 2) * size, rng.choice([0, np.pi / 2]) + rng.normal(0, 0.1)
    center, wall = rng.uniform(0.1, 0.9, 2) * size, rng.uniform(4, 16) * scale
    _fill(canvas, _box(center, angle, *sides), 150)
    _fill(canvas, _box(center, angle, *(sides - 2 * wall)), int(rng.integers(20, 110)))
    for _ in range(int(rng.integers(0, 3))):  # glued seams and stiffening bars
        share = rng.uniform(-0.5, 0.5) * sides[0]
        spot = center + share * np.array([np.cos(angle), np.sin(angle)])
        _fill(canvas, _box(spot, angle, rng.uniform(3, 14) * scale, sides[1]), 190)


def _rail(rng: Rng, canvas: Canvas, scale: float) -> None:
    """A profile of aluminium or the table's rail: a straight band with grooves, maybe holes."""
    size = len(canvas)
    angle, spot = _machine_angle(rng), rng.uniform(0, size, 2)
    width = rng.uniform(12, 70) * scale
    _fill(canvas, _box(spot, angle, 3 * size, width), int(rng.integers(90, 190)))
    across = np.array([-np.sin(angle), np.cos(angle)])
    for share in (-0.5, 0.5, *rng.uniform(-0.45, 0.45, int(rng.integers(0, 4)))):
        edge = spot + across * share * width
        _fill(canvas, _box(edge, angle, 3 * size, max(2, rng.uniform(1, 5) * scale)), 230)
    if rng.random() < 0.4:
        along, pitch = np.array([np.cos(angle), np.sin(angle)]), rng.uniform(1.2, 4) * width
        for step in np.arange(-size, size, pitch):
            _disc(canvas, spot + along * step, 0.22 * width, 40)


def _table_edge(rng: Rng, canvas: Canvas, scale: float) -> None:
    size = len(canvas)
    angle = _machine_angle(rng)
    spot = rng.uniform(0, size, 2)
    across = np.array([-np.sin(angle), np.cos(angle)])
    _fill(
        canvas, _box(spot + across * size, angle, 4 * size, 2 * size), int(rng.integers(60, 200))
    )
    if rng.random() < 0.6:
        _fill(canvas, _box(spot, angle, 4 * size, rng.uniform(2, 12) * scale), 255)


def _screws(rng: Rng, canvas: Canvas, scale: float) -> None:
    """Heads seen from above, in a row, on a circle, or anyhow."""
    count, radius = int(rng.integers(1, 7)), rng.uniform(5, 22) * scale
    start = rng.uniform(0, len(canvas), 2)
    step = rng.uniform(3, 14) * radius * _unit(_machine_angle(rng))
    turn, drive = rng.uniform(0, np.pi), int(rng.integers(4))
    for index in range(count):
        spot = start + index * step if rng.random() < 0.8 else rng.uniform(0, len(canvas), 2)
        if rng.random() < 0.4:
            _disc(canvas, spot, 1.7 * radius, 90)  # washer
        _disc(canvas, spot, radius, 200)
        _disc(canvas, spot, 0.55 * radius, 255)
        turn += rng.uniform(0, 2)
        if drive == 0:
            _fill(canvas, _polygon(spot, 0.5 * radius, 6, turn), 120)
        elif drive == 1:
            _fill(canvas, _box(spot, turn, 1.6 * radius, 0.3 * radius), 110)
        elif drive == 2:
            for extra in (0, np.pi / 2):
                _fill(canvas, _box(spot, turn + extra, 1.2 * radius, 0.28 * radius), 110)


def _bolts(rng: Rng, canvas: Canvas, scale: float) -> None:
    """Screws from the side: a head, a shank and the thread's teeth; a nut on some."""
    for _ in range(int(rng.integers(1, 4))):
        spot, angle = rng.uniform(0, len(canvas), 2), rng.uniform(0, 2 * np.pi)
        width, length = rng.uniform(7, 20) * scale, rng.uniform(30, 130) * scale
        along, across = _unit(angle), _unit(angle + np.pi / 2)
        pitch = max(0.3 * width, 3.0)
        steps = np.arange(0, length, pitch / 2)
        reach = (0.5 - 0.1 * (np.arange(len(steps)) % 2)) * width
        teeth = [spot + along * s + across * r for s, r in zip(steps, reach, strict=True)]
        teeth += [
            spot + along * s - across * r
            for s, r in zip(steps[::-1], np.roll(reach, 1)[::-1], strict=True)
        ]
        _fill(canvas, np.array(teeth), 220)
        _fill(canvas, _box(spot - along * 0.35 * width, angle, 0.7 * width, 1.7 * width), 255)
        if rng.random() < 0.5:
            nut = spot + along * rng.uniform(0.4, 0.9) * length
            _fill(canvas, _box(nut, angle, 0.8 * width, 1.8 * width), 255)


def _nuts(rng: Rng, canvas: Canvas, scale: float) -> None:
    for _ in range(int(rng.integers(1, 6))):
        spot, radius = rng.uniform(0, len(canvas), 2), rng.uniform(7, 26) * scale
        sides = int(rng.choice([6, 6, 4, 40]))
        _fill(canvas, _polygon(spot, radius, sides, rng.uniform(0, 2)), 220)
        _disc(canvas, spot, rng.uniform(0.4, 0.75) * radius, 0)


def _bracket(rng: Rng, canvas: Canvas, scale: float) -> None:
    """A plate or an angle with drilled holes."""
    spot, angle = rng.uniform(0, len(canvas), 2), _machine_angle(rng)
    length, width = rng.uniform(60, 300) * scale, rng.uniform(18, 80) * scale
    level = int(rng.integers(90, 220))
    _fill(canvas, _box(spot, angle, length, width), level)
    if rng.random() < 0.6:
        elbow = spot + _unit(angle) * (length - width) / 2
        other = elbow + _unit(angle + np.pi / 2) * rng.uniform(0.3, 0.6) * length
        _fill(canvas, _box((elbow + other) / 2, angle + np.pi / 2, 0.8 * length, width), level)
    for share in np.linspace(-0.42, 0.42, int(rng.integers(2, 6))):
        _disc(canvas, spot + _unit(angle) * share * length, 0.2 * width, int(0.2 * level))


def _breadboard(rng: Rng, canvas: Canvas, scale: float) -> None:
    """An optical table or a peg board: holes in a square pattern."""
    size, pitch = len(canvas), rng.uniform(35, 120) * scale
    angle, start = _machine_angle(rng), rng.uniform(0, size, 2)
    radius, inverse = rng.uniform(0.08, 0.25) * pitch, rng.random() < 0.5
    canvas[:] = 0 if inverse else 150
    count = int(0.8 * size / pitch) + 1
    for i in range(-count, count + 1):
        for j in range(-count, count + 1):
            spot = start + pitch * (i * _unit(angle) + j * _unit(angle + np.pi / 2))
            _disc(canvas, spot, radius, 255 if inverse else 30)


def _ruler(rng: Rng, canvas: Canvas, scale: float) -> None:
    """A scale with marks of three lengths and digits."""
    size, angle = len(canvas), _machine_angle(rng)
    pitch, long = rng.uniform(4, 16) * scale, rng.uniform(12, 45) * scale
    start = rng.uniform(-0.2, 0.8, 2) * size
    along, across = _unit(angle), _unit(angle + np.pi / 2) * rng.choice([-1, 1])
    count, thick = int(rng.integers(20, 120)), rng.uniform(1.0, 2.5) * scale
    if rng.random() < 0.6:
        middle = start + along * count * pitch / 2 + across * 0.7 * long
        _fill(canvas, _box(middle, angle, count * pitch, 2.2 * long), 60)
    for index in range(count):
        spot = start + along * index * pitch
        share = 1.0 if index % 10 == 0 else 0.7 if index % 5 == 0 else 0.45
        _fill(canvas, _box(spot + across * share * long / 2, angle, thick, share * long), 220)
        if index % 10 == 0:
            _text(canvas, str(index // 10), spot + across * 1.2 * long, 0.022 * long, 230)


def _grid(rng: Rng, canvas: Canvas, scale: float) -> None:
    """A calibration grid: lines both ways all over, or beads."""
    size, pitch = len(canvas), rng.uniform(22, 90) * scale
    angle, start = rng.uniform(0, np.pi), rng.uniform(0, size, 2)
    beads, radius = rng.random() < 0.4, rng.uniform(1.5, 5) * scale
    width = rng.uniform(1.0, 3.5) * scale
    count = int(0.8 * size / pitch) + 2
    for i in range(-count, count + 1):
        if beads:
            for j in range(-count, count + 1):
                spot = start + pitch * (i * _unit(angle) + j * _unit(angle + np.pi / 2))
                _disc(canvas, spot, radius, 255)
            continue
        for turn in (angle, angle + np.pi / 2):
            spot = start + pitch * i * _unit(turn + np.pi / 2)
            _fill(canvas, _box(spot, turn, 3 * size, width), 255)


def _hose(rng: Rng, canvas: Canvas, scale: float) -> None:
    """Wide tubing with walls, some with a spiral or a braid, a dashed stripe, a fitting."""
    size, width = len(canvas), rng.uniform(22, 70) * scale
    corners = rng.uniform(-0.3, 1.3, (int(rng.integers(2, 5)), 2)) * size
    path = rounded_path(corners, rng.uniform(0.6, 2) * width)
    wall = rng.uniform(0.1, 0.25)
    for share, level in ((1.0, 190), (1 - wall, 140), (1 - 2 * wall, int(rng.integers(40, 110)))):
        _line(canvas, path, level, share * width)
    sort = rng.random()
    if sort < 0.3:
        _spiral(canvas, path, width, rng.uniform(0.25, 0.8) * width, max(1.5, 2 * scale))
    elif sort < 0.45:
        dash = rng.uniform(0.3, 1.0) * width
        for begin in np.arange(0, len(path) - dash, 2 * dash).astype(int):
            _line(canvas, path[begin : begin + max(int(dash), 2)], 230, 0.12 * width)
    step = path[-1] - path[-min(8, len(path))]
    connector(rng, canvas, path[-1], float(np.arctan2(step[1], step[0])), width)


def _spiral(canvas: Canvas, path: Curve, width: float, pitch: float, thick: float) -> None:
    along = np.gradient(path, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    swing = np.cos(2 * np.pi * np.arange(len(path)) / max(pitch, 4))
    _line(canvas, path + 0.46 * width * swing[:, None] * across, 255, thick)


def _stopcock(rng: Rng, canvas: Canvas, scale: float) -> None:
    """A three-way stopcock or a luer fitting: crossed cylinders with rims."""
    spot, angle = rng.uniform(0, len(canvas), 2), rng.uniform(0, 2 * np.pi)
    width = rng.uniform(9, 26) * scale
    for turn, length in ((0.0, 7.0), (np.pi / 2, 4.0)):
        _fill(canvas, _box(spot, angle + turn, length * width, width), 120)
        _fill(canvas, _box(spot, angle + turn, length * width, 0.45 * width), 50)
        for end in (-1, 1):
            rim = spot + end * length * width / 2 * _unit(angle + turn)
            _fill(canvas, _box(rim, angle + turn, 0.7 * width, 1.5 * width), 170)
    _disc(canvas, spot, 0.9 * width, 210)


def _ties(rng: Rng, canvas: Canvas, scale: float) -> None:
    for _ in range(int(rng.integers(1, 4))):
        spot, angle = rng.uniform(0, len(canvas), 2), rng.uniform(0, np.pi)
        _clamp(rng, canvas, spot, angle, rng.uniform(20, 60) * scale)


def _cable(rng: Rng, canvas: Canvas, scale: float) -> None:
    """Insulation around two or more twisted cores, ending in a plug."""
    size, width = len(canvas), rng.uniform(14, 34) * scale
    corners = rng.uniform(-0.2, 1.2, (int(rng.integers(2, 5)), 2)) * size
    path = rounded_path(corners, rng.uniform(20, 60) * scale)
    _line(canvas, path, 60, width)
    for phase in (0.0, np.pi):
        along = np.gradient(path, axis=0)
        across = np.stack([-along[:, 1], along[:, 0]], axis=1)
        swing = np.cos(np.arange(len(path)) / (1.2 * width) + phase)
        _line(canvas, path + 0.27 * width * swing[:, None] * across, 200, 0.28 * width)
    step = path[-1] - path[-min(8, len(path))]
    angle = float(np.arctan2(step[1], step[0]))
    _fill(canvas, _box(path[-1], angle, 3 * width, 1.8 * width), 150)
    for side in (-0.4, 0.0, 0.4):
        pin = path[-1] + 2.2 * width * _unit(angle) + side * width * _unit(angle + np.pi / 2)
        _fill(canvas, _box(pin, angle, 1.6 * width, 0.15 * width), 255)


def _pump(rng: Rng, canvas: Canvas, scale: float) -> None:
    """The metal of a pump or a motor at the border: nearly opaque, round and square."""
    size = len(canvas)
    spot = rng.uniform(0, size, 2)
    spot[int(rng.integers(2))] = rng.choice([-0.05, 1.05]) * size
    radius, angle = rng.uniform(50, 190) * scale, _machine_angle(rng)
    _fill(canvas, _box(spot, angle, 2.6 * radius, 1.5 * radius), 150)
    for share in sorted(rng.uniform(0.3, 1.0, int(rng.integers(1, 5))))[::-1]:
        _disc(canvas, spot, share * radius, int(rng.integers(90, 256)))
    for turn in np.arange(0, 2 * np.pi, np.pi / 3):
        _disc(canvas, spot + 0.85 * radius * _unit(turn + angle), 0.06 * radius, 255)


def _fins(rng: Rng, canvas: Canvas, scale: float) -> None:
    """A heat sink, a connector strip, a comb: short parallel bars."""
    spot, angle = rng.uniform(0, len(canvas), 2), _machine_angle(rng)
    pitch, length = rng.uniform(6, 22) * scale, rng.uniform(20, 130) * scale
    count = int(rng.integers(5, 22))
    _fill(canvas, _box(spot, angle, count * pitch, 0.3 * length), 170)
    for index in range(count):
        foot = spot + (index - count / 2) * pitch * _unit(angle)
        bar = foot + 0.5 * length * _unit(angle + np.pi / 2)
        _fill(canvas, _box(bar, angle, 0.45 * pitch, length), 220)


def _labels(rng: Rng, canvas: Canvas, scale: float) -> None:
    """Lead letters and engraved text."""
    for _ in range(int(rng.integers(1, 4))):
        text = "".join(rng.choice(list("LRAPC0123456789 -mM"), int(rng.integers(1, 8))))
        _text(canvas, text, rng.uniform(0, 1, 2) * len(canvas), rng.uniform(0.4, 1.6) * scale, 255)


def _print(rng: Rng, canvas: Canvas, scale: float) -> None:
    """A 3-D printed part: solid rim, regular infill, layer lines."""
    spot, angle = rng.uniform(0, len(canvas), 2), _machine_angle(rng)
    sides = rng.uniform(80, 420, 2) * scale
    inside = np.zeros_like(canvas)
    shape = _box(spot, angle, *sides)
    if rng.random() < 0.5:
        shape = _polygon(spot, sides[0] / 2, int(rng.choice([6, 60])), angle)
    _fill(inside, shape, 255)
    pitch = rng.uniform(7, 26) * scale
    for turn in (np.pi / 4, -np.pi / 4)[: int(rng.integers(1, 3))]:
        for shift in np.arange(-0.75, 0.75, pitch / sides.max()) * sides.max():
            line = spot + shift * _unit(angle + turn + np.pi / 2)
            _fill(canvas, _box(line, angle + turn, 1.6 * sides.max(), 1.8 * scale), 120)
    np.minimum(canvas, inside, out=canvas)
    cv2.polylines(canvas, [fixed(shape)], True, 200, max(2, round(4 * scale)), 8, SHIFT)


def _bubbles(rng: Rng, canvas: Canvas, scale: float) -> None:
    """Air in the water: round holes, alone or in swarms."""
    spot = rng.uniform(0, len(canvas), 2)
    for _ in range(int(rng.integers(3, 40))):
        center = spot + rng.normal(0, 60 * scale, 2)
        _disc(canvas, center, np.exp(rng.uniform(0.5, 2.6)) * scale, 255)


FIXTURES: dict[str, Fixture] = {
    "tank": Fixture(_tank, 0.35, (0.1, 0.9)),
    "rail": Fixture(_rail, 0.22, (0.15, 2.0)),
    "table edge": Fixture(_table_edge, 0.15, (0.1, 0.9)),
    "screws": Fixture(_screws, 0.28, (0.2, 2.5)),
    "bolts": Fixture(_bolts, 0.15, (0.4, 3.0)),
    "nuts": Fixture(_nuts, 0.15, (0.2, 2.5)),
    "bracket": Fixture(_bracket, 0.18, (0.1, 1.8)),
    "breadboard": Fixture(_breadboard, 0.05, (0.1, 0.8)),
    "ruler": Fixture(_ruler, 0.14, (0.1, 1.2)),
    "grid": Fixture(_grid, 0.1, (0.05, 0.5)),
    "hose": Fixture(_hose, 0.22, (0.1, 0.7)),
    "stopcock": Fixture(_stopcock, 0.1, (0.15, 0.9)),
    "ties": Fixture(_ties, 0.12, (0.1, 1.0)),
    "cable": Fixture(_cable, 0.08, (0.3, 1.2)),
    "pump": Fixture(_pump, 0.12, (0.6, 4.0)),
    "fins": Fixture(_fins, 0.06, (0.15, 2.0)),
    "labels": Fixture(_labels, 0.1, (0.1, 1.5)),
    "print": Fixture(_print, 0.08, (0.08, 0.5)),
    "bubbles": Fixture(_bubbles, 0.15, (-0.05, -0.3)),
}


def _machine_angle(rng: Rng) -> float:
    """Mostly along the picture's sides, as benches and tables stand."""
    if rng.random() < 0.65:
        return float(rng.choice([0, np.pi / 2]) + rng.normal(0, 0.06))
    return float(rng.uniform(0, np.pi))


def _unit(angle: float) -> Curve:
    return np.array([np.cos(angle), np.sin(angle)])


def _box(center: Curve, angle: float, length: float, width: float) -> Curve:
    along, across = _unit(angle) * length / 2, _unit(angle + np.pi / 2) * width / 2
    return np.array(
        [
            center + along + across,
            center + along - across,
            center - along - across,
            center - along + across,
        ]
    )


def _cone(center: Curve, angle: float, length: float, begin: float, end: float) -> Curve:
    along, across = _unit(angle) * length / 2, _unit(angle + np.pi / 2) / 2
    return np.array(
        [
            center + along + across * end,
            center + along - across * end,
            center - along - across * begin,
            center - along + across * begin,
        ]
    )


def _polygon(center: Curve, radius: float, corners: int, turn: float) -> Curve:
    angles = turn + np.arange(corners) * 2 * np.pi / corners
    return center + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _fill(canvas: Canvas, points: Curve, level: int) -> None:
    cv2.fillPoly(canvas, [fixed(points)], level, cv2.LINE_AA, SHIFT)


def _line(canvas: Canvas, path: Curve, level: int, width: float) -> None:
    cv2.polylines(canvas, [fixed(path[::3])], False, level, max(round(width), 1), 8, SHIFT)


def _disc(canvas: Canvas, center: Curve, radius: float, level: int) -> None:
    reach = max(round(radius * (1 << SHIFT)), 8)
    cv2.circle(canvas, fixed(center).tolist(), reach, level, -1, cv2.LINE_AA, SHIFT)


def _text(canvas: Canvas, text: str, spot: Curve, height: float, level: int) -> None:
    at = (int(spot[0]), int(spot[1]))
    font, thick = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(2 * height))
    cv2.putText(canvas, text, at, font, max(height, 0.2), level, thick, cv2.LINE_AA)
