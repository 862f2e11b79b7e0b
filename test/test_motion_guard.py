# SPDX-License-Identifier: Apache-2.0
"""The rules of the motion guard, without ROS and without a clock: time is an argument."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fedefm_ros.motion_guard import (
    MAX_CLOCK_STEP_S,
    MAX_PENDING,
    Decision,
    GuardSettings,
    MotionGuard,
    Now,
    Reason,
    Report,
    Tip,
    check_age,
    check_length,
    check_rate,
    check_sigma,
    check_state,
    check_step,
    mask_distance_px,
)

SETTINGS = GuardSettings()
LABEL = 2
PERIOD_S = 1 / 30
TICK_S = 0.01
WALL_NS = 1_700_000_000_000_000_000  # the clock that stamps, when steady time is 0
LATENCY_S = 0.04
MASK = np.zeros((64, 64), np.uint8)
MASK[30:34, 0:32] = LABEL
TIP_PX = (31.0, 32.0)
RECOVERY_S = SETTINGS.recovery_time_s


@dataclass
class Film:
    """A guard that is shown a good insertion at 30 Hz, in a world without delays."""

    settings: GuardSettings = SETTINGS
    steady_s: float = 100.0
    clock_ns: int = WALL_NS
    tip_ns: int = 0  # stamp of the last tip
    guard: MotionGuard = field(init=False)
    answers: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.guard = MotionGuard(self.settings, LABEL)

    @property
    def now(self) -> Now:
        return Now(self.steady_s, self.clock_ns)

    @property
    def stamp_ns(self) -> int:
        """Of a frame that arrives now."""
        return self.clock_ns - round(LATENCY_S * 1e9)

    @property
    def permitted(self) -> bool:
        return self.answers[-1].permitted

    @property
    def reason(self) -> Reason:
        return self.answers[-1].reason

    def wait(self, seconds: float) -> None:
        """Let time pass unseen."""
        self.steady_s += seconds
        self.clock_ns += round(seconds * 1e9)

    def tick(self) -> Decision:
        return self.answer(self.guard.tick(self.now))

    def report(self, **changes: object) -> Decision:
        report = Report("TRACKING", "TRACKING: it is", self.stamp_ns, True, "TRACKED", 300.0, 1.2)
        return self.answer(self.guard.report(replace(report, **changes), self.now))

    def tip(self, point_px: tuple[float, float] = TIP_PX, stamp_ns: int | None = None) -> Decision:
        self.tip_ns = self.stamp_ns if stamp_ns is None else stamp_ns
        tip = Tip(self.tip_ns, point_px)
        return self.answer(self.guard.tip(tip, self.now))

    def mask(self, labels: np.ndarray = MASK) -> Decision:
        return self.answer(self.guard.mask(self.stamp_ns, labels, self.now))

    def frame(self) -> Decision:
        """All of a good frame, as segmentation_node sends it."""
        self.tip()
        self.report()
        return self.mask()

    def answer(self, decision: Decision) -> Decision:
        self.answers.append(decision)
        return decision

    def play(self, seconds: float, period_s: float = PERIOD_S) -> None:
        """Good frames, and beats of `state` and guard in between."""
        end_s, due_s, last_ns = self.steady_s + seconds, self.steady_s, self.stamp_ns
        while self.steady_s < end_s - 1e-9:
            if self.steady_s >= due_s - 1e-9:
                last_ns, due_s = self.stamp_ns, due_s + period_s
                self.frame()
            else:
                self.report(frame_stamp_ns=last_ns)
            self.tick()
            self.wait(TICK_S)


def tracking_film(settings: GuardSettings = SETTINGS) -> Film:
    """A film in which motion is permitted."""
    film = Film(settings)
    film.play(3.0)
    assert film.permitted, film.answers[-1]
    return film


# --- when permission comes --------------------------------------------------------------------


def test_at_start_nothing_is_permitted() -> None:
    film = Film()
    for _ in range(500):
        assert film.tick().reason is Reason.STARTING
        film.wait(TICK_S)


def test_permission_comes_after_the_recovery_time_of_good_frames_at_the_rate() -> None:
    """At 25 Hz the tenth frame comes after 0.36 s: from there on all is good."""
    film = Film()
    film.play(0.36 + RECOVERY_S, period_s=0.04)
    assert not any(answer.permitted for answer in film.answers)
    film.play(0.03)
    assert film.permitted
    assert film.reason is Reason.PERMITTED


def test_good_tracking_stays_permitted() -> None:
    film = tracking_film()
    film.answers.clear()
    film.play(10.0)
    assert all(answer.permitted for answer in film.answers)
    assert not film.guard.withdrawals


@pytest.mark.parametrize("part", ["tip", "state", "mask"])
def test_without_one_of_its_parts_no_frame_counts(part: str) -> None:
    film = Film()
    for _ in range(200):
        film.report(frame_stamp_ns=film.stamp_ns if part != "state" else None)
        if part != "tip":
            film.tip()
        if part != "mask":
            film.mask()
        assert not film.permitted
        film.wait(PERIOD_S)
    assert film.reason is Reason.NO_FRAME
    assert f"no {part}" in film.answers[-1].text


def test_the_parts_of_a_frame_may_come_in_any_order() -> None:
    film = Film()
    for index in range(90):
        parts: list[Callable[[], Decision]] = [film.tip, film.report, film.mask]
        for part in parts[index % 3 :] + parts[: index % 3]:
            part()
        film.wait(PERIOD_S)
    assert film.permitted


def test_metres_are_needed_when_they_are_asked_for() -> None:
    film = Film(GuardSettings(require_metres=True))
    film.play(3.0)
    assert not film.permitted
    assert "tip in metres" in film.answers[-1].text
    for _ in range(60):
        film.frame()
        film.answer(film.guard.metres(film.stamp_ns, (0.01, 0.02), film.now))
        film.wait(PERIOD_S)
    assert film.permitted


def test_many_frames_without_a_tip_do_not_hide_a_good_one() -> None:
    """Not even when the source then starts again with earlier stamps."""
    film = Film()
    for _ in range(3 * MAX_PENDING):
        film.mask()
        film.report(has_tip=False)
        film.wait(PERIOD_S)
    film.clock_ns -= 10**10
    film.play(3.0)
    assert film.permitted


# --- what takes it away -----------------------------------------------------------------------

BAD_EVENTS: dict[str, tuple[Callable[[Film], Decision], Reason]] = {
    "LOST": (lambda f: f.report(state="LOST", track="LOST"), Reason.LOST),
    "STALE": (lambda f: f.report(state="STALE", has_tip=False, track=""), Reason.STALE),
    "FAULT": (lambda f: f.report(state="FAULT", has_tip=False, track=""), Reason.FAULT),
    "a state of no known name": (lambda f: f.report(state="FINE"), Reason.UNREADABLE),
    "not followed": (lambda f: f.report(track="SEARCHING"), Reason.NOT_FOLLOWED),
    "no track": (lambda f: f.report(track=""), Reason.NOT_FOLLOWED),
    "a jump": (lambda f: f.tip((62.0, 32.5)), Reason.JUMP),
    "too fast": (lambda f: f.tip((36.0, 32.0), f.tip_ns + 1_000_000), Reason.SPEED),
    "longer": (lambda f: f.report(length_px=361.0), Reason.LENGTH),
    "shorter": (lambda f: f.report(length_px=239.0), Reason.LENGTH),
    "length not told": (lambda f: f.report(length_px=math.nan), Reason.LENGTH),
    "uncertain": (lambda f: f.report(sigma_px=5.1), Reason.COVARIANCE),
    "uncertainty not told": (lambda f: f.report(sigma_px=math.nan), Reason.COVARIANCE),
    "negative uncertainty": (lambda f: f.report(sigma_px=-1.0), Reason.COVARIANCE),
    "infinite uncertainty": (lambda f: f.report(sigma_px=math.inf), Reason.COVARIANCE),
    "tip NaN": (lambda f: f.tip((math.nan, 3.0)), Reason.NOT_FINITE),
    "tip infinite": (lambda f: f.tip((3.0, -math.inf)), Reason.NOT_FINITE),
    "metres NaN": (
        lambda f: f.answer(f.guard.metres(f.stamp_ns, (0.1, math.nan), f.now)),
        Reason.NOT_FINITE,
    ),
    "tip out of order": (
        lambda f: f.tip(stamp_ns=f.stamp_ns - 1_000_000_000),
        Reason.OUT_OF_ORDER,
    ),
    "tip off the mask": (lambda f: (f.tip(), f.mask(np.zeros_like(MASK)))[-1], Reason.MASK),
    "mask of the other kind": (lambda f: (f.tip(), f.mask(MASK // 2))[-1], Reason.MASK),
    "mask before the tip": (lambda f: (f.mask(np.zeros_like(MASK)), f.tip())[-1], Reason.MASK),
    "tip and state disagree": (
        lambda f: (f.tip(), f.report(has_tip=False))[-1],
        Reason.CONTRADICTION,
    ),
    "state and tip disagree": (
        lambda f: (f.report(has_tip=False), f.tip())[-1],
        Reason.CONTRADICTION,
    ),
    "two publishers": (
        lambda f: [f.answer(f.guard.heard("tip", who, f.now)) for who in (b"a", b"b")][-1],
        Reason.PUBLISHER,
    ),
    "trouble": (
        lambda f: f.answer(f.guard.trouble(Reason.INTERNAL, "It broke", f.now)),
        Reason.INTERNAL,
    ),
}


@pytest.mark.parametrize("name", BAD_EVENTS)
def test_a_single_bad_event_withdraws_at_once_and_for_the_recovery_time(name: str) -> None:
    film = tracking_film()
    film.play(PERIOD_S)
    event, reason = BAD_EVENTS[name]
    film.answers.clear()
    answer = event(film)
    assert (answer.permitted, answer.reason) == (False, reason)
    assert answer.text
    assert film.guard.withdrawals == {reason: 1}
    assert film.guard.withdrawn.reason is reason
    film.answers.clear()
    film.wait(PERIOD_S)
    film.play(RECOVERY_S)
    assert not any(answer.permitted for answer in film.answers)
    film.play(RECOVERY_S)
    assert film.permitted


def test_trouble_is_told_until_a_good_frame_follows_or_should_have() -> None:
    film = tracking_film()
    film.answer(film.guard.trouble(Reason.INTERNAL, "It broke", film.now))
    assert film.tick().reason is Reason.INTERNAL
    film.wait(PERIOD_S)
    film.frame()
    assert film.tick().reason is Reason.RECOVERING
    film.answer(film.guard.trouble(Reason.INTERNAL, "It broke", film.now))
    film.wait(SETTINGS.frame_timeout_s + 0.001)
    film.report(frame_stamp_ns=None)
    assert film.tick().reason is Reason.NO_FRAME


def test_two_tips_of_one_frame_that_differ_withdraw() -> None:
    film = tracking_film()
    film.tip()
    assert film.tip((31.5, 32.0)).reason is Reason.OUT_OF_ORDER


def limit_of_silence(film: Film, beat: Callable[[], object]) -> float:
    """Seconds from the last frame until permission is gone, while only beat goes on."""
    film.frame()
    start_s = film.steady_s
    while film.permitted:
        film.wait(0.001)
        beat()
        film.tick()
        assert film.steady_s < start_s + 10
    return film.steady_s - start_s


def test_silence_of_all_withdraws_after_the_state_timeout() -> None:
    film = tracking_film()
    silent_s = limit_of_silence(film, lambda: None)
    assert silent_s == pytest.approx(SETTINGS.state_timeout_s, abs=0.0015)
    assert film.reason is Reason.STATE_SILENT


def test_silence_of_tips_withdraws_after_the_frame_timeout() -> None:
    film = tracking_film()
    stamp_ns = film.stamp_ns
    silent_s = limit_of_silence(film, lambda: film.report(frame_stamp_ns=stamp_ns))
    assert silent_s == pytest.approx(SETTINGS.frame_timeout_s, abs=0.0015)
    assert film.reason is Reason.NO_FRAME


def test_a_bridged_frame_is_borne_as_long_as_a_gap_may_last() -> None:
    film = tracking_film()
    film.frame()
    for _ in range(2):
        film.wait(PERIOD_S)
        assert film.report(has_tip=False, track="BRIDGED").permitted
        film.mask()
    film.wait(SETTINGS.frame_timeout_s - 2 * PERIOD_S + 0.001)
    assert film.report(has_tip=False, track="BRIDGED").reason is Reason.NO_FRAME


def test_a_gap_that_the_next_frame_ends_still_counts() -> None:
    """Nobody looked while the limit was passed: the frame after it must not make it undone."""
    film = tracking_film()
    film.frame()
    film.wait(SETTINGS.state_timeout_s + 0.001)
    assert film.report(frame_stamp_ns=film.stamp_ns).permitted is False
    assert film.guard.withdrawals == {Reason.STATE_SILENT: 1}


def test_the_same_frame_again_and_again_is_silence() -> None:
    film = tracking_film()
    stamp_ns = film.stamp_ns
    film.frame()
    for _ in range(20):
        film.wait(TICK_S)
        film.tip(stamp_ns=stamp_ns)
        film.report(frame_stamp_ns=stamp_ns)
        film.answer(film.guard.mask(stamp_ns, MASK, film.now))
    assert film.reason is Reason.NO_FRAME


def test_old_frames_are_refused_however_regular_they_are() -> None:
    film = Film()
    film.clock_ns += round((SETTINGS.max_age_s - LATENCY_S - 0.02) * 1e9)

    def late(film: Film) -> None:
        """Frames whose stamps lag behind by what the clock was set forward at the start."""
        stamp_ns = film.clock_ns - round((SETTINGS.max_age_s + 0.01) * 1e9)
        film.tip(stamp_ns=stamp_ns)
        film.report(frame_stamp_ns=stamp_ns)
        film.answer(film.guard.mask(stamp_ns, MASK, film.now))

    for _ in range(100):
        late(film)
        film.wait(PERIOD_S)
    assert film.reason is Reason.TOO_OLD
    assert not any(answer.permitted for answer in film.answers)


def test_too_few_frames_a_second_are_too_slow() -> None:
    film = Film(GuardSettings(max_gap_frames=15))
    film.play(5.0, period_s=0.11)
    assert film.reason is Reason.SLOW
    film.play(5.0, period_s=0.09)
    assert film.permitted


@pytest.mark.parametrize("rate_hz", [3.0, 7.5, 9.5, 15.0, 60.0])
def test_a_slow_camera_is_judged_by_its_own_rate(rate_hz: float) -> None:
    film = Film(GuardSettings(camera_rate_hz=rate_hz))
    film.play(5.0, period_s=1 / rate_hz)
    assert film.permitted
    stamp_ns = film.stamp_ns
    silent_s = limit_of_silence(film, lambda: film.report(frame_stamp_ns=stamp_ns))
    assert silent_s == pytest.approx(2.7 / rate_hz, abs=0.0015)


# --- clocks -----------------------------------------------------------------------------------


def shift(film: Film, steady_s: float = 0.0, clock_s: float = 0.0) -> None:
    """Set clocks."""
    film.steady_s += steady_s
    film.clock_ns += round(clock_s * 1e9)


@pytest.mark.parametrize("clock_s", [-3600.0, -0.06, 0.06, 0.1, 3600.0])
def test_a_jump_of_the_system_clock_withdraws(clock_s: float) -> None:
    film = tracking_film()
    shift(film, clock_s=clock_s)
    assert not film.tick().permitted
    assert film.guard.withdrawals == {Reason.CLOCK: 1}


def test_a_clock_that_is_set_back_makes_no_old_frame_young() -> None:
    film = tracking_film()
    film.frame()
    for _ in range(100):
        film.wait(TICK_S)
        shift(film, clock_s=-TICK_S)  # too little to be noticed, and time stands still by it
        film.report(frame_stamp_ns=None)
    assert film.reason is Reason.NO_FRAME


def test_simulated_time_may_run_at_its_own_pace() -> None:
    film = Film()
    film.guard = MotionGuard(SETTINGS, LABEL, clock_runs_steadily=False)
    for _ in range(100):
        film.play(PERIOD_S)
        film.clock_ns += 70_000_000
    assert film.permitted


@pytest.mark.parametrize("steady_s", [-1e-6, -1.0, -1e9, math.nan, math.inf, -math.inf])
def test_no_steady_time_but_the_next_is_trusted(steady_s: float) -> None:
    film = tracking_film()
    film.tick()
    before_s = film.steady_s
    film.steady_s += steady_s
    assert not film.tick().permitted
    assert not film.frame().permitted
    if not math.isfinite(film.steady_s):
        film.steady_s = before_s
    film.answers.clear()
    film.play(RECOVERY_S)
    assert not any(answer.permitted for answer in film.answers)
    film.play(1.0)
    assert film.permitted


def test_a_guard_that_did_not_run_trusts_nothing_from_before() -> None:
    film = tracking_film(GuardSettings(state_timeout_s=5.0, max_gap_frames=150, max_age_s=5.0))
    film.wait(SETTINGS.max_pause_s + 0.001)
    assert film.tick().reason is Reason.PAUSE
    assert film.guard.withdrawals == {Reason.PAUSE: 1}


# --- properties -------------------------------------------------------------------------------

HEALTHY = ("frame", "beat", "tick")
EVENTS = st.tuples(
    st.sampled_from([*HEALTHY * 90, "repeat", *BAD_EVENTS]),
    st.floats(0.0, 0.05) | st.sampled_from([0.0, 0.01, PERIOD_S, PERIOD_S, PERIOD_S, 0.12]),
)
QUICK = GuardSettings(recovery_time_s=0.15, min_rate_share=0.1)


@settings(max_examples=300)
@given(st.lists(EVENTS, min_size=20, max_size=60))
def test_permission_needs_the_whole_recovery_time_without_gap_or_trouble(
    events: list[tuple[str, float]],
) -> None:
    """Checked against what was played, not against what the guard remembers."""
    film = Film(QUICK)
    good_s: list[float] = []  # when good frames were whole
    bad_s = [film.steady_s]
    last_ns = 0
    for name, wait_s in events:
        film.wait(wait_s)
        if wait_s > QUICK.max_pause_s:
            bad_s.append(film.steady_s)
        answered = len(film.answers)
        if name == "frame" and film.stamp_ns > last_ns:
            film.frame()
            last_ns = film.stamp_ns
            good_s.append(film.steady_s)
        elif name == "beat":
            film.report(frame_stamp_ns=last_ns or None)
        elif name == "repeat":
            film.tip(stamp_ns=last_ns)
        elif name in BAD_EVENTS:
            BAD_EVENTS[name][0](film)
            last_ns = film.stamp_ns
            bad_s.append(film.steady_s)
            answered = len(film.answers) - 1  # what led up to it was still good
            assert not film.permitted
        film.tick()
        for answer in film.answers[answered:]:
            if answer.permitted:
                assert_earned(film.steady_s, good_s, max(bad_s))


def assert_earned(now_s: float, good_s: list[float], last_bad_s: float) -> None:
    """Good frames without a gap in all the recovery time before now_s, and nothing bad."""
    tolerance_s = 1e-9
    since_s = now_s - QUICK.recovery_time_s
    assert last_bad_s <= since_s + tolerance_s
    first = max(index for index, at in enumerate(good_s) if at <= since_s + tolerance_s)
    chain = [*good_s[first:], now_s]
    gaps = [after - before for before, after in pairwise(chain)]
    assert max(gaps) <= QUICK.frame_timeout_s + tolerance_s


@given(st.sampled_from(sorted(BAD_EVENTS)), st.integers(0, 60))
@settings(max_examples=60)
def test_any_bad_event_at_any_time_withdraws(name: str, ticks: int) -> None:
    film = Film(QUICK)
    film.play(1.0 + ticks * TICK_S)
    assert film.permitted
    film.wait(0.001)
    assert not BAD_EVENTS[name][0](film).permitted
    assert not film.tick().permitted


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["tick", "tip", "report", "mask", "metres"]),
            st.floats(allow_nan=True, allow_infinity=True),
            st.integers(-(2**63), 2**63),
            st.integers(-(2**63), 2**63),
            st.floats(allow_nan=True, allow_infinity=True),
        ),
        max_size=30,
    )
)
def test_nonsense_is_never_permitted_and_never_an_exception(
    calls: list[tuple[str, float, int, int, float]],
) -> None:
    guard, twin = MotionGuard(SETTINGS, LABEL), MotionGuard(SETTINGS, LABEL)
    for name, steady_s, clock_ns, stamp_ns, value in calls:
        answers = [
            call_with(each, name, Now(steady_s, clock_ns), stamp_ns, value)
            for each in (guard, twin)
        ]
        assert not answers[0].permitted
        assert repr(answers[0]) == repr(answers[1])  # the same calls, the same answers


def call_with(guard: MotionGuard, name: str, now: Now, stamp_ns: int, value: float) -> Decision:
    if name == "tip":
        return guard.tip(Tip(stamp_ns, (value, value)), now)
    if name == "report":
        report = Report("TRACKING", "", stamp_ns, True, "TRACKED", value, value)
        return guard.report(report, now)
    if name == "mask":
        return guard.mask(stamp_ns, MASK, now)
    if name == "metres":
        return guard.metres(stamp_ns, (value,), now)
    return guard.tick(now)


# --- rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age_s", "reason"),
    [
        (0.0, None),
        (SETTINGS.max_age_s, None),
        (SETTINGS.max_age_s + 1e-6, Reason.TOO_OLD),
        (-SETTINGS.max_future_s, None),
        (-SETTINGS.max_future_s - 1e-6, Reason.FROM_FUTURE),
        (math.nan, Reason.TOO_OLD),
    ],
)
def test_age(age_s: float, reason: Reason | None) -> None:
    problem = check_age(age_s, SETTINGS)
    assert (None if problem is None else problem.reason) is reason


def test_rate_counts_the_last_second() -> None:
    arrivals = [index * 0.1 for index in range(10)]  # 0.0 to 0.9
    assert check_rate(arrivals, 0.9, SETTINGS) is None
    assert check_rate(arrivals, 1.0, SETTINGS) is None
    assert check_rate(arrivals, 1.001, SETTINGS).reason is Reason.SLOW
    assert check_rate(arrivals, -1.0, SETTINGS).reason is Reason.SLOW
    assert check_rate([math.nan] * 99, 1.0, SETTINGS).reason is Reason.SLOW


@pytest.mark.parametrize(
    ("moved_px", "seconds", "reason"),
    [
        ((0.0, 0.0), 1e-9, None),
        ((18.0, 24.0), 0.0375, None),  # 30 pixels at 800 pixels/s: both limits
        ((18.0, 24.0), 0.0374, Reason.SPEED),
        ((18.1, 24.0), 10.0, Reason.JUMP),
        ((1e308, 1e308), 10.0, Reason.JUMP),
    ],
)
def test_step(moved_px: tuple[float, float], seconds: float, reason: Reason | None) -> None:
    after = Tip(round(seconds * 1e9), moved_px)
    problem = check_step(Tip(0, (0.0, 0.0)), after, SETTINGS)
    assert (None if problem is None else problem.reason) is reason


def test_length_and_sigma_up_to_their_limits() -> None:
    assert check_length(None, 500.0, SETTINGS) is None
    assert check_length(500.0, 500.0 + SETTINGS.max_length_change_px, SETTINGS) is None
    assert check_length(None, math.nan, SETTINGS).reason is Reason.LENGTH
    assert check_sigma(SETTINGS.max_sigma_px, SETTINGS) is None
    assert check_sigma(0.0, SETTINGS) is None


def test_the_other_instrument_may_be_lost() -> None:
    film = tracking_film()
    for _ in range(60):
        film.tip()
        film.report(state="LOST", track="TRACKED")
        film.mask()
        film.wait(PERIOD_S)
    assert film.permitted
    assert not film.guard.withdrawals


def test_only_a_followed_instrument_will_do() -> None:
    good = Report("TRACKING", "", 1, True, "TRACKED")
    assert check_state(good) is None
    assert check_state(replace(good, track="BRIDGED")) is None
    assert check_state(replace(good, track="LOST")).reason is Reason.NOT_FOLLOWED
    assert check_state(replace(good, state="LOST")) is None
    assert check_state(replace(good, state="LOST", track="SEARCHING")).reason is Reason.LOST
    assert check_state(replace(good, state="STALE")).reason is Reason.STALE
    assert check_state(replace(good, state="tracking")).reason is Reason.UNREADABLE


@pytest.mark.parametrize(
    ("point", "distance"),
    [
        ((5.0, 5.0), 0.0),
        ((8.0, 9.0), 5.0),
        ((8.1, 9.0), math.inf),
        ((5.0, 0.0), 5.0),
        ((0.0, 5.0), 5.0),
        ((-1.0, 5.0), math.inf),
        ((-1e9, 1e9), math.inf),
        ((1e300, -1e300), math.inf),
    ],
)
def test_distance_to_one_pixel(point: tuple[float, float], distance: float) -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[5, 5] = LABEL
    assert mask_distance_px(labels, LABEL, point, 5.0) == pytest.approx(distance)
    assert mask_distance_px(labels, LABEL + 1, point, 5.0) == math.inf


@given(
    st.lists(st.tuples(st.integers(0, 19), st.integers(0, 29)), max_size=20),
    st.tuples(st.floats(-10, 40), st.floats(-10, 30)),
    st.floats(0.5, 20),
)
def test_distance_is_that_to_the_nearest_pixel(
    pixels: list[tuple[int, int]], point: tuple[float, float], reach_px: float
) -> None:
    labels = np.zeros((20, 30), np.uint8)
    for row, column in pixels:
        labels[row, column] = LABEL
    nearest = min((math.dist(point, (x, y)) for y, x in pixels), default=math.inf)
    found = mask_distance_px(labels, LABEL, point, reach_px)
    if not math.isclose(nearest, reach_px):
        assert found == pytest.approx(nearest if nearest < reach_px else math.inf)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0])
def test_no_limit_can_be_nonsense(value: float) -> None:
    for name, field_info in GuardSettings.model_fields.items():
        if field_info.annotation is float and (name, value) != ("max_future_s", 0.0):
            with pytest.raises(ValidationError):
                GuardSettings(**{name: value})


def test_a_step_of_the_clock_within_its_tolerance_is_none() -> None:
    film = tracking_film()
    shift(film, clock_s=MAX_CLOCK_STEP_S - 0.01)
    assert film.tick().permitted
