# SPDX-License-Identifier: Apache-2.0
"""FedProx: FedAvg whose home training is held near the weights that came.

T. Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020, algorithm 2: each silo
minimises L_c(w) + μ/2 ‖w − w_t‖².
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedefm_core.config import Settings
from fedefm_core.federation.algorithms.fedavg import Weighting, average, exchange_prototypes
from fedefm_core.federation.carrier import Carrier
from fedefm_core.federation.schedule import Schedule
from fedefm_core.federation.silo import Task


class FedproxSettings(Settings):
    """mu: μ. weighting: as FedAvg's."""

    name: Literal["fedprox"] = "fedprox"
    mu: float = Field(0.01, ge=0)
    weighting: Weighting = "images"


def train_round(
    settings: FedproxSettings, carrier: Carrier, schedule: Schedule, round: int
) -> None:
    """FedAvg's round with the proximal term at home."""
    exchange_prototypes(carrier, schedule, round)
    rate = schedule.rate(round)
    carrier.train_local(Task(schedule.local_steps, proximal=settings.mu, rate=rate))
    average(carrier, settings.weighting)
