# SPDX-License-Identifier: Apache-2.0
"""Topologies: which silo sends to which, round by round."""

from __future__ import annotations

import itertools
from collections import Counter

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedefm_core.errors import ConfigError
from fedefm_core.federation.topology import Matcha, Multigraph, Topology, both_ways
from fedefm_core.federation.topology_matchings import (
    activation_probabilities,
    algebraic_connectivity,
    matchings,
)
from fedefm_core.federation.topology_overlays import TOPOLOGIES, build_topology
from fedefm_core.federation.underlays import alike, connect, load_underlay

SILOS = ("a", "b", "c", "d", "e")


def matcha_on_gaia(seed: int = 0) -> Matcha:
    topology = build_topology("matcha", connect(load_underlay("gaia")), seed=seed)
    assert isinstance(topology, Matcha)
    return topology


def test_ring_follows_the_silos_where_all_roads_are_alike() -> None:
    topology = build_topology("ring", alike(SILOS))
    expected = {"a": ["b"], "b": ["c"], "c": ["d"], "d": ["e"], "e": ["a"]}
    assert topology.neighbours(round=7) == expected
    assert topology.guests(round=7)["b"] == ["a"]


def test_star_has_one_server_for_all() -> None:
    topology = build_topology("star", alike(SILOS))
    assert topology.server == "a"
    assert topology.neighbours(0) == {"a": ["b", "c", "d", "e"], **{s: ["a"] for s in "bcde"}}


def test_exponential_sends_to_powers_of_two() -> None:
    topology = build_topology("exponential", alike("abcdefghi"))
    assert topology.neighbours(0)["a"] == ["b", "c", "e", "i"]
    assert topology.neighbours(0)["h"] == ["i", "a", "c", "g"]


def test_complete_has_every_link() -> None:
    assert set(build_topology("complete", alike(SILOS)).links) == set(
        itertools.permutations(SILOS, 2)
    )


@given(
    name=st.sampled_from(sorted(TOPOLOGIES)),
    size=st.integers(2, 8),
    round=st.integers(0, 10_000),
    seed=st.integers(0, 2**32),
)
def test_every_topology_connects_all_silos_and_keeps_its_schedule(
    name: str, size: int, round: int, seed: int
) -> None:
    silos = "abcdefgh"[:size]
    topology = build_topology(name, alike(silos), seed=seed)
    assert nx.is_strongly_connected(nx.DiGraph(topology.links))
    active = topology.active(round)
    assert active
    assert set(active) <= set(topology.links)
    assert active == build_topology(name, alike(silos), seed=seed).active(round)
    neighbours, guests = topology.neighbours(round), topology.guests(round)
    assert list(neighbours) == list(guests) == list(silos)
    assert Counter(active) == Counter((i, j) for i, out in neighbours.items() for j in out)
    assert Counter(active) == Counter((i, j) for j, come in guests.items() for i in come)


def test_multigraph_uses_a_link_every_nth_round() -> None:
    links = (("a", "b"), ("b", "c"), ("c", "a"))
    topology = Multigraph("multigraph", ("a", "b", "c"), links, every=(1, 2, 3))
    assert topology.period == 6
    assert [len(topology.active(k)) for k in range(7)] == [3, 1, 2, 2, 2, 1, 3]
    assert topology.active(3) == (("a", "b"), ("c", "a"))
    assert topology.neighbours(1) == {"a": ["b"], "b": [], "c": []}


def test_multigraph_on_gaia_follows_the_ring() -> None:
    network = connect(load_underlay("gaia"))
    topology = build_topology("multigraph", network)
    assert isinstance(topology, Multigraph)
    assert topology.links == build_topology("ring", network).links
    assert sorted(topology.every) == [1, 1, 1, 2, 2, 3, 3, 4, 4, 4, 5]


def test_matcha_draws_whole_matchings_with_their_probabilities() -> None:
    topology = matcha_on_gaia()
    assert topology.probabilities == (0.5,) * 11  # all of K11's 11 matchings are alike
    seen = np.zeros(11)
    for k in range(2000):
        active = set(topology.active(k))
        drawn = [set(both_ways(pairs)) <= active for pairs in topology.matchings]
        pairs = (pair for pairs, is_in in zip(topology.matchings, drawn, strict=True) if is_in
                 for pair in pairs)  # fmt: skip
        assert active == set(both_ways(pairs))
        seen += drawn
    assert seen / 2000 == pytest.approx(0.5, abs=0.04)  # 3.6 standard errors


def test_matcha_depends_on_seed_and_round_alone() -> None:
    first, second, other = matcha_on_gaia(3), matcha_on_gaia(3), matcha_on_gaia(4)
    backwards = [second.active(k) for k in reversed(range(20))]
    assert [first.active(k) for k in range(20)] == backwards[::-1]
    assert [first.active(k) for k in range(20)] != [other.active(k) for k in range(20)]
    assert len({first.active(k) for k in range(20)}) > 15


def test_matcha_never_draws_nothing() -> None:
    topology = Matcha(
        "matcha", ("a", "b"), both_ways([("a", "b")]),
        matchings=((("a", "b"),),), probabilities=(0.05,),
    )  # fmt: skip
    assert all(topology.active(k) for k in range(50))


def test_matcha_uses_links_of_the_underlay_only() -> None:
    network = connect(load_underlay("geant"))
    topology = build_topology("matcha", network)
    graph = load_underlay("geant").graph
    assert {frozenset(link) for link in topology.links} == {frozenset(e) for e in graph.edges}


@given(st.integers(2, 9), st.randoms(use_true_random=False))
def test_matchings_hold_each_edge_once_and_each_node_once(size: int, random: object) -> None:
    graph = nx.gnp_random_graph(size, 0.6, seed=random)
    found = matchings(graph)
    together = [frozenset(pair) for matching in found for pair in matching]
    assert Counter(together) == Counter(frozenset(edge) for edge in graph.edges)
    for matching in found:
        ends = [node for pair in matching for node in pair]
        assert len(ends) == len(set(ends))


def test_probabilities_connect_best() -> None:
    """A path of three edges in three matchings, against a fine grid of the simplex."""
    path = [((0, 1),), ((1, 2),), ((2, 3),)]
    found = activation_probabilities(4, path, budget=0.5)
    assert sum(found) == pytest.approx(1.5)
    assert found[1] > found[0]  # the middle edge cuts the path in halves
    grid = [
        (p, 1.5 - p - q, q)
        for p, q in itertools.product(np.linspace(0, 1, 51), repeat=2)
        if 0 <= 1.5 - p - q <= 1
    ]
    best = max(algebraic_connectivity(4, path, p) for p in grid)
    assert algebraic_connectivity(4, path, found) >= 0.99 * best


def test_an_unknown_topology_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'rnig' is no known topology; did you mean 'ring'\?"):
        build_topology("rnig", alike(SILOS))


@pytest.mark.parametrize("links", [(("a", "a"),), (("a", "z"),), (("a", "b"), ("a", "b"))])
def test_links_that_make_no_sense_are_refused(links: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(ConfigError, match="mine: "):
        Topology("mine", ("a", "b"), links)


def test_schedules_that_make_no_sense_are_refused() -> None:
    links = (("a", "b"), ("b", "a"))
    with pytest.raises(ConfigError, match="multiplicity of at least 1"):
        Multigraph("mine", ("a", "b"), links, every=(1, 0))
    with pytest.raises(ConfigError, match="multiplicity of at least 1"):
        Multigraph("mine", ("a", "b"), links, every=(1,))
    with pytest.raises(ConfigError, match="probability above 0"):
        Matcha("mine", ("a", "b"), links, matchings=(links[:1],), probabilities=(0.0,))
