# SPDX-License-Identifier: Apache-2.0
"""Real images as backgrounds: X-ray pictures and CT volumes that the user names.

Pictures carry a map of what is known of them: where an unlabelled instrument may be, nobody can
say 'background', and the label map says UNKNOWN there.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.errors import SimulationError
from fedefm_core.frames import open_source, to_grey8
from fedefm_core.simulation.projection import crop_view, load_views
from fedefm_core.simulation.settings import BackgroundSettings

Rng = np.random.Generator
Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_VIEW_SEED = 20_261_125
_MAX_SIDE = 1024  # larger pictures are shrunk to it when they are loaded
_RIDGE_SIGMAS = (1.5, 2.5, 4.0)  # of dark lines, in pixels of a 512-pixel picture
_RIDGE_LEVEL = 5.0  # in robust deviations of the picture's own ridge strength
_BORDER = 0.04  # of the picture: the edges of the exposed field lie there
_POLYGON_MARGIN = 9  # pixels: outlines are drawn tight
_FURTHEST = 2.0  # fractions of the image: corners may lie somewhat outside, not pixels away
_RIDGE_LENGTH = 24  # pixels; shorter dark spots are no instruments


@dataclass(frozen=True)
class Picture:
    """grey: (H, W) uint8. known: (H, W) bool, True where there is no unlabelled instrument."""

    grey: npt.NDArray[np.uint8]
    known: Mask


def random_picture(rng: Rng, settings: BackgroundSettings, size: int) -> tuple[Image, Mask]:
    """A random window of a random picture: (size, size) float32 in 0..1, and what is known."""
    pictures = _load_pictures(settings)
    picture = pictures[int(rng.integers(len(pictures)))]
    box = _random_window(rng, picture.grey.shape)
    turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
    grey = _oriented(_resized(picture.grey[box], size), turns, mirror)
    known = _oriented(_resized(picture.known[box].view(np.uint8), size), turns, mirror)
    return np.ascontiguousarray(grey, np.float32) / np.float32(255), known > 0


def random_projection(rng: Rng, settings: BackgroundSettings, size: int) -> Image:
    """(size, size) attenuation of a random window of a random view of the volume."""
    views = _load_views(settings)
    return crop_view(rng, views[int(rng.integers(len(views)))], size)


def check_backgrounds(settings: BackgroundSettings) -> None:
    """Raise SimulationError for paths that do not exist, before many frames are drawn."""
    if not settings.path.exists():
        raise SimulationError(f"The background images {settings.path} do not exist")
    if settings.polygons is not None and not settings.polygons.is_dir():
        raise SimulationError(f"The folder of polygons {settings.polygons} does not exist")


def unlabelled_lines(grey: npt.NDArray[np.uint8]) -> Mask:
    """(H, W) bool: dark lines of the width of instruments, with a margin.

    Largest eigenvalue of the Hessian over scales (Frangi et al., 'Multiscale vessel enhancement
    filtering', MICCAI 1998), against the picture's own median and deviation.
    """
    scale = min(grey.shape) / 512
    strength = np.zeros(grey.shape, np.float32)
    for sigma in _RIDGE_SIGMAS:
        strength = np.maximum(strength, _ridge_strength(grey, sigma * max(scale, 0.5)))
    spread = 1.4826 * float(np.median(np.abs(strength - np.median(strength)))) + 1e-6
    lines = (strength > np.median(strength) + _RIDGE_LEVEL * spread).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(lines, connectivity=8)
    long = np.hypot(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT]) >= (
        _RIDGE_LENGTH * scale
    )
    long[0] = False
    margin = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    return cv2.dilate(long[labels].astype(np.uint8), margin) > 0


def _ridge_strength(grey: npt.NDArray[np.uint8], sigma: float) -> Image:
    """Curvature across dark lines, normalised by scale; (H, W), zero on bright ones.

    Zero too on lines along a border of the picture: those are the edges of the exposed field.
    """
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), sigma) * np.float32(sigma**2)
    orders = ((2, 0), (0, 2), (1, 1))
    xx, yy, xy = (np.asarray(cv2.Sobel(smooth, cv2.CV_32F, *o, ksize=3)) for o in orders)
    strength = np.maximum((xx + yy) / 2 + np.sqrt(((xx - yy) / 2) ** 2 + xy**2), 0)
    rows, columns = (max(2, round(_BORDER * side)) for side in grey.shape)
    top_and_bottom, sides = np.zeros((2, *grey.shape), dtype=bool)
    top_and_bottom[:rows] = top_and_bottom[-rows:] = True
    sides[:, :columns] = sides[:, -columns:] = True
    strength[top_and_bottom & (yy > xx) | sides & (xx > yy)] = 0
    return np.asarray(strength, np.float32)


@cache
def _load_pictures(settings: BackgroundSettings) -> list[Picture]:
    """All pictures of the source, in its order. Raises SimulationError when there is none."""
    check_backgrounds(settings)
    pictures = []
    for path in _files(settings):
        for frame in open_source(path):
            grey = _not_too_large(to_grey8(frame))
            known = np.ones(grey.shape, dtype=bool)
            if settings.unlabelled_instruments:
                known = ~unlabelled_lines(grey)
                if settings.polygons is not None:
                    margin = np.ones((_POLYGON_MARGIN, _POLYGON_MARGIN), np.uint8)
                    vessels = inside_polygons(settings.polygons, path.stem, grey.shape)
                    known |= cv2.dilate(vessels.astype(np.uint8), margin) > 0
            pictures.append(Picture(grey, known))
    if not pictures:
        raise SimulationError(f"No frame in {settings.path} fits the pattern '{settings.pattern}'")
    return pictures


@cache
def _load_views(settings: BackgroundSettings) -> list[Image]:
    check_backgrounds(settings)
    views: list[Image] = []
    for path in _files(settings):
        views += load_views(path, settings.views, _VIEW_SEED)
    if not views:
        raise SimulationError(f"No volume in {settings.path} fits '{settings.pattern}'")
    return views


def _files(settings: BackgroundSettings) -> list[Path]:
    if settings.path.is_file():
        return [settings.path]
    files = sorted(path for path in settings.path.iterdir() if path.is_file())
    return [path for path in files if fnmatch(path.name, settings.pattern)]


def inside_polygons(folder: Path, stem: str, shape: tuple[int, ...]) -> Mask:
    """(H, W) bool: inside one of the polygons of folder/STEM.txt; nowhere without such a file.

    A line a polygon: 'class x1 y1 x2 y2 ...', in fractions of width and height. Raises
    SimulationError for any other line that is not blank.
    """
    mask = np.zeros(shape[:2], np.uint8)
    file = folder / f"{stem}.txt"
    if not file.is_file():
        return mask > 0
    for number, line in enumerate(_read_lines(file), start=1):
        if not line.strip():
            continue
        try:
            fractions = np.array([float(word) for word in line.split()[1:]]).reshape(-1, 2)
        except ValueError:
            fractions = np.empty((0, 2))
        if not (len(fractions) and (np.abs(fractions) <= _FURTHEST).all()):
            raise SimulationError(
                f"Line {number} of {file} must be 'class x1 y1 x2 y2 ...' in fractions of the "
                f"image (got '{line[:40]}')"
            )
        points = np.round(fractions * (shape[1], shape[0])).astype(np.int32)
        cv2.fillPoly(mask, [points], 1)
    return mask > 0


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SimulationError(f"The polygons {file} cannot be read: {error}") from error


def _not_too_large(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    factor = _MAX_SIDE / max(grey.shape)
    if factor >= 1:
        return np.ascontiguousarray(grey)
    height, width = (max(1, round(side * factor)) for side in grey.shape)
    small = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def _random_window(rng: Rng, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Half to all of the picture, of an aspect near its own."""
    zoom = rng.uniform(0.5, 1.0) if rng.random() < 0.6 else 1.0
    slices = []
    for side in shape:
        length = max(min(16, side), int(side * min(1.0, zoom * rng.uniform(0.85, 1.15))))
        start = int(rng.integers(side - length + 1))
        slices.append(slice(start, start + length))
    return slices[0], slices[1]


def _resized(image: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    shrinks = max(image.shape) > size
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size, size), interpolation=interpolation), np.uint8)


def _oriented(image: npt.NDArray[np.uint8], turns: int, mirror: bool) -> npt.NDArray[np.uint8]:
    turned = np.rot90(image, turns)
    return np.fliplr(turned) if mirror else turned
