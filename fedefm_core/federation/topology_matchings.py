# SPDX-License-Identifier: Apache-2.0
"""MATCHA's two steps: cut a graph into matchings, and say how often to use each.

J. Wang et al., MATCHA: Speeding Up Decentralized SGD via Matching Decomposition Sampling, 2019.
"""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx
import numpy as np
import numpy.typing as npt

Pair = tuple[int, int]
Matching = tuple[Pair, ...]

_MAX_STEPS = 400
_TOLERANCE = 0.01  # of the best connectivity
# Of the smallest eigenvalue: it is sharp enough for 3 digits and still lets the ascent converge.
_TEMPERATURE = 0.03
_DIGITS = 6  # of a probability, so that the last bits of a linear algebra library do not matter


def matchings(graph: nx.Graph) -> list[Matching]:
    """Cut a graph over 0 .. N-1 into matchings that together hold each edge once.

    Each is a matching of greatest weight among the edges left, where an edge weighs the squared
    degrees of its ends: so the busiest nodes lose an edge each time, and on our underlays the
    number of matchings is the greatest degree, or one more (Vizing's bound).
    """
    rest = nx.Graph(graph.edges)
    found: list[Matching] = []
    while rest.number_of_edges():
        for first, second in rest.edges:
            weight = rest.degree[first] ** 2 + rest.degree[second] ** 2
            rest.edges[first, second]["weight"] = weight
        matching = sorted(sorted(pair) for pair in nx.max_weight_matching(rest))
        found.append(tuple((first, second) for first, second in matching))
        rest.remove_edges_from(found[-1])
    return found


def activation_probabilities(
    size: int, matchings: Sequence[Matching], budget: float
) -> tuple[float, ...]:
    """Probabilities that connect the mean graph best, using a share of all matchings.

    Maximizes the second smallest eigenvalue of Σ p_j L_j, L_j being the Laplacian of matching j,
    over 0 <= p <= 1 with Σ p = budget · number of matchings (MATCHA's concave problem 5).
    Frank-Wolfe on the soft minimum of the eigenvalues: the best direction is simply to use fully
    those matchings whose gradient is largest. What that direction promises bounds the optimum, so
    the ascent ends when the best found is within 1 % of it.
    """
    laplacians = np.array([_laplacian(size, matching) for matching in matchings])
    total = budget * len(matchings)
    current = np.full(len(matchings), budget)
    best, best_connectivity, bound = current, -np.inf, np.inf
    for step in range(_MAX_STEPS):
        connectivity, gradient = _soft_connectivity(laplacians, current)
        if connectivity > best_connectivity:
            best, best_connectivity = current, connectivity
        direction = _fullest(gradient, total)
        bound = min(bound, float(gradient @ direction))
        if bound <= (1 + _TOLERANCE) * best_connectivity:
            break
        current = current + 2 / (step + 8) * (direction - current)
    return tuple(round(float(probability), _DIGITS) for probability in best)


def algebraic_connectivity(
    size: int, matchings: Sequence[Matching], probabilities: Sequence[float]
) -> float:
    """Second smallest eigenvalue of the mean Laplacian; 0 when the mean graph falls apart."""
    laplacians = np.array([_laplacian(size, matching) for matching in matchings])
    return float(np.linalg.eigvalsh(np.tensordot(probabilities, laplacians, 1))[1])


def _soft_connectivity(
    laplacians: npt.NDArray[np.float64], probabilities: npt.NDArray[np.float64]
) -> tuple[float, npt.NDArray[np.float64]]:
    """Return the connectivity, and the gradient of its soft minimum by matching."""
    values, vectors = np.linalg.eigh(np.tensordot(probabilities, laplacians, 1))
    values, vectors = values[1:], vectors[:, 1:]  # the first belongs to the constant vector
    weights = np.exp(-(values - values[0]) / max(_TEMPERATURE * values[0], 1e-9))
    mixture = (vectors * (weights / weights.sum())) @ vectors.T
    return float(values[0]), np.tensordot(laplacians, mixture, 2)


def _fullest(gradient: npt.NDArray[np.float64], total: float) -> npt.NDArray[np.float64]:
    """Return the p that maximizes gradient · p over 0 <= p <= 1, Σ p = total."""
    left = total - np.arange(len(gradient))
    shares = np.clip(left, 0, 1)
    result = np.empty_like(gradient)
    result[np.argsort(-gradient, kind="stable")] = shares
    return result


def _laplacian(size: int, matching: Matching) -> npt.NDArray[np.float64]:
    laplacian = np.zeros((size, size))
    for first, second in matching:
        laplacian[[first, second], [first, second]] += 1
        laplacian[[first, second], [second, first]] -= 1
    return laplacian
