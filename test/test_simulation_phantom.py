# SPDX-License-Identifier: Apache-2.0
"""Backgrounds of phantoms and of simulators: sound maps, and no vessel as thin as a catheter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from fedefm_core.simulation.fixtures import FIXTURES, add_canvas
from fedefm_core.simulation.phantom import phantom, vascular_model
from fedefm_core.simulation.rendering import rendering

Image = npt.NDArray[np.float32]
Painter = Callable[[np.random.Generator, int, float], Image]
PAINTERS = pytest.mark.parametrize("paint", [phantom, rendering])


@PAINTERS
@pytest.mark.parametrize("size", [64, 131, 512])
def test_maps_are_finite_line_integrals(paint: Painter, size: int) -> None:
    for seed in range(4 if size == 512 else 12):
        image = paint(np.random.default_rng(seed), size, size / 512)
        assert image.shape == (size, size)
        assert image.dtype == np.float32
        assert np.isfinite(image).all()
        assert image.min() >= 0
        assert 0.1 < float(np.median(image)) < 8


@PAINTERS
def test_same_seed_same_map(paint: Painter) -> None:
    first, second = (paint(np.random.default_rng(11), 128, 0.25) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@PAINTERS
def test_scenes_differ(paint: Painter) -> None:
    maps = [paint(np.random.default_rng(seed), 96, 0.1875) for seed in range(8)]
    for index, image in enumerate(maps):
        assert all(np.abs(image - other).max() > 0.02 for other in maps[:index])


def test_renderings_have_no_noise() -> None:
    """Grain from pixel to pixel is a detector's, not a renderer's."""
    grain = []
    for seed in range(20):
        image = rendering(np.random.default_rng(seed), 256, 0.5)
        grain.append(np.median(np.abs(np.diff(image, n=2, axis=1))))
    assert np.median(grain) < 1e-3


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_no_vessel_is_as_thin_as_a_catheter(scale: float) -> None:
    for seed in range(30):
        for tube in vascular_model(np.random.default_rng(seed), round(512 * scale), scale):
            assert 2 * tube.radii.min() >= 14 * scale


@pytest.mark.parametrize("name", FIXTURES)
def test_each_fixture_shows(name: str) -> None:
    fixture = FIXTURES[name]
    painted = []
    for seed in range(10):
        canvas = np.zeros((256, 256), np.uint8)
        fixture.paint(np.random.default_rng(seed), canvas, 0.5)
        painted.append(float((canvas > 0).mean()))
    assert np.median(painted) > 1e-4


def test_a_canvas_keeps_its_mass() -> None:
    image, canvas = np.zeros((64, 64), np.float32), np.zeros((64, 64), np.uint8)
    canvas[20:40, 30:50] = 255
    add_canvas(np.random.default_rng(0), image, canvas, 0.5)
    assert image.sum() == pytest.approx(0.5 * 400, rel=0.02)
    assert image[30, 40] == pytest.approx(0.5, rel=1e-3)
