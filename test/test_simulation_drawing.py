# SPDX-License-Identifier: Apache-2.0
"""Rods, bands and outlines against closed forms: mass, centroid, profile, extent."""

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
    resample,
    smooth_noise,
    visible_stretches,
)
from fedefm_core.simulation.drawing import draw_band, draw_rod, outline

SIZE = 128
angles = st.floats(-np.pi, np.pi)
offsets = st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))


def segment(
    angle: float, offset: tuple[float, float], length: float = 80
) -> npt.NDArray[np.float64]:
    """A straight curve through the middle of the image, a pixel a step."""
    along = np.linspace(-length / 2, length / 2, int(length) + 1)
    middle = np.array([64.0, 64.0]) + offset
    return middle + np.outer(along, (np.cos(angle), np.sin(angle)))


def rod(curve: npt.NDArray[np.float64], width: float, strength: float = 1.0):
    """A new image of a rod through curve."""
    image = np.zeros((SIZE, SIZE), np.float32)
    points = resample(curve, 0.35)
    step = float(arc_length(points)[1])
    ones = np.ones(len(points))
    draw_rod(image, points, width * ones, strength * ones, step)
    return image


def distance_to_segment(a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(SIZE, SIZE) distance of each pixel's centre from the segment."""
    ys, xs = np.mgrid[0:SIZE, 0:SIZE]
    points = np.stack([xs, ys], axis=-1) - np.asarray(a)
    along = np.asarray(b) - np.asarray(a)
    t = np.clip(points @ along / (along @ along), 0, 1)
    return np.linalg.norm(points - t[..., None] * along, axis=-1)


@given(angles, offsets, st.floats(0.5, 14), st.floats(-2, 2))
@settings(max_examples=60, deadline=None)
def test_the_mass_of_a_rod_is_that_of_a_cylinder(angle, offset, width, strength):
    mass = rod(segment(angle, offset), width, strength).sum(dtype=float)
    assert mass / 80 == pytest.approx(strength * np.pi / 4 * width, rel=0.02, abs=1e-3)


@given(angles, offsets, st.floats(1, 8))
@settings(max_examples=40, deadline=None)
def test_the_centroid_is_where_the_rod_is_to_a_fraction_of_a_pixel(angle, offset, width):
    image = rod(segment(angle, offset), width)
    ys, xs = np.mgrid[0:SIZE, 0:SIZE]
    centroid = (image * xs).sum() / image.sum(), (image * ys).sum() / image.sum()
    assert centroid == pytest.approx(np.array([64.0, 64.0]) + offset, abs=0.1)


@given(angles, st.floats(4, 14))
@settings(max_examples=40, deadline=None)
def test_across_a_rod_the_profile_is_that_of_a_cylinder(angle, width):
    image = rod(segment(angle, (0, 0)), width)
    ys, xs = np.mgrid[0:SIZE, 0:SIZE] - 64
    along = xs * np.cos(angle) + ys * np.sin(angle)
    across = np.abs(ys * np.cos(angle) - xs * np.sin(angle)) / (width / 2)
    middle = (np.abs(along) < 20) & (across < 0.7)
    expected = np.sqrt(1 - across[middle] ** 2)
    np.testing.assert_allclose(image[middle], expected, atol=0.06)
    assert not image[across > 1 + 2 / width].any()


def test_where_a_rod_crosses_another_attenuation_adds_up():
    one, two = segment(0.3, (0, 0)), segment(1.4, (0, 0))
    both = rod(one, 5.0)
    points = resample(two, 0.35)
    ones = np.ones(len(points))
    draw_rod(both, points, 5 * ones, ones, float(arc_length(points)[1]))
    np.testing.assert_allclose(both, rod(one, 5.0) + rod(two, 5.0), atol=1e-6)
    assert both[64, 64] == pytest.approx(2.0, abs=0.1)


def test_moving_a_rod_by_whole_pixels_moves_the_image():
    images = [rod(segment(0.4, (0.3, -0.2), 60) + shift, 4.0) for shift in (0, 7)]
    np.testing.assert_allclose(images[0][:-7, :-7], images[1][7:, 7:], atol=1e-5)


def test_a_rod_changes_along_its_axis_as_it_is_told():
    curve = resample(segment(0.0, (0.0, 0.0)), 0.35)
    image = np.zeros((SIZE, SIZE), np.float32)
    widths, strengths = np.linspace(2, 10, len(curve)), np.linspace(1, 0.2, len(curve))
    draw_rod(image, curve, widths, strengths, float(arc_length(curve)[1]))
    for x in (44, 64, 84):
        share = (x - 24) / 80
        mass = np.pi / 4 * (2 + 8 * share) * (1 - 0.8 * share)
        assert image[:, x].sum() == pytest.approx(mass, rel=0.03)


@given(angles, offsets, st.floats(2, 12), st.floats(1.5, 12))
@settings(max_examples=40, deadline=None)
def test_a_band_is_a_short_cylinder_in_its_place(angle, offset, length, width):
    image = np.zeros((SIZE, SIZE), np.float32)
    center = np.array([64.0, 64.0]) + offset
    draw_band(image, center, angle, length, width, 0.7)
    ys, xs = np.mgrid[0:SIZE, 0:SIZE]
    total = image.sum(dtype=float)
    # Sixteen samples a pixel: a row of them more or less at the flat ends.
    assert total == pytest.approx(0.7 * np.pi / 4 * width * length, rel=0.2)
    assert ((image * xs).sum() / total, (image * ys).sum() / total) == pytest.approx(
        center, abs=0.2
    )
    assert image.max() <= 0.7 + 1e-6
    along = np.abs((xs - center[0]) * np.cos(angle) + (ys - center[1]) * np.sin(angle))
    assert not image[along > length / 2 + 0.75].any()


def test_what_is_outside_the_image_leaves_it_as_it_is():
    image = np.zeros((SIZE, SIZE), np.float32)
    away = segment(0.3, (0, 0)) + 500
    draw_rod(image, away, np.full(81, 8.0), np.ones(81), 1.0)
    draw_rod(image, np.empty((0, 2)), np.empty(0), np.empty(0), 1.0)
    draw_band(image, np.array([-50.0, 300.0]), 0.3, 8.0, 5.0, 1.0)
    assert not image.any()
    assert not outline(away, np.full(81, 8.0), image.shape).any()
    assert not outline(np.empty((0, 2)), np.empty(0), image.shape).any()


@given(angles, offsets, st.floats(1.5, 14))
@settings(max_examples=60, deadline=None)
def test_an_outline_is_the_capsule_around_its_points(angle, offset, width):
    curve = segment(angle, offset)
    mask = outline(curve, np.full(len(curve), width), (SIZE, SIZE))
    distance = distance_to_segment(curve[0], curve[-1])
    # A pixel between two points lies as far from both as the sagitta says.
    margin = width / 2 - np.sqrt(max(width**2 / 4 - 0.25, 0)) + 1e-3
    assert mask[distance < width / 2 - margin].all()
    assert not mask[distance > width / 2 + 1e-3].any()


@given(angles, offsets, st.floats(2, 14))
@settings(max_examples=30, deadline=None)
def test_an_outline_holds_the_pixels_that_are_half_covered(angle, offset, width):
    """Against sixteen by sixteen samples a pixel, along the straight part."""
    curve = segment(angle, offset)
    points = resample(curve, 0.25)
    mask = outline(points, np.full(len(points), width), (SIZE, SIZE))
    direction = np.array([np.cos(angle), np.sin(angle)])
    fine = (np.arange(SIZE * 16) + 0.5) / 16 - 0.5 - 64
    across = fine[:, None] * direction[0] - fine * direction[1]
    across -= offset[1] * direction[0] - offset[0] * direction[1]
    cover = (np.abs(across) <= width / 2).reshape(SIZE, 16, SIZE, 16).mean(axis=(1, 3))
    coarse = np.arange(SIZE) - 64.0
    along = np.abs(coarse[:, None] * direction[1] + coarse * direction[0])
    clear = (along < 30) & (np.abs(cover - 0.5) > 0.07)
    np.testing.assert_array_equal(mask[clear], cover[clear] > 0.5)


def test_resampled_points_are_evenly_spread_and_keep_the_ends():
    curve = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 7.0]])
    points = resample(curve, 0.75)
    np.testing.assert_array_equal(points[[0, -1]], curve[[0, -1]])
    steps = np.hypot(*np.diff(points, axis=0).T)
    assert len(points) == 15
    assert steps.max() <= 0.75
    np.testing.assert_allclose(np.delete(steps, 4), 10 / 14)  # one step goes round the corner


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
    halved = integrate_heading((0, 0), 0.0, np.full(629, 0.01), step=0.5)
    np.testing.assert_allclose(halved, circle / 2)


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
