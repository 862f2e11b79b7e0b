# SPDX-License-Identifier: Apache-2.0
"""Simulated frames as they would come from a hospital's archive, with masks as annotators draw.

No real frame with a mask may be used for choosing, so this set stands in for one: instruments
drawn on real frames that no training sees ('human'), on procedural animals and phantoms of a seed
of their own; cut to another aspect, brought to the size of an export, compressed as JPEG; axes
drawn as strokes of 3 to 8 pixels, whatever the instrument's width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedefm_core.config import Settings
from fedefm_core.evaluation.evaluate import skeleton
from fedefm_core.evaluation.metrics import BoolArray, centerline_f1, count_region, dice, widen
from fedefm_core.frames import Frame, to_grey8
from fedefm_core.perception.types import UNKNOWN
from fedefm_core.simulation import SimulationSettings, simulate_frame
from fedefm_core.simulation.draws import log_uniform
from fedefm_core.simulation.settings import Kind

Rng = np.random.Generator
Image = npt.NDArray[np.uint8]
NETWORK_SIDE = 512  # tolerances are given in pixels of an image brought to this size
_FINER = 4  # grid points a pixel, along each side, on which strokes are drawn


class ExportedFramesSettings(Settings):
    """frames: of each kind. side_px: of the longer side, drawn on a log scale. aspect: the least
    shorter side over the longer one. stroke_px: whole pixels of the exported image."""

    seed: int = Field(90_210, ge=0)
    frames: int = Field(60, ge=1)
    kinds: tuple[Kind, ...] = ("human", "animal", "phantom")
    simulation: SimulationSettings = SimulationSettings(empty_fraction=0.0)
    side_px: tuple[int, int] = (220, 630)
    aspect: float = Field(0.75, gt=0.2, le=1)
    jpeg_quality: tuple[int, int] = (55, 97)
    stroke_px: tuple[int, int] = (3, 8)
    tolerance_px: float = Field(5.0, gt=0)


@dataclass(frozen=True)
class ExportedFrame:
    """frame: 8-bit grey. mask: (H, W) bool, what an annotator drew. ignored: (H, W) bool, where
    an instrument that nobody marked may be in the real background: it counts neither way."""

    kind: str
    frame: Frame
    mask: BoolArray
    ignored: BoolArray


@dataclass(frozen=True)
class Score:
    """Of the foreground of one frame; NaN where neither truth nor prediction has any."""

    f1: float
    dice: float


def exported_frames(settings: ExportedFramesSettings) -> Iterator[ExportedFrame]:
    """All frames of the set, the kinds taking turns; each a function of seed and number."""
    for index in range(settings.frames * len(settings.kinds)):
        yield exported_frame(settings, index)


def exported_frame(settings: ExportedFramesSettings, index: int) -> ExportedFrame:
    """Frame number index of the set."""
    kind = settings.kinds[index % len(settings.kinds)]
    simulated = simulate_frame(settings.seed, index, settings.simulation, kind)
    rng = np.random.default_rng([settings.seed, index, 3])
    window = _random_window(rng, settings.simulation.size, settings.aspect)
    corner = np.array([window[1].start, window[0].start], np.float64)
    low, high = settings.side_px
    side = log_uniform(rng, low, high)
    cut = to_grey8(simulated.frame)[window]
    scale = side / max(cut.shape)
    stroke = int(rng.integers(settings.stroke_px[0], settings.stroke_px[1] + 1))
    quality = int(rng.integers(settings.jpeg_quality[0], settings.jpeg_quality[1] + 1))
    grey = compressed(_resized(cut, scale), quality)
    lines = [(truth.centerline_px - corner + 0.5) * scale - 0.5 for truth in simulated.instruments]
    mask = strokes(lines, grey.shape, stroke)
    unknown = (simulated.label_map[window] == UNKNOWN).view(np.uint8)
    unknown = cv2.resize(unknown, grey.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    tolerance = tolerance_of(grey.shape, settings.tolerance_px)
    return ExportedFrame(
        kind=kind,
        frame=Frame(grey, source=simulated.frame.source, index=index),
        mask=mask,
        ignored=(unknown > 0) & ~widen(mask, tolerance),
    )


def score(predicted: BoolArray, truth: ExportedFrame, tolerance_px: float) -> Score:
    """Of a mask (H, W) bool in the frame's size; tolerance_px at 512 pixels."""
    predicted = predicted & ~truth.ignored
    tolerance = tolerance_of(truth.mask.shape, tolerance_px)
    counts = count_region(
        predicted, truth.mask, skeleton(predicted), skeleton(truth.mask), tolerance
    )
    return Score(float(centerline_f1(counts)), float(dice(counts)))


def tolerance_of(shape: Sequence[int], tolerance_px: float) -> float:
    """In pixels of an image of shape, of which tolerance_px would be at 512."""
    return tolerance_px * max(shape) / NETWORK_SIDE


def strokes(
    lines: Sequence[npt.NDArray[np.float64]], shape: Sequence[int], width: int
) -> BoolArray:
    """(H, W) bool: curves of (N, 2) x, y, drawn width pixels wide.

    By distance on a finer grid: OpenCV's own lines are up to two pixels wider than asked for.
    """
    height, width_px = shape[:2]
    off_line = np.ones((_FINER * height, _FINER * width_px), np.uint8)
    points = [np.round((line + 0.5) * _FINER - 0.5).astype(np.int32) for line in lines]
    cv2.polylines(off_line, points, False, 0)
    if off_line.all():
        return np.zeros((height, width_px), dtype=bool)
    distance = cv2.distanceTransform(off_line, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    near = (distance < _FINER * width / 2).astype(np.float32)
    covered = cv2.resize(near, (width_px, height), interpolation=cv2.INTER_AREA)
    return np.asarray(covered >= 0.5)


def compressed(grey: Image, quality: int) -> Image:
    """The image after JPEG of that quality."""
    _, data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


def draw_sheet(frames: Sequence[ExportedFrame], columns: int = 6, tile: int = 300) -> Image:
    """Every frame beside itself with the mask's outline (orange) and what is ignored (blue)."""
    tiles = []
    for frame in frames:
        grey = np.asarray(frame.frame.pixels, np.uint8)
        plain = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)
        marked = plain.copy()
        marked[frame.ignored] = marked[frame.ignored] // 2 + np.array([115, 57, 0], np.uint8)
        edge = frame.mask & ~(cv2.erode(frame.mask.astype(np.uint8), np.ones((3, 3))) > 0)
        marked[edge] = (0, 159, 230)
        tiles += [plain, marked]
    tiles = [_in_square(image, tile) for image in tiles]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    return np.asarray(np.vstack(rows), np.uint8)


def _random_window(rng: Rng, size: int, aspect: float) -> tuple[slice, slice]:
    """All of the image in half of all cases, else a part that is shorter one way."""
    length = round(size * rng.uniform(aspect, 1.0)) if rng.random() < 0.5 else size
    start = int(rng.integers(size - length + 1))
    part, whole = slice(start, start + length), slice(0, size)
    return (part, whole) if rng.random() < 0.5 else (whole, part)


def _in_square(image: Image, side: int) -> Image:
    """(side, side, 3): the image as large as it fits, on black, at the upper left."""
    scale = side / max(image.shape)
    height, width = (min(side, max(1, round(n * scale))) for n in image.shape[:2])
    square = np.zeros((side, side, 3), np.uint8)
    square[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return square


def _resized(grey: Image, scale: float) -> Image:
    height, width = (max(1, round(side * scale)) for side in grey.shape)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(grey, (width, height), interpolation=method), np.uint8)
