# SPDX-License-Identifier: Apache-2.0
"""Cycle times: closed forms, Karp's algorithm, and the published figures."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedefm_core.federation.cycle_time import (
    RoundSettings,
    delays_ms,
    gossip_ms,
    maximum_cycle_mean,
    mfd_round_ms,
    replayed_ms,
    time_topology,
)
from fedefm_core.federation.topology import Multigraph
from fedefm_core.federation.topology_overlays import build_topology
from fedefm_core.federation.topology_report import table, topology_report
from fedefm_core.federation.underlays import Network, alike, connect, load_underlay

# FEMNIST model. gaia: T. Do et al., ICCV 2023; amazon_us: as their public code computes it.
PUBLISHED = {
    "gaia": {"star": 289.8, "mst": 77.2, "ring": 57.2, "multigraph": 15.7},
    "amazon_us": {"star": 98.8, "mst": 28.7},
}
# 1 Mbit at 1 Gbit/s takes 1 ms and a path 4 ms; access 10 Gbit/s: 0.1 ms for each link at an end.
SMALL = RoundSettings(model_mbit=1.0, compute_ms=2.0)


@pytest.fixture(scope="module")
def gaia() -> Network:
    return connect(load_underlay("gaia"))


@pytest.mark.parametrize(
    ("underlay", "name", "expected"),
    [(u, name, ms) for u, figures in PUBLISHED.items() for name, ms in figures.items()],
)
def test_published_figures(underlay: str, name: str, expected: float) -> None:
    network = connect(load_underlay(underlay))
    settings = RoundSettings()
    found = gossip_ms(build_topology(name, network, settings), network, settings)
    assert found == pytest.approx(expected, abs=0.1)


def test_published_figure_of_matcha(gaia: Network) -> None:
    settings = RoundSettings()
    found = gossip_ms(build_topology("matcha", gaia, settings), gaia, settings)
    assert found == pytest.approx(166.4, rel=0.01)


def test_a_delay_is_computing_latency_and_the_narrowest_part() -> None:
    network = alike([f"silo {n}" for n in range(16)])
    hub = network.silos[0]
    alone = delays_ms([(hub, network.silos[1])], network, SMALL)
    assert alone == pytest.approx([2 + 4 + 1])
    crowded = delays_ms([(hub, silo) for silo in network.silos[1:]], network, SMALL)
    assert crowded == pytest.approx([2 + 4 + 1.5] * 15)  # 15 models share the access of the hub


def test_a_round_trip_pays_the_road_twice_and_waits_its_turn() -> None:
    network = alike("abcd")
    road, compute = 4 + 1, 2
    one = mfd_round_ms([("a", "b")], network, SMALL)
    assert one == pytest.approx(compute + road + compute + road)
    queue = mfd_round_ms([("a", "d"), ("b", "d"), ("c", "d")], network, SMALL)
    assert queue == pytest.approx(compute + road + 3 * compute + road)
    longer = SMALL.model_copy(update={"overseas_ms": 10.0})
    assert mfd_round_ms([("a", "b")], network, longer) == pytest.approx(one + 8)
    assert mfd_round_ms([], network, SMALL) == compute


def test_star_goes_to_the_server_and_back() -> None:
    network = alike("abcd")
    assert gossip_ms(build_topology("star", network), network, SMALL) == pytest.approx(2 + 2 * 5)


def test_a_multigraph_without_slow_links_is_a_ring(gaia: Network) -> None:
    network = alike("abcd")
    topology = build_topology("multigraph", network, SMALL)
    assert isinstance(topology, Multigraph)
    assert topology.every == (1, 1, 1, 1)
    assert gossip_ms(topology, network, SMALL) == pytest.approx(7)
    # A model so large that the road hardly matters leaves no link slow, on gaia neither.
    large = RoundSettings(model_mbit=1420.0)
    on_gaia = build_topology("multigraph", gaia, large)
    ring = build_topology("ring", gaia, large)
    assert gossip_ms(on_gaia, gaia, large) == pytest.approx(gossip_ms(ring, gaia, large))


def test_a_resting_link_costs_what_is_left_of_its_delay() -> None:
    """Two silos; by hand: d = 7 both ways, one way in use every 2nd round.

    Round 0: both wait 7. Round 1: one way waits, cycle mean 7 / 2; the other travels 3.5 ms.
    From then on, even rounds cost (7 + 7 - 3.5) / 2.
    """
    links = (("a", "b"), ("b", "a"))
    topology = Multigraph("multigraph", ("a", "b"), links, every=(1, 2))
    expected = ((7 + 3.5) / 2 + 7 / 2) / 2
    assert gossip_ms(topology, alike("ab"), SMALL) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["complete", "exponential", "mst", "ring"])
def test_playing_a_static_schedule_gives_the_cycle_mean(name: str, gaia: Network) -> None:
    settings = RoundSettings()
    topology = build_topology(name, gaia, settings)
    expected = gossip_ms(topology, gaia, settings)
    assert replayed_ms(topology, gaia, settings) == pytest.approx(expected, rel=2e-3)


def test_a_multigraph_with_fresh_models_is_slower_than_its_published_figure(
    gaia: Network,
) -> None:
    settings = RoundSettings()
    timing = time_topology(build_topology("multigraph", gaia, settings), gaia, settings)
    assert timing.gossip_ms == pytest.approx(15.7, abs=0.1)
    assert timing.replayed_ms == pytest.approx(33.5, abs=0.5)


def test_cycle_means_by_hand() -> None:
    none = -np.inf
    assert maximum_cycle_mean(np.array([[none, 3.0], [5.0, none]])) == pytest.approx(4)
    assert maximum_cycle_mean(np.array([[4.5, 3.0], [5.0, none]])) == pytest.approx(4.5)
    assert maximum_cycle_mean(np.array([[none, 3.0], [none, none]])) == none
    apart = np.full((4, 4), none)
    apart[0, 1], apart[1, 0], apart[2, 3], apart[3, 2] = 1, 1, 2, 4
    assert maximum_cycle_mean(apart) == pytest.approx(3)


@given(st.lists(st.one_of(st.none(), st.floats(0, 100)), min_size=16, max_size=16))
def test_cycle_mean_is_that_of_the_best_simple_cycle(cells: list[float | None]) -> None:
    weights = np.array([-np.inf if cell is None else cell for cell in cells]).reshape(4, 4)
    graph = nx.DiGraph([(i, j) for i, j in zip(*np.nonzero(np.isfinite(weights)), strict=True)])
    means = [
        np.mean([weights[i, j] for i, j in zip(cycle, [*cycle[1:], cycle[0]], strict=True)])
        for cycle in nx.simple_cycles(graph)
    ]
    assert maximum_cycle_mean(weights) == pytest.approx(max(means, default=-np.inf))


def test_report_counts_both_directions() -> None:
    network = alike("abcd")
    topologies = [build_topology(name, network, SMALL) for name in ("ring", "star", "matcha")]
    report = topology_report(topologies, network, SMALL)
    ring = report["ring"]
    assert ring["gossip_bytes_per_link"] == pytest.approx(125_000)
    assert ring["mfd_bytes_per_link"] == pytest.approx(250_000)
    assert ring["mfd_bytes_per_round"] == pytest.approx(4 * 250_000)
    assert ring["mfd_bytes_per_round_of_busiest_silo"] == pytest.approx(2 * 250_000)
    assert report["star"]["mfd_bytes_per_round_of_busiest_silo"] == pytest.approx(6 * 250_000)
    assert ring["links"] == [["a", "b"], ["b", "c"], ["c", "d"], ["d", "a"]]
    assert len(report["matcha"]["probabilities"]) == len(report["matcha"]["matchings"]) == 3
    header, first, *_ = table(report)
    assert len(header) == len(first)
    assert first[0] == "ring"
