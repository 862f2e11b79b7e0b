# SPDX-License-Identifier: Apache-2.0
"""A task for a robot, from a seed: a vessel tree on the bench, a branch to reach, and the way.

The plan is what a roadmap would give before the intervention: the axes of the vessels, and where
they fork. It knows nothing of the wire.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from fedefm_core.simulation.curves import Curve, arc_length, cut
from fedefm_core.simulation.detector import Detector
from fedefm_core.simulation.instruments import Design
from fedefm_core.simulation.phantom import smooth_field
from fedefm_core.simulation.profiles import Rod
from fedefm_core.simulation.vessel_tree import SIZE, VesselTree, random_tree, tree_attenuation

Image = npt.NDArray[np.float32]

PIXEL_MM = 0.3  # at the detector, on which the phantom lies
START_PX = 150.0  # inserted at the start: a good hundred pixels of wire are in the view
_REACHED = 0.8  # of the last branch
_WIRE_PX, _WIRE_STRENGTH = 2.4, 1.1  # 0.7 mm
_WALL_PX, _WALL_DENSITY, _FILLING = 2.0, 0.07, 0.0  # silicone in water: it hardly shows
_BENCH, _UNEVEN = 1.6, 0.05
FLOODED = 0.9  # attenuation of the widest vessel when contrast medium fills it
_STREAM = 2**30  # keeps the random numbers apart from those of other simulations

DETECTOR = Detector(
    photons=3000,
    scatter_fraction=0.4,
    glare_fraction=0.03,
    blur_px=0.8,
    noise_blur_px=0.6,
    electronic_noise=0.0,
    gamma=1.2,
    sharpening=0.0,
    brightness=0.62,
    contrast=0.16,
)


@dataclass(frozen=True)
class Fork:
    """at: arc length on the planned path, pixels. side: -1 when the way goes left, +1 right."""

    at: float
    side: int


@dataclass(frozen=True)
class Plan:
    """path: (N, 2) pixels, from outside of the view to the target, a pixel a step."""

    path: Curve
    forks: tuple[Fork, ...]

    @property
    def length(self) -> float:
        """Of the path, pixels."""
        return float(arc_length(self.path)[-1])


@dataclass(frozen=True)
class Case:
    """tip_rad: how the bent tip lies at the start. target: number of the branch to reach.

    trouble_at: arc length on the planned path at which trouble begins, where that is asked for.
    """

    tree: VesselTree
    target: int
    tip_rad: float
    trouble_at: float
    anatomy: Image

    @property
    def plan(self) -> Plan:
        """The way to the target."""
        lineage = self.tree.lineage(self.target)
        last = self.tree.branches[self.target].path
        route = self.tree.route(lineage)
        whole = float(arc_length(route)[-1])
        forks = []
        for before, after in pairwise(lineage):
            at = float(arc_length(self.tree.route(self.tree.lineage(before)))[-1])
            forks.append(Fork(at, 1 if self.tree.children(before)[-1] == after else -1))
        end = whole - (1 - _REACHED) * float(arc_length(last)[-1])
        return Plan(cut(route, 0.0, end), tuple(forks))


def random_case(seed: int) -> Case:
    """Draw a case; the same seed, the same case. Raises SimulationError when none is found."""
    rng = np.random.default_rng([seed, _STREAM])
    tree = random_tree(rng)
    target = int(rng.choice(tree.leaves))
    anatomy = _BENCH + _UNEVEN * smooth_field(rng, SIZE, 3)
    anatomy = anatomy + tree_attenuation(tree, _WALL_PX, _WALL_DENSITY, _FILLING)
    return Case(
        tree=tree,
        target=target,
        tip_rad=float(rng.uniform(0, 2 * np.pi)),
        trouble_at=float(rng.uniform(190, 300)),
        anatomy=np.asarray(anatomy, np.float32),
    )


def contrast_flood(case: Case) -> Image:
    """(512, 512) attenuation of the vessels full of contrast medium."""
    flood = tree_attenuation(case.tree, _WALL_PX, 0.0, FLOODED)
    return np.asarray(flood, np.float32)


def guidewire(axis: Curve) -> Design:
    """A guidewire along an axis, as the X-rays see it."""
    length = float(arc_length(axis)[-1])
    rods = (Rod(_WIRE_PX, 1.0),)
    return Design("guidewire", axis, length, _WIRE_PX, _WIRE_STRENGTH, rods)


def false_wire(case: Case) -> Design:
    """Another wire that lies in the view: beside the vessels, across the one to be reached."""
    path = case.tree.branches[case.target].path
    middle = path[len(path) // 2]
    side = -1.0 if middle[0] > SIZE / 2 else 1.0
    begin = np.array([-10.0 if side > 0 else SIZE + 10.0, middle[1] - 30.0])
    end = middle + np.array([side * 12.0, 18.0])
    share = np.linspace(0, 1, int(np.linalg.norm(end - begin)))[:, None]
    sag = 22.0 * np.sin(np.pi * share) * np.array([[0.0, 1.0]])
    return guidewire(begin + share * (end - begin) + sag)
