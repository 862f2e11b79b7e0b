# SPDX-License-Identifier: Apache-2.0
"""Skeleton to strokes: ordered pixel paths, straight on through crossings, one per wire.

A skeleton is cut into branches at its junctions. Short spurs go. Junctions that one crossing
split in two are one again. At each junction the branches that continue each other with the
least turning are linked, so loops and self-crossings stay whole; fragments of a wire that another
one hides are linked likewise, across the gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedefm_core.perception.types import FloatArray

IntArray = npt.NDArray[np.int64]
End = tuple[int, int]  # (piece, 0 for its first point or 1 for its last)


@dataclass(frozen=True)
class Stroke:
    """points: (N, 2) x, y pixel centers in order. width: of the mask around it. closed: a ring.

    touching: does the first, the last point end at another stroke, or at this one itself?
    """

    points: FloatArray
    width: float
    closed: bool = False
    touching: tuple[bool, bool] = (False, False)


@dataclass(frozen=True)
class SkeletonGraph:
    """Pixels as nodes. points: (N, 2) x, y. neighbors: (N, 4), -1 where none. degree: (N,)."""

    points: FloatArray
    neighbors: IntArray
    degree: IntArray
    width: FloatArray  # (N,) of the component that the pixel belongs to


def build_graph(
    skeleton: npt.NDArray[np.uint8],
    pixels: IntArray,
    component: IntArray,
    areas: FloatArray,
    origin: FloatArray,
) -> SkeletonGraph:
    """Graph of a skeleton.

    skeleton: (H, W) of 0 and 1, 0 along its border; pixels: (N,) flat indices of its ones,
    ascending; component: (N,) the mask component of each, whose pixel count is in areas;
    origin: (2,) x, y of skeleton[0, 0] in the coordinates wanted.
    """
    stride = skeleton.shape[1]
    sources, targets, lengths = _edges(skeleton.reshape(-1).view(bool), pixels, stride)
    degree = np.bincount(np.concatenate((sources, targets)), minlength=len(pixels))
    neighbors = _neighbor_table(sources, targets, degree)
    points = np.column_stack((pixels % stride, pixels // stride)) + origin
    length = np.bincount(component[sources], weights=lengths, minlength=len(areas)) + 1.0
    widths = (areas / length)[component]
    return SkeletonGraph(points, neighbors, degree, widths)


def _edges(
    skeleton: npt.NDArray[np.bool_], pixels: IntArray, stride: int
) -> tuple[IntArray, IntArray, FloatArray]:
    """Edges between adjacent pixels; a diagonal only where no square corner connects the two."""
    east, south = skeleton[pixels + 1], skeleton[pixels + stride]
    south_east = skeleton[pixels + stride + 1] & ~east & ~south
    south_west = skeleton[pixels + stride - 1] & ~skeleton[pixels - 1] & ~south
    sources, targets, lengths = [], [], []
    for present, step, length in (
        (east, 1, 1.0),
        (south, stride, 1.0),
        (south_east, stride + 1, 2**0.5),
        (south_west, stride - 1, 2**0.5),
    ):
        found = np.flatnonzero(present)
        sources.append(found)
        targets.append(np.searchsorted(pixels, pixels[found] + step))
        lengths.append(np.full(len(found), length))
    return np.concatenate(sources), np.concatenate(targets), np.concatenate(lengths)


def _neighbor_table(sources: IntArray, targets: IntArray, degree: IntArray) -> IntArray:
    ends = np.concatenate((sources, targets))
    order = np.argsort(ends, kind="stable")
    rank = np.arange(len(ends)) - np.repeat(np.cumsum(degree) - degree, degree)
    table = np.full((len(degree), 4), -1, np.int64)
    table[ends[order], rank] = np.concatenate((targets, sources))[order]
    return table


def trace_strokes(graph: SkeletonGraph) -> list[Stroke]:
    """All strokes of a skeleton, straight on through its crossings."""
    branches, rings = _branches(graph)
    branches, nodes = _simplify(graph, branches)
    partners: dict[End, End] = {}
    for ends in nodes:
        partners.update(_pair_at_junction(graph, branches, ends))
    strokes = [
        Stroke(graph.points[ring], float(graph.width[ring[0]]), closed=True) for ring in rings
    ]
    crowded = {end for ends in nodes if len(ends) > 2 for end in ends}
    pieces = [
        Stroke(_trimmed(graph, path, i, crowded), float(graph.width[path[0]]))
        for i, path in enumerate(branches)
    ]
    return strokes + link(pieces, partners, crowded)


def link(pieces: Sequence[Stroke], partners: dict[End, End], crowded: set[End]) -> list[Stroke]:
    """Chain pieces at their linked ends into strokes; crowded: ends that touch something."""
    strokes = []
    used: set[int] = set()
    free = [(i, e) for i in range(len(pieces)) for e in (0, 1) if (i, e) not in partners]
    inner = [(i, 0) for i in range(len(pieces))]
    for start in free + inner:
        if start[0] in used:
            continue
        chain, closed = _follow(start, partners, used)
        parts = [pieces[i].points if e == 0 else pieces[i].points[::-1] for i, e in chain]
        lengths = [len(part) for part in parts]
        width = float(np.average([pieces[i].width for i, _ in chain], weights=lengths))
        last = (chain[-1][0], 1 - chain[-1][1])
        touching = (start in crowded, last in crowded)
        strokes.append(Stroke(np.concatenate(parts), width, closed, touching))
    return strokes


def _follow(start: End, partners: dict[End, End], used: set[int]) -> tuple[list[End], bool]:
    """Pieces from start on, each with the end where it is entered; True when it comes back."""
    chain, entry = [], start
    while entry[0] not in used:
        used.add(entry[0])
        chain.append(entry)
        following = partners.get((entry[0], 1 - entry[1]))
        if following is None:
            return chain, False
        entry = following
    return chain, True


def _branches(graph: SkeletonGraph) -> tuple[list[list[int]], list[list[int]]]:
    """Paths between nodes (ends and junctions), both included; and rings without any node."""
    table, degree = graph.neighbors.tolist(), graph.degree.tolist()
    seen = bytearray(len(degree))
    done: set[tuple[int, int]] = set()
    branches = []
    for node in np.flatnonzero((graph.degree != 2) & (graph.degree > 0)).tolist():
        for first in table[node][: degree[node]]:
            if (node, first) not in done:
                path = _walk(table, degree, seen, node, first)
                done.add((path[-1], path[-2]))
                branches.append(path)
    rings = []
    for pixel in np.flatnonzero(graph.degree == 2).tolist():
        if not seen[pixel]:
            rings.append(_walk(table, degree, seen, pixel, table[pixel][0]))
    return branches, rings


def _walk(
    table: list[list[int]], degree: list[int], seen: bytearray, start: int, first: int
) -> list[int]:
    path = [start, first]
    previous, current = start, first
    while degree[current] == 2 and current != start:
        seen[current] = 1
        a, b = table[current][:2]
        previous, current = current, b if a == previous else a
        path.append(current)
    seen[current] = 1
    return path


def _simplify(
    graph: SkeletonGraph, branches: list[list[int]]
) -> tuple[list[list[int]], list[list[End]]]:
    """Drop spurs, merge the junctions of one crossing; the branches left and who meets where."""
    nodes = _Union()
    touching = [len(p) == 2 and min(graph.degree[p[0]], graph.degree[p[1]]) > 2 for p in branches]
    branches = _without_spurs(graph, _merged(branches, touching, nodes), nodes)
    meeting = _meetings(branches, nodes)
    bridging = [
        min(len(meeting[nodes.root(p[0])]), len(meeting[nodes.root(p[-1])])) > 2
        and len(p) <= _merge_length(graph, p, nodes)
        for p in branches
    ]
    branches = _merged(branches, bridging, nodes)
    return branches, list(_meetings(branches, nodes).values())


def _merged(branches: list[list[int]], inside: list[bool], nodes: _Union) -> list[list[int]]:
    """Make one node of each branch that lies inside a junction; the branches that are left."""
    for path, is_inside in zip(branches, inside, strict=True):
        if is_inside:
            nodes.join(path[0], path[-1])
    return [path for path, is_inside in zip(branches, inside, strict=True) if not is_inside]


def _merge_length(graph: SkeletonGraph, path: list[int], nodes: _Union) -> float:
    """Up to how many pixels a branch between two junctions is what two crossing wires share.

    Wires that cross at an angle a share 1 / sin(a / 2) widths. A loop back to the same junction
    is a hole in the mask when it is short, and a wire's own loop otherwise.
    """
    width = float(graph.width[path[0]])
    if nodes.root(path[0]) == nodes.root(path[-1]):
        return 3.0 * width + 3.0
    return min(8.0 * width, _MAX_SHARED_PX)


def _spur_length(graph: SkeletonGraph, path: list[int]) -> float:
    return 0.75 * float(graph.width[path[0]]) + 3.0


def _without_spurs(
    graph: SkeletonGraph, branches: list[list[int]], nodes: _Union
) -> list[list[int]]:
    """Remove short branches to a free end, but never more than leaves two at a junction."""
    meeting = _meetings(branches, nodes)
    doomed: set[int] = set()
    for ends in meeting.values():
        spurs = sorted(
            (len(branches[i]), i)
            for i, e in ends
            if graph.degree[branches[i][0 if e else -1]] == 1
            and len(branches[i]) <= _spur_length(graph, branches[i])
        )
        solid = len(ends) - len(spurs)
        keep = max(0, 2 - solid) if solid == 0 else 0
        if len(ends) > 1:
            doomed.update(i for _, i in spurs[: len(spurs) - keep])
    return [path for i, path in enumerate(branches) if i not in doomed]


def _meetings(branches: list[list[int]], nodes: _Union) -> dict[int, list[End]]:
    meeting: dict[int, list[End]] = {}
    for i, path in enumerate(branches):
        meeting.setdefault(nodes.root(path[0]), []).append((i, 0))
        meeting.setdefault(nodes.root(path[-1]), []).append((i, 1))
    return meeting


class _Union:
    """Disjoint sets of pixels that count as one junction."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def root(self, item: int) -> int:
        while item in self._parent:
            item = self._parent[item]
        return item

    def join(self, a: int, b: int) -> None:
        a, b = self.root(a), self.root(b)
        if a != b:
            self._parent[max(a, b)] = min(a, b)


MAX_TURN_RAD = 1.2
_DIRECTION_PX = 10
_MAX_SHARED_PX = 48.0


def _pair_at_junction(
    graph: SkeletonGraph, branches: list[list[int]], ends: list[End]
) -> dict[End, End]:
    """Link the ends that continue each other with the least turning."""
    if len(ends) < 2:
        return {}
    if len(ends) == 2:
        return {ends[0]: ends[1], ends[1]: ends[0]} if ends[0] != ends[1] else {}
    positions, directions = zip(*(_outgoing(graph, branches, end) for end in ends), strict=True)
    turning = turning_rad(np.array(positions), np.array(directions))
    cost = np.where(turning <= MAX_TURN_RAD, turning, np.inf)
    _enter_loops(cost, turning, [piece for piece, _ in ends])
    return {ends[a]: ends[b] for i, j in best_pairs(cost) for a, b in ((i, j), (j, i))}


def _enter_loops(cost: FloatArray, turning: FloatArray, pieces: list[int]) -> None:
    """Where one branch comes back to its own start, the other ends go on into it; in place.

    No wire is a ring: with one other end, the wire ends in a loop and its tip is where the loop
    closes; with two, it comes from one of them, runs through the loop, and leaves by the other.
    """
    loop = [end for end in range(len(pieces)) if pieces.count(pieces[end]) == 2]
    stems = [end for end in range(len(pieces)) if end not in loop]
    if len(loop) != 2 or len(stems) not in (1, 2):
        return
    ways = [list(zip(stems, order, strict=False)) for order in (loop, loop[::-1])]
    way = min(ways, key=lambda way: sum(float(turning[pair]) for pair in way))
    cost[:] = np.inf
    for a, b in way:
        cost[a, b] = cost[b, a] = 0.0


def _outgoing(
    graph: SkeletonGraph, branches: list[list[int]], end: End
) -> tuple[FloatArray, FloatArray]:
    """Position near an end of a branch, and the unit direction in which the branch ends there."""
    path = branches[end[0]] if end[1] else branches[end[0]][::-1]
    near = max(0, len(path) - 1 - round(0.5 * float(graph.width[path[0]]) + 1))
    far = max(0, near - _DIRECTION_PX)
    if near == far:
        near, far = len(path) - 1, 0
    step = graph.points[path[near]] - graph.points[path[far]]
    return graph.points[path[near]], step / max(1e-9, float(np.hypot(*step)))


def turning_rad(positions: FloatArray, directions: FloatArray) -> FloatArray:
    """(E, E) turning from leaving at end i over the straight line to entering at end j.

    positions: (E, 2). directions: (E, 2) unit vectors, outwards.
    """
    across = positions[None] - positions[:, None]
    distance = np.hypot(across[..., 0], across[..., 1])
    unit = across / np.maximum(distance, 1e-9)[..., None]
    leaving = np.arccos(np.clip(np.einsum("ik,ijk->ij", directions, unit), -1, 1))
    entering = np.arccos(np.clip(np.einsum("jk,ijk->ij", -directions, unit), -1, 1))
    direct = np.arccos(np.clip(-directions @ directions.T, -1, 1))
    indirect = np.maximum(direct, np.maximum(leaving, entering))
    return np.asarray(np.where(distance > 2.0, indirect, direct))


def best_pairs(cost: FloatArray) -> list[tuple[int, int]]:
    """Disjoint pairs (i < j) of a symmetric cost (E, E), cheapest first; infinite is never."""
    rows, columns = np.triu_indices(len(cost), 1)
    values = cost[rows, columns]
    pairs: list[tuple[int, int]] = []
    used: set[int] = set()
    for k in np.argsort(values, kind="stable"):
        i, j = int(rows[k]), int(columns[k])
        if not np.isfinite(values[k]):
            break
        if i not in used and j not in used:
            used |= {i, j}
            pairs.append((i, j))
    return pairs


def _trimmed(graph: SkeletonGraph, path: list[int], index: int, crowded: set[End]) -> FloatArray:
    """Points of a branch less its ends at crossings, where a skeleton bends off the wires."""
    cut = round(0.5 * float(graph.width[path[0]]))
    start = cut if (index, 0) in crowded else 0
    stop = len(path) - (cut if (index, 1) in crowded else 0)
    if stop - start < 2:
        start, stop = 0, len(path)
    return graph.points[path[start:stop]]
