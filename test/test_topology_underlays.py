# SPDX-License-Identifier: Apache-2.0
"""Underlays: the shipped facts, files of one's own, and the roads between silos."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from fedefm_core.errors import ConfigError
from fedefm_core.federation.topology_map import lay_out
from fedefm_core.federation.underlays import (
    alike,
    connect,
    great_circle_km,
    load_underlay,
    underlay_names,
)

SIZES = {
    "amazon_us": (22, 231),
    "ebone": (87, 161),
    "exodus": (79, 147),
    "gaia": (11, 55),
    "geant": (40, 61),
}
LINE = """
title: A line
source: invented
nodes: {west: [0, 0], middle: [0, 1], east: [0, 2]}
links:
  - [west, middle, 100, 500]
  - [middle, east, 200, null]
"""


@pytest.fixture
def line(tmp_path: Path) -> Path:
    path = tmp_path / "line.yaml"
    path.write_text(LINE)
    return path


def test_the_shipped_underlays_are_whole() -> None:
    assert underlay_names() == sorted(SIZES)
    for name, (nodes, links) in SIZES.items():
        underlay = load_underlay(name)
        assert underlay.name == name
        assert (len(underlay.places), underlay.graph.number_of_edges()) == (nodes, links)
        assert underlay.source


@pytest.mark.parametrize("name", ["gaia", "ebone"])
def test_places_agree_with_distances(name: str) -> None:
    underlay = load_underlay(name)
    for first, second, link in underlay.graph.edges(data=True):
        measured = great_circle_km(underlay.places[first], underlay.places[second])
        assert measured == pytest.approx(link["km"], abs=40), (first, second)


@pytest.mark.parametrize(("name", "file"), [(n, n) for n in SIZES if n != "geant"] + [("geant", "geantdistance")])  # fmt: skip # noqa: E501
def test_facts_are_those_of_the_papers(name: str, file: str, shared_data: Path) -> None:
    theirs = nx.read_gml(shared_data / "underlays" / f"{file}.gml")
    ours = load_underlay(name).graph
    names = dict(zip(theirs, ours, strict=True))
    for first, second, link in theirs.edges(data=True):
        mine = ours.edges[names[first], names[second]]
        assert mine["km"] == pytest.approx(link["distance"], abs=1e-3)
        capacity = link.get("capacity")
        assert mine["mbit_s"] == (None if capacity is None else capacity / 1e6)


def test_roads_lead_over_nodes_in_between(line: Path) -> None:
    network = connect(load_underlay(line))
    assert network.silos == ("west", "middle", "east")
    assert network.latency_ms[0, 1] == pytest.approx(0.0085 * 100 + 4)
    assert network.latency_ms[0, 2] == network.latency_ms[2, 0] == pytest.approx(0.0085 * 300 + 4)
    assert network.bandwidth_bit_ms[0, 1] == pytest.approx(1e6)
    assert network.bandwidth_bit_ms[0, 2] == pytest.approx(5e5)  # two links
    assert network.linked.tolist() == [
        [False, True, False], [True, False, True], [False, True, False]
    ]  # fmt: skip


def test_known_capacities_bound_the_road(line: Path) -> None:
    network = connect(load_underlay(line), known_capacities=True)
    assert network.bandwidth_bit_ms[0, 1] == pytest.approx(5e5)
    assert network.bandwidth_bit_ms[1, 2] == pytest.approx(1e6)  # not known: 1 Gbit/s
    assert network.bandwidth_bit_ms[0, 2] == pytest.approx(2.5e5)


def test_silos_may_be_some_nodes_or_have_names_of_their_own(line: Path) -> None:
    underlay = load_underlay(line)
    some = connect(underlay, ["east", "west"])
    assert some.silos == ("east", "west")
    assert some.latency_ms[0, 1] == pytest.approx(0.0085 * 300 + 4)
    named = connect(underlay, {"clinic": "east", "hospital": "east", "institute": "west"})
    assert named.silos == ("clinic", "hospital", "institute")
    assert named.latency_ms[0, 1] == pytest.approx(4)
    assert named.bandwidth_bit_ms[0, 1] == pytest.approx(1e6)
    assert named.places["institute"] == (0, 0)


def test_a_length_may_be_left_to_the_great_circle(line: Path) -> None:
    line.write_text(LINE.replace("100, 500", "null, null"))
    degree = 2 * np.pi * 6371.0088 / 360
    assert load_underlay(line).graph.edges["west", "middle"]["km"] == pytest.approx(degree)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[west, middle, 100, 500]", "[west, north, 100, 500]", "names the node 'north'"),
        ("[west, middle, 100, 500]", "[west, west, 100, 500]", "must join two nodes, once"),
        ("[west, middle, 100, 500]", "[east, middle, 100, 500]", "must join two nodes, once"),
        ("  - [middle, east, 200, null]\n", "", "no links lead to east"),
        ("[west, middle, 100, 500]", "[west, middle, -1, 500]", "greater than or equal to 0"),
        ("nodes:", "node:", "'node' is no known setting; did you mean 'nodes'"),
        ("[0, 2]", "[0, 200]", "less than or equal to 180"),
    ],
)
def test_a_wrong_file_is_refused(line: Path, old: str, new: str, message: str) -> None:
    assert old in LINE
    line.write_text(LINE.replace(old, new))
    with pytest.raises(ConfigError, match=message) as caught:
        load_underlay(line)
    assert "line.yaml" in str(caught.value)


def test_unknown_names_are_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'gaja' is no known underlay; did you mean 'gaia'\?"):
        load_underlay("gaja")
    with pytest.raises(ConfigError, match=r"'Dublan' is no node .* did you mean 'Dublin'\?"):
        connect(load_underlay("gaia"), ["Dublan", "Tokyo"])
    with pytest.raises(ConfigError, match="Cannot read the configuration"):
        load_underlay(tmp_path / "missing.yaml")


@pytest.mark.parametrize("silos", [[], ["a"], ["a", "b", "a"]])
def test_a_network_needs_two_silos_of_different_names(silos: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"two silos|different names"):
        alike(silos)


def test_a_map_is_cut_where_it_is_widest() -> None:
    ground = lay_out({"Tokyo": (35.7, 139.8), "Denver": (39.7, -105.0), "London": (51.5, -0.1)})
    assert ground.points["Tokyo"] == pytest.approx((139.8 - 360, 35.7))
    assert ground.left < -220.2 < ground.right
    assert len(ground.courses(("Denver", "London"))) == 1


def test_a_link_over_the_border_is_drawn_from_both_sides() -> None:
    places = {"Tokyo": (35.0, 140.0), "Delhi": (28.0, 77.0), "Lima": (-12.0, -77.0),
              "Oslo": (59.0, 10.0)}  # fmt: skip
    ground = lay_out(places)
    leaving, coming = ground.courses(("Tokyo", "Lima"))
    assert leaving == ((140.0, 35.0), (283.0, -12.0))
    assert coming == ((-220.0, 35.0), (-77.0, -12.0))


def test_silos_of_one_place_are_set_apart() -> None:
    ground = lay_out({"Paris 1": (48.9, 2.3), "Paris 2": (48.9, 2.3), "Rome": (41.9, 12.5)})
    assert ground.points["Paris 1"] != ground.points["Paris 2"]
    middle = np.mean([ground.points["Paris 1"], ground.points["Paris 2"]], axis=0)
    assert middle == pytest.approx((2.3, 48.9))
