# SPDX-License-Identifier: Apache-2.0
"""The overlay shows what was perceived and leaves the wire visible."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from perception_scenes import SIZE, Wire, label_map, perceive, segment

from fedefm_core.perception import GUIDEWIRE, Perception, TrackingState, draw_overlay
from fedefm_core.perception.overlay import COLORS, STATE_COLORS

WIRE = Wire(GUIDEWIRE, segment((-20, 200), (300, 260)))


@pytest.fixture(scope="module")
def seen() -> Perception:
    (instrument,) = perceive([WIRE])
    return Perception(
        0,
        label_map([WIRE]),
        (instrument,),
        {"guidewire": instrument},
        TrackingState.TRACKING,
    )


def near(image: np.ndarray, color: tuple[int, int, int]) -> int:
    """Number of pixels of nearly that color."""
    return int((np.abs(image.astype(int) - color).max(axis=-1) < 60).sum())


def test_it_is_drawn_beside_the_wire_and_the_wire_shows_through(seen: Perception) -> None:
    grey = np.full((SIZE, SIZE), 150, np.uint8)
    grey[seen.label_map > 0] = 40
    overlay = draw_overlay(grey, seen)
    assert overlay.shape == (SIZE, SIZE, 3)
    assert near(overlay, COLORS["guidewire"]) > 200
    column = overlay[200:270, 150].max(axis=-1)  # across the wire: darkest on the wire itself
    dark = 200 + np.flatnonzero(column < 130)
    assert set(dark) <= set(np.flatnonzero(seen.label_map[:, 150]))
    assert len(dark) >= 2
    assert (overlay[400:, 400:] == 150).all()


def test_a_tip_is_marked_strongly_only_when_vouched_for(seen: Perception) -> None:
    grey = np.full((SIZE, SIZE), 150, np.uint8)
    around = np.s_[230:290, 290:340]
    vouched = near(draw_overlay(grey, seen)[around], COLORS["guidewire"])
    reported = near(draw_overlay(grey, replace(seen, tracked={}))[around], COLORS["guidewire"])
    assert vouched > 1.5 * reported


@pytest.mark.parametrize("state", TrackingState)
def test_the_state_is_written(seen: Perception, state: TrackingState) -> None:
    overlay = draw_overlay(np.zeros((SIZE, SIZE), np.uint8), replace(seen, state=state))
    assert near(overlay[:20, :120], STATE_COLORS[state]) > 10


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (7, 5)])
def test_tiny_images_are_drawn_on_too(size: tuple[int, int]) -> None:
    perception = Perception(0, np.full(size, GUIDEWIRE, np.uint8), ())
    assert draw_overlay(np.zeros(size, np.uint8), perception).shape == (*size, 3)


def test_the_input_is_left_as_it_was(seen: Perception) -> None:
    grey = np.full((SIZE, SIZE), 150, np.uint8)
    labels = seen.label_map.copy()
    draw_overlay(grey, seen)
    assert (grey == 150).all()
    np.testing.assert_array_equal(seen.label_map, labels)
