# SPDX-License-Identifier: Apache-2.0
"""X-ray images of guidewires and catheters with exact truth, made from a seed."""

from fedefm_core.simulation.scene import simulate_frame
from fedefm_core.simulation.sequence import simulate_sequence
from fedefm_core.simulation.settings import SimulationSettings
from fedefm_core.simulation.truth import KINDS, InstrumentTruth, SimulatedFrame

__all__ = [
    "KINDS",
    "InstrumentTruth",
    "SimulatedFrame",
    "SimulationSettings",
    "simulate_frame",
    "simulate_sequence",
]
