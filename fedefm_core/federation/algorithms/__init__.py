# SPDX-License-Identifier: Apache-2.0
"""Algorithms by name: each a file with its settings, its round, and what a round costs in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from fedefm_core.federation.algorithms import (
    cdl,
    central,
    consensus,
    fedavg,
    fedprox,
    gossip,
    local,
    mfd,
    moon,
)

AlgorithmSettings = Annotated[
    local.LocalSettings
    | central.CentralSettings
    | fedavg.FedavgSettings
    | fedprox.FedproxSettings
    | moon.MoonSettings
    | gossip.GossipSettings
    | cdl.CdlSettings
    | consensus.ConsensusSettings
    | mfd.MfdSettings,
    Field(discriminator="name"),
]


@dataclass(frozen=True)
class Algorithm:
    """train_round: (settings, carrier, schedule, round). round_ms: (settings, schedule, roads,
    round). topology: the one that it is made for, or None for the one of the run; '' without any.
    """

    train_round: Callable[[Any, Any, Any, int], None]
    round_ms: Callable[[Any, Any, Any, int], float]
    topology: str | None = None


ALGORITHMS: dict[str, Algorithm] = {
    "local": Algorithm(local.train_round, local.round_ms, ""),
    "central": Algorithm(central.train_round, central.round_ms, ""),
    "fedavg": Algorithm(fedavg.train_round, fedavg.round_ms, "star"),
    "fedprox": Algorithm(fedprox.train_round, fedavg.round_ms, "star"),
    "moon": Algorithm(moon.train_round, fedavg.round_ms, "star"),
    "gossip": Algorithm(gossip.train_round, gossip.round_ms),
    "cdl": Algorithm(cdl.train_round, cdl.round_ms),
    "consensus": Algorithm(consensus.train_round, consensus.round_ms, "ring"),
    "mfd": Algorithm(mfd.train_round, mfd.round_ms),
}
