# SPDX-License-Identifier: Apache-2.0
"""Exact consensus: train at home, then all silos hold the exact mean, by a ring all-reduce.

The upper bound of gossip without a server: P. Patarasuk and X. Yuan, Bandwidth Optimal All-reduce
Algorithms for Clusters of Workstations, JPDC 2009: 2 (N − 1) / N of the model leaves each silo.
"""

from __future__ import annotations

from typing import Literal

from fedefm_core.config import Settings
from fedefm_core.federation.algorithms.fedavg import exchange_prototypes
from fedefm_core.federation.carrier import Carrier
from fedefm_core.federation.cycle_time import roads_ms
from fedefm_core.federation.schedule import Roads, Schedule
from fedefm_core.federation.silo import Task


class ConsensusSettings(Settings):
    """Nothing to choose."""

    name: Literal["consensus"] = "consensus"


def train_round(
    settings: ConsensusSettings, carrier: Carrier, schedule: Schedule, round: int
) -> None:
    """θ_i ← mean of all θ_j."""
    exchange_prototypes(carrier, schedule, round)
    carrier.train_local(Task(schedule.local_steps, rate=schedule.rate(round)))
    carrier.pool(lambda silo: 1.0, server=False)


def round_ms(settings: ConsensusSettings, schedule: Schedule, roads: Roads, round: int) -> float:
    """Simulated time of a round: 2 (N − 1) hops of 1 / N of the model on the slowest link."""
    ring = schedule.joined()
    size = len(ring.silos)
    whole = roads.computing(schedule.local_steps)
    piece = whole.model_copy(update={"model_mbit": whole.model_mbit / size})
    slowest = float(roads_ms(ring.links, roads.network, piece).max())
    return whole.compute_ms + 2 * (size - 1) * slowest
