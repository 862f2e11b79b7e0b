# SPDX-License-Identifier: Apache-2.0
"""The closed loop in a time of its own: the nodes' parts without nodes, DDS or a clock.

Images, perception, the guard's rules, navigator and robot are those of the nodes. What takes time
there takes a set time here, so that the result says what the model and the rules are worth, on any
machine however busy, and is the same each time. What it cannot say is what a machine, its
middleware and its scheduler add: that takes the nodes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from fedefm_core.frames import Frame
from fedefm_core.perception import GUIDEWIRE, Perception, Segmenter
from fedefm_core.simulation.navigation_case import PIXEL_MM
from fedefm_ros.health import Health
from fedefm_ros.messages import ns_to_stamp
from fedefm_ros.motion_guard import Decision, GuardSettings, MotionGuard, Now, Tip
from fedefm_ros.motion_guard_node import read_report
from fedefm_ros.navigate_report import Episode, Span, Track, Withdrawal, spans
from fedefm_ros.navigation_node import planned_path
from fedefm_ros.navigator import STILL, Navigator, Phase, SeenTip
from fedefm_ros.permission import Permission
from fedefm_ros.simulated_robot import SimulatedRobot
from fedefm_ros.simulated_view import NONE, SimulatedView
from fedefm_ros.status import state_message

STEP_S = 0.01
GUARD_S, ROBOT_S, NAVIGATOR_S, STATE_S = 0.01, 0.02, 0.04, 0.025
EPOCH_NS = 1_700_000_000_000_000_000
KIND = "guidewire"
MM_PER_M = 1000.0


@dataclass(frozen=True)
class Times:
    """camera_hz: of frames. perception_s: from exposure to the tip. max_age_s, image_timeout_s: of
    segmentation_node. longest_s: a case that has not ended by then has failed.
    """

    camera_hz: float = 10.0
    perception_s: float = 0.05
    max_age_s: float = 0.2
    image_timeout_s: float = 0.5
    longest_s: float = 90.0


@dataclass
class _Log:
    """What a recording would hold."""

    drive: list[tuple[float, float, float]] = field(default_factory=list)
    decisions: list[tuple[float, bool, str]] = field(default_factory=list)
    true_tip: list[tuple[float, float, float]] = field(default_factory=list)
    seen_tip: list[tuple[float, float, float]] = field(default_factory=list)
    trouble: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Due:
    """A frame on its way, and when it is there."""

    at_s: float
    frame: Frame


class OwnTime:
    """One case, step by step."""

    def __init__(self, segmenter: Segmenter, seed: int, trouble: str, times: Times) -> None:
        self.log = _Log()
        self._times = times
        self._segmenter = segmenter
        self._view = SimulatedView(seed, trouble)
        self.path = planned_path(self._view.case.plan)
        self.navigator = Navigator(self.path)
        settings = GuardSettings(camera_rate_hz=times.camera_hz)
        self._guard = MotionGuard(settings, GUIDEWIRE)
        self._health = Health()
        self._permission = Permission()
        self._robot = SimulatedRobot()
        self._images: deque[_Due] = deque()
        self._answers: deque[tuple[float, Perception]] = deque()
        self._now_s = 0.0
        self._due = dict.fromkeys(("camera", "state", "guard", "navigator", "robot"), 0.0)

    def run(self) -> None:
        """Until the target is reached, or for the longest time."""
        self._segmenter.reset()
        self._health.activated()
        while self._now_s < self._times.longest_s and self.navigator.phase is not Phase.REACHED:
            self._now_s += STEP_S
            if self._is_due("camera", 1 / self._times.camera_hz):
                self._expose()
            self._perceive()
            self._deliver()
            if self._is_due("state", STATE_S):
                self._tell_state()
            if self._is_due("guard", GUARD_S):
                self._settle(self._guard.tick(self._now()), beat=True)
            if self._is_due("navigator", NAVIGATOR_S):
                self._navigate()
            if self._is_due("robot", ROBOT_S):
                self._move()

    def _is_due(self, name: str, period_s: float) -> bool:
        if self._now_s + 1e-9 < self._due[name]:
            return False
        self._due[name] += period_s
        return True

    def _now(self) -> Now:
        return Now(self._now_s, self._clock_ns())

    def _clock_ns(self) -> int:
        return EPOCH_NS + round(self._now_s * 1e9)

    def _expose(self) -> None:
        exposure = self._view.expose(self._now_s)
        x, y = exposure.tip_px * PIXEL_MM
        self.log.true_tip.append((self._now_s, float(x), float(y)))
        if exposure.trouble != NONE:
            self.log.trouble.append(self._now_s)
        if exposure.pixels is not None:
            frame = Frame(exposure.pixels, self._clock_ns())
            self._images.append(_Due(self._now_s + exposure.delay_s, frame))

    def _perceive(self) -> None:
        """As segmentation_node: what came is processed, unless it is too old by then."""
        while self._images and self._images[0].at_s <= self._now_s + 1e-9:
            frame = self._images.popleft().frame
            self._health.received(self._now_s)
            if (self._clock_ns() - frame.stamp_ns) / 1e9 > self._times.max_age_s:
                self._health.dropped("too_old", "The frame is too old")
                continue
            perception = self._segmenter.process(frame)
            self._answers.append((self._now_s + self._times.perception_s, perception))

    def _deliver(self) -> None:
        while self._answers and self._answers[0][0] <= self._now_s + 1e-9:
            _, perception = self._answers.popleft()
            phases = dict(self._segmenter.tracker.phases)
            self._health.processed(perception, phases, 0.0, self._now_s)
            self._tell_tip(perception)
            self._tell_state()
            self._settle(self._guard.mask(perception.stamp_ns, perception.label_map, self._now()))

    def _tell_tip(self, perception: Perception) -> None:
        found = perception.tracked.get(KIND)
        if found is None or found.tip_px is None or found.heading_rad is None:
            return
        x, y = (float(value) for value in found.tip_px)
        self._settle(self._guard.tip(Tip(perception.stamp_ns, (x, y)), self._now()))
        point_mm = (x * PIXEL_MM, y * PIXEL_MM)
        self.navigator.see(SeenTip(point_mm, found.heading_rad))
        self.log.seen_tip.append(((perception.stamp_ns - EPOCH_NS) / 1e9, *point_mm))

    def _tell_state(self) -> None:
        verdict = self._health.verdict(self._now_s, self._times.image_timeout_s, active=True)
        stamp = ns_to_stamp(self._clock_ns())
        message = state_message(verdict, stamp, self._health.last_result(), {})
        self._settle(self._guard.report(read_report(message, KIND), self._now()))

    def _settle(self, decision: Decision, beat: bool = False) -> None:
        """As motion_guard_node: a no is told at once, a yes with the next beat."""
        if beat or not decision.permitted:
            self._permission.heard(decision.permitted, self._now_s)
            self.log.decisions.append((self._now_s, decision.permitted, decision.reason.value))

    def _navigate(self) -> None:
        permitted = self._permission.holds(self._now_s)
        command = self.navigator.command(NAVIGATOR_S, permitted)
        if command is not STILL:
            self._robot.command(command.insert_mm_s / MM_PER_M, command.turn_rad_s, self._now_s)
        else:
            self._robot.command(0.0, 0.0, self._now_s)

    def _move(self) -> None:
        before = self._robot.drive.position
        permitted = self._permission.holds(self._now_s)
        after = self._robot.step(ROBOT_S, self._now_s, permitted).position
        fed_m, turned_rad = np.subtract(after, before)
        self._view.move(float(fed_m) * MM_PER_M, float(turned_rad), ROBOT_S)
        self.log.drive.append((self._now_s, after[0] * MM_PER_M, after[1]))


def play(
    segmenter: Segmenter, seed: int, trouble: str = NONE, times: Times | None = None
) -> Episode:
    """One case, from its start to its end. Raises SimulationError for a seed without a case."""
    loop = OwnTime(segmenter, seed, trouble, times or Times())
    loop.run()
    log, navigator = loop.log, loop.navigator
    seconds = [at for at, _, _ in log.decisions]
    permitted = [value for _, value, _ in log.decisions]
    return Episode(
        seed=seed,
        trouble=trouble,
        drive=_track(log.drive),
        permitted=spans(seconds, permitted, log.drive[-1][0]),
        withdrawals=_withdrawals(log.decisions),
        true_tip=_track(log.true_tip),
        seen_tip=_track(log.seen_tip),
        trouble_span=Span(log.trouble[0], log.trouble[-1]) if log.trouble else None,
        retries=navigator.retries,
        said_reached=navigator.phase is Phase.REACHED,
        path_mm=loop.path.points,
    )


def _withdrawals(decisions: list[tuple[float, bool, str]]) -> list[Withdrawal]:
    return [
        Withdrawal(at, reason)
        for (_, before, _), (at, after, reason) in pairwise(decisions)
        if before and not after
    ]


def _track(rows: list[tuple[float, float, float]]) -> Track:
    table = np.array(rows, np.float64).reshape(-1, 3)
    return Track(table[:, 0], table[:, 1:])
