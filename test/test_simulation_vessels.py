# SPDX-License-Identifier: Apache-2.0
"""Vessels against closed-form shadows of tubes, and for what tells them from instruments."""

from __future__ import annotations

import numpy as np
import pytest

from fedefm_core.simulation.tubes import Tube, lumen, rounded_path
from fedefm_core.simulation.vessels import BEDS, grow, random_vessels, vessel_tree


def straight_tube(x: float, radius: float, size: int = 128) -> Tube:
    path = rounded_path([(x, -30.0), (x, size + 30.0)], 1.0)
    return Tube(path, np.full(len(path), radius))


@pytest.mark.parametrize("x", [64.0, 61.3])
@pytest.mark.parametrize("radius", [12.0, 20.5])
def test_the_chord_is_that_of_a_cylinder(x: float, radius: float) -> None:
    chord = lumen([straight_tube(x, radius)], 128).chord()[64]
    columns = np.arange(128)
    expected = 2 * np.sqrt(np.maximum(radius**2 - (columns - x) ** 2, 0))
    well_inside = np.abs(columns - x) < 0.8 * radius
    np.testing.assert_allclose(chord[well_inside], expected[well_inside], rtol=0.08)
    assert np.all(chord[np.abs(columns - x) > radius + 1.5] == 0)
    assert chord.sum() == pytest.approx(np.pi * radius**2, rel=0.06)


def test_a_hollow_tube_is_darkest_where_the_ray_grazes_its_hollow() -> None:
    space = lumen([straight_tube(64.0, 20.0)], 128)
    wall = (space.chord() - space.chord(4.0))[64]
    assert wall[64] == pytest.approx(8.0, abs=0.5)
    assert abs(int(np.argmax(wall[:64])) - (64 - 16)) <= 1
    assert wall.max() == pytest.approx(2 * np.sqrt(20.0**2 - 16.0**2), rel=0.12)


def test_walls_open_where_a_branch_leaves() -> None:
    side = rounded_path([(64.0, 64.0), (160.0, 64.0)], 1.0)
    trunk = straight_tube(64.0, 20.0)
    space = lumen([trunk, Tube(side, np.full(len(side), 12.0))], 128)
    alone = lumen([trunk], 128)
    mouth = (slice(60, 69), slice(78, 86))
    assert (alone.depth[mouth] <= 2).any()
    assert (space.depth[mouth] > 4).all()


@pytest.mark.parametrize(("x", "radius", "seen"), [(-200.0, 12.0, 0.0), (64.0, 400.0, 800.0)])
def test_tubes_that_miss_or_fill_the_image(x: float, radius: float, seen: float) -> None:
    """There is no edge to be at a distance from."""
    path = np.array([(x, 0.0), (x, 64.0), (x, 128.0)])
    space = lumen([Tube(path, np.full(3, radius))], 128)
    assert np.isfinite(space.depth).all()
    assert np.isfinite(space.chord(3.0)).all()
    assert space.chord()[64, 64] <= seen
    assert (space.depth[64, 64] > 0) == (seen > 0)


def test_rounded_path_keeps_its_ends() -> None:
    path = rounded_path([(0.0, 0.0), (50.0, 0.0), (50.0, 40.0)], 6.0)
    np.testing.assert_allclose(path[[0, -1]], [(0, 0), (50, 40)])
    assert np.hypot(*(path - [50.0, 0.0]).T).min() > 2


@pytest.mark.parametrize("bed", BEDS)
def test_vessels_taper_and_branches_are_thinner_than_their_trunks(bed: str) -> None:
    ratios = []
    for seed in range(6):
        vessels = grow(np.random.default_rng(seed), BEDS[bed], 256, 0.5)
        trunk = vessels[0]
        ratios += [float(v.widths[-5:].mean() / v.widths[:5].mean()) for v in vessels]
        for vessel in vessels:
            steps = np.hypot(*np.diff(vessel.path, axis=0).T)
            np.testing.assert_allclose(steps, 1.0, rtol=1e-6)
            if vessel.travelled[0] > 0:
                assert vessel.widths[0] < trunk.widths.max()
    assert np.median(ratios) < 0.9


@pytest.mark.parametrize("bed", BEDS)
@pytest.mark.parametrize("strength", [0.6, -0.3])
def test_strength_sets_the_sign_and_bounds_the_attenuation(bed: str, strength: float) -> None:
    image = vessel_tree(np.random.default_rng(3), 256, 0.5, strength, 1.0, bed)
    assert image.shape == (256, 256)
    assert image.dtype == np.float32
    assert np.all(image * np.sign(strength) >= 0)
    deepest = float(np.abs(image).max())
    assert 0.1 * abs(strength) < deepest < 5 * abs(strength)


def test_filling_reaches_only_a_part_of_the_tree() -> None:
    full, part = (
        sum(
            float(vessel_tree(np.random.default_rng(s), 256, 0.5, 1.0, filling, "coronary").sum())
            for s in range(6)
        )
        for filling in (1.0, 0.2)
    )
    assert part < 0.75 * full


def test_the_kind_decides_how_often(monkeypatch: pytest.MonkeyPatch) -> None:
    def blank(rng: np.random.Generator, size: int, *_: object) -> np.ndarray:
        return np.zeros((size, size), np.float32)

    monkeypatch.setattr("fedefm_core.simulation.vessels.vessel_tree", blank)

    def share(kind: str) -> float:
        rng = np.random.default_rng(0)
        return float(
            np.mean([random_vessels(rng, kind, 64, 0.125) is not None for _ in range(2000)])
        )

    assert share("human") == pytest.approx(0.45, abs=0.04)
    assert share("animal") == pytest.approx(0.35, abs=0.04)
    assert share("phantom") == 0


@pytest.mark.parametrize("size", [64, 97, 512])
def test_same_seed_same_vessels(size: int) -> None:
    first, second = (
        vessel_tree(np.random.default_rng(5), size, size / 512, 0.5) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert first.shape == (size, size)
