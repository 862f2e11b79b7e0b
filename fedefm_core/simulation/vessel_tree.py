# SPDX-License-Identifier: Apache-2.0
"""A tree of hollow vessels to steer a wire through: it enters from below and parts in two, twice.

Lengths are pixels of a 512-pixel image. Vessels keep apart, so that every place on one of them
says which one it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.errors import SimulationError
from fedefm_core.simulation.curves import Curve, integrate_heading, smooth_noise
from fedefm_core.simulation.tubes import Tube, lumen

Rng = np.random.Generator
Array = npt.NDArray[np.float64]

SIZE = 512
_BELOW = 40.0  # the root begins so far outside of the view
_LENGTHS = ((150, 190), (95, 125), (105, 145))  # of trunk, branches and twigs
_RADII = (14.0, 11.5, 9.5)
_FORKS = ((0.4, 0.65), (0.38, 0.6))  # of each side, radians
_MARGIN = 28.0  # vessels keep so far from the borders that they do not enter by
_APART = 14.0  # from wall to wall, once two vessels have parted
_PARTING = 45.0  # over which they do
_ATTEMPTS = 2000


@dataclass(frozen=True)
class Branch:
    """path: (N, 2), a pixel a step, from where the parent ends. parent: its number, None: root."""

    path: Curve
    radius: float
    parent: int | None


@dataclass(frozen=True)
class VesselTree:
    """branches: parents before children, the left child before the right one."""

    branches: tuple[Branch, ...]

    @property
    def leaves(self) -> tuple[int, ...]:
        """Numbers of the branches that end blind."""
        parents = {branch.parent for branch in self.branches}
        return tuple(n for n in range(len(self.branches)) if n not in parents)

    def children(self, number: int) -> tuple[int, ...]:
        """Numbers of the branches that a branch parts into, left to right."""
        return tuple(n for n, b in enumerate(self.branches) if b.parent == number)

    def lineage(self, number: int) -> tuple[int, ...]:
        """Numbers of the branches from the root to this one, both included."""
        parent = self.branches[number].parent
        return (*(() if parent is None else self.lineage(parent)), number)

    def route(self, lineage: Sequence[int]) -> Curve:
        """(N, 2) the axes of these branches, one after the other."""
        return np.concatenate([self.branches[number].path for number in lineage])


def random_tree(rng: Rng) -> VesselTree:
    """Draw a tree that fits the view. Raises SimulationError when none is found."""
    for _ in range(_ATTEMPTS):
        tree = _draw(rng)
        if all(_fits(branch) for branch in tree.branches) and _keeps_apart(tree):
            return tree
    raise SimulationError(f"No vessel tree that fits the view in {_ATTEMPTS} drawings.")


def tree_attenuation(tree: VesselTree, wall: float, density: float, filling: float) -> Array:
    """(512, 512) attenuation of vessels with walls.

    wall: pixels. density: of a wall, where the beam passes most of it. filling: of what is within
    the widest vessel, dimensionless both.
    """
    tubes = [Tube(b.path, np.full(len(b.path), b.radius)) for b in tree.branches]
    space = lumen(tubes, SIZE)
    outer, inner = space.chord(), space.chord(wall)
    widest = max(branch.radius for branch in tree.branches)
    peak = 2 * np.sqrt(widest**2 - (widest - wall) ** 2)
    return np.asarray((outer - inner) * (density / peak) + inner * (filling / (2 * widest)))


def _draw(rng: Rng) -> VesselTree:
    start = np.array([rng.uniform(0.38, 0.62) * SIZE, SIZE + _BELOW])
    branches = [_branch(rng, start, -np.pi / 2 + rng.normal(0, 0.12), 0, None)]
    for generation, fork in enumerate(_FORKS, start=1):
        parents = [n for n in range(len(branches)) if _is_of(branches, n, generation - 1)]
        for number in parents:
            path = branches[number].path
            heading = float(np.arctan2(*(path[-1] - path[-12])[::-1]))
            for side in (-1, 1):  # y points down: to the left first
                turned = heading + side * rng.uniform(*fork)
                branches.append(_branch(rng, path[-1], turned, generation, number))
    return VesselTree(tuple(branches))


def _is_of(branches: Sequence[Branch], number: int, generation: int) -> bool:
    return branches[number].radius == _RADII[generation]


def _branch(rng: Rng, start: Array, heading: float, generation: int, parent: int | None) -> Branch:
    length = int(rng.uniform(*_LENGTHS[generation]))
    curvature = smooth_noise(rng, length, 60.0) / 330.0
    return Branch(integrate_heading(start, heading, curvature), _RADII[generation], parent)


def _fits(branch: Branch) -> bool:
    """Within the view; the root may enter from below."""
    low, high = np.array([_MARGIN, _MARGIN]), np.array([SIZE - _MARGIN, SIZE - _MARGIN])
    if branch.parent is None:
        high = np.array([SIZE - _MARGIN, np.inf])
    return bool(np.all((branch.path >= low) & (branch.path <= high)))


def _keeps_apart(tree: VesselTree) -> bool:
    """No two vessels come close, but for parents and children, and siblings as they part."""
    branches = tree.branches
    for a, one in enumerate(branches):
        for b, other in enumerate(branches[:a]):
            if one.parent == b:
                continue
            first, second = one.path, other.path
            if one.parent == other.parent:
                first, second = first[int(_PARTING) :], second[int(_PARTING) :]
            gap = np.linalg.norm(first[::4, None] - second[None, ::4], axis=-1).min()
            if gap < one.radius + other.radius + _APART:
                return False
    return True


def smoothed(path: Curve, sigma: float) -> Curve:
    """The path bent less sharply, over sigma of its points; both ends stay."""
    reach = int(4 * sigma) + 2  # of OpenCV's kernel, and a little more
    ahead = 2 * path[0] - path[1 : reach + 1][::-1]
    behind = 2 * path[-1] - path[-reach - 1 : -1][::-1]
    longer = np.concatenate([ahead, path, behind])
    soft = cv2.GaussianBlur(longer, (1, 0), sigmaX=1e-3, sigmaY=sigma)
    return np.asarray(soft[len(ahead) : len(ahead) + len(path)], np.float64)
