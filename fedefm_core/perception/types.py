# SPDX-License-Identifier: Apache-2.0
"""What perception says about a frame. All coordinates are pixels of the *input* image.

Pixel (x, y) has its centre at integer coordinates; x grows right, y grows down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import numpy.typing as npt

BACKGROUND, CATHETER, GUIDEWIRE = 0, 1, 2
UNKNOWN = 255  # in masks to train from: it may or may not be an instrument
CLASS_NAMES = ("background", "catheter", "guidewire")
INSTRUMENT_KINDS = ("catheter", "guidewire")  # in order of their label, from 1

FloatArray = npt.NDArray[np.float64]
LabelMap = npt.NDArray[np.uint8]


class TrackingState(str, Enum):
    """TRACKING: a tip given out may be used. LOST: none is known; nothing stands in for it."""

    TRACKING = "TRACKING"
    LOST = "LOST"


@dataclass(frozen=True)
class Instrument:
    """One catheter or guidewire.

    centerline_px: (N, 2) x, y from where it enters the view (image border, or the mouth of the
    catheter it leaves) to its tip. tip_px: (2,), or None when the tip is not seen: never a
    zero or an earlier value. heading_rad: direction of advance at the tip, atan2(dy, dx), y down;
    None without a tip. covariance_px: (2, 2) px², of the tip. confidence: 0 to 1.
    length_px: arc length of the centreline.
    """

    kind: str
    centerline_px: FloatArray
    tip_px: FloatArray | None
    heading_rad: float | None
    covariance_px: FloatArray | None
    confidence: float
    length_px: float


@dataclass(frozen=True)
class Perception:
    """What is known of one frame.

    label_map: (H, W) uint8 in the input's size, values of CLASS_NAMES. instruments: all found.
    tracked: by kind, the instrument that the tracker vouches for in this frame; a kind that is
    missing has no valid tip. timings_ms: milliseconds by stage name, with 'total'.
    """

    stamp_ns: int
    label_map: LabelMap
    instruments: tuple[Instrument, ...]
    tracked: Mapping[str, Instrument] = field(default_factory=dict)
    state: TrackingState = TrackingState.LOST
    timings_ms: Mapping[str, float] = field(default_factory=dict)
