# SPDX-License-Identifier: Apache-2.0
"""Statistics of images against closed forms, and the comparison of two sets of images."""

from __future__ import annotations

import json
from itertools import product
from math import erf

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedefm_core.errors import FrameError
from fedefm_core.simulation.comparison import (
    LEAST_IMAGES,
    area_under_curve,
    compare,
    cross_validated_auc,
    kolmogorov_smirnov,
    largest_gaps,
)
from fedefm_core.simulation.comparison_plots import draw_comparison
from fedefm_core.simulation.statistics import (
    FREQUENCY_BINS,
    edge_widths,
    exposed_part,
    features,
    flat_patches,
    local_noise,
    measure,
    noise_power,
    ridge_depth,
)

SIDE = 512
EVERYWHERE = np.ones((SIDE, SIDE), dtype=bool)


def white_noise(sigma, seed=0, mean=128.0):
    rng = np.random.default_rng(seed)
    return rng.normal(mean, sigma, (SIDE, SIDE)).astype(np.float32)


def grey8(image):
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("sigma", [2.0, 10.0])
def test_white_noise_has_its_variance_at_every_frequency(sigma):
    patches = white_noise(sigma).reshape(16, 32, 16, 32).swapaxes(1, 2).reshape(-1, 32, 32)
    power = noise_power(patches.astype(np.float64) - 128)
    assert power.shape == (FREQUENCY_BINS,)
    assert power == pytest.approx(sigma**2, rel=0.2)
    assert power.mean() == pytest.approx(sigma**2, rel=0.03)


def test_blurred_noise_has_the_power_of_the_blur():
    blur, sigma = 0.8, 20.0
    blurred = cv2.GaussianBlur(white_noise(sigma), (0, 0), blur)
    patches = blurred.reshape(16, 32, 16, 32).swapaxes(1, 2).reshape(-1, 32, 32) - 128
    frequency = (np.arange(FREQUENCY_BINS) + 0.5) / (2 * FREQUENCY_BINS)
    expected = sigma**2 * np.exp(-((2 * np.pi * frequency * blur) ** 2))
    assert noise_power(patches)[1:11] == pytest.approx(expected[1:11], rel=0.25)


def test_noise_is_measured_beside_structure():
    image = white_noise(6.0)
    image[:, 300:400] += 60 * np.sin(np.arange(100) / 3)
    image[100:110] -= 70
    image += np.linspace(-20, 20, SIDE, dtype=np.float32)  # a slope is no noise either
    assert measure(grey8(image)).noise == pytest.approx(6.0, rel=0.1)


def test_flat_patches_have_neither_mean_nor_slope():
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    patches = flat_patches(20 + 0.2 * x - 0.1 * y, EVERYWHERE)
    assert len(patches) == round(0.2 * 256)
    np.testing.assert_allclose(patches, 0, atol=1e-3)


@pytest.mark.parametrize(("sigma", "turned"), [*product([0.7, 1.5, 3.0], [False, True])])
def test_the_width_of_a_blurred_step_is_the_sigma_of_its_blur(sigma, turned):
    step = np.full((SIDE, SIDE), 60, np.float32)
    step[:, 200:] = 160
    blurred = cv2.GaussianBlur(step, (0, 0), sigma)
    if turned:
        turn = cv2.getRotationMatrix2D((256, 256), 33.0, 1.0)
        blurred = cv2.warpAffine(blurred, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
    inner = EVERYWHERE.copy()
    inner[:120], inner[-120:], inner[:, :120], inner[:, -120:] = False, False, False, False
    widths = edge_widths(blurred, inner)
    assert len(widths) >= 10
    assert np.median(widths) == pytest.approx(sigma, rel=0.08, abs=0.08)


def test_an_image_without_edges_has_no_widths():
    assert len(edge_widths(np.full((SIDE, SIDE), 90, np.float32), EVERYWHERE)) == 0


@pytest.mark.parametrize(("width", "depth"), [*product([1.0, 2.0, 4.0], [-20.0, 40.0])])
def test_a_dark_line_gives_its_contrast_to_noise_at_its_own_scale(width, depth):
    x = np.arange(SIDE, dtype=np.float32)
    line = 128 - depth * np.exp(-((x - 256) ** 2) / (2 * width**2))
    image = np.tile(line, (SIDE, 1)) + white_noise(4.0, mean=0.0)
    crest = (ridge_depth(image, width) / local_noise(image))[50:-50, 256].mean()
    if depth > 0:
        assert crest == pytest.approx(depth / 4, rel=0.12)
    else:  # a bright line is no dark one
        assert crest < 0.35


@given(st.floats(1.0, 20.0), st.floats(-0.2, 0.2), st.integers(0, 100))
@settings(max_examples=10, deadline=None)
def test_local_noise_does_not_see_slopes(sigma, slope, seed):
    image = white_noise(sigma, seed) + slope * np.arange(SIDE, dtype=np.float32)
    noise = local_noise(image)[20:-20, 20:-20]
    assert noise.mean() == pytest.approx(sigma, rel=0.02)
    assert noise.std() < 0.12 * sigma


def test_black_borders_are_not_part_of_the_image():
    image = np.full((SIDE, SIDE), 110, np.float32)
    image[:, :90] = 1
    image[-40:] = 0
    image[200:230, 300:320] = 0  # a dark object is
    inside = exposed_part(image)
    assert not inside[:, :90].any()
    assert not inside[-40:].any()
    assert inside[215, 310]
    assert inside[40:400, 120:450].all()


def test_grey_levels_are_those_of_the_exposed_part():
    image = np.full((SIDE, SIDE), 100, np.uint8)
    image[:, 256:] = 200
    image[:60] = 0
    statistics = measure(image)
    assert statistics.histogram.sum() == pytest.approx(1)
    assert statistics.histogram[100 // 4] == pytest.approx(0.5, abs=0.02)
    assert statistics.histogram[200 // 4] == pytest.approx(0.5, abs=0.02)
    assert statistics.grey_percentiles[[0, -1]] == pytest.approx([100, 200])
    assert statistics.noise == pytest.approx(0, abs=1e-4)


@given(
    arrays(np.uint8, st.tuples(st.integers(60, 90), st.integers(60, 300))),
)
@settings(max_examples=15, deadline=None)
def test_any_image_has_finite_features(image):
    numbers = [v for group in features(measure(image)).values() for v in group.values()]
    assert np.isfinite(numbers).all()


@pytest.mark.parametrize("level", [0, 90, 255])
def test_an_even_image_has_finite_features(level):
    numbers = features(measure(np.full((300, 400), level, np.uint8)))
    assert np.isfinite([v for group in numbers.values() for v in group.values()]).all()


def test_an_image_that_is_a_strip_is_refused():
    with pytest.raises(FrameError, match="400 x 20 pixels"):
        measure(np.zeros((20, 400), np.uint8))


def test_the_area_under_the_curve():
    assert area_under_curve(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 1
    assert area_under_curve(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 0
    assert area_under_curve(np.array([1.0, 1.0]), np.array([1.0])) == 0.5
    assert area_under_curve(np.array([1.0, 3.0]), np.array([2.0, 0.0])) == 0.75


def test_the_kolmogorov_smirnov_distance():
    assert kolmogorov_smirnov(np.arange(10.0), np.arange(10.0)) == 0
    assert kolmogorov_smirnov(np.arange(10.0), np.arange(10.0) + 100) == 1
    assert kolmogorov_smirnov(np.arange(10.0), np.arange(10.0) + 3) == pytest.approx(0.3)


@pytest.mark.parametrize("distance", [0.0, 1.0, 3.0])
def test_the_classifier_reaches_what_gaussians_allow(distance):
    """Two Gaussians d apart, and numbers that say nothing: the best area is Phi(d / sqrt 2)."""
    rng = np.random.default_rng(1)
    one, other = rng.normal(0, 1, (2, 300, 6))
    one[:, 0] += distance
    one[:, 1] *= 1e-3  # scales do not matter
    other[:, 1] *= 1e-3
    best = 0.5 * (1 + erf(distance / 2))
    assert cross_validated_auc(one, other) == pytest.approx(best, abs=0.05)
    assert cross_validated_auc(one, other) == cross_validated_auc(one, other)


def test_a_classifier_of_constants_knows_nothing():
    assert cross_validated_auc(np.ones((20, 3)), np.ones((25, 3))) == 0.5


@pytest.fixture(scope="module")
def sets():
    """Three sets: two of one kind, and one that is brighter and less noisy."""

    def images(first_seed, sigma, mean):
        return [
            measure(grey8(white_noise(sigma, seed, mean + 5 * (seed % 3))))
            for seed in range(first_seed, first_seed + LEAST_IMAGES + 2)
        ]

    return images(0, 8.0, 100.0), images(50, 8.0, 100.0), images(100, 4.0, 150.0)


def test_sets_of_one_kind_are_not_told_apart(sets):
    report = compare(sets[0], sets[1])
    assert report["images"] == {"simulated": LEAST_IMAGES + 2, "real": LEAST_IMAGES + 2}
    assert set(report["auc"]) == {"grey", "noise", "gradient", "edge", "ridge", "all"}
    assert report["auc"]["grey"] < 0.85
    assert report["features"]["grey"]["p50"]["ks"] < 0.3


def test_what_differs_is_named(sets):
    report = compare(sets[0], sets[2])
    assert report["auc"]["all"] == 1
    assert report["auc"]["grey"] == 1
    assert report["auc"]["noise"] == 1
    noise = report["features"]["noise"]["log_sigma"]
    assert noise["simulated"][2] - noise["real"][2] == pytest.approx(np.log(8.1 / 4.1), abs=0.02)
    assert noise["ks"] == 1
    assert report["features"]["grey"]["p50"]["shift"] < -5
    gaps = largest_gaps(report, 5)
    assert [gap["ks"] for _, gap in gaps] == [1] * 5
    json.dumps(report, allow_nan=False)


def test_a_set_that_is_too_small_is_refused(sets):
    with pytest.raises(FrameError, match=r"10 images .*got 3 real"):
        compare(sets[0], sets[1][:3])


def test_plots_are_drawn(sets, tmp_path):
    named = {"simulated": sets[0], "real": sets[2]}
    draw_comparison(named, compare(sets[0], sets[2]), tmp_path / "plots.png")
    page = cv2.imread(str(tmp_path / "plots.png"))
    assert page.shape[1] > 2000
    assert (page < 128).any(axis=2).mean() > 0.01
