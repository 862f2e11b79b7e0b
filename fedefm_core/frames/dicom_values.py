# SPDX-License-Identifier: Apache-2.0
"""What a DICOM header, classic or enhanced, says of values, display, spacing and time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from fedefm_core.frames.frame import Spacing, Window

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True)
class LookupTable:
    """A Modality or VOI LUT (PS3.3 C.11.1.1): entries for stored values from `first` on."""

    first: int
    entries: Array  # (N,) uint8 or uint16

    def apply(self, values: Array) -> Array:
        """Map values; those below or above the table take its first or last entry."""
        index = np.clip(values.astype(np.int32) - self.first, 0, len(self.entries) - 1)
        return self.entries[index]


@dataclass(frozen=True)
class ValueMap:
    """Stored values -> the values of a Frame, and how these are to be shown."""

    modality_lut: LookupTable | None
    slope: float
    intercept: float
    voi_lut: LookupTable | None
    window: Window | None
    dtype: np.dtype[Any] | None  # of the rescaled values; None = as stored

    def apply(self, values: Array) -> Array:
        """Return modality values, or those of the VOI LUT where the header has one."""
        if self.modality_lut is not None:
            values = self.modality_lut.apply(values)
        elif self.dtype is not None:
            scaled = values.astype(np.float32) * np.float32(self.slope)
            values = (scaled + np.float32(self.intercept)).astype(self.dtype)
        if self.voi_lut is not None:
            values = self.voi_lut.apply(values)
        return values.astype(np.int16) if values.dtype == np.int8 else values


def read_value_map(header: Dataset, index: int, bits_stored: int, signed: bool) -> ValueMap:
    """Read what applies to frame `index`: the first window, the first VOI LUT without a window."""
    modality_lut = _modality_lut(header, signed)
    slope = _number(functional_value(header, index, "RescaleSlope"))
    intercept = _number(functional_value(header, index, "RescaleIntercept"))
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    window = _window(header, index)
    voi_lut = None
    if window is None:
        voi_lut = _lookup_table(functional_value(header, index, "VOILUTSequence"), signed)
    if voi_lut is not None:
        bits = 8 * voi_lut.entries.dtype.itemsize
        bits = _descriptor(functional_value(header, index, "VOILUTSequence")[0])[2] or bits
        window = Window(center=2.0 ** (bits - 1), width=2.0**bits)
    dtype = _rescaled_dtype(slope, intercept, bits_stored, signed)
    return ValueMap(modality_lut, slope, intercept, voi_lut, window, dtype)


def functional_value(header: Dataset, index: int, keyword: str) -> Any:
    """Value of keyword for frame `index`: its functional groups, the shared ones, then the top."""
    for group in _functional_groups(header, index):
        for element in group:
            if element.VR == "SQ" and element.value and keyword in element.value[0]:
                return element.value[0].get(keyword)
    return header.get(keyword)


def _functional_groups(header: Dataset, index: int) -> Iterator[Dataset]:
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if per_frame and index < len(per_frame):
        yield per_frame[index]
    shared = header.get("SharedFunctionalGroupsSequence")
    if shared:
        yield shared[0]


def _rescaled_dtype(
    slope: float, intercept: float, bits_stored: int, signed: bool
) -> np.dtype[Any] | None:
    """Smallest type that holds every rescaled value exactly, judged by the header alone."""
    if slope == 1 and intercept == 0:
        return None
    if not (slope.is_integer() and intercept.is_integer()):
        return np.dtype(np.float32)
    low = -(1 << bits_stored - 1) if signed else 0
    ends = sorted(slope * value + intercept for value in (low, low + (1 << bits_stored) - 1))
    for dtype in (np.uint8, np.uint16, np.int16):
        if np.iinfo(dtype).min <= ends[0] and ends[1] <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    return np.dtype(np.float32)


def _modality_lut(header: Dataset, signed: bool) -> LookupTable | None:
    # With LOG pixels this table leads back to beam intensity and is not meant for display.
    if header.get("PixelIntensityRelationship") == "LOG":
        return None
    return _lookup_table(header.get("ModalityLUTSequence"), signed)


def _lookup_table(sequence: Any, signed: bool) -> LookupTable | None:
    if not sequence:
        return None
    count, first, _ = _descriptor(sequence[0])
    data = sequence[0].LUTData
    entries = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.array(data, np.uint16)
    entries = np.atleast_1d(entries)
    if entries.size < count <= entries.size * 2:  # 8-bit entries, two in a word
        entries = entries.astype("<u2").view(np.uint8)
    if entries.size < count:
        raise ValueError(f"a lookup table declares {count} entries and holds {entries.size}")
    if signed and first > 32767:
        first -= 65536
    return LookupTable(first, entries[:count])


def _descriptor(item: Dataset) -> tuple[int, int, int]:
    """(number of entries, first value mapped, bits an entry) of a LUT item."""
    count, first, bits = (int(value) for value in item.LUTDescriptor)
    return count % 65536 or 65536, first, bits


def _window(header: Dataset, index: int) -> Window | None:
    center = _number(functional_value(header, index, "WindowCenter"))
    width = _number(functional_value(header, index, "WindowWidth"))
    if center is None or width is None or width < 1:
        return None
    if functional_value(header, index, "VOILUTFunction") == "LINEAR_EXACT":
        return Window(center + 0.5, width + 1)  # the same mapping, in terms of LINEAR
    return Window(center, width)


def read_spacing(header: Dataset, index: int) -> Spacing:
    """Spacings as the header names them; the magnification, or else SDD / SOD."""
    magnification = _number(
        functional_value(header, index, "EstimatedRadiographicMagnificationFactor")
    )
    if magnification is None:
        to_detector = _number(functional_value(header, index, "DistanceSourceToDetector"))
        to_patient = _number(functional_value(header, index, "DistanceSourceToPatient"))
        if to_detector and to_patient and to_detector >= to_patient > 0:
            magnification = to_detector / to_patient
    return Spacing(
        imager_pixel_spacing_mm=_pair(functional_value(header, index, "ImagerPixelSpacing")),
        pixel_spacing_mm=_pair(functional_value(header, index, "PixelSpacing")),
        magnification=magnification if magnification and magnification > 0 else None,
    )


def read_stamps_ns(header: Dataset, frame_count: int) -> tuple[list[int], float | None]:
    """Return the stamp of each frame, from the first on, and the rate in Hz (None: not named)."""
    increments = _increments_ms(header)
    if len(increments) == frame_count > 1 and sum(increments[1:]) > 0:
        stamps = accumulate([0.0, *increments[1:]])
        rate = 1000.0 * (frame_count - 1) / sum(increments[1:])
        return [round(stamp * 1e6) for stamp in stamps], rate
    period_ms = _period_ms(header)
    if period_ms is None:
        return [0] * frame_count, None
    return [round(index * period_ms * 1e6) for index in range(frame_count)], 1000.0 / period_ms


def _increments_ms(header: Dataset) -> list[float]:
    vector = header.get("FrameTimeVector")
    if vector is None:
        return []
    values = [float(value) for value in np.atleast_1d(np.array(vector, dtype=float))]
    return values if all(math.isfinite(value) and value >= 0 for value in values) else []


def _period_ms(header: Dataset) -> float | None:
    frame_time = _number(header.get("FrameTime"))
    if frame_time is not None and 0.01 <= frame_time <= 1e6:
        return frame_time
    for keyword in ("CineRate", "RecommendedDisplayFrameRate"):
        rate = _number(header.get(keyword))
        if rate is not None and 1e-3 <= rate <= 1e5:
            return 1000.0 / rate
    return None


def _number(value: Any) -> float | None:
    """First value of a numeric element; None when it is missing, empty or not finite."""
    if value is None or value == "":
        return None
    if not isinstance(value, (str, bytes)) and hasattr(value, "__len__"):
        return _number(value[0]) if len(value) else None
    number = float(value)
    return number if math.isfinite(number) else None


def _pair(value: Any) -> tuple[float, float] | None:
    if value is None or not hasattr(value, "__len__") or len(value) != 2:
        return None
    row, column = _number(value[0]), _number(value[1])
    if row is None or column is None or row <= 0 or column <= 0:
        return None
    return row, column
