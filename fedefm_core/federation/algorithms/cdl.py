# SPDX-License-Identifier: Apache-2.0
"""Consensus Driven Learning: training, and averaging steps towards stale neighbours.

K. Crandall and D. Webb, Consensus Driven Learning, arXiv 2005.10300, 2020: nodes train on their
own data and, not waiting for each other, take steps of a Distributed Averaging Consensus over an
unreliable network. Rounds stand in for the asynchrony here: a silo steps towards the models that
its neighbours had when the round began, and a message may be lost.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedefm_core.config import Settings
from fedefm_core.federation.algorithms.fedavg import exchange_prototypes
from fedefm_core.federation.algorithms.gossip import inbox_shares, mixing_weights
from fedefm_core.federation.carrier import Carrier
from fedefm_core.federation.data import stream
from fedefm_core.federation.schedule import Roads, Schedule
from fedefm_core.federation.silo import Task


class CdlSettings(Settings):
    """gain: γ of the consensus step, on the mixing weights W; 1 is gossip with stale models.
    message_loss: probability that a message does not arrive."""

    name: Literal["cdl"] = "cdl"
    gain: float = Field(1.0, gt=0, le=1)
    message_loss: float = Field(0.0, ge=0, lt=1)


def train_round(settings: CdlSettings, carrier: Carrier, schedule: Schedule, round: int) -> None:
    """θ_i ← θ_i' + γ Σ_j W_ij (θ_j − θ_i'), θ_i' being trained and θ_j as the round began."""
    exchange_prototypes(carrier, schedule, round)
    links = schedule.joined().active(round)
    lost = stream(schedule.seed, "cdl", round).random(len(links)) < settings.message_loss
    carrier.send([link for link, gone in zip(links, lost, strict=True) if not gone])
    carrier.train_local(Task(schedule.local_steps, rate=schedule.rate(round)))
    weights = {link: settings.gain * w for link, w in mixing_weights(links).items()}
    carrier.mix(lambda silo, slots: inbox_shares(weights, silo, slots))


def round_ms(settings: CdlSettings, schedule: Schedule, roads: Roads, round: int) -> float:
    """Simulated time of a round, as a mean over rounds; models travel while silos compute."""
    computing = schedule.local_steps * roads.step_ms
    return max(computing, roads.one_way_ms(schedule.joined(), 0))
