# SPDX-License-Identifier: Apache-2.0
"""An insertion: coherent, stamped, repeatable, and its tip in the view from first to last."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedefm_core.errors import SimulationError
from fedefm_core.simulation import KINDS, SimulationSettings, simulate_sequence
from fedefm_core.simulation.instruments import truth_of
from fedefm_core.simulation.sequence import (
    Motion,
    _moved,
    insertion_frame,
    random_insertion,
)

SMALL = SimulationSettings(size=256)


@pytest.fixture(scope="module", params=KINDS)
def frames(request):
    return list(simulate_sequence(4, 60, SMALL, request.param, frame_rate_hz=15.0))


def wire_tips(frame):
    return [t.tip_px for t in frame.instruments if t.kind == "guidewire" and t.tip_px is not None]


def track(frames, start):
    """The tip nearest to the one before, from frame to frame."""
    points = [start]
    for frame in frames[1:]:
        points.append(min(wire_tips(frame), key=lambda tip: np.hypot(*(tip - points[-1]))))
    return points


def test_frames_are_stamped_and_numbered_at_the_rate(frames):
    assert [frame.frame.stamp_ns for frame in frames] == [round(i * 1e9 / 15) for i in range(60)]
    assert [frame.frame.index for frame in frames] == list(range(60))
    assert len({frame.kind for frame in frames}) == 1


def test_the_tip_is_in_the_view_all_the_time_and_moves_coherently(frames):
    tracks = [track(frames, start) for start in wire_tips(frames[0])]
    longest = [max(np.hypot(*(b - a)) for a, b in pairwise(points)) for points in tracks]
    steady = tracks[int(np.argmin(longest))]  # other wires may leave the view
    assert min(longest) < 256 * 2.0 * 0.45 / 0.35 / 59  # the longest path at its fastest
    assert np.hypot(*np.ptp(steady, axis=0)) > 10


def test_the_wire_advances_rests_retracts_and_advances(frames):
    lengths = [
        sum(len(t.centerline_px) for t in frame.instruments if t.kind == "guidewire")
        for frame in frames
    ]
    assert lengths[0] < lengths[20]
    assert lengths[22] == pytest.approx(lengths[26], abs=8)  # the body still moves
    assert lengths[37] < lengths[26]
    assert lengths[-1] > max(lengths) - 8


def test_every_frame_shows_what_its_truth_says(frames):
    for frame in frames:
        for truth in frame.instruments:
            columns, rows = np.rint(truth.centerline_px[2:-2]).astype(int).T
            assert (frame.label_map[rows, columns] > 0).mean() > 0.98 or len(rows) < 20


def test_noise_is_new_in_every_frame_and_the_picture_is_steady(frames):
    one, two = (frame.frame.pixels.astype(float) for frame in frames[22:24])  # the wire rests
    assert (one != two).any()
    assert np.abs(one.mean() - two.mean()) < 4
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.4


def test_any_frame_can_be_drawn_alone():
    insertion = random_insertion(9, 40, SMALL)
    for index, frame in enumerate(simulate_sequence(9, 40, SMALL)):
        if index % 13 == 0:
            alone = insertion_frame(insertion, index)
            np.testing.assert_array_equal(alone.frame.pixels, frame.frame.pixels)
            np.testing.assert_array_equal(alone.label_map, frame.label_map)
            assert alone.frame.stamp_ns == frame.frame.stamp_ns


def test_seeds_differ():
    first, second = (next(iter(simulate_sequence(seed, 5, SMALL))) for seed in (1, 2))
    assert (first.frame.pixels != second.frame.pixels).any()


@given(st.integers(0, 2**31 - 1), st.sampled_from(KINDS), st.sampled_from([128, 256]))
@settings(max_examples=25, deadline=None)
def test_every_insertion_begins_and_ends_with_a_visible_tip(seed, kind, size):
    insertion = random_insertion(seed, 30, SimulationSettings(size=size), kind)
    for index in (0, 29):
        frame = insertion_frame(insertion, index)
        assert wire_tips(frame)
        assert (frame.label_map == 2).any()
    seen = insertion.scene.seen
    assert any(truth_of(design, seen) for design in insertion.designs)


def test_on_an_excursion_the_wire_leaves_the_view_and_comes_back():
    away = SimulationSettings(size=256, excursion_fraction=1.0)
    insertion = random_insertion(3, 40, away, "phantom")
    moving = max(insertion.designs, key=lambda d: (d.kind == "guidewire", d.end - d.hidden_until))
    frames = [insertion_frame(insertion, index) for index in (10, 20, 39)]
    lengths = [
        max((len(t.centerline_px) for t in f.instruments if t.width_px == moving.width), default=0)
        for f in frames
    ]
    assert lengths[1] < 0.2 * lengths[0]
    assert lengths[2] > lengths[0]


def test_a_bolus_fills_the_vessels_and_washes_out():
    motion = Motion(0.3, (0.0, 0.0), 1.0, (0.0, 0.0), (0.0, 0.0), 10.0, bolus=(1.0, 0.5))
    assert motion.filling(0.9) == 0.0
    assert motion.filling(1.5) == pytest.approx(1.0)
    assert motion.filling(1.2) < 1.0
    assert motion.filling(6.0) < 0.01


def test_breathing_moves_all_alike_and_the_heart_what_is_near_it():
    motion = Motion(0.25, (1.0, 4.0), 1.0, (3.0, 0.0), (100.0, 100.0), 20.0, bolus=(0.0, 1.0))
    points = np.array([[100.0, 100.0], [400.0, 400.0]])
    inhaled = motion.displacement(points, 1.0)  # a quarter of a breath, one whole beat
    np.testing.assert_allclose(inhaled, [[4.0, 4.0], [1.0, 4.0]], atol=1e-9)
    assert motion.reach == pytest.approx(np.hypot(1, 4) + 3)


def test_the_anatomy_moves_by_the_displacement():
    image = np.zeros((64, 64), np.float32)
    image[30, 20] = 1.0
    motion = Motion(0.25, (5.0, 3.0), 1.0, (0.0, 0.0), (0.0, 0.0), 1.0, bolus=(0.0, 1.0))
    row, column = np.unravel_index(int(_moved(image, motion, 1.0, 0.0).argmax()), image.shape)
    assert (row, column) == (33, 25)


def test_the_anatomy_moves_with_the_instruments_beside_the_heart_too():
    """A ramp shows by how much each of its pixels has moved."""
    size = 256
    motion = Motion(0.25, (0.0, 0.0), 1.0, (6.0, 4.0), (40.0, 200.0), 45.0, bolus=(0.0, 1.0))
    ys, xs = np.mgrid[0:size, 0:size].astype(np.float32)
    shift = motion.displacement(np.stack([xs, ys], axis=-1), 1.0)
    assert shift.max() > 5.9
    inside = np.s_[8:-8, 8:-8]
    np.testing.assert_allclose(
        (xs - _moved(xs, motion, 1.0, 0.0))[inside], shift[..., 0][inside], atol=0.05
    )
    np.testing.assert_allclose(
        (ys - _moved(ys, motion, 1.0, 0.0))[inside], shift[..., 1][inside], atol=0.05
    )


def test_an_unknown_kind_is_refused():
    with pytest.raises(SimulationError, match="'kind' must be one of"):
        list(simulate_sequence(0, 3, SMALL, "mouse"))


def test_a_sequence_of_one_frame_shows_the_beginning():
    (frame,) = simulate_sequence(3, 1, SMALL)
    assert frame.frame.stamp_ns == 0
