# SPDX-License-Identifier: Apache-2.0
"""Gossip (DSGD) on any topology: train at home, then average with what the neighbours send.

X. Lian et al., Can Decentralized Algorithms Outperform Centralized Algorithms?, NeurIPS 2017, with
E steps between exchanges. On the topologies 'ring', 'star' and 'matcha' this is the rival of that
name: DFL on a ring (O. Marfoq et al., NeurIPS 2020), and MATCHA (J. Wang et al., 2019).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from fedefm_core.config import Settings
from fedefm_core.federation.algorithms.fedavg import exchange_prototypes
from fedefm_core.federation.carrier import Carrier
from fedefm_core.federation.schedule import Roads, Schedule
from fedefm_core.federation.silo import Task
from fedefm_core.federation.topology import Link


class GossipSettings(Settings):
    """Nothing to choose: the topology is that of the run."""

    name: Literal["gossip"] = "gossip"


def train_round(
    settings: GossipSettings, carrier: Carrier, schedule: Schedule, round: int
) -> None:
    """θ_i ← Σ_j W_ij θ_j after training at home."""
    exchange_prototypes(carrier, schedule, round)
    carrier.train_local(Task(schedule.local_steps, rate=schedule.rate(round)))
    links = schedule.joined().active(round)
    carrier.send(links)
    weights = mixing_weights(links)
    carrier.mix(lambda silo, slots: inbox_shares(weights, silo, slots))


def round_ms(settings: GossipSettings, schedule: Schedule, roads: Roads, round: int) -> float:
    """Simulated time of a round, as a mean over rounds."""
    return roads.one_way_ms(schedule.joined(), schedule.local_steps)


def mixing_weights(links: Sequence[Link]) -> dict[Link, float]:
    """W by link (source, target); what a row lacks of 1 is the silo's own.

    Links both ways: 1 / (1 + the greater degree), after Metropolis and Hastings, symmetric and so
    doubly stochastic. One way: 1 / (1 + in-degree), doubly stochastic where all degrees are equal,
    as on ring and exponential graph.
    """
    both_ways = {(target, source) for source, target in links} == set(links)
    entering = Counter(target for _, target in links)
    return {
        (source, target): 1
        / (1 + (max(entering[source], entering[target]) if both_ways else entering[target]))
        for source, target in links
    }


def inbox_shares(
    weights: Mapping[Link, float], silo: str, slots: Sequence[str]
) -> dict[str, float]:
    """The share of what arrived; that of a neighbour that fell silent is the silo's own."""
    shares = {}
    for slot in slots:
        kind, _, source = slot.partition("/")
        if kind == "inbox":
            shares[slot] = weights[(source, silo)]
    return shares
