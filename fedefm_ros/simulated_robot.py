# SPDX-License-Identifier: Apache-2.0
"""A robot that feeds and turns a wire at the speeds it is told, within limits; plain values.

Positions are those of its drive: metres fed since it was switched on, radians turned. It speeds up
by its acceleration and stops at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class RobotLimits:
    """Speeds in m/s and rad/s; accelerations in m/s² and rad/s².

    command_lasts_s: a speed that is not told again for so long is over.
    """

    insert_m_s: float = 0.03
    turn_rad_s: float = 3.0
    insert_m_s2: float = 0.2
    turn_rad_s2: float = 20.0
    command_lasts_s: float = 0.1


@dataclass(frozen=True)
class Drive:
    """position and velocity of (insertion, rotation)."""

    position: tuple[float, float] = (0.0, 0.0)
    velocity: tuple[float, float] = (0.0, 0.0)


@dataclass
class SimulatedRobot:
    """Told of commands and time; times are seconds of a steady clock."""

    limits: RobotLimits = field(default_factory=RobotLimits)
    drive: Drive = field(default_factory=Drive)
    _wanted: tuple[float, float] = (0.0, 0.0)
    _wanted_until_s: float = -math.inf

    def command(self, insert_m_s: float, turn_rad_s: float, now_s: float) -> None:
        """Move at these speeds, cut to the limits. One that is not finite stops the robot."""
        wanted = (insert_m_s, turn_rad_s)
        if not all(map(math.isfinite, wanted)):
            wanted = (0.0, 0.0)
        bounds = (self.limits.insert_m_s, self.limits.turn_rad_s)
        insert_m_s, turn_rad_s = np.clip(wanted, np.negative(bounds), bounds).tolist()
        self._wanted = insert_m_s, turn_rad_s
        self._wanted_until_s = now_s + self.limits.command_lasts_s

    def step(self, seconds: float, now_s: float, permitted: bool) -> Drive:
        """The drive after so many seconds; without permission, or a command, it stands still."""
        wanted = self._wanted if permitted and now_s < self._wanted_until_s else (0.0, 0.0)
        gains = (self.limits.insert_m_s2 * seconds, self.limits.turn_rad_s2 * seconds)
        insert, turn = (
            _approached(now, goal, gain)
            for now, goal, gain in zip(self.drive.velocity, wanted, gains, strict=True)
        )
        fed, turned = self.drive.position
        self.drive = Drive((fed + insert * seconds, turned + turn * seconds), (insert, turn))
        return self.drive


def _approached(now: float, goal: float, gain: float) -> float:
    """The next speed: gain nearer to the goal; slower, or the other way, at once."""
    if goal * now < 0 or abs(goal) <= abs(now):
        now = 0.0 if goal * now < 0 else goal
    return goal if abs(goal - now) <= gain else now + math.copysign(gain, goal - now)
