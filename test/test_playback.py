# SPDX-License-Identifier: Apache-2.0
"""What playback_node plays and when, without ROS."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedefm_core.errors import FrameError
from fedefm_core.frames import Frame, Window
from fedefm_ros.playback import (
    Disturbances,
    ReadAhead,
    open_playback,
    repeated,
    sent_pixels,
    timetable,
)


def slots(rate: float, count: int, **settings: float) -> list:
    return list(itertools.islice(timetable(rate, Disturbances(**settings)), count))


def test_timetable_without_disturbances_is_the_rate():
    assert [s.send_s for s in slots(50.0, 4)] == [0.0, 0.02, 0.04, 0.06]
    assert not any(s.dropped for s in slots(50.0, 100))


def test_timetable_drops_a_window_and_delays_all():
    played = slots(10.0, 6, drop_from=2, drop_count=3, delay_s=1.0)
    assert [s.index for s in played if s.dropped] == [2, 3, 4]
    assert all(s.send_s == pytest.approx(s.due_s + 1.0) for s in played)


@given(
    rate=st.floats(1.0, 200.0),
    seed=st.integers(0, 2**31 - 1),
    jitter=st.floats(0.0, 1.0),
    probability=st.floats(0.0, 1.0),
)
def test_timetable_is_repeatable_in_order_and_never_early(rate, seed, jitter, probability):
    settings = {"seed": seed, "jitter_s": jitter, "drop_probability": probability}
    played = slots(rate, 40, **settings)
    assert played == slots(rate, 40, **settings)
    sent = [s.send_s for s in played]
    assert sent == sorted(sent)
    assert all(s.send_s >= s.due_s for s in played)
    # Late by the jitter at most: a frame waits for an earlier one, which is due earlier.
    assert all(s.send_s <= s.due_s + jitter + 1e-9 for s in played)


def test_one_disturbance_does_not_shift_the_draws_of_another():
    jittered = slots(30.0, 50, seed=3, jitter_s=0.01)
    both = slots(30.0, 50, seed=3, jitter_s=0.01, drop_probability=0.5)
    assert [s.send_s for s in jittered] == [s.send_s for s in both]
    assert 0 < sum(s.dropped for s in both) < 50


@pytest.mark.parametrize("keep_at_most", [0, 2, 3, 100])
def test_repeated_gives_the_same_whether_items_are_kept_or_made_again(keep_at_most):
    played = repeated(lambda: iter("abc"), loop=True, limit=8, keep_at_most=keep_at_most)
    assert "".join(played) == "abcabcab"


def test_repeated_makes_kept_items_once_and_ends_without_loop():
    made = []

    def make() -> Iterator[int]:
        made.append("once more")
        return iter(range(3))

    assert len(list(repeated(make, loop=True, limit=9, keep_at_most=3))) == 9
    assert len(made) == 1
    assert list(repeated(make, loop=False)) == [0, 1, 2]
    assert list(repeated(lambda: [], loop=True)) == []


def test_read_ahead_keeps_order_and_makes_no_more_than_asked():
    made = []
    gate = threading.Event()

    def items() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            yield number
        gate.set()

    ahead = ReadAhead(items(), size=4)
    assert ahead.wait_filled(timeout_s=10.0)
    assert made == [0, 1, 2, 3]
    assert list(ahead) == list(range(10))
    assert gate.is_set()


def test_read_ahead_raises_an_error_after_the_items_before_it():
    def items() -> Iterator[int]:
        yield 1
        raise FrameError("frame 2 is damaged")

    ahead = iter(ReadAhead(items(), size=5))
    assert next(ahead) == 1
    with pytest.raises(FrameError, match="frame 2 is damaged"):
        next(ahead)


def test_closed_read_ahead_ends_even_when_the_source_never_does():
    ahead = ReadAhead(itertools.count(), size=2)
    ahead.wait_filled(timeout_s=10.0)
    ahead.close()
    assert list(ahead) == [0, 1]


def test_sixteen_bit_pixels_are_sent_as_they_are():
    pixels = np.array([[0, 1], [4095, 65535]], np.uint16)
    assert sent_pixels(Frame(pixels)).dtype == np.uint16
    assert (sent_pixels(Frame(pixels)) == pixels).all()


def test_what_a_message_cannot_say_is_applied_before_sending():
    pixels = np.array([[0, 1000, 2000]], np.uint16)
    windowed = sent_pixels(Frame(pixels, window=Window(center=1000.5, width=1001)))
    assert windowed.dtype == np.uint8
    assert windowed[0, 0] == 0
    assert windowed[0, 2] == 255
    grey = np.array([[10, 200]], np.uint8)
    assert (sent_pixels(Frame(grey)) == grey).all()
    assert (sent_pixels(Frame(grey, inverted=True)) == 255 - grey).all()
    assert sent_pixels(Frame(np.array([[-5, 5]], np.int16))).dtype == np.uint8


def test_simulator_repeats_itself_and_knows_the_truth():
    first, again = (list(open_playback("sim", 30.0, length=3, seed=5).frames()) for _ in range(2))
    assert [p.number for p in first] == [0, 1, 2]
    for one, two in zip(first, again, strict=True):
        assert (one.frame.pixels == two.frame.pixels).all()
        assert any(instrument.tip_px is not None for instrument in one.truth)


def test_a_folder_has_no_truth_and_the_rate_asked_for(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((8, 8), 7, np.uint8))
    source = open_playback(str(tmp_path), rate_hz=12.0)
    assert source.rate_hz == 12.0
    assert [(p.number, p.truth) for p in source.frames()] == [(0, None)]
    assert open_playback(str(tmp_path)).rate_hz == 30.0


@pytest.mark.parametrize("source", ["", "/nowhere/at/all.dcm"])
def test_a_source_that_does_not_exist_is_refused(source):
    with pytest.raises(FrameError):
        open_playback(source)
