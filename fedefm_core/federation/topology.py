# SPDX-License-Identifier: Apache-2.0
"""Topologies: which silo sends its model to which, in which round.

A directed link (i, j) means that the model of silo i goes to silo j: to be trained there and to
come back (MFD), or to be averaged there (gossip). What a round holds depends on the topology, the
number of the round and the seed alone, so every silo, on any machine and after any restart, knows
the schedule without being told. topology_overlays builds topologies, cycle_time times them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fedefm_core.errors import ConfigError

Link = tuple[str, str]


@dataclass(frozen=True)
class Topology:
    """The same links in every round.

    links: all directed links that are ever used. server: the hub of a star, which takes part in
    every exchange; None where all silos are peers.
    """

    name: str
    silos: tuple[str, ...]
    links: tuple[Link, ...]
    server: str | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError when a link is doubled, a loop, or leads to an unknown silo."""
        known = set(self.silos)
        for link in self.links:
            if link[0] == link[1] or not known.issuperset(link):
                raise ConfigError(f"{self.name}: a link must join two of the silos (got {link})")
        if len(known) < len(self.silos) or len(set(self.links)) < len(self.links):
            raise ConfigError(f"{self.name}: each silo and each link may be named only once")

    @property
    def period(self) -> int | None:
        """Rounds after which the schedule repeats; None when it is drawn at random."""
        return 1

    def active(self, round: int) -> tuple[Link, ...]:
        """Return the links in use in a round, counted from 0, in the order of links."""
        return self.links

    def neighbours(self, round: int) -> dict[str, list[str]]:
        """Return for each silo, in order, the silos that its model goes to in a round."""
        return _grouped(self.silos, self.active(round))

    def guests(self, round: int) -> dict[str, list[str]]:
        """Return for each silo, in order, the silos whose models come to it in a round."""
        return _grouped(self.silos, ((target, source) for source, target in self.active(round)))


@dataclass(frozen=True)
class Multigraph(Topology):
    """Link n is in use in the rounds that every[n] divides: slow links rest for longer.

    T. Do et al., Reducing Training Time in Cross-Silo Federated Learning using Multigraph
    Topology, ICCV 2023, algorithms 1 and 2: of multiplicity m, strong in one of m rounds.
    """

    every: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raise ConfigError when a link has no multiplicity of at least 1."""
        super().__post_init__()
        if len(self.every) != len(self.links) or min(self.every, default=1) < 1:
            raise ConfigError(f"{self.name}: each link needs a multiplicity of at least 1")

    @property
    def period(self) -> int:
        """Least common multiple of all multiplicities."""
        return math.lcm(*self.every)

    def active(self, round: int) -> tuple[Link, ...]:
        """Return the links in use in a round, counted from 0, in the order of links."""
        pairs = zip(self.links, self.every, strict=True)
        return tuple(link for link, every in pairs if round % every == 0)


@dataclass(frozen=True)
class Matcha(Topology):
    """Each round draws matchings at random; in a matching, no silo has more than one partner.

    J. Wang et al., MATCHA: Speeding Up Decentralized SGD via Matching Decomposition Sampling,
    2019. matchings: undirected pairs; links holds both directions of each. Matching n is drawn
    with probability probabilities[n], independently of the others; a draw of none is repeated.
    """

    matchings: tuple[tuple[Link, ...], ...] = ()
    probabilities: tuple[float, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ConfigError when no matching could ever be drawn."""
        super().__post_init__()
        if len(self.probabilities) != len(self.matchings) or not any(
            0 < probability <= 1 for probability in self.probabilities
        ):
            raise ConfigError(f"{self.name}: one matching at least needs a probability above 0")

    @property
    def period(self) -> None:
        """None: the schedule does not repeat."""
        return None

    def active(self, round: int) -> tuple[Link, ...]:
        """Return the links in use in a round, counted from 0: both directions of each pair."""
        random = np.random.default_rng([self.seed, round])
        drawn = np.zeros(len(self.matchings), dtype=bool)
        while not drawn.any():
            drawn = random.random(len(self.matchings)) < self.probabilities
        pairs = (pair for number in np.flatnonzero(drawn) for pair in self.matchings[number])
        return both_ways(pairs)


def both_ways(pairs: Iterable[Link]) -> tuple[Link, ...]:
    """Return two directed links for each pair."""
    return tuple(link for first, second in pairs for link in ((first, second), (second, first)))


def _grouped(silos: Iterable[str], links: Iterable[Link]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {silo: [] for silo in silos}
    for source, target in links:
        groups[source].append(target)
    return groups
