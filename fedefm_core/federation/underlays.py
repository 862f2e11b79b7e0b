# SPDX-License-Identifier: Apache-2.0
"""Underlays: the wide-area networks that silos sit on, and the roads they give between silos.

An underlay is a file of facts (nodes, their places, links with their length and capacity). From
it, connect() derives a Network: for each two silos the latency and bandwidth of the shortest path.
The model is that of O. Marfoq et al., Throughput-Optimal Topology Design for Cross-Silo Federated
Learning, NeurIPS 2020: 0.0085 ms a km and 4 ms a path; a path of n links has 1/n of the capacity.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import networkx as nx
import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedefm_core.config import Settings, load_settings
from fedefm_core.errors import ConfigError

EARTH_RADIUS_KM = 6371.0088
LATENCY_MS_PER_KM = 0.0085
LATENCY_MS_PER_PATH = 4.0
LINK_MBIT_S = 1000.0
BITS_PER_MS = 1e3  # in one Mbit/s

Place = tuple[Annotated[float, Field(ge=-90, le=90)], Annotated[float, Field(ge=-180, le=180)]]
Length = Annotated[float, Field(ge=0)]
Capacity = Annotated[float, Field(gt=0)]


class UnderlayFile(Settings):
    """What an underlay file holds.

    nodes: name -> [latitude, longitude] in degrees. links: [node, node, km, Mbit/s]; for km, null
    means the great circle between the nodes, for Mbit/s that the capacity is not known.
    """

    title: str
    source: str
    nodes: dict[str, Place]
    links: tuple[tuple[str, str, Length | None, Capacity | None], ...]


@dataclass(frozen=True)
class Underlay:
    """A wide-area network. Edges of graph have 'km' and 'mbit_s' (None: not known)."""

    name: str
    title: str
    source: str
    places: Mapping[str, Place]
    graph: nx.Graph[str]


@dataclass(frozen=True)
class Network:
    """The road between each two of N silos, both ways alike.

    latency_ms (N, N), bandwidth_bit_ms (N, N): of the path; the diagonals mean nothing.
    linked (N, N): there is a link between the two, without a third node in between.
    places: latitude and longitude by silo; empty where there is no map.
    """

    silos: tuple[str, ...]
    latency_ms: npt.NDArray[np.float64]
    bandwidth_bit_ms: npt.NDArray[np.float64]
    linked: npt.NDArray[np.bool_]
    places: Mapping[str, Place] = field(default_factory=dict)


def underlay_names() -> list[str]:
    """Names of the underlays that come with the package."""
    folder = resources.files("fedefm_core.federation") / "underlays"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir())


def load_underlay(name: str | Path) -> Underlay:
    """Read an underlay by the name of a shipped one, or from a YAML file of the same layout.

    Raises ConfigError when the name is unknown (with the nearest one), when the file is not what
    UnderlayFile says, or when its nodes are not all connected.
    """
    if Path(name).suffix in {".yaml", ".yml"}:
        return _read(Path(name))
    if str(name) not in underlay_names():
        nearest = difflib.get_close_matches(str(name), underlay_names(), n=1, cutoff=0.4)
        hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
        raise ConfigError(
            f"'{name}' is no known underlay{hint} "
            f"(known: {', '.join(underlay_names())}, or the path of a .yaml file)"
        )
    shipped = resources.files("fedefm_core.federation") / "underlays" / f"{name}.yaml"
    with resources.as_file(shipped) as path:
        return _read(path)


def connect(
    underlay: Underlay,
    silos: Mapping[str, str] | Sequence[str] | None = None,
    *,
    known_capacities: bool = False,
) -> Network:
    """Derive the road between each two silos: the shortest path through the underlay.

    silos: nodes of the underlay that take part, default all; paths may lead over the others. Or a
    mapping from the name of each silo to the node where it is: two may share a node, with no
    distance and one link between them.
    The bandwidth of a path is the least capacity on it, divided by the number of its links. By
    default each link has LINK_MBIT_S, as in the published figures; with known_capacities, those
    links that state their own capacity have it. Raises ConfigError for a node that is not there.
    """
    sites = (
        dict(silos)
        if isinstance(silos, Mapping)
        else _at_home(underlay.places if silos is None else silos)
    )
    for node in sites.values():
        _check_node(node, underlay)
    _check_names(tuple(sites))
    size = len(sites)
    latency, bandwidth = np.zeros((size, size)), np.full((size, size), np.inf)
    linked = np.zeros((size, size), dtype=np.bool_)
    for row, source in enumerate(sites.values()):
        lengths, paths = nx.single_source_dijkstra(underlay.graph, source, weight="km")
        for column, target in enumerate(sites.values()):
            if row == column:
                continue
            links = [underlay.graph.edges[link] for link in pairwise(paths[target])]
            capacities = [(known_capacities and link["mbit_s"]) or LINK_MBIT_S for link in links]
            latency[row, column] = LATENCY_MS_PER_KM * lengths[target] + LATENCY_MS_PER_PATH
            least = min(capacities, default=LINK_MBIT_S)
            bandwidth[row, column] = least * BITS_PER_MS / max(len(links), 1)
            linked[row, column] = source == target or underlay.graph.has_edge(source, target)
    # Of several shortest paths the two directions may take different ones: take the worse.
    bandwidth = np.minimum(bandwidth, bandwidth.T)
    places = {silo: underlay.places[node] for silo, node in sites.items()}
    return Network(tuple(sites), np.maximum(latency, latency.T), bandwidth, linked, places)


def alike(silos: Sequence[str]) -> Network:
    """Return a network on which all roads are alike: no length, one link of LINK_MBIT_S each."""
    silos = tuple(silos)
    _check_names(silos)
    shape = (len(silos), len(silos))
    return Network(
        silos,
        np.full(shape, LATENCY_MS_PER_PATH),
        np.full(shape, LINK_MBIT_S * BITS_PER_MS),
        ~np.eye(len(silos), dtype=np.bool_),
    )


def great_circle_km(first: Place, second: Place) -> float:
    """Length of the great circle between two places, by the haversine formula."""
    (lat_a, lon_a), (lat_b, lon_b) = (
        (math.radians(latitude), math.radians(longitude))
        for latitude, longitude in (first, second)
    )
    square = (
        math.sin((lat_b - lat_a) / 2) ** 2
        + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(square))


def _read(path: Path) -> Underlay:
    file = load_settings(UnderlayFile, path)
    graph: nx.Graph[str] = nx.Graph()
    graph.add_nodes_from(file.nodes)
    for first, second, km, mbit_s in file.links:
        for node in (first, second):
            if node not in file.nodes:
                raise ConfigError(f"In {path}: a link names the node '{node}', which is not there")
        if first == second or graph.has_edge(first, second):
            raise ConfigError(
                f"In {path}: each link must join two nodes, once (got {first} - {second})"
            )
        if km is None:
            km = great_circle_km(file.nodes[first], file.nodes[second])
        graph.add_edge(first, second, km=km, mbit_s=mbit_s)
    if len(graph) < 2:
        raise ConfigError(f"{path} must have at least two nodes (got {len(graph)})")
    _check_connected(graph, path)
    return Underlay(path.stem, file.title, file.source, file.nodes, graph)


def _check_connected(graph: nx.Graph[str], path: Path) -> None:
    reached = nx.node_connected_component(graph, next(iter(graph)))
    cut_off = [node for node in graph if node not in reached]
    if cut_off:
        raise ConfigError(f"In {path}: no links lead to {', '.join(cut_off)}")


def _at_home(nodes: Iterable[str]) -> dict[str, str]:
    """Return each node as the silo of its own name."""
    nodes = tuple(nodes)
    _check_names(nodes)
    return {node: node for node in nodes}


def _check_node(node: str, underlay: Underlay) -> None:
    if node not in underlay.places:
        nearest = difflib.get_close_matches(node, underlay.places, n=1)
        hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
        raise ConfigError(f"'{node}' is no node of the underlay {underlay.name}{hint}")


def _check_names(silos: Sequence[str]) -> None:
    if len(silos) < 2:
        raise ConfigError(f"A network needs at least two silos (got {len(silos)})")
    if len(set(silos)) < len(silos):
        raise ConfigError(f"Silos must have different names (got {', '.join(silos)})")
