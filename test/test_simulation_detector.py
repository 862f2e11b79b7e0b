# SPDX-License-Identifier: Apache-2.0
"""The image chain against closed forms: Beer-Lambert, Poisson variance, scatter, display."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedefm_core.simulation import console
from fedefm_core.simulation.console import add_console, exposed_field
from fedefm_core.simulation.detector import (
    Detector,
    display,
    expose,
    motion_kernel,
    quantise,
    random_detector,
)
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


def test_exposure_control_holds_the_dose_at_the_detector():
    detector = replace(IDEAL, photons=800, exposure_control=1.0)
    for attenuation in (0.0, 1.5, 3.0):
        signal = expose(uniform(attenuation), detector, np.random.default_rng(3))
        assert signal.var() / signal.mean() ** 2 == pytest.approx(1 / 800, rel=0.05)


@pytest.mark.parametrize("weight", [0.3, 0.6, 0.8])
def test_averaging_divides_the_variance_as_a_recursive_filter_does(weight):
    detector = replace(IDEAL, photons=1000, averaging=weight)
    signal = expose(uniform(0.0), detector, np.random.default_rng(6))
    frames = np.arange(200)
    weights = (1 - weight) * weight**frames  # of a frame that many frames ago
    assert signal.var() == pytest.approx((weights**2).sum() / 1000, rel=0.03)


def test_a_coarse_native_frame_is_enlarged_and_a_fine_one_averaged():
    plain = replace(IDEAL, photons=1000)
    fine = expose(uniform(0.0), replace(plain, native_size=2 * SIZE), np.random.default_rng(5))
    assert fine.var() == pytest.approx(1 / 4000, rel=0.03)
    coarse = expose(uniform(0.0), replace(plain, native_size=SIZE // 4), np.random.default_rng(5))
    assert coarse.shape == (SIZE, SIZE)
    steps = np.diff(coarse, axis=1).std() / coarse.std()
    assert steps < 0.5  # white noise has 1.41
    step = uniform(0.0)
    step[:, SIZE // 2 :] = 1.0
    edge = expose(step, replace(IDEAL, native_size=SIZE // 4), np.random.default_rng(0))[100]
    middle = (1 + np.exp(-1)) / 2
    at = np.interp(-middle, -edge[110:146].astype(float), np.arange(110, 146))
    assert at == pytest.approx(SIZE / 2 - 0.5, abs=0.1)  # enlarging does not move anything


@given(length=st.floats(0.5, 12.0), angle=st.floats(0.0, float(np.pi)))
def test_motion_blur_smears_along_its_direction_and_moves_nothing(length, angle):
    kernel = motion_kernel(length, angle).astype(float)
    half = len(kernel) // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    assert kernel.sum() == pytest.approx(1.0, abs=1e-5)
    assert (kernel * x).sum() == pytest.approx(0.0, abs=1e-5)
    assert (kernel * y).sum() == pytest.approx(0.0, abs=1e-5)
    along = x * np.cos(angle) + y * np.sin(angle)
    assert (kernel * along**2).sum() == pytest.approx(length**2 / 12, abs=0.35 + 0.05 * length)


def test_a_ghost_is_a_weaker_copy_at_its_offset():
    attenuation = uniform(0.0)
    attenuation[128, 128] = 50.0  # opaque
    detector = replace(IDEAL, ghost=0.25, ghost_px=(7.0, -4.0))
    signal = expose(attenuation, detector, np.random.default_rng(0))
    assert signal[128, 128] == pytest.approx(0.25, abs=1e-3)
    assert signal[124, 135] == pytest.approx(0.75, abs=1e-3)


def test_the_heel_effect_and_vignetting_are_log_slopes():
    heel = expose(
        uniform(0.0), replace(IDEAL, heel=0.5, heel_angle_rad=np.pi / 2), np.random.default_rng(0)
    )
    assert np.log(heel[-1, 9] / heel[0, 9]) == pytest.approx(0.5, abs=1e-3)
    assert heel[50, 0] == pytest.approx(heel[50, -1], rel=1e-4)
    dark = expose(uniform(0.0), replace(IDEAL, vignetting=0.4), np.random.default_rng(0))
    assert np.log(dark[0, 0] / dark[128, 128]) == pytest.approx(-0.4, abs=1e-3)


def test_defects_stay_where_they_are():
    detector = replace(IDEAL, photons=1e6, defects=3, defect_seed=5)
    one, other = (expose(uniform(0.0), detector, np.random.default_rng(s)) for s in (1, 2))
    dead = np.abs(one - 1) > 0.02
    assert 0 < dead.mean() < 0.02
    np.testing.assert_array_equal(dead, np.abs(other - 1) > 0.02)


def test_row_noise_correlates_rows_only():
    detector = replace(IDEAL, photons=1000, line_noise=1.0)
    signal = expose(uniform(0.0), detector, np.random.default_rng(8))
    along_rows = np.corrcoef(signal[:, :128].ravel(), signal[:, 128:].ravel())[0, 1]
    along_columns = np.corrcoef(signal[:128].ravel(), signal[128:].ravel())[0, 1]
    assert along_rows == pytest.approx(0.5, abs=0.08)
    assert abs(along_columns) < 0.05


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


def test_edge_enhancement_overshoots_on_both_sides_of_an_edge():
    step = np.full((SIZE, SIZE), 0.3, np.float32)
    step[:, SIZE // 2 :] = 0.6
    plain = display(step, IDEAL)[0]
    narrow, wide = (
        display(step, replace(IDEAL, sharpening=0.5, sharpening_px=radius))[0]
        for radius in (1.0, 8.0)
    )
    for enhanced in (narrow, wide):
        assert enhanced[127] < plain[127] - 0.05
        assert enhanced[128] > plain[128] + 0.05
    assert narrow[120] == pytest.approx(plain[120], abs=1e-3)
    assert wide[120] < plain[120] - 0.01


def test_flattening_takes_coarse_brightness_and_leaves_detail():
    y = np.linspace(-1, 1, SIZE, dtype=np.float32)[:, None]
    fine = np.where(np.arange(SIZE) % 8 < 4, 0.9, 1.0).astype(np.float32)
    signal = np.exp(y) * fine / 4
    wide_window = replace(IDEAL, contrast=0.1)
    plain, flat = (
        display(signal, replace(wide_window, flattening=f, flattening_scale=0.15))
        for f in (0.0, 0.8)
    )

    def coarse(picture):
        return picture[200:216].mean() - picture[40:56].mean()

    def detail(picture):
        return picture[128, 4::8].mean() - picture[128, 0::8].mean()

    assert detail(flat) > 1.5 * detail(plain)  # the window follows
    assert coarse(flat) / detail(flat) < 0.4 * coarse(plain) / detail(plain)


def test_the_console_overshoots_along_a_border_that_it_takes_for_dark():
    signal = np.full((SIZE, SIZE), 0.4, np.float32)
    field = np.ones((SIZE, SIZE), np.float32)
    field[:20] = 0
    enhancing = replace(IDEAL, sharpening=0.5, sharpening_px=6.0)
    level = display(signal, enhancing, field)
    np.testing.assert_allclose(level, 0.5, atol=1e-4)
    glowing = display(signal, replace(enhancing, surround=0.3), field)
    assert glowing[22, 128] > 0.55
    assert glowing[128, 128] == pytest.approx(0.5, abs=1e-3)


def test_the_ends_of_the_display_curve():
    ramp = np.tile(np.geomspace(1e-3, 1.0, SIZE, dtype=np.float32), (SIZE, 1))
    washed = display(ramp, replace(IDEAL, contrast=1.0, black=0.2, white=0.7, s_curve=1.0))
    assert washed.min() == pytest.approx(0.2, abs=1e-3)
    assert washed.max() == pytest.approx(0.7, abs=1e-3)
    assert (np.diff(washed[0]) >= -1e-6).all()


def test_the_toe_keeps_the_order_of_what_would_be_black():
    ramp = np.tile(np.geomspace(1e-3, 1.0, SIZE, dtype=np.float32), (SIZE, 1))
    plain, soft = (display(ramp, replace(IDEAL, contrast=0.4, toe=t))[0] for t in (0.0, 0.2))
    assert (plain[:10] == 0).all()
    assert (np.diff(soft[:10]) > 0).all()
    above = plain > 0.2
    np.testing.assert_allclose(soft[above], plain[above], atol=1e-6)
    assert soft[np.argmin(abs(plain - 0.1))] == pytest.approx(0.2 * np.exp(-0.5), abs=0.01)


def test_the_median_filter_removes_single_pixels():
    signal = np.full((SIZE, SIZE), 0.4, np.float32)
    signal[50, 50] = 0.9
    assert display(signal, IDEAL)[50, 50] > 0.6
    assert display(signal, replace(IDEAL, denoising=3))[50, 50] == pytest.approx(0.5, abs=1e-3)


def test_windows_are_not_opened_on_noise():
    """Next to no contrast: the noise must not fill the grey scale."""
    detector = replace(IDEAL, photons=400)
    signal = expose(uniform(0.0), detector, np.random.default_rng(0))
    assert 0.03 < display(signal, detector).std() < 0.12


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
        assert detector.native_size >= 224
        assert detector.averaging < 1
        assert detector.black < detector.white
    assert kind != "simulation" or detector.scatter_fraction == 0


def test_random_image_chains_give_pictures():
    attenuation = uniform(2.0)
    attenuation[100:110] += 0.5
    stray = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        detector = random_detector(rng, KINDS[seed % len(KINDS)])
        field = exposed_field(rng, KINDS[seed % len(KINDS)], SIZE)
        picture = display(expose(attenuation, detector, rng), detector, field)
        assert picture.dtype == np.float32
        assert 0 <= picture.min() <= picture.max() <= 1
        stray.append(picture.std())
    assert np.median(stray) > 0.02


def test_the_exposed_field_is_most_of_the_image():
    fields = [exposed_field(np.random.default_rng(seed), "human", SIZE) for seed in range(100)]
    collimated = [field for field in fields if field is not None]
    assert 50 < len(collimated) < 95
    for field in collimated:
        assert field.shape == (SIZE, SIZE)
        assert field.dtype == np.float32
        assert 0 <= field.min() <= field.max() <= 1 + 1e-6
        assert field.mean() > 0.4
        assert field[SIZE // 2, SIZE // 2] > 0.99
    assert np.median([field.mean() for field in collimated]) > 0.8
    assert exposed_field(np.random.default_rng(0), "simulation", SIZE) is None


def test_an_exposed_field_means_the_same_at_every_size():
    for seed in range(20):
        small, large = (
            exposed_field(np.random.default_rng(seed), "human", size) for size in (128, 512)
        )
        assert (small is None) == (large is None)
        if small is not None:
            assert small.mean() == pytest.approx(large.mean(), abs=0.02)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_console_writes_on_every_depth_and_keeps_type_and_shape(dtype):
    ramp = np.linspace(20, 200, SIZE).astype(dtype)
    changed = 0
    for seed in range(120):
        pixels = np.tile(ramp, (SIZE, 1))
        pixels[0, 0] = 4000 if dtype == np.uint16 else 255
        done = add_console(pixels.copy(), "human", np.random.default_rng(seed))
        again = add_console(pixels.copy(), "human", np.random.default_rng(seed))
        np.testing.assert_array_equal(done, again)
        assert done.dtype == dtype
        assert done.shape == pixels.shape
        assert done.max() <= pixels.max()
        changed += bool((done != pixels).any())
    assert 30 < changed < 115


def test_the_console_leaves_most_of_a_picture_as_it_is():
    """Graphics cover little, and compression changes grey levels by little."""
    ramp = np.tile(np.linspace(60, 180, SIZE).astype(np.uint8), (SIZE, 1))
    changes = [
        np.abs(add_console(ramp.copy(), "human", np.random.default_rng(seed)).astype(int) - ramp)
        for seed in range(120)
    ]
    assert max(np.median(change) for change in changes) <= 6
    assert np.mean([(change > 30).mean() for change in changes]) < 0.02


def test_every_graphic_draws_lines_that_cover_little():
    for painter, _ in console._PAINTERS:
        for seed in range(30):
            stencil = np.zeros((SIZE, SIZE), np.uint8)
            painter(np.random.default_rng(seed), stencil)
            assert 0 < (stencil > 0).mean() < 0.1, painter.__name__


def test_banding_keeps_every_nth_level_and_both_ends():
    levels = np.arange(256, dtype=np.uint8)[None]
    banded = console._banded(levels, 5)
    assert len(np.unique(banded)) == 52
    assert banded[0, 0] == 0
    assert banded[0, -1] == 255
    assert (np.diff(banded.astype(int)) >= 0).all()


def test_compression_artefacts_depend_on_quality():
    noisy = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE)).astype(np.uint8)

    def error(quality):
        return np.abs(console._jpeg(noisy, quality).astype(int) - noisy).mean()

    assert error(20) > 3 * error(95)
