# SPDX-License-Identifier: Apache-2.0
"""Local only: every silo for itself. The floor: what a federation must beat."""

from __future__ import annotations

from typing import Literal

from fedefm_core.config import Settings
from fedefm_core.federation.carrier import Carrier
from fedefm_core.federation.schedule import Roads, Schedule
from fedefm_core.federation.silo import Task


class LocalSettings(Settings):
    """Nothing to choose."""

    name: Literal["local"] = "local"


def train_round(settings: LocalSettings, carrier: Carrier, schedule: Schedule, round: int) -> None:
    """Train at home."""
    carrier.train_local(Task(schedule.local_steps, rate=schedule.rate(round)))


def round_ms(settings: LocalSettings, schedule: Schedule, roads: Roads, round: int) -> float:
    """Simulated time of a round."""
    return schedule.local_steps * roads.step_ms
