# SPDX-License-Identifier: Apache-2.0
"""Central learning (CLL): all images in one place. The ceiling: what a federation may reach.

The union of the silos is one silo; it takes as many gradient steps in a round as all silos
together take at home in a round of the others.
"""

from __future__ import annotations

from typing import Literal

from fedefm_core.config import Settings
from fedefm_core.federation.carrier import Carrier
from fedefm_core.federation.schedule import Roads, Schedule
from fedefm_core.federation.silo import Task


class CentralSettings(Settings):
    """Nothing to choose."""

    name: Literal["central"] = "central"


def train_round(
    settings: CentralSettings, carrier: Carrier, schedule: Schedule, round: int
) -> None:
    """Train on all images; schedule.local_steps is that of all silos together."""
    carrier.train_local(Task(schedule.local_steps, rate=schedule.rate(round)))


def round_ms(settings: CentralSettings, schedule: Schedule, roads: Roads, round: int) -> float:
    """Simulated time of a round; that of moving all images to one place is not counted."""
    return schedule.local_steps * roads.step_ms
