# SPDX-License-Identifier: Apache-2.0
"""FedAvg: train at home, average at a server, begin the next round from the average.

B. McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data,
AISTATS 2017, algorithm 1, with all clients in every round.
"""

from __future__ import annotations

from typing import Literal

from fedefm_core.config import Settings
from fedefm_core.federation.carrier import Carrier
from fedefm_core.federation.schedule import Roads, Schedule
from fedefm_core.federation.silo import Task

Weighting = Literal["images", "uniform"]


class FedavgSettings(Settings):
    """weighting: of a silo in the average, n_k / n as in algorithm 1, or all alike."""

    name: Literal["fedavg"] = "fedavg"
    weighting: Weighting = "images"


def train_round(
    settings: FedavgSettings, carrier: Carrier, schedule: Schedule, round: int
) -> None:
    """w ← Σ n_k / n · (w after E steps on silo k)."""
    exchange_prototypes(carrier, schedule, round)
    carrier.train_local(Task(schedule.local_steps, rate=schedule.rate(round)))
    average(carrier, settings.weighting)


def round_ms(settings: Settings, schedule: Schedule, roads: Roads, round: int) -> float:
    """Simulated time of a round: to the server and back."""
    return roads.one_way_ms(schedule.joined(), schedule.local_steps)


def average(carrier: Carrier, weighting: Weighting) -> None:
    """Give all the average of those that take part, through the server."""
    uniform = weighting == "uniform"
    carrier.pool(lambda silo: 1.0 if uniform else carrier.images(silo), server=True)


def exchange_prototypes(carrier: Carrier, schedule: Schedule, round: int) -> None:
    """Share class statistics along the links of a round, where the run asks for it."""
    if schedule.prototypes:
        carrier.share_prototypes(schedule.joined().active(round))
