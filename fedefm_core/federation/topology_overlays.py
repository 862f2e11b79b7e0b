# SPDX-License-Identifier: Apache-2.0
"""Overlays: topologies chosen for a network. networkx does the graph work."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise

import networkx as nx
import numpy as np
import numpy.typing as npt

from fedefm_core.errors import ConfigError
from fedefm_core.federation.cycle_time import RoundSettings, pair_delays_ms
from fedefm_core.federation.topology import Link, Matcha, Multigraph, Topology, both_ways
from fedefm_core.federation.topology_matchings import activation_probabilities, matchings
from fedefm_core.federation.underlays import Network

MATCHA_BUDGET = 0.5
MAX_MULTIPLICITY = 5


def build_topology(
    name: str, network: Network, settings: RoundSettings | None = None, seed: int = 0
) -> Topology:
    """Build a topology by name; TOPOLOGIES lists them.

    settings: what a round carries, since the best tree or tour may depend on it. seed: of MATCHA's
    draws; the others draw nothing. Without a map, use the network of underlays.alike(silos).
    Raises ConfigError for an unknown name, with the nearest one.

    >>> from fedefm_core.federation.underlays import alike
    >>> build_topology("ring", alike(["a", "b", "c"])).neighbours(round=0)
    {'a': ['b'], 'b': ['c'], 'c': ['a']}
    """
    if name not in TOPOLOGIES:
        nearest = difflib.get_close_matches(name.lower(), TOPOLOGIES, n=1)
        hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
        raise ConfigError(f"'{name}' is no known topology{hint} (known: {', '.join(TOPOLOGIES)})")
    return TOPOLOGIES[name](network, settings or RoundSettings(), seed)


def star(network: Network, settings: RoundSettings, seed: int = 0) -> Topology:
    """Join the silo of greatest load centrality with each other one, both ways."""
    graph = _complete(network, network.latency_ms)
    load = nx.load_centrality(graph, weight="weight")
    server = max(network.silos, key=lambda silo: load[silo])
    pairs = [(server, silo) for silo in network.silos if silo != server]
    return Topology("star", network.silos, both_ways(pairs), server)


def complete(network: Network, settings: RoundSettings, seed: int = 0) -> Topology:
    """Join each silo with every other one."""
    return Topology("complete", network.silos, both_ways(combinations(network.silos, 2)))


def exponential(network: Network, settings: RoundSettings, seed: int = 0) -> Topology:
    """Let silo i send to silos i + 1, i + 2, i + 4, ... modulo N, in the order of silos.

    B. Ying et al., Exponential Graph is Provably Efficient for Decentralized Deep Training,
    NeurIPS 2021: about log2 N links a silo, and consensus as fast as with far more.
    """
    silos = network.silos
    hops = [2**power for power in range((len(silos) - 1).bit_length())]
    links = [
        (silo, silos[(number + hop) % len(silos)])
        for number, silo in enumerate(silos)
        for hop in hops
    ]
    return Topology("exponential", silos, tuple(links))


def ring(network: Network, settings: RoundSettings, seed: int = 0) -> Topology:
    """Send along a short tour through all silos, by Christofides' algorithm, one way round."""
    return Topology("ring", network.silos, _tour(network, settings))


def mst(network: Network, settings: RoundSettings, seed: int = 0) -> Topology:
    """Join the silos by the minimum spanning tree of delays, both ways."""
    graph = _complete(network, pair_delays_ms(network, settings))
    tree = nx.minimum_spanning_tree(graph)
    return Topology("mst", network.silos, both_ways(tree.edges))


def matcha(network: Network, settings: RoundSettings, seed: int = 0) -> Topology:
    """Draw matchings of the links of the underlay, half of them a round.

    Where the silos do not hang together by direct links, of all pairs.
    """
    size = len(network.silos)
    graph = nx.from_numpy_array(network.linked)
    if not nx.is_connected(graph):
        graph = nx.complete_graph(size)
    numbered = matchings(graph)
    probabilities = activation_probabilities(size, numbered, MATCHA_BUDGET)
    named = tuple(
        tuple((network.silos[first], network.silos[second]) for first, second in matching)
        for matching in numbered
    )
    links = both_ways(pair for matching in named for pair in matching)
    return Matcha(
        "matcha",
        network.silos,
        links,
        matchings=named,
        probabilities=probabilities,
        seed=seed,
    )


def multigraph(network: Network, settings: RoundSettings, seed: int = 0) -> Topology:
    """Send along the tour of ring, over a link of m times the least delay every m-th round.

    m is rounded, and at most MAX_MULTIPLICITY (ICCV 2023, algorithm 1).
    """
    links = _tour(network, settings)
    index = {silo: number for number, silo in enumerate(network.silos)}
    alone = pair_delays_ms(network, settings)
    delays = [alone[index[source], index[target]] for source, target in links]
    every = tuple(min(MAX_MULTIPLICITY, round(delay / min(delays))) for delay in delays)
    return Multigraph("multigraph", network.silos, links, every=every)


TOPOLOGIES: dict[str, Callable[[Network, RoundSettings, int], Topology]] = {
    "star": star,
    "complete": complete,
    "exponential": exponential,
    "matcha": matcha,
    "mst": mst,
    "ring": ring,
    "multigraph": multigraph,
}


def _tour(network: Network, settings: RoundSettings) -> tuple[Link, ...]:
    """Return the links of a closed tour; in the order of silos where all roads are alike."""
    delays = pair_delays_ms(network, settings)
    apart = delays[~np.eye(len(delays), dtype=bool)]
    if len(delays) <= 3 or np.ptp(apart) == 0:
        stops: Sequence[str] = (*network.silos, network.silos[0])
    else:
        stops = nx.approximation.christofides(_complete(network, delays))
    return tuple(pairwise(stops))


def _complete(network: Network, weights: npt.NDArray[np.float64]) -> nx.Graph:
    graph = nx.Graph()
    graph.add_nodes_from(network.silos)
    for first, second in combinations(range(len(network.silos)), 2):
        pair = network.silos[first], network.silos[second]
        graph.add_edge(*pair, weight=float(weights[first, second]))
    return graph
