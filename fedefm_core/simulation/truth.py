# SPDX-License-Identifier: Apache-2.0
"""What the simulator knows of a frame that it drew: exact, sub-pixel.

Pixel (x, y) has its centre at integer coordinates; x grows right, y grows down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedefm_core.frames.frame import Frame

KINDS = ("human", "animal", "phantom", "simulation")


@dataclass(frozen=True)
class InstrumentTruth:
    """One visible stretch of an instrument in a simulated frame.

    The view is the image less what a collimator or a round field keeps dark; an instrument that
    leaves the view and comes back gives a stretch each time, and only the last can have a tip.
    kind: 'catheter' or 'guidewire'. centerline_px: (N >= 2, 2) float64 x, y, from where it enters
    the view, or leaves the mouth of its catheter, to its tip or to where it leaves the view;
    dense, at most 1 px between points. tip_px: (2,) or None when the stretch ends without the tip.
    heading_rad: atan2(dy, dx) of advance at the tip, None without a tip. width_px: physical width.
    contrast_to_noise: of the picture along the line, see visibility.py.
    """

    kind: str
    centerline_px: npt.NDArray[np.float64]
    tip_px: npt.NDArray[np.float64] | None
    heading_rad: float | None
    width_px: float
    contrast_to_noise: float = 0.0


@dataclass(frozen=True)
class SimulatedFrame:
    """A frame with its truth.

    frame.pixels: (H, W) uint8 or uint16. label_map: (H, W) uint8, 0 background, 1 catheter,
    2 guidewire: the physical outline of each instrument, never narrower than 3 px at 512 x 512
    and 1.5 px at 256 x 256 and below. On real backgrounds, 255 where an unlabelled instrument may
    be.
    """

    frame: Frame
    label_map: npt.NDArray[np.uint8]
    instruments: tuple[InstrumentTruth, ...]
    kind: str
