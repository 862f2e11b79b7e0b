# SPDX-License-Identifier: Apache-2.0
"""May the robot move? The rules of motion_guard_node as plain values: no ROS, clock or thread.

Time comes in as an argument, so the same calls give the same answers. A frame counts when all that
tells of it has come and is plausible: its tip, the state that names it, its mask. Permission needs
such frames without a gap for `recovery_time_s`; whatever else happens takes it away at once, and
the time starts anew. Comparisons are written so that NaN is never good enough.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from pydantic import Field

from fedefm_core.config import Settings
from fedefm_core.perception.types import LabelMap

RATE_WINDOW_S = 1.0  # over which frames are counted
MAX_CLOCK_STEP_S = 0.05  # by which clock and steady time may part between two calls
MAX_PENDING = 8  # frames of which something is still to come
PROCESSING = ("TRACKING", "LOST")  # states in which tips are told

Point = tuple[float, float]


class Reason(str, Enum):
    """Why the robot may or may not move; docs/integration.md explains each."""

    PERMITTED = "permitted"
    STARTING = "starting"
    RECOVERING = "recovering"
    STATE_SILENT = "state_silent"
    LOST = "lost"
    STALE = "stale"
    FAULT = "fault"
    NOT_FOLLOWED = "not_followed"
    NO_FRAME = "no_frame"
    TOO_OLD = "too_old"
    FROM_FUTURE = "from_future"
    SLOW = "slow"
    JUMP = "jump"
    SPEED = "speed"
    LENGTH = "length"
    COVARIANCE = "covariance"
    MASK = "mask"
    CONTRADICTION = "contradiction"
    OUT_OF_ORDER = "out_of_order"
    NOT_FINITE = "not_finite"
    UNREADABLE = "unreadable"
    PUBLISHER = "publisher"
    CLOCK = "clock"
    PAUSE = "pause"
    INTERNAL = "internal"


class GuardSettings(Settings):
    """When the robot may move. Pixels are those of the input image.

    camera_rate_hz: at which the camera sends. recovery_time_s: of good tracking before permission
    comes, or comes back. state_timeout_s: longest silence of `state`. max_gap_frames: longest
    time from one good frame to the next, in periods of the camera. max_age_s, max_future_s: how
    old a good frame may be when it has come, by its stamp, and how far ahead. max_pause_s: longest
    time between two calls; more, and nobody watched in between. min_rate_share: good frames in the
    last second over those of the camera. max_jump_px, max_speed_px_s, max_length_change_px: of tip
    and instrument from one frame to the next. max_sigma_px: largest standard deviation of the tip.
    max_mask_distance_px: from the tip to the nearest pixel of its instrument in the mask.
    require_metres: each frame must also bring the tip in metres.
    """

    camera_rate_hz: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    recovery_time_s: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    state_timeout_s: float = Field(default=0.08, gt=0, allow_inf_nan=False)
    max_gap_frames: float = Field(default=2.7, gt=1, allow_inf_nan=False)
    max_age_s: float = Field(default=0.2, gt=0, allow_inf_nan=False)
    max_future_s: float = Field(default=0.05, ge=0, allow_inf_nan=False)
    max_pause_s: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    min_rate_share: float = Field(default=0.33, gt=0, le=1, allow_inf_nan=False)
    max_jump_px: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    max_speed_px_s: float = Field(default=800.0, gt=0, allow_inf_nan=False)
    max_length_change_px: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    max_sigma_px: float = Field(default=5.0, gt=0, allow_inf_nan=False)
    max_mask_distance_px: float = Field(default=5.0, gt=0, allow_inf_nan=False)
    require_metres: bool = False

    @property
    def frame_timeout_s(self) -> float:
        """Longest time from one good frame to the next."""
        return self.max_gap_frames / self.camera_rate_hz

    @property
    def min_rate_hz(self) -> float:
        """Fewest good frames in a second."""
        return self.min_rate_share * self.camera_rate_hz


@dataclass(frozen=True)
class Now:
    """The present: seconds of a steady clock, and nanoseconds of the clock that writes stamps."""

    steady_s: float
    clock_ns: int


@dataclass(frozen=True)
class Tip:
    """A tip in pixels and the stamp of its frame."""

    stamp_ns: int
    point_px: Point


@dataclass(frozen=True)
class Report:
    """What one message on `state` says of the guarded instrument.

    state: TRACKING, LOST, STALE or FAULT. frame_stamp_ns: of the frame it speaks of. has_tip: in
    that frame. track: the tracker's phase. length_px, sigma_px: NaN when not told.
    """

    state: str
    text: str
    frame_stamp_ns: int | None
    has_tip: bool
    track: str
    length_px: float = math.nan
    sigma_px: float = math.nan


@dataclass(frozen=True)
class Problem:
    """Why the robot may not move, as a word and as a sentence."""

    reason: Reason
    text: str


@dataclass(frozen=True)
class Decision:
    """The answer to a call, why, and for how long all has been good."""

    permitted: bool
    reason: Reason
    text: str
    good_for_s: float


# --- rules ------------------------------------------------------------------------------------


def check_state(report: Report) -> Problem | None:
    """The instrument is followed; the state may be LOST because the other one is."""
    if report.state in PROCESSING and report.track in ("TRACKED", "BRIDGED"):
        return None
    if report.state == "TRACKING":
        return Problem(
            Reason.NOT_FOLLOWED, f"The instrument is not followed: {report.track or 'no track'}"
        )
    reasons = {"LOST": Reason.LOST, "STALE": Reason.STALE, "FAULT": Reason.FAULT}
    reason = reasons.get(report.state, Reason.UNREADABLE)
    return Problem(reason, f"The state is not TRACKING but {report.text or report.state}")


def check_age(age_s: float, settings: GuardSettings) -> Problem | None:
    """The newest good frame was of the present when it came."""
    if -settings.max_future_s <= age_s <= settings.max_age_s:
        return None
    if age_s < 0:
        return Problem(
            Reason.FROM_FUTURE,
            f"The newest frame came with a stamp {-age_s:.3f} s in the future: is 'use_sim_time' "
            "the same here and at the publisher, and are their clocks in step?",
        )
    return Problem(
        Reason.TOO_OLD,
        f"The newest frame was {age_s:.3f} s old when it came, more than "
        f"max_age_s = {settings.max_age_s:g}",
    )


def check_rate(
    arrivals_s: Iterable[float], now_s: float, settings: GuardSettings
) -> Problem | None:
    """Enough good frames came in the last RATE_WINDOW_S."""
    rate_hz = sum(0 <= now_s - at <= RATE_WINDOW_S for at in arrivals_s) / RATE_WINDOW_S
    if rate_hz >= settings.min_rate_hz:
        return None
    return Problem(
        Reason.SLOW,
        f"{rate_hz:.0f} good frames in the last second, fewer than "
        f"{settings.min_rate_hz:.3g}: is camera_rate_hz = {settings.camera_rate_hz:g} right?",
    )


def check_step(before: Tip, after: Tip, settings: GuardSettings) -> Problem | None:
    """The tip moved no farther, and no faster, than a tip can. Stamps must differ."""
    moved_px = math.dist(before.point_px, after.point_px)
    if not moved_px <= settings.max_jump_px:
        return Problem(
            Reason.JUMP,
            f"The tip jumped {moved_px:.1f} pixels, more than "
            f"max_jump_px = {settings.max_jump_px:g}",
        )
    speed_px_s = moved_px / ((after.stamp_ns - before.stamp_ns) / 1e9)
    if not speed_px_s <= settings.max_speed_px_s:
        return Problem(
            Reason.SPEED,
            f"The tip moved at {speed_px_s:.0f} pixels/s, faster than "
            f"max_speed_px_s = {settings.max_speed_px_s:g}",
        )
    return None


def check_length(
    before_px: float | None, after_px: float, settings: GuardSettings
) -> Problem | None:
    """The instrument is about as long as in the frame before; None: there was none."""
    change_px = abs(after_px - (after_px if before_px is None else before_px))
    if change_px <= settings.max_length_change_px:
        return None
    return Problem(
        Reason.LENGTH,
        f"The instrument's length changed by {change_px:.1f} pixels from one frame to the next, "
        f"more than max_length_change_px = {settings.max_length_change_px:g}",
    )


def check_sigma(sigma_px: float, settings: GuardSettings) -> Problem | None:
    """The tip's position is certain enough."""
    if 0 <= sigma_px <= settings.max_sigma_px:
        return None
    return Problem(
        Reason.COVARIANCE,
        f"The tip's standard deviation is {sigma_px:.1f} pixels, "
        f"not within max_sigma_px = {settings.max_sigma_px:g}",
    )


def check_mask(
    labels: LabelMap, label: int, tip_px: Point, settings: GuardSettings
) -> Problem | None:
    """The tip lies on, or close to, its instrument in the mask of its frame."""
    reach_px = settings.max_mask_distance_px
    if mask_distance_px(labels, label, tip_px, reach_px) <= reach_px:
        return None
    return Problem(
        Reason.MASK,
        "The mask shows nothing of the instrument within "
        f"max_mask_distance_px = {reach_px:g} of its tip",
    )


def mask_distance_px(labels: LabelMap, label: int, point_px: Point, reach_px: float) -> float:
    """From a point to the centre of the nearest pixel with this label; infinite beyond reach."""
    x, y = point_px
    left, top = max(0, math.ceil(x - reach_px)), max(0, math.ceil(y - reach_px))
    right, bottom = max(0, math.floor(x + reach_px) + 1), max(0, math.floor(y + reach_px) + 1)
    rows, columns = np.nonzero(labels[top:bottom, left:right] == label)
    if not rows.size:
        return math.inf
    distance_px = float(np.sqrt(np.min((columns + left - x) ** 2 + (rows + top - y) ** 2)))
    return distance_px if distance_px <= reach_px else math.inf


# --- the guard --------------------------------------------------------------------------------


@dataclass
class _Frame:
    """What has come of one frame."""

    tip: Tip | None = None
    labels: LabelMap | None = None
    has_state: bool = False
    has_metres: bool = False


@dataclass
class _Evidence:
    """What speaks for permission; forgotten when it can no longer be trusted."""

    report: Report | None = None
    report_at: float = 0.0
    tip: Tip | None = None
    length_px: float | None = None
    frame_ns: int | None = None  # stamp of the newest good frame
    frame_at: float = 0.0
    arrivals_s: deque[float] = field(default_factory=lambda: deque(maxlen=1000))
    pending: dict[int, _Frame] = field(default_factory=dict)
    trouble: Problem | None = None  # after which there was no good frame yet
    trouble_at: float = 0.0


class MotionGuard:
    """Told of everything that comes, and of the time; every call answers with the decision.

    withdrawals: how often permission was taken away, by reason. withdrawn: the last problem that
    took it.
    """

    def __init__(
        self, settings: GuardSettings, label: int, clock_runs_steadily: bool = True
    ) -> None:
        """label: of the instrument in the mask. clock_runs_steadily: false for simulated time."""
        self.settings = settings
        self.withdrawals: Counter[Reason] = Counter()
        self.withdrawn: Problem | None = None
        self._label = label
        self._clock_runs_steadily = clock_runs_steadily
        self._now: Now | None = None
        self._evidence = _Evidence()
        self._publishers: dict[str, Hashable] = {}
        self._good_since: float | None = None
        self._permitted = False

    # --- what may happen ----------------------------------------------------------------------

    def tick(self, now: Now) -> Decision:
        """Time passes."""
        return self._handle(now, lambda: None)

    def report(self, report: Report, now: Now) -> Decision:
        """A message on `state` came."""
        return self._handle(now, lambda: self._take_report(report, now))

    def tip(self, tip: Tip, now: Now) -> Decision:
        """A tip in pixels came."""
        return self._handle(now, lambda: self._take_tip(tip, now))

    def metres(self, stamp_ns: int, values: Iterable[float], now: Now) -> Decision:
        """A tip in metres came, with what of its position and covariance must be finite."""
        return self._handle(now, lambda: self._take_metres(stamp_ns, values, now))

    def mask(self, stamp_ns: int, labels: LabelMap, now: Now) -> Decision:
        """A mask (H, W) came."""
        return self._handle(now, lambda: self._take_mask(stamp_ns, labels, now))

    def heard(self, topic: str, publisher: Hashable, now: Now) -> Decision:
        """A message of this publisher came; a topic has one, as long as it lives."""
        return self._handle(now, lambda: self._take_publisher(topic, publisher))

    def trouble(self, reason: Reason, text: str, now: Now) -> Decision:
        """Something else happened that should not have."""
        return self._handle(now, lambda: Problem(reason, text))

    # --- what it means ------------------------------------------------------------------------

    def _handle(self, now: Now, event: Callable[[], Problem | None]) -> Decision:
        """A limit that was passed before the event counts, even when the event mends it."""
        self._withdraw(self._pass_time(now) or self._standing_problem(now))
        problem = event()
        if problem is not None:
            self._forget_frames(problem, now)
        elif math.isfinite(now.steady_s):
            problem = self._standing_problem(now)
        else:
            problem = Problem(Reason.CLOCK, "The steady clock shows no time")
        self._withdraw(problem)
        return self._decide(now, problem)

    def _withdraw(self, problem: Problem | None) -> None:
        if problem is None:
            return
        self._good_since = None
        if self._permitted:
            self._permitted = False
            self.withdrawals[problem.reason] += 1
            self.withdrawn = problem

    def _decide(self, now: Now, problem: Problem | None) -> Decision:
        if problem is not None:
            return Decision(False, problem.reason, problem.text, 0.0)
        if self._good_since is None:
            self._good_since = now.steady_s
        good_for_s = now.steady_s - self._good_since
        needed_s = self.settings.recovery_time_s
        self._permitted = good_for_s >= needed_s
        if self._permitted:
            return Decision(True, Reason.PERMITTED, "All is well", good_for_s)
        text = f"Good tracking for {good_for_s:.2f} of {needed_s:g} s"
        return Decision(False, Reason.RECOVERING, text, good_for_s)

    def _pass_time(self, now: Now) -> Problem | None:
        """Forget what can no longer be dated: after a pause, or a step of a clock."""
        before, self._now = self._now, now
        if before is None:
            return None
        passed_s = now.steady_s - before.steady_s
        stepped_s = (now.clock_ns - before.clock_ns) / 1e9 - passed_s
        if not passed_s >= 0:
            self._evidence = _Evidence()
            return Problem(Reason.CLOCK, "The steady clock went backwards")
        problem = None
        if not passed_s <= self.settings.max_pause_s:
            problem = Problem(
                Reason.PAUSE,
                f"The guard did not run for {passed_s:.3f} s, longer than "
                f"max_pause_s = {self.settings.max_pause_s:g}",
            )
        elif self._clock_runs_steadily and not abs(stepped_s) <= MAX_CLOCK_STEP_S:
            problem = Problem(Reason.CLOCK, f"The system clock jumped by {stepped_s:.3f} s")
        if problem is not None:
            self._forget_frames(problem, now)
        return problem

    def _standing_problem(self, now: Now) -> Problem | None:
        """What forbids motion at this time, whatever comes."""
        evidence, settings = self._evidence, self.settings
        if evidence.report is None:
            return Problem(Reason.STARTING, "No state has come yet")
        silent_s = now.steady_s - evidence.report_at
        if not 0 <= silent_s <= settings.state_timeout_s:
            return Problem(
                Reason.STATE_SILENT,
                f"No state for {silent_s:.3f} s, longer than "
                f"state_timeout_s = {settings.state_timeout_s:g}",
            )
        problem = check_state(evidence.report)
        if problem is not None:
            return problem
        troubled_s = now.steady_s - evidence.trouble_at
        if evidence.trouble is not None and troubled_s <= settings.frame_timeout_s:
            return evidence.trouble
        silent_s = now.steady_s - evidence.frame_at
        if evidence.frame_ns is None or not 0 <= silent_s <= settings.frame_timeout_s:
            return Problem(Reason.NO_FRAME, self._what_is_missing(silent_s))
        age_s = (now.clock_ns - evidence.frame_ns) / 1e9
        return check_age(age_s - silent_s, settings) or check_rate(
            evidence.arrivals_s, now.steady_s, settings
        )

    def _what_is_missing(self, silent_s: float) -> str:
        evidence = self._evidence
        text = "No good frame" if evidence.frame_ns is None else f"No frame for {silent_s:.3f} s"
        if not evidence.pending:
            return text
        frame = evidence.pending[max(evidence.pending)]
        parts = {
            "tip": frame.tip is not None,
            "state": frame.has_state,
            "mask": frame.labels is not None,
            "tip in metres": frame.has_metres or not self.settings.require_metres,
        }
        missing = [name for name, there in parts.items() if not there]
        return f"{text}; of the newest one there is no {' and no '.join(missing)}"

    def _forget_frames(self, trouble: Problem, now: Now) -> None:
        """Good frames are awaited anew; what the next is compared with stays."""
        evidence = self._evidence
        evidence.trouble, evidence.trouble_at = trouble, now.steady_s
        evidence.frame_ns = None
        evidence.pending.clear()

    def _take_report(self, report: Report, now: Now) -> Problem | None:
        evidence = self._evidence
        before = evidence.report
        evidence.report, evidence.report_at = report, now.steady_s
        problem = check_state(report)
        stamp_ns = report.frame_stamp_ns
        if problem is not None or stamp_ns is None:
            return problem
        if not report.has_tip:
            return self._check_contradiction(report)
        if before is not None and before.has_tip and _same_frame(before, report):
            return None  # between two frames, `state` repeats what it said of the first
        length_before, evidence.length_px = evidence.length_px, report.length_px
        problem = check_length(length_before, report.length_px, self.settings) or check_sigma(
            report.sigma_px, self.settings
        )
        if problem is None:
            self._frame(stamp_ns).has_state = True
            self._count(stamp_ns, now)
        return problem

    def _check_contradiction(self, report: Report) -> Problem | None:
        tip = self._evidence.tip
        if tip is None or tip.stamp_ns != report.frame_stamp_ns:
            return None
        return Problem(Reason.CONTRADICTION, "A tip came of a frame that has none by its state")

    def _take_tip(self, tip: Tip, now: Now) -> Problem | None:
        if not all(map(math.isfinite, tip.point_px)):
            return Problem(Reason.NOT_FINITE, "A tip came that is not finite")
        before = self._evidence.tip
        if before == tip:
            return None  # the same once more: nothing new
        self._evidence.tip = tip
        if before is not None and tip.stamp_ns <= before.stamp_ns:
            late_ms = (before.stamp_ns - tip.stamp_ns) / 1e6
            return Problem(
                Reason.OUT_OF_ORDER,
                f"A tip came whose stamp is {late_ms:.1f} ms before that of the tip before it"
                if late_ms
                else "Two different tips came with the same stamp",
            )
        problem = None if before is None else check_step(before, tip, self.settings)
        report = self._evidence.report
        if problem is None and report is not None and report.state in PROCESSING:
            problem = None if report.has_tip else self._check_contradiction(report)
        if problem is None:
            frame = self._frame(tip.stamp_ns)
            frame.tip = tip
            if frame.labels is not None:
                problem = self._check_mask(frame.labels, tip)
        if problem is None:
            self._count(tip.stamp_ns, now)
        return problem

    def _take_metres(self, stamp_ns: int, values: Iterable[float], now: Now) -> Problem | None:
        if not all(map(math.isfinite, values)):
            return Problem(Reason.NOT_FINITE, "A tip in metres came that is not finite")
        self._frame(stamp_ns).has_metres = True
        self._count(stamp_ns, now)
        return None

    def _take_mask(self, stamp_ns: int, labels: LabelMap, now: Now) -> Problem | None:
        self._frame(stamp_ns).labels = labels
        tip = self._evidence.tip
        if tip is not None and tip.stamp_ns == stamp_ns:
            problem = self._check_mask(labels, tip)
            if problem is not None:
                return problem
        self._count(stamp_ns, now)
        return None

    def _check_mask(self, labels: LabelMap, tip: Tip) -> Problem | None:
        return check_mask(labels, self._label, tip.point_px, self.settings)

    def _take_publisher(self, topic: str, publisher: Hashable) -> Problem | None:
        before = self._publishers.setdefault(topic, publisher)
        self._publishers[topic] = publisher
        if before == publisher:
            return None
        return Problem(
            Reason.PUBLISHER, f"Another publisher than before speaks on the topic '{topic}'"
        )

    def _frame(self, stamp_ns: int) -> _Frame:
        """The frame of that stamp, of which more is to come."""
        pending = self._evidence.pending
        frame = pending.setdefault(stamp_ns, _Frame())
        if len(pending) > MAX_PENDING:
            del pending[next(iter(pending))]  # the one that waits longest
        return frame

    def _count(self, stamp_ns: int, now: Now) -> None:
        """Count the frame as good when all of it has come."""
        evidence = self._evidence
        frame = evidence.pending.get(stamp_ns)
        if frame is None or frame.tip is None or frame.labels is None or not frame.has_state:
            return
        if self.settings.require_metres and not frame.has_metres:
            return
        if evidence.frame_ns is None or stamp_ns > evidence.frame_ns:
            evidence.frame_ns, evidence.frame_at = stamp_ns, now.steady_s
            evidence.trouble = None
            evidence.arrivals_s.append(now.steady_s)
            while now.steady_s - evidence.arrivals_s[0] > RATE_WINDOW_S:
                evidence.arrivals_s.popleft()
        for old in [stamp for stamp in evidence.pending if stamp <= stamp_ns]:
            del evidence.pending[old]


def _same_frame(before: Report, after: Report) -> bool:
    """Do two reports say the same of the same frame? Never, when one says NaN."""
    return (before.frame_stamp_ns, before.length_px, before.sigma_px) == (
        after.frame_stamp_ns,
        after.length_px,
        after.sigma_px,
    )
