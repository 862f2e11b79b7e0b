# SPDX-License-Identifier: Apache-2.0
"""A guidewire with a bent tip that is pushed and turned through a vessel tree; physics-lite.

What is modelled: the wire lies along the vessel and cuts its corners, as far as the wall lets it;
its bent tip shows from the side by the cosine of its angle; at a fork it enters the branch that
the tip points into; turns at the hub arrive at the tip late and with play. What is not: forces,
friction, buckling, perforation. Pixels of a 512-pixel image, radians.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fedefm_core.simulation.curves import Curve, arc_length, cut
from fedefm_core.simulation.vessel_tree import VesselTree, smoothed

_STIFFNESS = 14.0  # pixels over which the wire cuts corners
_LOOKS_AHEAD = 30.0  # of a fork: along the branches, to see where they lead
_HEADING_REACH = 10


@dataclass(frozen=True)
class Tip:
    """bend: length of the bent part in pixels, and its deflection at the very tip, in radians."""

    length: float = 26.0
    deflection: float = 0.62


@dataclass(frozen=True)
class Wire:
    """insertion: of the tip along the vessels, from the beginning of the root, in pixels.

    hub_rad: turned at the hub. tip_rad: as far as that has arrived; 0: the tip bends to the right
    of who walks along. lineage: branches that the wire lies in, from the root on.
    """

    insertion: float
    hub_rad: float = 0.0
    tip_rad: float = 0.0
    lineage: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Torsion:
    """play_rad: the tip follows when the hub is so far ahead. lag_s: with that time constant."""

    play_rad: float = 0.15
    lag_s: float = 0.15


def move(
    wire: Wire,
    tree: VesselTree,
    insert_px: float,
    turn_rad: float,
    seconds: float,
    tip: Tip | None = None,
    torsion: Torsion | None = None,
) -> Wire:
    """The wire after the robot fed and turned it, over so many seconds.

    A wire at the blind end of a branch, or wholly drawn back, goes no farther.
    """
    tip, torsion = tip or Tip(), torsion or Torsion()
    hub = wire.hub_rad + turn_rad
    strain = hub - wire.tip_rad
    driving = np.sign(strain) * max(abs(strain) - torsion.play_rad, 0.0)
    arrived = wire.tip_rad + driving * (1 - np.exp(-seconds / torsion.lag_s))
    turned = replace(wire, hub_rad=hub, tip_rad=float(arrived))
    return _fed(turned, tree, insert_px, tip)


def _fed(wire: Wire, tree: VesselTree, insert_px: float, tip: Tip) -> Wire:
    insertion, lineage = max(wire.insertion + insert_px, 0.0), wire.lineage
    while len(lineage) > 1 and insertion < _length(tree, lineage[:-1]):
        lineage = lineage[:-1]
    while insertion > _length(tree, lineage):
        children = tree.children(lineage[-1])
        if not children:
            insertion = _length(tree, lineage)
            break
        lineage = (*lineage, _entered(wire, tree, lineage, children, tip))
    return replace(wire, insertion=insertion, lineage=lineage)


def _length(tree: VesselTree, lineage: tuple[int, ...]) -> float:
    return float(arc_length(tree.route(lineage))[-1])


def _entered(
    wire: Wire,
    tree: VesselTree,
    lineage: tuple[int, ...],
    children: tuple[int, ...],
    tip: Tip,
) -> int:
    """The branch that lies closest to where the tip points."""
    pointing = _heading(tree.branches[lineage[-1]].path[-_HEADING_REACH:])
    pointing += tip.deflection * np.cos(wire.tip_rad)

    def away(number: int) -> float:
        gap = _heading(tree.branches[number].path[: int(_LOOKS_AHEAD)]) - pointing
        return abs(float(np.arctan2(np.sin(gap), np.cos(gap))))

    return min(children, key=away)


def _heading(path: Curve) -> float:
    dx, dy = path[-1] - path[0]
    return float(np.arctan2(dy, dx))


def axis_of(wire: Wire, tree: VesselTree, tip: Tip | None = None) -> Curve:
    """(N, 2) the wire's axis from outside of the view to its tip, about a pixel a step."""
    tip = tip or Tip()
    route = tree.route(wire.lineage)
    ahead = cut(route, 0.0, wire.insertion)
    if len(ahead) < 3:
        return route[:2]
    bent = _within_walls(smoothed(ahead, _STIFFNESS), ahead, tree, wire)
    return _with_bent_tip(bent, tree.branches[wire.lineage[-1]].radius, wire, tip)


def _within_walls(bent: Curve, axis: Curve, tree: VesselTree, wire: Wire) -> Curve:
    """The bent wire, held back by the walls where it would leave the vessel."""
    radius = min(tree.branches[number].radius for number in wire.lineage) - 3.0
    offset = bent - axis
    far = np.maximum(np.linalg.norm(offset, axis=1) / radius, 1.0)
    return np.asarray(axis + offset / far[:, None])


def _with_bent_tip(axis: Curve, radius: float, wire: Wire, tip: Tip) -> Curve:
    before_tip = arc_length(axis)[-1] - arc_length(axis)
    share = np.clip(1 - before_tip / tip.length, 0.0, 1.0)
    aside = 0.5 * tip.length * tip.deflection * np.cos(wire.tip_rad) * share**2
    aside = np.clip(aside, -(radius - 2.5), radius - 2.5)
    along = np.gradient(axis, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1), 1e-9)[:, None]
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
    return np.asarray(axis + aside[:, None] * normal)
