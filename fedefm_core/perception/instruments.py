# SPDX-License-Identifier: Apache-2.0
"""Network output to instruments: components, skeletons, strokes, centerlines, tips.

All work is done in network pixels, on the part of the network's image that shows the input;
each finished instrument is then mapped to input pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedefm_core.config import Settings
from fedefm_core.perception.centerline import arc_length, refine
from fedefm_core.perception.contract import TIP_STRIDE
from fedefm_core.perception.fragments import GapLimits, join_fragments
from fedefm_core.perception.preprocess import Letterbox
from fedefm_core.perception.runtimes.base import NetworkOutput
from fedefm_core.perception.strokes import (
    SkeletonGraph,
    build_graph,
    trace_strokes,
)
from fedefm_core.perception.thinning import thin
from fedefm_core.perception.tips import Line, Surroundings, TipSettings, orient
from fedefm_core.perception.types import (
    BACKGROUND,
    CATHETER,
    GUIDEWIRE,
    INSTRUMENT_KINDS,
    FloatArray,
    Instrument,
)

_COVER_PX = 9  # of a wire's label, with room: wider ones are bridged as gaps


class InstrumentSettings(Settings):
    """What counts as an instrument. Lengths in network pixels.

    Components smaller than min_area_px, larger than max_area_fraction of the view or wider than
    max_width_px are no instruments, nor are those with more than max_junction_px branching
    skeleton pixels, nor centerlines shorter than min_length_px. Of each kind the max_components
    largest are looked at and the max_instruments longest kept. Fragments of one wire that turn
    by no more than max_gap_turn_rad are joined across a gap of up to max_gap_px, or
    max_hidden_gap_px where another instrument covers the gap.
    """

    min_area_px: int = Field(default=20, ge=1)
    max_area_fraction: float = Field(default=0.25, gt=0, le=1)
    max_width_px: float = Field(default=40.0, gt=0)
    min_length_px: float = Field(default=12.0, ge=2)
    max_components: int = Field(default=16, ge=1)
    max_junction_px: int = Field(default=100, ge=1)
    max_instruments: int = Field(default=8, ge=1)
    max_gap_px: float = Field(default=14.0, ge=0)
    max_hidden_gap_px: float = Field(default=50.0, ge=0)
    max_gap_turn_rad: float = Field(default=0.8, ge=0)
    tip: TipSettings = TipSettings()


def find_instruments(
    output: NetworkOutput, box: Letterbox, settings: InstrumentSettings | None = None
) -> tuple[Instrument, ...]:
    """All catheters, then all guidewires, each kind from the most to the least confident."""
    settings = settings or InstrumentSettings()
    labels, probability = box.content(output.label_map), box.content(output.probability)
    lines = [find_lines(labels, label, settings) for label in (CATHETER, GUIDEWIRE)]
    mouths = {GUIDEWIRE: _mouths(lines[0], settings.tip)}
    found: list[Instrument] = []
    for label, kind in enumerate(INSTRUMENT_KINDS, start=1):
        around = Surroundings(
            box.content_size,
            output.tip_heatmap[label - 1],
            (TIP_STRIDE - 1) / 2 - np.array(box.offset[::-1], np.float64),
            mouths.get(label, np.empty((0, 3))),
        )
        of_kind = [
            _instrument(kind, line, around, probability, box, settings.tip)
            for line in lines[label - 1]
        ]
        found += sorted(of_kind, key=lambda instrument: -instrument.confidence)
    return tuple(found)


def find_lines(
    labels: npt.NDArray[np.uint8], label: int, settings: InstrumentSettings
) -> list[Line]:
    """Centerlines of one class of a label map (H, W), in no particular direction."""
    mask = np.equal(labels, label).view(np.uint8)
    other = np.not_equal(labels, BACKGROUND).view(np.uint8) - mask
    mask = _with_covered(mask, other)
    graph = _skeleton_graph(mask, settings)
    if graph is None:
        return []
    limits = GapLimits(settings.max_gap_px, settings.max_hidden_gap_px, settings.max_gap_turn_rad)
    strokes = join_fragments(trace_strokes(graph), labels, limits)
    strokes.sort(key=lambda stroke: -len(stroke.points))
    outline = mask * np.uint8(255)
    hidden = other * np.uint8(255)
    lines = [
        Line(refine(stroke, outline, hidden), stroke.width, stroke.touching)
        for stroke in strokes[: settings.max_instruments]
    ]
    return [line for line in lines if arc_length(line.points)[-1] >= settings.min_length_px]


def _with_covered(
    mask: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """The mask, and the pixels of the other instrument that lie across it; all (H, W), 0 or 1.

    A wire over a catheter at a small angle cuts it into two long wedges, whose skeletons lead
    astray; a closing as wide as a wire makes it whole.
    """
    x, y, width, height = _common_box(mask, other)
    if width <= 0 or height <= 0:
        return mask
    part = np.s_[y : y + height, x : x + width]
    closed = cv2.morphologyEx(
        mask[part], cv2.MORPH_CLOSE, np.ones((_COVER_PX, _COVER_PX), np.uint8)
    )
    mask = mask.copy()
    mask[part] |= np.asarray(closed, np.uint8) & other[part]
    return mask


def _common_box(
    mask: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]
) -> tuple[int, int, int, int]:
    """x, y, width, height of what both bounding boxes share, with room for a closing."""
    (x0, y0, w0, h0), (x1, y1, w1, h1) = cv2.boundingRect(mask), cv2.boundingRect(other)
    if not w0 or not w1:
        return 0, 0, 0, 0
    left, top = max(x0, x1 - _COVER_PX, 0), max(y0, y1 - _COVER_PX, 0)
    right = min(x0 + w0, x1 + w1 + _COVER_PX)
    bottom = min(y0 + h0, y1 + h1 + _COVER_PX)
    return left, top, right - left, bottom - top


def _skeleton_graph(
    mask: npt.NDArray[np.uint8], settings: InstrumentSettings
) -> SkeletonGraph | None:
    """Graph of the skeletons of all components of mask (H, W) that could be instruments."""
    x, y, width, height = cv2.boundingRect(mask)
    crop = np.zeros((height + 2, width + 2), np.uint8)
    crop[1:-1, 1:-1] = mask[y : y + height, x : x + width]
    count, image = cv2.connectedComponentsWithAlgorithm(crop, 8, cv2.CV_32S, cv2.CCL_GRANA)
    numbers = np.asarray(image, np.int32).reshape(-1)
    pixels = np.flatnonzero(crop.reshape(-1).view(bool))
    areas = np.bincount(numbers[pixels], minlength=count).astype(np.float64)
    kept = _kept_components(areas, mask.size, settings)
    if not kept.any():
        return None
    if kept.sum() < count - 1:
        crop = np.asarray(kept[numbers].reshape(crop.shape).view(np.uint8))
    skeleton = thin(crop, round(0.5 * settings.max_width_px))
    component = numbers[skeleton].astype(np.int64)
    origin = np.array([x - 1.0, y - 1.0])
    graph = build_graph(crop, skeleton, component, areas, origin)
    plain = _is_plain(graph, component, count, settings)[component]
    if plain.all():
        return graph
    crop.reshape(-1)[skeleton[~plain]] = 0
    return build_graph(crop, skeleton[plain], component[plain], areas, origin)


def _kept_components(
    areas: FloatArray, view_area: int, settings: InstrumentSettings
) -> npt.NDArray[np.bool_]:
    """(K,) for each component, of which number 0 is the background: is it worth a look?"""
    fits = (areas >= settings.min_area_px) & (areas <= settings.max_area_fraction * view_area)
    largest = np.argsort(-areas, kind="stable")[: settings.max_components]
    kept = np.zeros(len(areas), bool)
    kept[largest] = fits[largest]
    return kept


def _is_plain(
    graph: SkeletonGraph,
    component: npt.NDArray[np.int64],
    count: int,
    settings: InstrumentSettings,
) -> npt.NDArray[np.bool_]:
    """(count,) for each component: is it as thin and as little branched as a wire?"""
    junctions = np.bincount(component, weights=graph.degree > 2, minlength=count)
    width = np.zeros(count)
    width[component] = graph.width
    return (junctions <= settings.max_junction_px) & (width <= settings.max_width_px)


def _mouths(catheters: list[Line], settings: TipSettings) -> FloatArray:
    """(M, 3) x, y, radius around both ends of each catheter, where a guidewire may come out."""
    rows = [
        (*end, settings.mouth_px + 0.5 * line.width)
        for line in catheters
        for end in (line.points[0], line.points[-1])
    ]
    return np.array(rows, np.float64).reshape(-1, 3)


def _instrument(
    kind: str,
    line: Line,
    around: Surroundings,
    probability: npt.NDArray[np.uint8],
    box: Letterbox,
    settings: TipSettings,
) -> Instrument:
    """Finish one instrument and map it to input pixels."""
    ordered, tip = orient(line, around, settings)
    mean = _mean_probability(ordered, probability)
    shift = np.array(box.offset[::-1], np.float64)
    centerline = box.to_input(ordered + shift)
    length = float(arc_length(centerline)[-1])
    if tip is None:
        return Instrument(kind, centerline, None, None, None, mean, length)
    direction = np.array([np.cos(tip.heading_rad), np.sin(tip.heading_rad)]) / box.scale
    return Instrument(
        kind,
        centerline,
        box.to_input(tip.position + shift),
        float(np.arctan2(direction[1], direction[0])),
        box.covariance_to_input(tip.covariance),
        float(np.sqrt(mean * tip.support)),
        length,
    )


def _mean_probability(line: FloatArray, probability: npt.NDArray[np.uint8]) -> float:
    """Mean over the line of the probability that the label map's choice is right, 0 to 1."""
    height, width = probability.shape
    x = np.clip(np.rint(line[:, 0]).astype(int), 0, width - 1)
    y = np.clip(np.rint(line[:, 1]).astype(int), 0, height - 1)
    return float(probability[y, x].mean() / 255.0)
