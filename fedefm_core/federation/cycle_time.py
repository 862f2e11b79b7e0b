# SPDX-License-Identifier: Apache-2.0
"""Cycle time: how long a round takes on a network, without training anything.

Delay of a link (i, j), in ms, as in O. Marfoq et al., Throughput-Optimal Topology Design for
Cross-Silo Federated Learning, NeurIPS 2020:

    d(i, j) = T_c + latency_ij + max(out_i · M / access, in_j · M / access, M / bandwidth_ij)

M is the size of the model, out_i and in_j how many links leave i and enter j in that round. Silo
j begins a round when all that it waits for has arrived, so a round takes, in the long run, the
greatest mean delay of a cycle of links (R. M. Karp, 1978).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedefm_core.config import Settings
from fedefm_core.federation.topology import Link, Multigraph, Topology
from fedefm_core.federation.underlays import BITS_PER_MS, Network

# A random schedule is timed as the mean of so many of its rounds.
SAMPLED_ROUNDS = 1000


class RoundSettings(Settings):
    """What a round computes and carries.

    model_mbit: size of the model as it travels, in 10^6 bit (parameters · 32 / 10^6 in float32).
    compute_ms: what a silo computes at home in a round. overseas_ms: training of one guest;
    None means as much as at home. access_mbit_s: between a silo and the network, each way.
    The defaults are those of the published figures (the FEMNIST model).
    """

    model_mbit: float = Field(default=4.843243, gt=0, allow_inf_nan=False)
    compute_ms: float = Field(default=4.6, ge=0, allow_inf_nan=False)
    overseas_ms: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    access_mbit_s: float = Field(default=10_000.0, gt=0, allow_inf_nan=False)


@dataclass(frozen=True)
class Timing:
    """What a round of a topology costs, as a mean over its rounds.

    gossip_ms: models travel one way, in the way of the published figures. replayed_ms: the same by
    playing the schedule, every model fresh. mfd_ms: models go out,
    are trained overseas and come home. links: active in a round. busiest_links: most links,
    leaving and entering, that one silo has on average.
    """

    gossip_ms: float
    replayed_ms: float
    mfd_ms: float
    links: float
    busiest_links: float


def time_topology(topology: Topology, network: Network, settings: RoundSettings) -> Timing:
    """Return what a round of a topology costs on a network."""
    rounds = [topology.active(k) for k in range(topology.period or SAMPLED_ROUNDS)]
    ends = Counter(silo for links in rounds for link in links for silo in link)
    return Timing(
        gossip_ms=gossip_ms(topology, network, settings),
        replayed_ms=replayed_ms(topology, network, settings),
        mfd_ms=float(np.mean([mfd_round_ms(links, network, settings) for links in rounds])),
        links=float(np.mean([len(links) for links in rounds])),
        busiest_links=max(ends.values()) / len(rounds),
    )


def gossip_ms(topology: Topology, network: Network, settings: RoundSettings) -> float:
    """Cycle time when models travel one way, as the published figures count it.

    Static topologies: the greatest mean delay of a cycle. Star: the road to the server and back,
    its computing once. MATCHA: a round takes as long as its slowest link; mean over rounds.
    Multigraph: see multigraph_ms.
    """
    if isinstance(topology, Multigraph):
        return multigraph_ms(topology, network, settings)
    if topology.period is None:
        rounds = (topology.active(k) for k in range(SAMPLED_ROUNDS))
        return float(np.mean([delays_ms(links, network, settings).max() for links in rounds]))
    cycle = maximum_cycle_mean(_matrix(topology, delays_ms(topology.links, network, settings)))
    if topology.server is not None:
        return 2 * (cycle - settings.compute_ms) + settings.compute_ms
    return cycle


def multigraph_ms(topology: Multigraph, network: Network, settings: RoundSettings) -> float:
    """Cycle time of a multigraph, as its publication counts it (ICCV 2023, equations 4 and 5).

    A link that rests makes nobody wait (0 ms), and its model is meanwhile under way: when its
    round comes, it costs only what is left of its delay, but no less than T_c. So the models that
    arrive over a slow link are several rounds old. Mean over the second period: in the first, no
    model is under way yet.
    """
    full = dict(zip(topology.links, delays_ms(topology.links, network, settings), strict=True))
    under_way: dict[Link, float] = {}  # how long the model of a resting link has been travelling
    times = []
    for round_index in range(2 * topology.period):
        waits = {
            link: max(settings.compute_ms, full[link] - under_way[link])
            if link in under_way
            else full[link]
            for link in topology.active(round_index)
        }
        delays = [waits.get(link, 0.0) for link in topology.links]
        time = maximum_cycle_mean(_matrix(topology, delays))
        under_way = {
            link: under_way.get(link, 0.0) + time for link in topology.links if link not in waits
        }
        times.append(time)
    return float(np.mean(times[topology.period :]))


def replayed_ms(topology: Topology, network: Network, settings: RoundSettings) -> float:
    """Mean time of a round when the schedule is played, each link carrying the newest model.

    A silo ends a round when it has computed and has what the active links bring it; there is no
    barrier: t_j(k + 1) = max(t_j(k) + T_c, t_i(k) + d(i, j) for each active (i, j)). For a static
    topology this is the greatest cycle mean. Whole periods of the schedule are played, about
    SAMPLED_ROUNDS rounds, and the second half is averaged.
    """
    period = topology.period or SAMPLED_ROUNDS
    rounds = [topology.active(k) for k in range(period)]
    ends = [_numbers(links, topology.silos) for links in rounds]
    delays = [delays_ms(links, network, settings) for links in rounds]
    clock = np.zeros(len(topology.silos))
    times = []
    half = max(SAMPLED_ROUNDS // 2 // period, 1) * period
    for k in range(2 * half):
        sources, targets = ends[k % period]
        arrivals = clock[sources] + delays[k % period]
        clock = clock + settings.compute_ms
        np.maximum.at(clock, targets, arrivals)
        times.append(float(clock.max()))
    return (times[-1] - times[half - 1]) / half


def mfd_round_ms(links: Sequence[Link], network: Network, settings: RoundSettings) -> float:
    """Time of a round in which models travel out, are trained, and come home over the same links.

    A silo waits for its last expert: T_c, the road out, the training of all guests of that host
    (one after the other, and ours may be the last), and the road home. Such a round trip is a
    cycle from a silo to itself, so the longest one is the cycle time. T_c without links.
    """
    if not links:
        return settings.compute_ms
    overseas_ms = settings.compute_ms if settings.overseas_ms is None else settings.overseas_ms
    out = roads_ms(links, network, settings)
    back = roads_ms([(target, source) for source, target in links], network, settings)
    guests = Counter(target for _, target in links)
    training = overseas_ms * np.array([guests[target] for _, target in links])
    return settings.compute_ms + float(np.max(out + training + back))


def delays_ms(
    links: Sequence[Link], network: Network, settings: RoundSettings
) -> npt.NDArray[np.float64]:
    """d(i, j) (E,) of each of E links, when these links are in use together."""
    return settings.compute_ms + roads_ms(links, network, settings)


def roads_ms(
    links: Sequence[Link], network: Network, settings: RoundSettings
) -> npt.NDArray[np.float64]:
    """Time (E,) that a model is on the road, d(i, j) - T_c, on links that are in use together."""
    sources, targets = _numbers(links, network.silos)
    leaving, entering = (np.bincount(ends, minlength=1) for ends in (sources, targets))
    bits, access_bit_ms = settings.model_mbit * 1e6, settings.access_mbit_s * BITS_PER_MS
    shared = np.maximum(leaving[sources], entering[targets]) * bits / access_bit_ms
    alone = bits / network.bandwidth_bit_ms[sources, targets]
    return network.latency_ms[sources, targets] + np.maximum(shared, alone)


def pair_delays_ms(network: Network, settings: RoundSettings) -> npt.NDArray[np.float64]:
    """d(i, j) (N, N) of each pair when it is the only one in use; 0 on the diagonal."""
    bits, access_bit_ms = settings.model_mbit * 1e6, settings.access_mbit_s * BITS_PER_MS
    transfer = np.maximum(bits / network.bandwidth_bit_ms, bits / access_bit_ms)
    delays = settings.compute_ms + network.latency_ms + transfer
    np.fill_diagonal(delays, 0.0)
    return delays


def maximum_cycle_mean(weights: npt.NDArray[np.float64]) -> float:
    """Greatest mean weight of a cycle of a directed graph, by Karp's algorithm.

    weights (N, N): of the edge from row to column, -inf where there is none. -inf without cycles.
    """
    size = len(weights)
    walks = np.zeros((size + 1, size))  # heaviest walk of k edges that ends in a node
    for k in range(1, size + 1):
        walks[k] = np.max(walks[k - 1][:, None] + weights, axis=0)
    ends = np.isfinite(walks[size])
    if not ends.any():
        return -np.inf
    lengths = size - np.arange(size)
    means = (walks[size, ends] - walks[:size, ends]) / lengths[:, None]
    return float(np.max(np.min(means, axis=0)))


def _matrix(
    topology: Topology, weights: Sequence[float] | npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return weights, one for each link of a topology, as a matrix for maximum_cycle_mean."""
    matrix = np.full((len(topology.silos), len(topology.silos)), -np.inf)
    matrix[_numbers(topology.links, topology.silos)] = weights
    return matrix


def _numbers(
    links: Sequence[Link], silos: Sequence[str]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the numbers of the silos at which links start and end."""
    index = {silo: number for number, silo in enumerate(silos)}
    sources = np.array([index[source] for source, _ in links], dtype=np.intp)
    targets = np.array([index[target] for _, target in links], dtype=np.intp)
    return sources, targets
