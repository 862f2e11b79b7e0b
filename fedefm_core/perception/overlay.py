# SPDX-License-Identifier: Apache-2.0
"""A frame with what was perceived drawn on it; for people, never for measuring.

Colors are Okabe and Ito's, which color-blind readers tell apart. Tints are light and the
centerline is thin, so that the wire itself stays visible under them.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.perception.types import (
    INSTRUMENT_KINDS,
    FloatArray,
    Instrument,
    Perception,
    TrackingState,
)

Image = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

COLORS: dict[str, Color] = {"catheter": (233, 180, 86), "guidewire": (0, 159, 230)}  # BGR
STATE_COLORS: dict[TrackingState, Color] = {
    TrackingState.TRACKING: (115, 158, 0),
    TrackingState.LOST: (0, 94, 213),
}
_WHITE: Color = (255, 255, 255)
_BLACK: Color = (0, 0, 0)
_SHIFT = 4  # fractional bits of drawing coordinates
_TINT = 0.20
_OUTLINE = 0.80
_LINE = 0.35


def plot_color(kind: str) -> tuple[float, float, float]:
    """The color of an instrument for Matplotlib: red, green, blue, each 0 to 1."""
    blue, green, red = COLORS[kind]
    return red / 255, green / 255, blue / 255


def draw_overlay(grey: Image, perception: Perception) -> Image:
    """(H, W, 3) BGR uint8: grey (H, W) uint8 with masks, centerlines, tips and a legend.

    A tip that is vouched for has a ring, its heading as an arrow and its covariance as a 2-sigma
    ellipse; a tip that is only reported has a small open ring.
    """
    unit = max(1.0, min(grey.shape) / 512)
    canvas = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), dtype=np.uint8)
    canvas = _tinted(canvas, perception.label_map)
    canvas = _with_lines(canvas, perception, unit)
    vouched = {id(instrument) for instrument in perception.tracked.values()}
    for instrument in perception.instruments:
        _draw_tip(canvas, instrument, id(instrument) in vouched, unit)
    _draw_legend(canvas, perception, unit)
    return canvas


def _tinted(canvas: Image, label_map: Image) -> Image:
    """Blend in a color for each class, and none for the background."""
    table = np.zeros((256, 1, 3), np.uint8)
    for label, kind in enumerate(INSTRUMENT_KINDS, start=1):
        table[label, 0] = COLORS[kind]
    layer = cv2.LUT(cv2.cvtColor(label_map, cv2.COLOR_GRAY2BGR), table)
    mask = (label_map > 0).view(np.uint8)
    blended = cv2.addWeighted(layer, _TINT, canvas, 1 - _TINT, 0)
    return np.asarray(cv2.copyTo(blended, mask, canvas), dtype=np.uint8)


def _with_lines(canvas: Image, perception: Perception, unit: float) -> Image:
    """Outlines beside the masks, centerlines faintly on them; anti-aliased."""
    thickness = max(1, round(unit))
    reach = 2 * thickness + 1
    outlined, lined = canvas.copy(), canvas.copy()
    for label, kind in enumerate(INSTRUMENT_KINDS, start=1):
        mask = (perception.label_map == label).view(np.uint8)
        beside = cv2.dilate(mask, np.ones((reach, reach), np.uint8))
        outlines, _ = cv2.findContours(beside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(outlined, outlines, -1, COLORS[kind], thickness, cv2.LINE_AA)
    for instrument in perception.instruments:
        points = _fixed(instrument.centerline_px)[:, None]
        cv2.polylines(lined, [points], False, _WHITE, thickness, cv2.LINE_AA, _SHIFT)
    blended = cv2.addWeighted(outlined, _OUTLINE, canvas, 1 - _OUTLINE, 0)
    lines = cv2.absdiff(lined, canvas)
    return np.asarray(cv2.scaleAdd(lines, _LINE, blended), dtype=np.uint8)


def _fixed(points: FloatArray) -> npt.NDArray[np.int32]:
    """Drawing coordinates with _SHIFT fractional bits."""
    return np.rint(points * (1 << _SHIFT)).astype(np.int32)


def _draw_tip(canvas: Image, instrument: Instrument, vouched: bool, unit: float) -> None:
    if instrument.tip_px is None or instrument.heading_rad is None:
        return
    color = COLORS[instrument.kind]
    center = _point(instrument.tip_px)
    radius = round((5.0 if vouched else 3.0) * unit * (1 << _SHIFT))
    for tone, extra in ((_BLACK, 2), (color, 0)):
        width = max(1, round(unit)) + extra
        cv2.circle(canvas, center, radius, tone, width, cv2.LINE_AA, _SHIFT)
        if vouched:
            _draw_heading(canvas, instrument.tip_px, instrument.heading_rad, tone, width, unit)
    if vouched and instrument.covariance_px is not None:
        _draw_ellipse(canvas, center, instrument.covariance_px, max(1, round(unit)))


def _draw_heading(
    canvas: Image, tip: FloatArray, heading: float, color: Color, width: int, unit: float
) -> None:
    direction = np.array([np.cos(heading), np.sin(heading)])
    side = np.array([-direction[1], direction[0]])
    start, stop = tip + 6 * unit * direction, tip + 22 * unit * direction
    barbs = [stop - 6 * unit * direction + s * 4 * unit * side for s in (-1, 1)]
    for a, b in ((start, stop), (barbs[0], stop), (barbs[1], stop)):
        cv2.line(canvas, _point(a), _point(b), color, width, cv2.LINE_AA, _SHIFT)


def _draw_ellipse(
    canvas: Image, center: tuple[int, int], covariance: FloatArray, width: int
) -> None:
    """The 2-sigma ellipse of a covariance (2, 2)."""
    values, vectors = np.linalg.eigh(covariance)
    axes = tuple(int(v) for v in _fixed(2 * np.sqrt(np.maximum(values[::-1], 0.0))))
    angle = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))
    cv2.ellipse(canvas, center, axes, angle, 0, 360, _WHITE, width, cv2.LINE_AA, _SHIFT)


def _point(point: FloatArray) -> tuple[int, int]:
    x, y = _fixed(point)
    return int(x), int(y)


def _draw_legend(canvas: Image, perception: Perception, unit: float) -> None:
    rows: list[tuple[str, Color]] = [
        (perception.state.value, STATE_COLORS[perception.state]),
        *((_caption(perception, kind), COLORS[kind]) for kind in INSTRUMENT_KINDS),
    ]
    scale, line = 0.4 * unit, round(16 * unit)
    height, width = round(6 * unit) + line * len(rows), round(150 * unit)
    corner = canvas[:height, :width]
    corner[:] = cv2.convertScaleAbs(corner, alpha=0.45)
    for i, (text, color) in enumerate(rows, start=1):
        origin = (round(6 * unit), i * line - round(2 * unit))
        cv2.putText(
            canvas,
            text,
            origin,
            cv2.FONT_HERSHEY_SIMPLEX,
            scale,
            color,
            max(1, round(0.8 * unit)),
            cv2.LINE_AA,
        )


def _caption(perception: Perception, kind: str) -> str:
    tracked = perception.tracked.get(kind)
    if tracked is not None:
        return f"{kind} {tracked.confidence:.2f}"
    seen = [one for one in perception.instruments if one.kind == kind]
    if not seen:
        return f"{kind}: none"
    best = max(one.confidence for one in seen)
    return (
        f"{kind} ({best:.2f})"
        if any(one.tip_px is not None for one in seen)
        else f"{kind}: no tip"
    )
