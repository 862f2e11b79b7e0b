# SPDX-License-Identifier: Apache-2.0
"""Ribbons against closed forms: area, centroid, outline, joints."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedefm_core.simulation.curves import (
    arc_length,
    cut,
    heading_at_end,
    integrate_heading,
    smooth_noise,
    visible_stretches,
)
from fedefm_core.simulation.drawing import (
    SUPERSAMPLING,
    draw_parts,
    draw_profile,
    outline,
    shorten,
)

SIZE = 128
angles = st.floats(-np.pi, np.pi)
offsets = st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))


def segment(
    angle: float, offset: tuple[float, float], length: float = 80
) -> npt.NDArray[np.float64]:
    """A straight curve through the middle of the image, one pixel a step."""
    along = np.linspace(-length / 2, length / 2, int(length) + 1)
    middle = np.array([64.0, 64.0]) + offset
    return middle + np.outer(along, (np.cos(angle), np.sin(angle)))


def distance_to_segment(a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(SIZE, SIZE) distance of each pixel's centre from the segment."""
    ys, xs = np.mgrid[0:SIZE, 0:SIZE]
    points = np.stack([xs, ys], axis=-1) - np.asarray(a)
    along = np.asarray(b) - np.asarray(a)
    t = np.clip(points @ along / (along @ along), 0, 1)
    return np.linalg.norm(points - t[..., None] * along, axis=-1)


@given(angles, offsets, st.floats(0.5, 14))
@settings(max_examples=60, deadline=None)
def test_the_area_of_a_ribbon_is_its_width_times_its_length(angle, offset, width):
    image = np.zeros((SIZE, SIZE), np.float32)
    draw_profile(image, segment(angle, offset), [(width, 1.0)])
    caps = np.pi * width**2 / 4
    assert (image.sum(dtype=float) - caps) / 80 == pytest.approx(width, rel=0.01, abs=0.1)


@given(angles, offsets, st.floats(1, 8))
@settings(max_examples=40, deadline=None)
def test_the_centroid_is_where_the_ribbon_is_to_a_fraction_of_a_pixel(angle, offset, width):
    image = np.zeros((SIZE, SIZE), np.float32)
    draw_profile(image, segment(angle, offset), [(width, 1.0)])
    ys, xs = np.mgrid[0:SIZE, 0:SIZE]
    centroid = (image * xs).sum() / image.sum(), (image * ys).sum() / image.sum()
    sample = 1 / SUPERSAMPLING
    assert centroid == pytest.approx(np.array([64.0, 64.0]) + offset, abs=sample)


def test_moving_a_ribbon_by_whole_pixels_moves_the_image_exactly():
    images = []
    for shift in (0, 7):
        image = np.zeros((SIZE, SIZE), np.float32)
        draw_profile(image, segment(0.4, (0.3, -0.2), 60) + shift, [(4.0, 1.0), (2.0, 0.4)])
        images.append(image)
    np.testing.assert_array_equal(images[0][:-7, :-7], images[1][7:, 7:])


def test_a_profile_is_a_staircase_of_its_layers():
    image = np.ones((SIZE, SIZE), np.float32)
    draw_profile(image, segment(0.0, (0.0, 0.0)), [(12.0, 0.25), (6.0, 1.0), (2.0, 0.5)])
    column = image[:, 64] - 1  # the axis lies on row 64
    assert column[64 - 4] == pytest.approx(0.25, abs=0.01)
    assert column[64 - 2] == pytest.approx(1.0, abs=0.01)
    assert column[64] == pytest.approx(0.5, abs=0.01)
    assert column[64 - 8] == 0


def test_parts_that_meet_do_not_add_up():
    layers = [(8.0, 0.5), (4.0, 1.0)]
    curve = segment(0.3, (0.1, 0.2))
    whole, joined = np.zeros((2, SIZE, SIZE), np.float32)
    draw_parts(whole, [(curve, layers)])
    draw_parts(joined, [(cut(curve, 0, 50), layers), (cut(curve, 50, 80), layers)])
    np.testing.assert_allclose(joined, whole, atol=0.13)  # a sample more or less at the edge
    assert joined.max() == pytest.approx(1.0, abs=0.01)


def test_a_ribbon_outside_the_image_leaves_it_as_it_is():
    image = np.zeros((SIZE, SIZE), np.float32)
    draw_profile(image, segment(0.3, (0, 0)) + 500, [(8.0, 1.0)])
    draw_profile(image, np.empty((0, 2)), [(8.0, 1.0)])
    assert not image.any()
    assert not outline(segment(0.3, (0, 0)) + 500, 8.0, image.shape).any()


@given(angles, offsets, st.floats(1.5, 14))
@settings(max_examples=60, deadline=None)
def test_an_outline_is_the_capsule_that_ends_at_the_tip(angle, offset, width):
    curve = segment(angle, offset)
    mask = outline(curve, width, (SIZE, SIZE))
    direction = np.array([np.cos(angle), np.sin(angle)])
    distance = distance_to_segment(curve[0], curve[-1] - direction * width / 2)
    margin = 0.45  # half a pixel less what the corners of a pixel are worth
    assert mask[distance < width / 2 - margin].all()
    assert not mask[distance > width / 2 + margin].any()


def test_shortening_keeps_a_point_of_what_is_too_short():
    curve = segment(0.2, (0, 0), 10)
    assert arc_length(shorten(curve, 3))[-1] == pytest.approx(7)
    assert arc_length(shorten(curve, 3, begin=True))[-1] == pytest.approx(4)
    np.testing.assert_array_equal(shorten(curve, 20), curve[-1:])
    assert len(shorten(np.empty((0, 2)), 1)) == 0


def test_a_cut_has_exact_ends():
    curve = segment(0.0, (0, 0), 10)
    part = cut(curve, 2.25, 7.5)
    np.testing.assert_allclose(part[[0, -1], 0], curve[0, 0] + np.array([2.25, 7.5]))
    assert len(cut(curve, 5, 5)) == 0
    np.testing.assert_allclose(cut(curve, -3, 99), curve)


def test_constant_curvature_draws_a_circle():
    circle = integrate_heading((0, 0), 0.0, np.full(629, 0.01))
    radius = np.linalg.norm(circle - (0, 100), axis=1)
    assert radius == pytest.approx(100, abs=0.6)
    assert heading_at_end(circle[:158], reach=1) == pytest.approx(np.pi / 2, abs=0.02)


def test_smooth_noise_has_the_deviation_and_correlation_that_it_says():
    rng = np.random.default_rng(1)
    noise = np.stack([smooth_noise(rng, 20_000, correlation=20) for _ in range(10)])
    assert noise.mean() == pytest.approx(0, abs=0.05)
    assert noise.std() == pytest.approx(1.2, abs=0.05)
    assert np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1] > 0.99
    assert abs(np.corrcoef(noise[:, :-80].ravel(), noise[:, 80:].ravel())[0, 1]) < 0.05


def test_stretches_are_what_lies_on_seen_pixels():
    seen = np.zeros((20, 40), dtype=bool)
    seen[:, 5:10] = seen[:, 20:30] = True
    line = np.stack([np.arange(0.0, 28.0), np.full(28, 10.0)], axis=1)
    (first, first_ends), (second, second_ends) = visible_stretches(line, seen)
    assert (first[0, 0], first[-1, 0], first_ends) == (5, 9, False)
    assert (second[0, 0], second[-1, 0], second_ends) == (20, 27, True)
    assert visible_stretches(line - (0, 11), seen) == []  # above the image
    assert visible_stretches(np.empty((0, 2)), seen) == []
