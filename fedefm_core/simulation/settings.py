# SPDX-License-Identifier: Apache-2.0
"""What may be chosen about simulated X-ray images."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedefm_core.config import Settings

Kind = Literal["human", "animal", "phantom", "simulation"]


class SimulationSettings(Settings):
    """size: image side in pixels. bit_depth: of the detector. kind_weights: how often each kind
    is drawn when none is named. inverted_fraction: images shown with white instruments.
    empty_fraction: images without any instrument."""

    size: int = Field(default=512, ge=64, le=2048)
    bit_depth: Literal[8, 12, 16] = 8
    kind_weights: dict[Kind, float] = Field(
        default={"human": 0.4, "animal": 0.2, "phantom": 0.25, "simulation": 0.15}
    )
    inverted_fraction: float = Field(default=0.1, ge=0.0, le=1.0)
    empty_fraction: float = Field(default=0.06, ge=0.0, le=1.0)
