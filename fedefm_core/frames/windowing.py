# SPDX-License-Identifier: Apache-2.0
"""Frame -> 8-bit grey, as a person would see it: the window, or robust percentiles without one."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.frames.frame import Frame, Window

_PERCENTILES = (0.5, 99.5)
_SAMPLES_A_SIDE = 256  # percentiles are taken of a grid of about this many rows and columns
GreyImage = npt.NDArray[np.uint8]


def to_grey8(frame: Frame) -> GreyImage:
    """Return (H, W) uint8, larger meaning brighter; inverted frames are turned round.

    With a window: the linear function of DICOM PS3.3 C.11.2.1.2. Without one, uint8 pixels pass
    as they are (no copy) and others fill 0 to 255 between their 0.5 and 99.5 percentiles. An
    image of one value, without a window, is black. NaN and infinities count as the least value.
    """
    pixels: npt.NDArray[Any] = frame.pixels
    if frame.window is None and pixels.dtype == np.uint8:
        return ~pixels if frame.inverted else pixels
    if pixels.dtype.kind == "f":
        return _float_to_grey8(pixels, frame.window, frame.inverted)
    low, high = _window_ends(frame.window) if frame.window else _robust_ends(pixels)
    table = _table(pixels.dtype, low, high, frame.inverted)
    if pixels.dtype == np.uint8:
        return np.asarray(cv2.LUT(pixels, table), np.uint8)
    # An int16 seen as uint16 indexes its table from the end for negatives, as _table lays it out.
    return np.take(table, pixels.view(np.uint16))


def _window_ends(window: Window) -> tuple[float, float]:
    """Values that map to 0 and to 255: c - 0.5 -+ (w - 1) / 2."""
    half = (max(window.width, 1.0) - 1.0) / 2.0
    return window.center - 0.5 - half, window.center - 0.5 + half


def _robust_ends(pixels: npt.NDArray[Any]) -> tuple[float, float]:
    rows, columns = (max(1, side // _SAMPLES_A_SIDE) for side in pixels.shape)
    low, high = np.percentile(pixels[::rows, ::columns], _PERCENTILES)
    return float(low), float(high)


def _table(dtype: np.dtype[Any], low: float, high: float, inverted: bool) -> GreyImage:
    """Grey level of every value of dtype, in the order of its bits read as unsigned."""
    bits = 8 * dtype.itemsize
    values = np.arange(1 << bits, dtype=f"u{dtype.itemsize}").view(dtype).astype(np.float32)
    return _scale(values, low, high, inverted)


def _scale(values: npt.NDArray[Any], low: float, high: float, inverted: bool) -> GreyImage:
    if high > low:
        grey = np.clip((values - low) * (255.0 / (high - low)), 0, 255)
    else:
        grey = np.where(values > high, 255.0, 0.0)  # a window of width 1 is a threshold
    grey8 = np.rint(grey).astype(np.uint8)
    return ~grey8 if inverted else grey8


def _float_to_grey8(pixels: npt.NDArray[Any], window: Window | None, inverted: bool) -> GreyImage:
    finite = np.isfinite(pixels)
    if not finite.all():
        least = pixels[finite].min() if finite.any() else np.float32(0)
        pixels = np.where(finite, pixels, least)
    low, high = _window_ends(window) if window else _robust_ends(pixels)
    return _scale(pixels, low, high, inverted)
