# SPDX-License-Identifier: Apache-2.0
"""A wire in a vessel tree as X-rays show it, and what may go wrong with the images; no ROS.

Times are seconds of a steady clock, given as arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedefm_core.simulation.fluoroscope import Fluoroscope, Pixels
from fedefm_core.simulation.navigation_case import (
    DETECTOR,
    PIXEL_MM,
    START_PX,
    Case,
    contrast_flood,
    false_wire,
    guidewire,
    random_case,
)
from fedefm_core.simulation.wire_motion import Wire, axis_of, move

NONE = "none"
TROUBLES = (NONE, "frame_loss", "noise", "contrast", "false_wire", "latency")
TROUBLE_LASTS_S = 2.0
LATENCY_S = 0.3
NOISE = 6.0  # times the detector's


@dataclass(frozen=True)
class Exposure:
    """One frame. pixels: (H, W), None when it is lost. delay_s: until it is sent.

    tip_px: (2,) where the tip truly is. trouble: the name of what is wrong.
    """

    pixels: Pixels | None
    delay_s: float
    tip_px: npt.NDArray[np.float64]
    trouble: str


class SimulatedView:
    """The case of a seed, its wire, and one kind of trouble, once, when the wire is deep enough.

    Raises SimulationError for a seed that has no case.
    """

    def __init__(self, seed: int, trouble: str = NONE) -> None:
        self.case: Case = random_case(seed)
        tip_rad = self.case.tip_rad
        self.wire = Wire(START_PX, hub_rad=tip_rad, tip_rad=tip_rad)
        self._rng = np.random.default_rng(seed)
        self._fluoroscope = Fluoroscope(self.case.anatomy, DETECTOR, self._rng)
        self._flood = contrast_flood(self.case)
        self._trouble = trouble
        self._began_s: float | None = None

    def move(self, fed_mm: float, turned_rad: float, seconds: float) -> None:
        """The robot has fed and turned the wire."""
        self.wire = move(self.wire, self.case.tree, fed_mm / PIXEL_MM, turned_rad, seconds)

    def expose(self, now_s: float) -> Exposure:
        """A frame of what is there now."""
        axis = axis_of(self.wire, self.case.tree)
        trouble = self._trouble_at(now_s)
        delay_s = LATENCY_S if trouble == "latency" else 0.0
        pixels = None if trouble == "frame_loss" else self._pixels(axis, trouble)
        return Exposure(pixels, delay_s, axis[-1], trouble)

    def _pixels(self, axis: npt.NDArray[np.float64], trouble: str) -> Pixels:
        designs = [guidewire(axis)]
        if trouble == "false_wire":
            designs.append(false_wire(self.case))
        return self._fluoroscope.frame(
            designs,
            self._rng,
            noise=NOISE if trouble == "noise" else 1.0,
            extra=self._flood if trouble == "contrast" else None,
        )

    def _trouble_at(self, now_s: float) -> str:
        """What is wrong now: it begins at a depth and ends by time."""
        if self._began_s is None and self.wire.insertion >= self.case.trouble_at:
            self._began_s = now_s
        if self._began_s is None or now_s - self._began_s > TROUBLE_LASTS_S:
            return NONE
        return self._trouble
