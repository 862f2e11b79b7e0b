# SPDX-License-Identifier: Apache-2.0
"""The image chain against closed forms: Beer-Lambert, Poisson variance, scatter, display."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedefm_core.simulation.console import add_console, exposed_field
from fedefm_core.simulation.detector import Detector, display, expose, quantise, random_detector
from fedefm_core.simulation.truth import KINDS

SIZE = 256
IDEAL = Detector(
    photons=1e12,
    scatter_fraction=0.0,
    glare_fraction=0.0,
    blur_px=0.0,
    noise_blur_px=0.0,
    electronic_noise=0.0,
    gamma=1.0,
    sharpening=0.0,
    brightness=0.5,
    contrast=0.2,
)


def uniform(attenuation):
    return np.full((SIZE, SIZE), attenuation, np.float32)


@pytest.mark.parametrize("attenuation", [0.0, 0.5, 2.0])
def test_an_ideal_detector_sees_beer_lambert(attenuation):
    signal = expose(uniform(attenuation), IDEAL, np.random.default_rng(0))
    assert signal == pytest.approx(np.exp(-attenuation), rel=1e-4)


@pytest.mark.parametrize("photons", [100, 1000, 10_000])
@pytest.mark.parametrize("attenuation", [0.0, 1.5])
def test_the_relative_variance_is_one_over_the_photons_that_arrive(photons, attenuation):
    detector = replace(IDEAL, photons=photons)
    signal = expose(uniform(attenuation), detector, np.random.default_rng(3))
    arrived = photons * np.exp(-attenuation)
    assert signal.var() / signal.mean() ** 2 == pytest.approx(1 / arrived, rel=0.03)


def test_electronic_noise_adds_its_variance():
    detector = replace(IDEAL, photons=1000, electronic_noise=50)
    signal = expose(uniform(0.0), detector, np.random.default_rng(4))
    assert signal.var() * 1000**2 == pytest.approx(1000 + 50**2, rel=0.03)


def test_shaping_the_noise_keeps_its_variance_and_correlates_neighbours():
    plain = replace(IDEAL, photons=1000)
    white = expose(uniform(0.0), plain, np.random.default_rng(5))
    shaped = expose(uniform(0.0), replace(plain, noise_blur_px=0.9), np.random.default_rng(5))
    assert shaped.var() == pytest.approx(white.var(), rel=0.03)

    def neighbours(image):
        return np.corrcoef(image[:, :-1].ravel(), image[:, 1:].ravel())[0, 1]

    assert abs(neighbours(white)) < 0.02
    assert neighbours(shaped) > 0.5


@pytest.mark.parametrize("scatter", [0.5, 1.0, 2.0])
def test_scatter_lowers_contrast_by_one_over_one_plus_its_ratio_to_primary(scatter):
    attenuation = uniform(1.0)
    attenuation[125:131, 125:131] += 0.3  # small: it hardly changes the scatter around it
    detector = replace(IDEAL, scatter_fraction=scatter)
    signal = expose(attenuation, detector, np.random.default_rng(0))
    contrast = 1 - signal[128, 128] / signal[20, 20]
    assert contrast == pytest.approx((1 - np.exp(-0.3)) / (1 + scatter), rel=0.05)


def test_blur_and_scatter_keep_a_uniform_image_uniform():
    detector = replace(IDEAL, blur_px=1.0, scatter_fraction=0.5, glare_fraction=0.1)
    signal = expose(uniform(1.0), detector, np.random.default_rng(0))
    assert signal == pytest.approx(np.exp(-1) * 1.6, rel=1e-4)


def test_the_display_puts_the_median_at_its_brightness_and_keeps_the_order():
    ramp = np.tile(np.linspace(0.05, 0.9, SIZE, dtype=np.float32), (SIZE, 1))
    picture = display(ramp, IDEAL)
    assert np.median(picture) == pytest.approx(IDEAL.brightness, abs=0.01)
    assert (np.diff(picture[0]) >= 0).all()
    assert picture.min() >= 0
    assert picture.max() <= 1
    darker = display(ramp, replace(IDEAL, gamma=2.0))
    np.testing.assert_allclose(darker, picture**2, atol=1e-5)


def test_the_display_does_not_depend_on_the_dose():
    ramp = np.tile(np.linspace(0.05, 0.9, SIZE, dtype=np.float32), (SIZE, 1))
    np.testing.assert_allclose(display(ramp * 7, IDEAL), display(ramp, IDEAL), atol=1e-5)


def test_the_display_measures_the_exposed_field_alone():
    ramp = np.tile(np.linspace(0.05, 0.9, SIZE, dtype=np.float32), (SIZE, 1))
    field = np.ones_like(ramp)
    field[:64] = 0
    changed = ramp.copy()
    changed[:64] = 1e-4
    np.testing.assert_array_equal(
        display(changed, IDEAL, field)[64:], display(ramp, IDEAL, field)[64:]
    )


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (12, np.uint16), (16, np.uint16)])
def test_quantising_uses_the_whole_range(bits, dtype):
    levels = quantise(np.array([[0.0, 0.5, 1.0]], np.float32), bits)
    assert levels.dtype == dtype
    assert levels[0, 0] == 0
    assert abs(int(levels[0, 1]) - 2 ** (bits - 1)) <= 1
    assert levels[0, 2] == 2**bits - 1


@pytest.mark.parametrize("kind", KINDS)
def test_random_detectors_are_physical(kind):
    for seed in range(50):
        detector = random_detector(np.random.default_rng(seed), kind)
        assert detector.photons > 0
        assert 0 <= detector.scatter_fraction <= 2
        assert 0 < detector.brightness < 1
    assert kind != "simulation" or detector.scatter_fraction == 0


def test_the_exposed_field_is_most_of_the_image():
    fields = [exposed_field(np.random.default_rng(seed), "human", SIZE) for seed in range(60)]
    collimated = [field for field in fields if field is not None]
    assert 10 < len(collimated) < 40
    for field in collimated:
        assert field.shape == (SIZE, SIZE)
        assert 0 <= field.min() <= field.max() <= 1 + 1e-6
        assert field.mean() > 0.45
    assert exposed_field(np.random.default_rng(0), "simulation", SIZE) is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_console_writes_on_every_depth_and_keeps_type_and_shape(dtype):
    changed = 0
    for seed in range(60):
        pixels = np.full((SIZE, SIZE), 100, dtype)
        pixels[0, 0] = 4000 if dtype == np.uint16 else 255
        done = add_console(pixels.copy(), "human", np.random.default_rng(seed))
        assert done.dtype == dtype
        assert done.shape == pixels.shape
        changed += bool((done != pixels).any())
    assert 0 < changed < 60
