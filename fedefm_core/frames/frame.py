# SPDX-License-Identifier: Apache-2.0
"""The frame: one X-ray image with what is known of its time, spacing and display window."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Spacing:
    """Pixel spacings in mm as (row, column), each in the plane that its name says.

    Kept apart because they differ by the geometric magnification: a length measured with one
    is wrong in the other's plane (DICOM PS3.3 C.8.7.1.1.1 and 10.7.1.3).
    """

    imager_pixel_spacing_mm: tuple[float, float] | None = None  # at the detector's front plane
    pixel_spacing_mm: tuple[float, float] | None = None  # calibrated, at the patient
    magnification: float | None = None  # estimated radiographic magnification factor


@dataclass(frozen=True)
class Window:
    """Display window of DICOM, its function LINEAR (PS3.3 C.11.2.1.2): width values fill it."""

    center: float
    width: float


@dataclass(frozen=True)
class Frame:
    """One grey image.

    pixels: (H, W), uint8, uint16, int16 or float32; modality values, rescale applied; read-only.
    stamp_ns: nanoseconds; from the source's own clock, or from its first frame.
    inverted: True when large pixel values are to be shown dark (DICOM MONOCHROME1).
    window: the display window that the source names, or None: windowing then decides.
    source: file or topic, for messages; index: 0-based frame number within the source.
    """

    pixels: npt.NDArray[np.generic]
    stamp_ns: int = 0
    spacing: Spacing = field(default_factory=Spacing)
    window: Window | None = None
    inverted: bool = False
    source: str = ""
    index: int = 0
