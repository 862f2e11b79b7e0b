# SPDX-License-Identifier: Apache-2.0
"""The tracker's decisions, frame by frame, on tips whose path is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedefm_core.perception import (
    Instrument,
    Tracker,
    TrackerSettings,
    TrackingState,
    TrackPhase,
)

FRAME_NS = 33_333_333
SETTINGS = TrackerSettings(
    confirm_frames=2, switch_frames=4, bridge_time_s=0.15, min_confidence=0.4
)


def wire(
    x: float, y: float = 100.0, confidence: float = 0.9, kind: str = "guidewire"
) -> Instrument:
    """An instrument whose tip is at x, y, as precise as tips usually are."""
    tip = np.array([x, y])
    return Instrument(kind, np.array([[0.0, y], tip]), tip, 0.0, np.eye(2), confidence, float(x))


def run(
    tracker: Tracker, frames: Sequence[Sequence[Instrument]], first: int = 0
) -> list[dict[str, Instrument]]:
    """Feed frames at 30 Hz."""
    return [tracker.update(seen, (first + i) * FRAME_NS) for i, seen in enumerate(frames)]


def followed(speed: float = 2.0) -> Tracker:
    """A tracker that has followed a wire from x = 100 for ten frames."""
    tracker = Tracker(SETTINGS)
    run(tracker, [[wire(100 + speed * i)] for i in range(10)])
    assert tracker.state is TrackingState.TRACKING
    return tracker


def test_a_tip_is_vouched_for_once_confirmed_and_is_the_measured_one() -> None:
    tracker = Tracker(SETTINGS)
    assert tracker.state is TrackingState.LOST
    frames = [[wire(100.0 + i)] for i in range(3)]
    first, second, third = run(tracker, frames)
    assert first == {}
    assert second["guidewire"] is frames[1][0]
    assert third["guidewire"] is frames[2][0]
    assert tracker.state is TrackingState.TRACKING


def test_at_first_the_most_confident_is_picked_and_identity_is_held() -> None:
    tracker = Tracker(SETTINGS)
    frames = [[wire(100, confidence=0.6), wire(300, confidence=0.9)] for _ in range(2)]
    frames += [[wire(100, confidence=0.95), wire(301, confidence=0.5)] for _ in range(10)]
    for seen, tracked in list(zip(frames, run(tracker, frames), strict=True))[1:]:
        assert tracked["guidewire"] is seen[1]


def test_below_the_least_confidence_nothing_is_tracked() -> None:
    tracker = Tracker(SETTINGS)
    assert run(tracker, [[wire(100, confidence=0.39)]] * 10) == [{}] * 10
    assert tracker.phases["guidewire"] is TrackPhase.SEARCHING


def test_a_jump_is_rejected_unless_it_persists() -> None:
    tracker = followed()
    outlier, back = run(tracker, [[wire(300)], [wire(122)]], first=10)
    assert outlier == {}
    assert tracker.state is TrackingState.TRACKING
    assert back["guidewire"].tip_px[0] == 122
    tracked = run(tracker, [[wire(300 + i)] for i in range(4)], first=12)
    assert tracked[:3] == [{}] * 3
    assert tracked[3]["guidewire"].tip_px[0] == 303


def test_alternating_outliers_are_never_taken_over() -> None:
    tracker = followed()
    tracked = run(tracker, [[wire(300)], [wire(50)]] * 20, first=10)
    assert tracked == [{}] * 40
    assert tracker.phases["guidewire"] is TrackPhase.LOST


def test_a_short_dropout_is_bridged_with_growing_covariance_and_no_tip() -> None:
    tracker = followed()
    sizes = []
    for i in range(4):
        assert tracker.update([], (10 + i) * FRAME_NS) == {}
        assert tracker.phases["guidewire"] is TrackPhase.BRIDGED
        assert tracker.state is TrackingState.TRACKING
        track = tracker.tracks["guidewire"]
        assert track.predicted_px[0] == pytest.approx(120 + 2 * i, abs=2)
        sizes.append(float(np.trace(track.predicted_covariance_px)))
    assert sizes == sorted(sizes)
    assert sizes[-1] > 4 * sizes[0]
    (tracked,) = run(tracker, [[wire(128)]], first=14)
    assert tracked["guidewire"].tip_px[0] == 128


def test_a_long_dropout_is_lost_and_found_again_anywhere() -> None:
    tracker = followed()
    run(tracker, [[]] * 6, first=10)
    assert tracker.phases["guidewire"] is TrackPhase.LOST
    assert tracker.state is TrackingState.LOST
    assert "guidewire" not in tracker.tracks
    first, second = run(tracker, [[wire(400)], [wire(401)]], first=16)
    assert first == {}
    assert second["guidewire"].tip_px[0] == 401
    assert tracker.state is TrackingState.TRACKING


def test_equal_stamps_do_not_bridge_for_ever() -> None:
    tracker = followed()
    for _ in range(SETTINGS.bridge_frames + 1):
        tracker.update([], 9 * FRAME_NS)
    assert tracker.phases["guidewire"] is TrackPhase.LOST


def test_a_lost_catheter_is_told_until_reset() -> None:
    tracker = Tracker(SETTINGS)
    both = [[wire(100), wire(50, kind="catheter")]] * 3
    run(tracker, both)
    run(tracker, [[wire(100)]] * 20, first=3)
    assert tracker.phases == {
        "catheter": TrackPhase.LOST,
        "guidewire": TrackPhase.TRACKED,
    }
    assert tracker.state is TrackingState.LOST
    tracker.reset()
    run(tracker, [[wire(100)]] * 2, first=23)
    assert tracker.state is TrackingState.TRACKING
    assert tracker.resets == {"requested": 1}


def test_a_stamp_that_goes_backwards_resets() -> None:
    tracker = followed()
    assert tracker.update([wire(120)], 0) == {}
    assert tracker.resets == {"stamp went backwards": 1}
    assert tracker.phases["guidewire"] is TrackPhase.SEARCHING


def test_a_slow_stream_is_tracked_too() -> None:
    tracker = Tracker(SETTINGS)
    tracked = [tracker.update([wire(100 + 5 * i)], i * 500_000_000) for i in range(6)]
    assert all("guidewire" in one for one in tracked[1:])


tips = st.builds(
    wire,
    x=st.floats(-1e4, 1e4),
    y=st.floats(-1e4, 1e4),
    confidence=st.floats(0, 1),
    kind=st.sampled_from(["catheter", "guidewire"]),
)
streams = st.lists(st.tuples(st.integers(0, 2**62), st.lists(tips, max_size=4)), max_size=20)


@settings(max_examples=100, deadline=None)
@given(stream=streams)
def test_any_stream_is_answered_alike_each_time_with_tips_of_that_frame(stream: list) -> None:
    trackers = (Tracker(SETTINGS), Tracker(SETTINGS))
    for stamp, seen in stream:
        answers = [tracker.update(seen, stamp) for tracker in trackers]
        assert answers[0] == answers[1]
        for kind, instrument in answers[0].items():
            assert any(instrument is one for one in seen)
            assert instrument.kind == kind
            assert instrument.confidence >= SETTINGS.min_confidence
            assert trackers[0].phases[kind] is TrackPhase.TRACKED
        for track in trackers[0].tracks.values():
            assert np.isfinite(track.covariance).all()
