# SPDX-License-Identifier: Apache-2.0
"""Steers a wire along a planned path by what the tip's topic says; plain values, no ROS or clock.

    ADVANCE ── close to a fork ──► AIM ── the tip points to the side ──► ADVANCE ──► REACHED
       └─ off the path, or no way forward ──► BACK ── before the fork again ──► AIM

It sees the tip alone: where it is and where it points. So it turns until it sees the tip point
where the way goes, and when it finds itself in the wrong branch, it goes back and turns on.
Millimetres in the image plane and radians; x right, y down. Signed distances and angles are
positive to the right of who walks along the path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_TANGENT_MM = 3.0  # to each side, over which the direction of the path is taken


class Phase(str, Enum):
    """What the navigator is about."""

    ADVANCE = "ADVANCE"
    AIM = "AIM"
    BACK = "BACK"
    REACHED = "REACHED"


@dataclass(frozen=True)
class NavigatorSettings:
    """speed_mm_s, slow_mm_s: far from and close to forks and target. turn_rad_s: of the tip.

    step_mm, step_rad: how far the wire is moved at most until the tip is seen again. aim_mm: so
    far before a fork the tip is aimed. aimed_rad: so much it must point to the side, in aimed_tips
    in a row. astray_mm: farther from the path, it is in a wrong branch; implausible_mm: farther
    still, it is not the tip, and nothing moves. back_mm: so far before the fork it is drawn back.
    stuck_mm: fed so far without getting on, it is in a wrong place. reached_mm: so close to its
    end the path is done.
    """

    speed_mm_s: float = 20.0
    slow_mm_s: float = 10.0
    turn_rad_s: float = 2.0
    step_mm: float = 1.8
    step_rad: float = 0.5
    aim_mm: float = 7.0
    aimed_rad: float = 0.28
    aimed_tips: int = 2
    astray_mm: float = 5.5
    implausible_mm: float = 25.0
    back_mm: float = 7.0
    stuck_mm: float = 12.0
    reached_mm: float = 1.0


@dataclass(frozen=True)
class PlannedFork:
    """at_mm: arc length on the path. side: -1 when the way goes left there, +1 right."""

    at_mm: float
    side: int


@dataclass(frozen=True)
class SeenTip:
    """Where the tip is, (x, y) in mm, and where it points."""

    point_mm: tuple[float, float]
    heading_rad: float


@dataclass(frozen=True)
class Command:
    """Speeds of insertion, mm/s, and of rotation, rad/s."""

    insert_mm_s: float = 0.0
    turn_rad_s: float = 0.0


@dataclass(frozen=True)
class Place:
    """Where a tip is on the path: arc length, distance to the side, and angle to its direction."""

    at_mm: float
    aside_mm: float
    turned_rad: float


STILL = Command()


class PlannedPath:
    """path_mm: (N, 2), dense; forks: in the order in which they come."""

    def __init__(self, path_mm: Array, forks: Sequence[PlannedFork]) -> None:
        self.points = np.asarray(path_mm, np.float64)
        self.forks = tuple(forks)
        steps = np.linalg.norm(np.diff(self.points, axis=0), axis=1)
        self.lengths = np.concatenate([[0.0], np.cumsum(steps)])

    @property
    def length_mm(self) -> float:
        """Of the whole path."""
        return float(self.lengths[-1])

    def place(self, tip: SeenTip) -> Place:
        """Where the tip is."""
        offsets = np.asarray(tip.point_mm) - self.points
        distances = np.linalg.norm(offsets, axis=1)
        nearest = int(distances.argmin())
        at = float(self.lengths[nearest])
        ends = [self._point(at + side * _TANGENT_MM) for side in (-1, 1)]
        along = ends[1] - ends[0]
        cross = along[0] * offsets[nearest][1] - along[1] * offsets[nearest][0]
        turned = tip.heading_rad - math.atan2(along[1], along[0])
        return Place(
            at,
            math.copysign(float(distances[nearest]), cross),
            math.atan2(math.sin(turned), math.cos(turned)),
        )

    def next_fork(self, at_mm: float) -> PlannedFork | None:
        """The first fork beyond a place."""
        return next((fork for fork in self.forks if fork.at_mm > at_mm), None)

    def last_fork(self, at_mm: float) -> PlannedFork | None:
        """The last fork before a place."""
        return next((fork for fork in reversed(self.forks) if fork.at_mm <= at_mm), None)

    def _point(self, at_mm: float) -> Array:
        return np.array([np.interp(at_mm, self.lengths, axis) for axis in self.points.T])


class Navigator:
    """Told of each tip and of the passing of time while motion is permitted.

    phase, place: the newest. retries: how often it went back.
    """

    def __init__(self, path: PlannedPath, settings: NavigatorSettings | None = None) -> None:
        self.settings = settings or NavigatorSettings()
        self.phase = Phase.ADVANCE
        self.place: Place | None = None
        self.retries = 0
        self._path = path
        self._aimed: PlannedFork | None = None  # the tip points where the way goes there
        self._pointing = 0  # tips in a row that did
        self._fork: PlannedFork | None = None  # that is aimed at, or gone back to
        self._best_mm = -math.inf
        self._fed_mm = 0.0  # since the best place
        self._unseen = [0.0, 0.0]  # mm and rad moved since the last tip

    def see(self, tip: SeenTip) -> None:
        """A tip came."""
        self.place = self._path.place(tip)
        self._unseen = [0.0, 0.0]
        if self.phase is Phase.ADVANCE:
            self._judge_advance(self.place)
        elif self.phase is Phase.AIM:
            self._judge_aim(self.place)
        elif self.phase is Phase.BACK:
            self._judge_back(self.place)

    def command(self, seconds: float, permitted: bool) -> Command:
        """What to do for the next seconds."""
        if not permitted or self.place is None or self.phase is Phase.REACHED:
            return STILL
        if abs(self.place.aside_mm) > self.settings.implausible_mm:
            return STILL
        command = self._wanted(self.place)
        insert_mm, turn_rad = command.insert_mm_s * seconds, command.turn_rad_s * seconds
        if self._unseen[0] + abs(insert_mm) > self.settings.step_mm:
            return STILL
        if self._unseen[1] + abs(turn_rad) > self.settings.step_rad:
            return STILL
        self._unseen[0] += abs(insert_mm)
        self._unseen[1] += abs(turn_rad)
        self._fed_mm += insert_mm
        return command

    def _wanted(self, place: Place) -> Command:
        settings = self.settings
        if self.phase is Phase.AIM:
            return Command(0.0, settings.turn_rad_s)
        if self.phase is Phase.BACK:
            return Command(-settings.slow_mm_s, 0.0)
        fork = self._path.next_fork(place.at_mm)
        ends = [self._path.length_mm] + ([fork.at_mm] if fork else [])
        close = min(abs(end - place.at_mm) for end in ends) < 2 * settings.aim_mm
        return Command(settings.slow_mm_s if close else settings.speed_mm_s, 0.0)

    def _judge_advance(self, place: Place) -> None:
        settings = self.settings
        if self._path.length_mm - place.at_mm <= settings.reached_mm and not self._astray(place):
            self.phase = Phase.REACHED
            return
        if place.at_mm > self._best_mm:
            self._best_mm, self._fed_mm = place.at_mm, 0.0
        if self._astray(place) or self._fed_mm > settings.stuck_mm:
            self._go_back(place)
            return
        fork = self._path.next_fork(place.at_mm)
        if fork is not None and fork != self._aimed and fork.at_mm - place.at_mm < settings.aim_mm:
            self._fork, self.phase = fork, Phase.AIM
            self._judge_aim(place)

    def _judge_aim(self, place: Place) -> None:
        side = 0 if self._fork is None else self._fork.side
        points_there = place.turned_rad * side >= self.settings.aimed_rad
        self._pointing = self._pointing + 1 if points_there else 0
        if self._fork is None or self._pointing >= self.settings.aimed_tips:
            self._aimed, self._pointing = self._fork, 0
            self.phase = Phase.ADVANCE
            self._best_mm, self._fed_mm = place.at_mm, 0.0

    def _judge_back(self, place: Place) -> None:
        before_mm = 0.0 if self._fork is None else self._fork.at_mm - self.settings.back_mm
        if place.at_mm <= before_mm and not self._astray(place):
            self.phase = Phase.AIM

    def _go_back(self, place: Place) -> None:
        self.retries += 1
        self.phase, self._aimed = Phase.BACK, None
        reach_mm = place.at_mm + self.settings.aim_mm  # astray, the place may lie before the fork
        self._fork = self._path.last_fork(reach_mm)

    def _astray(self, place: Place) -> bool:
        return abs(place.aside_mm) > self.settings.astray_mm
