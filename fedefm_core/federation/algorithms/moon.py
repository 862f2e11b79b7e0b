# SPDX-License-Identifier: Apache-2.0
"""MOON: FedAvg whose features at home stay like those of the average and unlike earlier own ones.

Q. Li et al., Model-Contrastive Federated Learning, CVPR 2021, section 3.3: L_c + μ l_con with
l_con = −log exp(z·z_glob / τ) / (exp(z·z_glob / τ) + exp(z·z_prev / τ)), cosines of the features.
The paper's projection head is left out: z is what the classifier's head sees.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedefm_core.config import Settings
from fedefm_core.federation.algorithms.fedavg import Weighting, average, exchange_prototypes
from fedefm_core.federation.carrier import Carrier
from fedefm_core.federation.schedule import Schedule
from fedefm_core.federation.silo import Task


class MoonSettings(Settings):
    """mu: μ. temperature: τ. weighting: as FedAvg's."""

    name: Literal["moon"] = "moon"
    mu: float = Field(1.0, ge=0)
    temperature: float = Field(0.5, gt=0)
    weighting: Weighting = "images"


def train_round(settings: MoonSettings, carrier: Carrier, schedule: Schedule, round: int) -> None:
    """FedAvg's round with the contrastive term at home, from the second round on."""
    exchange_prototypes(carrier, schedule, round)
    task = Task(
        schedule.local_steps,
        contrast=settings.mu,
        contrast_temperature=settings.temperature,
        rate=schedule.rate(round),
    )
    carrier.train_local(task, contrast=True)
    average(carrier, settings.weighting)
