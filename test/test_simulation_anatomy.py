# SPDX-License-Identifier: Apache-2.0
"""Backgrounds: closed forms of their parts, and what must hold for whatever is drawn."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedefm_core.simulation import foreign_bodies, human
from fedefm_core.simulation.anatomy import background
from fedefm_core.simulation.bones import add_bone, add_long_bones, add_ribs, shell
from fedefm_core.simulation.outlines import (
    add_canvas,
    arc,
    blank,
    paint_area,
    paint_lines,
    placed,
    soften,
    spline,
)
from fedefm_core.simulation.pelvis import add_pelvis
from fedefm_core.simulation.skull import add_skull
from fedefm_core.simulation.soft_tissue import add_bowel_gas, add_stomach, tissue
from fedefm_core.simulation.spine import add_spine
from fedefm_core.simulation.textures import grain, octaves, patches, rotated_grid, warped

Image = npt.NDArray[np.float32]
KINDS = ("human", "animal", "phantom", "simulation")


@pytest.mark.parametrize("kind", KINDS)
def test_backgrounds_are_attenuation_of_the_usual_range(kind: str) -> None:
    for seed in range(5):
        image = background(np.random.default_rng(seed), kind, 160, 160 / 512)
        assert image.shape == (160, 160)
        assert image.dtype == np.float32
        assert np.isfinite(image).all()
        assert float(np.percentile(image, 1)) > -3
        assert float(np.median(image)) < 6


@pytest.mark.parametrize("kind", KINDS)
def test_a_background_depends_on_its_generator_alone(kind: str) -> None:
    images = [background(np.random.default_rng(seed), kind, 128, 0.25) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


@pytest.mark.parametrize("region", human._REGIONS, ids=lambda region: region.__name__)
@pytest.mark.parametrize("unit", [0.15, 0.5, 2.0])
def test_every_region_can_be_drawn_at_any_magnification(
    region: Callable[..., None], unit: float
) -> None:
    image = np.full((128, 128), 2.0, np.float32)
    region(np.random.default_rng(0), image, unit)
    assert np.isfinite(image).all()


def test_the_chances_of_regions_add_up_to_one() -> None:
    assert len(human._CHANCES) == len(human._REGIONS)
    assert sum(human._CHANCES) == pytest.approx(1.0)


@pytest.mark.parametrize("painter", [p for p, _ in foreign_bodies._CHANCES])
def test_a_foreign_body_adds_attenuation_and_changes_little_of_the_view(
    painter: Callable[..., None],
) -> None:
    added = np.zeros((256, 256), np.float32)
    for seed in range(6):
        painter(np.random.default_rng(seed), added, 0.5)
    assert added.max() > 0.03
    assert (added < 0.01).mean() > 0.02
    assert added.min() > -2.5  # holes in an implant never outweigh it by more


def test_no_foreign_bodies_at_frequency_zero() -> None:
    image = np.zeros((64, 64), np.float32)
    foreign_bodies.add_foreign_bodies(np.random.default_rng(0), image, 1.0, frequency=0.0)
    assert not image.any()


def test_a_shell_is_the_chord_of_a_hollow_tube() -> None:
    area = blank(201)
    area[:, 61:140] = 255  # depth counts from the centre of the nearest pixel outside
    profile = shell(area, radius=40.0, cortex=8.0, marrow=1.0)[100]
    offset = np.arange(201) - 100.0
    outer = np.sqrt(np.maximum(40.0**2 - offset**2, 0))
    inner = np.sqrt(np.maximum(32.0**2 - offset**2, 0))
    np.testing.assert_allclose(profile, (outer - inner) / 40.0, atol=0.12)
    assert abs(abs(int(np.argmax(profile)) - 100) - 32) <= 1  # where the marrow begins
    assert profile[100] == pytest.approx(0.2, abs=0.01)


def test_a_solid_shell_is_densest_in_the_middle() -> None:
    area = blank(101)
    area[:, 30:71] = 255
    assert int(np.argmax(shell(area, 20.0, 0.1, 0.0)[50])) == 50


def test_bone_edges_are_lines_darker_than_the_bone() -> None:
    image = np.zeros((256, 256), np.float32)
    outline = placed([(-1, -1), (1, -1), (1, 1), (-1, 1)], (128, 128), 0, (400, 40))
    add_bone(np.random.default_rng(1), image, [outline], 40.0, 1.0, 1.0, 0.5)
    column = image[:, 40:216].mean(axis=1)
    assert column[88:98].max() > 1.2 * column[120:136].mean()
    assert column[:80].max() == 0


def test_bones_outside_the_view_leave_it_alone() -> None:
    image = np.zeros((64, 64), np.float32)
    outline = placed(arc(0, 6, 12), (500, 500), 0, 20)
    add_bone(np.random.default_rng(1), image, [outline], 20.0, 1.0, 1.0, 0.5)
    assert not image.any()


def test_vertebrae_repeat_with_their_period() -> None:
    spectrum = np.zeros(257)
    for seed in range(6):
        image = np.zeros((512, 512), np.float32)
        add_spine(np.random.default_rng(seed), image, 1.0, 64.0, 0.0, 1.0)
        rows = image.mean(axis=1, dtype=float)
        power = np.abs(np.fft.rfft((rows - rows.mean()) * np.hanning(512)))
        spectrum += power / np.linalg.norm(power[4:40])
    strongest = int(np.argmax(spectrum[4:40])) + 4
    assert abs(strongest / 8 - round(strongest / 8)) <= 0.13  # 8 vertebrae in view, or harmonics


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, image: add_spine(rng, image, 1.0, 60.0, 0.0, 0.8),
        lambda rng, image: add_ribs(rng, image, 1.0, 60.0, 18.0, 0.8),
        lambda rng, image: add_long_bones(rng, image, 1.0, 0.8),
        lambda rng, image: add_pelvis(rng, image, 1.0, 160.0, 0.8),
        lambda rng, image: add_skull(rng, image, 1.0, 150.0, 0.8),
    ],
    ids=["spine", "ribs", "long bones", "pelvis", "skull"],
)
def test_bones_of_any_kind_have_crisp_edges(draw: Callable[..., None]) -> None:
    """The sharpest decile of gradients, which tells bone lines from clouds of tissue."""
    steepest = []
    for seed in range(5):
        image = np.zeros((300, 300), np.float32)
        draw(np.random.default_rng(seed), image)
        steepest.append(np.percentile(np.hypot(*np.gradient(image)), 99))
    clouds = tissue(np.random.default_rng(0), 300, 2.0, 0.1)
    assert np.median(steepest) > 1.5 * np.percentile(np.hypot(*np.gradient(clouds)), 99)


@pytest.mark.parametrize("draw", [add_bowel_gas, add_stomach])
def test_gas_lets_rays_pass(draw: Callable[..., None]) -> None:
    image = np.zeros((256, 256), np.float32)
    for seed in range(4):
        draw(np.random.default_rng(seed), image, 1.0, 0.5)
    assert image.min() < -0.3
    assert image.max() < 0.1


def test_the_fluid_in_a_stomach_is_level() -> None:
    image = np.zeros((256, 256), np.float32)
    add_stomach(np.random.default_rng(5), image, 1.0, 1.0)
    bottoms = [np.flatnonzero(column < -0.5).max() for column in image.T if column.min() < -0.6]
    assert bottoms
    assert np.median(np.abs(np.array(bottoms) - np.median(bottoms))) <= 1


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=3, max_size=8))
@settings(max_examples=40, deadline=None)
def test_a_spline_passes_through_its_landmarks(points: list[tuple[float, float]]) -> None:
    opened, closed = spline(points, samples=4), spline(points, closed=True, samples=4)
    np.testing.assert_allclose(opened[::4], points, atol=1e-9)
    np.testing.assert_allclose(closed[::4], points, atol=1e-9)


def test_placing_stretches_then_turns_then_moves() -> None:
    moved = placed([(1, 0), (0, 1)], (10, 20), np.pi / 2, (3, 2))
    np.testing.assert_allclose(moved, [(10, 23), (8, 20)], atol=1e-9)


def test_a_canvas_counts_255_as_its_value_and_keeps_its_sum_when_blurred() -> None:
    canvas = blank(100)
    paint_area(canvas, np.array([(40, 40), (60, 40), (60, 60), (40, 60)], float))
    sharp, soft = (np.zeros((100, 100), np.float32) for _ in range(2))
    add_canvas(sharp, canvas, 0.5)
    add_canvas(soft, canvas, 0.5, blur=2.0)
    assert sharp.max() == pytest.approx(0.5)
    assert soft.sum() == pytest.approx(sharp.sum(), rel=0.01)


def test_thinner_lines_are_paler() -> None:
    peaks = []
    for width in (0.5, 1.0, 2.0):
        canvas = blank(40)
        paint_lines(canvas, [np.array([(5.0, 20.0), (35.0, 20.0)])], width)
        peaks.append(int(canvas.max()))
    assert peaks[0] < peaks[1] < peaks[2]


@pytest.mark.parametrize("sigma", [4.0, 9.0])
def test_the_fast_wide_blur_is_a_gaussian(sigma: float) -> None:
    image = np.zeros((200, 200), np.float32)
    image[80:120, 90:130] = 1
    exact = cv2.GaussianBlur(image, (0, 0), sigma)
    assert np.abs(soften(image, sigma) - exact).max() < 0.05


def test_noise_has_unit_deviation_and_the_grain_asked_for() -> None:
    field = grain(np.random.default_rng(0), (400, 400), (4.0, 20.0))
    assert field.std() == pytest.approx(1.0, abs=0.3)
    assert np.abs(np.diff(field, axis=1)).mean() > 2 * np.abs(np.diff(field, axis=0)).mean()


def test_patches_and_clouds_stay_in_their_range() -> None:
    factor = patches(np.random.default_rng(0), (120, 80), 20.0)
    assert factor.shape == (120, 80)
    assert 0.14 < factor.min() < factor.max() <= 1.001
    assert octaves(np.random.default_rng(0), 90, (3, 6)).shape == (90, 90)


def test_warping_by_nothing_changes_nothing() -> None:
    image = np.random.default_rng(0).uniform(0, 1, (96, 96)).astype(np.float32)
    np.testing.assert_allclose(
        warped(np.random.default_rng(1), image, 0.0, 30.0), image, atol=0.05
    )


def test_the_rotated_grid_measures_across_and_along() -> None:
    across, along = rotated_grid(50, np.pi / 2, (10, 20))
    assert across[20, 10] == along[20, 10] == 0
    assert across[30, 10] == pytest.approx(10, abs=1e-4)
    assert along[20, 15] == pytest.approx(-5, abs=1e-4)
