# SPDX-License-Identifier: Apache-2.0
"""What the console does to a picture: collimator, burned-in graphics, video, compression.

Graphics are bright or dark lines that are no wires; a network has to learn to leave them alone.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Rng = np.random.Generator
Image = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Painter = Callable[[Rng, Bytes], None]

_LETTERS = list("ABCDEFGHIKLMNOPRSTUVWXYZ0123456789  :./-%")
_WORDS = ("Fluoro", "kV 78", "mA 12.4", "LAO 30", "CRAN 15", "RAO 25", "Im: 12/96", "W 255 L 128")
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_DUPLEX)
# How often an image is without any collimator in view.
_OPEN_FIELD = {"human": 0.25, "animal": 0.4, "phantom": 0.4}


def exposed_field(rng: Rng, kind: str, size: int) -> Image | None:
    """(size, size) in 0..1: 1 where X-rays reach the detector; None when all of it is exposed."""
    if kind == "simulation" or rng.random() < _OPEN_FIELD[kind]:
        return None
    shapes = ["frame", "blades", "round", "octagon", "wedge"]
    shape = rng.choice(shapes, p=[0.56, 0.16, 0.14, 0.09, 0.05])
    if shape == "frame":  # a narrow border, some sides of it out of view
        mask = _blades(size, rng.uniform(-0.01, 0.035, 4), rng.normal(0, 0.006))
    elif shape == "blades":
        mask = _blades(size, rng.uniform(-0.06, 0.13, 4), rng.normal(0, 0.03))
    elif shape == "round":  # the input window of an image intensifier
        mask = _disc(rng, size, rng.uniform(0.47, 0.62))
    elif shape == "octagon":
        mask = np.minimum(
            _disc(rng, size, rng.uniform(0.5, 0.58)), _blades(size, rng.uniform(0, 0.06, 4), 0.0)
        )
    else:  # a single blade at any angle
        margins = np.array([rng.uniform(0.05, 0.2), -1, -1, -1])
        mask = _blades(size, margins, rng.uniform(0, 2 * np.pi))
    return _shadowed(rng, mask)


def _blades(size: int, margins: npt.NDArray[np.float64], angle: float) -> Bytes:
    """255 between four straight edges, at these parts of the side from those of the image."""
    left, top, right, bottom = margins - 0.5
    corners = np.array([(left, top), (-right, top), (-right, -bottom), (left, -bottom)])
    c, s = np.cos(angle), np.sin(angle)
    points = corners @ np.array([(c, s), (-s, c)]) * size + (size - 1) / 2
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask


def _disc(rng: Rng, size: int, radius: float) -> Bytes:
    mask = np.zeros((size, size), np.uint8)
    center = (size - 1) / 2 + rng.normal(0, 0.012 * size, 2)
    x, y = np.round(center * 16).astype(int).tolist()
    cv2.circle(mask, (x, y), round(radius * size * 16), 255, -1, cv2.LINE_AA, 4)
    return mask


def _shadowed(rng: Rng, mask: Bytes) -> Image:
    """The mask with the half-shadow of a blade, or the sharper edge of an electronic shutter."""
    sigma = float(rng.choice([rng.uniform(0.3, 1.0), rng.uniform(1.0, 5.0)])) * len(mask) / 512
    soft = cv2.GaussianBlur(mask, (0, 0), max(sigma, 0.2), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(soft * np.float32(1 / 255), np.float32)


def add_console(pixels: Pixels, kind: str, rng: Rng) -> Pixels:
    """Graphics, video and compression artefacts, each now and then; JPEG is for 8 bits only."""
    rare = 0.3 if kind == "simulation" else 1.0
    early = rng.random() < 0.5  # graphics that the video signal carries, not those of a viewer
    if early:
        _add_graphics(pixels, rng, rare)
    if rng.random() < 0.12 * rare:
        pixels = _as_video(pixels, rng)
    if not early:
        _add_graphics(pixels, rng, rare)
    if rng.random() < 0.1 * rare:
        _draw_border_lines(pixels, rng)
    return _coded(pixels.astype(np.uint8), rng, rare) if pixels.dtype == np.uint8 else pixels


def _coded(pixels: Bytes, rng: Rng, rare: float) -> Bytes:
    if rng.random() < 0.06 * rare:
        pixels = _banded(pixels, int(rng.integers(2, 6)))
    return _compressed(pixels, rng) if rng.random() < 0.4 else pixels


def _add_graphics(pixels: Pixels, rng: Rng, rare: float) -> None:
    """Burn graphics in, each by its chance, bright or (seldom) dark, more or less opaque."""
    stencil = np.zeros(pixels.shape, np.uint8)  # OpenCV draws on 8-bit images only
    drawn = False
    for painter, chance in _PAINTERS:
        if rng.random() < chance * rare:
            painter(rng, stencil)
            drawn = True
    dark, strength = rng.random() < 0.15, rng.uniform(0.4, 1.0)
    if not drawn:
        return
    top = 255 if pixels.dtype == np.uint8 else int(pixels.max())
    opacity = stencil * np.float32(strength / 255)
    target = np.float32(0 if dark else top)
    pixels[:] = np.round(pixels + (target - pixels.astype(np.float32)) * opacity)


def _text(rng: Rng, stencil: Bytes) -> None:
    size = len(stencil)
    scale = float(rng.uniform(0.3, 0.6)) * size / 512
    left = rng.choice([0.02, 0.7]) * size
    top = rng.choice([rng.uniform(0.03, 0.1), rng.uniform(0.75, 0.9)]) * size
    font = int(rng.choice(_FONTS))
    for row in range(int(rng.integers(1, 7))):
        if rng.random() < 0.5:
            line = str(rng.choice(_WORDS))
        else:
            line = "".join(rng.choice(_LETTERS, int(rng.integers(2, 14))))
        at = round(left), round(top + row * 36 * scale)
        cv2.putText(stencil, line, at, font, scale, 255, 1, cv2.LINE_AA)


def _letter(rng: Rng, stencil: Bytes) -> None:
    """A side marker: L or R, large, anywhere near the border."""
    size = len(stencil)
    corner = np.array([rng.choice([0.05, 0.88]), rng.choice([0.12, 0.93])])
    at = np.round((corner + rng.normal(0, 0.015, 2)) * size).astype(int).tolist()
    scale, font = float(rng.uniform(0.7, 1.8)) * size / 512, int(rng.choice(_FONTS))
    cv2.putText(stencil, str(rng.choice(["L", "R"])), at, font, scale, 255, 2, cv2.LINE_AA)


def _scale_bar(rng: Rng, stencil: Bytes) -> None:
    """A ruler along a border: an axis with ticks."""
    size = len(stencil)
    along = np.linspace(rng.uniform(0.05, 0.5), rng.uniform(0.6, 0.95), int(rng.integers(4, 15)))
    at, tick = rng.choice([0.03, 0.97]) * size, rng.uniform(0.008, 0.025) * size
    ends = [[(along[0] * size, at), (along[-1] * size, at)]]
    ends += [[(a * size, at - tick), (a * size, at + tick)] for a in along]
    lines = np.array(ends)
    if rng.random() < 0.6:
        lines = lines[..., ::-1]
    _polylines(stencil, lines, 1)


def _trace(rng: Rng, stencil: Bytes) -> None:
    """An ECG along the lower or upper border."""
    size = len(stencil)
    x = np.arange(0, size, 2.0)
    beat = rng.uniform(0.12, 0.35) * size
    phase = (x / beat + rng.random()) % 1
    height = rng.uniform(0.02, 0.08) * size
    y = np.exp(-(((phase - 0.5) / 0.02) ** 2)) - 0.25 * np.exp(-(((phase - 0.55) / 0.02) ** 2))
    y += 0.2 * np.exp(-(((phase - 0.8) / 0.06) ** 2)) + 0.1 * np.exp(
        -(((phase - 0.3) / 0.04) ** 2)
    )
    y += rng.normal(0, 0.02, len(x))
    base = rng.choice([0.93, 0.1]) * size
    _polylines(stencil, np.stack([x, base - height * y], axis=1)[None], 1)


def _pointer(rng: Rng, stencil: Bytes) -> None:
    """A mouse pointer or a cross, anywhere."""
    scale = rng.uniform(0.8, 1.6) * len(stencil) / 512
    at = rng.uniform(0.05, 0.95, 2) * len(stencil)
    if rng.random() < 0.6:
        arrow = [(0, 0), (0, 15), (3.5, 11.5), (6, 17), (8.5, 16), (6, 10.5), (10.5, 10.5)]
        cv2.fillPoly(stencil, [np.round(at + scale * np.array(arrow)).astype(np.int32)], 255)
    else:
        arms = scale * rng.uniform(4, 12) * np.array([[(-1, 0), (1, 0)], [(0, -1), (0, 1)]])
        _polylines(stencil, at + arms, 1)


def _measurement(rng: Rng, stencil: Bytes) -> None:
    """What someone has drawn: a straight line, an arrow, a circle, a box or a grid."""
    size = len(stencil)
    a, b = rng.uniform(0.05, 0.95, (2, 2)) * size
    corner, other = np.round(a).astype(int).tolist(), np.round(b).astype(int).tolist()
    shape = rng.choice(["line", "arrow", "circle", "box", "grid"])
    if shape == "line":
        cv2.line(stencil, corner, other, 255, 1, cv2.LINE_AA)
    elif shape == "arrow":
        cv2.arrowedLine(stencil, corner, other, 255, 1, cv2.LINE_AA, tipLength=0.08)
    elif shape == "circle":
        cv2.circle(stencil, corner, round(rng.uniform(0.02, 0.3) * size), 255, 1, cv2.LINE_AA)
    elif shape == "box":
        cv2.rectangle(stencil, corner, other, 255, 1)
    else:
        step = round(rng.uniform(0.1, 0.3) * size)
        stencil[step // 2 :: step] = 160
        stencil[:, step // 2 :: step] = 160


def _patches(rng: Rng, stencil: Bytes) -> None:
    """A logo, a grey wedge or a blanked name: filled boxes at the border."""
    size = len(stencil)
    width, height = rng.uniform(0.02, 0.2, 2) * size
    x, y = rng.choice([0.0, 1.0], 2) * (size - np.array([width, height]))
    box = stencil[round(y) : round(y + height), round(x) : round(x + width)]
    box[:] = np.linspace(0, 255, box.shape[1]) if rng.random() < 0.4 else rng.integers(80, 256)


def _polylines(stencil: Bytes, lines: npt.NDArray[np.float64], width: int) -> None:
    points = list(np.round(lines * 16).astype(np.int32))
    cv2.polylines(stencil, points, False, 255, width, cv2.LINE_AA, 4)


_PAINTERS: tuple[tuple[Painter, float], ...] = (
    (_text, 0.16),
    (_letter, 0.04),
    (_scale_bar, 0.04),
    (_trace, 0.03),
    (_pointer, 0.05),
    (_measurement, 0.05),
    (_patches, 0.04),
)


def _draw_border_lines(pixels: Pixels, rng: Rng) -> None:
    """Rows and columns at the very border that are bright or dark: how frame grabbers begin."""
    top = 255 if pixels.dtype == np.uint8 else int(pixels.max())
    for side in range(4):
        if rng.random() < 0.5:
            lines = np.rot90(pixels, side)
            begin = int(rng.integers(0, 3))
            lines[begin : begin + int(rng.integers(1, 3))] = round(
                top * rng.choice([0.0, 0.5, 1.0])
            )


def _as_video(pixels: Pixels, rng: Rng) -> Pixels:
    """Through an analogue cable: rows smeared, ringing, an echo, or fields woven out of step."""
    top = 255 if pixels.dtype == np.uint8 else int(pixels.max())
    video = pixels.astype(np.float32)
    smear = float(rng.uniform(0.4, 1.6))
    smeared = cv2.GaussianBlur(video, (0, 0), sigmaX=smear, sigmaY=0.01)
    if rng.random() < 0.4:  # peaking
        wider = cv2.GaussianBlur(smeared, (0, 0), sigmaX=3 * smear, sigmaY=0.01)
        smeared = smeared + (smeared - wider) * np.float32(rng.uniform(0.2, 0.8))
    if rng.random() < 0.2:
        offset = int(rng.integers(3, 20))
        smeared[:, offset:] += np.float32(rng.uniform(-0.08, 0.08)) * (
            smeared[:, :-offset] - smeared.mean()
        )
    if rng.random() < 0.3:
        smeared[1::2, 1:] = smeared[1::2, :-1]
    elif rng.random() < 0.3:  # one field only, each row shown twice
        smeared[1::2] = smeared[0::2][: len(smeared[1::2])]
    levels = np.clip(np.round(smeared), 0, top)
    return levels.astype(np.uint8) if pixels.dtype == np.uint8 else levels.astype(np.uint16)


def _banded(pixels: Bytes, step: int) -> Bytes:
    """Fewer grey levels: every step-th only."""
    levels = np.arange(256) // step * step * 255 // (255 // step * step)
    return np.asarray(cv2.LUT(pixels, levels.astype(np.uint8)), np.uint8)


def _compressed(pixels: Bytes, rng: Rng) -> Bytes:
    """JPEG, once or twice, or the blocks of a video codec, which works at a size of its own."""
    quality = round(float(100 - np.exp(rng.uniform(np.log(3), np.log(80)))))
    if rng.random() < 0.2:
        size = pixels.shape[::-1]
        other = [round(side * rng.uniform(0.6, 1.2)) for side in size]
        coded = _jpeg(np.asarray(cv2.resize(pixels, other), np.uint8), quality)
        return np.asarray(cv2.resize(coded, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    coded = _jpeg(pixels, quality)
    return _jpeg(coded, int(rng.integers(50, 96))) if rng.random() < 0.2 else coded


def _jpeg(pixels: Bytes, quality: int) -> Bytes:
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)
