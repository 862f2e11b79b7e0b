# SPDX-License-Identifier: Apache-2.0
"""What every algorithm is told of the run, and the roads by which its rounds are timed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedefm_core.federation.cycle_time import RoundSettings, gossip_ms
from fedefm_core.federation.topology import Topology
from fedefm_core.federation.underlays import Network


@dataclass(frozen=True)
class Schedule:
    """topology: None for algorithms without exchange. local_steps: E, gradient steps at home a
    round. rounds: of the whole run. prototypes: whether class statistics are shared. cosine: the
    learning rate falls to zero over the rounds."""

    topology: Topology | None
    local_steps: int
    rounds: int
    seed: int = 0
    prototypes: bool = False
    cosine: bool = False

    def rate(self, round: int) -> float:
        """Factor on the learning rate in a round."""
        return 0.5 * (1 + math.cos(math.pi * round / self.rounds)) if self.cosine else 1.0

    def joined(self) -> Topology:
        """The topology of an algorithm that has one."""
        assert self.topology is not None
        return self.topology


@dataclass(frozen=True)
class Roads:
    """network: between the silos. carries: the model that is trained, with the access links.
    step_ms: of one gradient step."""

    network: Network
    carries: RoundSettings
    step_ms: float

    def computing(self, steps: int, overseas_steps: int = 0) -> RoundSettings:
        """What a round carries when a silo computes so many steps at home and for each guest."""
        return self.carries.model_copy(
            update={
                "compute_ms": steps * self.step_ms,
                "overseas_ms": overseas_steps * self.step_ms,
            }
        )

    def one_way_ms(self, topology: Topology, steps: int) -> float:
        """A round in which models travel the links of a topology once."""
        return gossip_ms(topology, self.network, self.computing(steps))
