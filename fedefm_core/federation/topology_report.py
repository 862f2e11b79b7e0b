# SPDX-License-Identifier: Apache-2.0
"""What the topologies cost on a network, as JSON for machines and as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedefm_core.federation.cycle_time import RoundSettings, time_topology
from fedefm_core.federation.topology import Matcha, Multigraph, Topology
from fedefm_core.federation.underlays import Network

BITS_PER_BYTE = 8


def topology_report(
    topologies: Sequence[Topology], network: Network, settings: RoundSettings
) -> dict[str, Any]:
    """Time each topology on a network; by its name, figures and schedule.

    Bytes: gossip sends the model once over each active link of a round, MFD twice (out and home).
    links: [from, to]; a multigraph adds 'every' for each link (in use every n-th round), MATCHA
    adds its 'matchings', their 'probabilities' and the 'seed'.
    """
    model_bytes = settings.model_mbit * 1e6 / BITS_PER_BYTE
    report: dict[str, Any] = {}
    for topology in topologies:
        timing = time_topology(topology, network, settings)
        report[topology.name] = {
            "gossip_ms": timing.gossip_ms,
            "gossip_replayed_ms": timing.replayed_ms,
            "mfd_ms": timing.mfd_ms,
            "links_per_round": timing.links,
            "gossip_bytes_per_link": model_bytes,
            "mfd_bytes_per_link": 2 * model_bytes,
            "gossip_bytes_per_round": model_bytes * timing.links,
            "mfd_bytes_per_round": 2 * model_bytes * timing.links,
            "mfd_bytes_per_round_of_busiest_silo": 2 * model_bytes * timing.busiest_links,
            **_schedule(topology),
        }
    return report


def table(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A table for people, header first: cycle times in ms, traffic of MFD in MB (10^6 bytes)."""
    rows: list[tuple[str, ...]] = [
        ("topology", "links", "one way, ms", "MFD, ms", "MFD, MB", "busiest silo, MB")
    ]
    for name, figures in report.items():
        total, busiest = (
            figures[f"mfd_bytes_per_round{of}"] / 1e6 for of in ("", "_of_busiest_silo")
        )
        rows.append(
            (
                name,
                f"{figures['links_per_round']:.1f}",
                f"{figures['gossip_ms']:.1f}",
                f"{figures['mfd_ms']:.1f}",
                f"{total:.1f}",
                f"{busiest:.1f}",
            )
        )
    return rows


def _schedule(topology: Topology) -> dict[str, Any]:
    schedule: dict[str, Any] = {"links": [list(link) for link in topology.links]}
    if topology.server is not None:
        schedule["server"] = topology.server
    if isinstance(topology, Multigraph):
        schedule["every"] = list(topology.every)
    if isinstance(topology, Matcha):
        schedule["matchings"] = [[list(pair) for pair in pairs] for pairs in topology.matchings]
        schedule["probabilities"] = list(topology.probabilities)
        schedule["seed"] = topology.seed
    return schedule
