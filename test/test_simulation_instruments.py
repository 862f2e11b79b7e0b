# SPDX-License-Identifier: Apache-2.0
"""Instruments: sizes of products, attenuation of cylinders and tubes, shapes and their truth."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedefm_core.simulation.curves import arc_length
from fedefm_core.simulation.instruments import (
    Design,
    draw_instruments,
    label_instruments,
    random_coaxial,
    random_designs,
    random_electrode_catheter,
    random_pair,
    truth_of,
)
from fedefm_core.simulation.profiles import (
    NARROWEST_CATHETER,
    WIDEST_CATHETER,
    WIDEST_GUIDEWIRE,
    Band,
    Rod,
    catheter_profile,
    guidewire_profile,
    least_strength,
)
from fedefm_core.simulation.shapes import bend, beside, catheter_tip, guidewire_tip, place, trunk

seeds = st.integers(0, 2**31 - 1)


def rng_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def straight(*rods: Rod, length: float = 100.0, **changes) -> Design:
    """A wire along row 64 of a 128-pixel image, from the left border to column length - 20."""
    path = np.stack([np.arange(-20.0, 180.0), np.full(200, 64.0)], axis=1)
    width = max(rod.width for rod in rods)
    return Design("guidewire", path, length, width, 0.5, rods, **changes)


def drawn(*designs: Design, size: int = 128):
    image = np.zeros((size, size), np.float32)
    draw_instruments(image, designs)
    return image


def length(turns) -> float:
    return 0.5 * len(turns)


@given(seeds, st.sampled_from([64, 256, 512, 700]))
@settings(max_examples=60, deadline=None)
def test_every_design_has_a_size_off_the_shelf_and_a_dense_finite_path(seed, size):
    scale = size / 512
    designs = random_designs(rng_of(seed), size, scale, 0.0)
    assert 1 <= len(designs) <= 5
    for design in designs:
        if design.kind == "guidewire":
            assert 1.0 <= design.width / scale <= WIDEST_GUIDEWIRE
        else:
            assert NARROWEST_CATHETER <= design.width / scale <= WIDEST_CATHETER
        assert np.isfinite(design.path).all()
        assert np.hypot(*np.diff(design.path, axis=0).T).max() <= 1 + 1e-6
        assert 0 <= design.hidden_until < design.end <= arc_length(design.path)[-1] + 1e-6


def test_equal_generators_give_equal_designs():
    one, two = (random_designs(rng_of(3), 512, 1.0, 0.0) for _ in range(2))
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.path, b.path)
        assert replace(a, path=None) == replace(b, path=None)


def test_most_tips_are_in_view_and_instruments_come_from_every_side():
    everywhere = np.ones((512, 512), dtype=bool)
    in_view, sides = [], set()
    for seed in range(150):
        for design in random_designs(rng_of(seed), 512, 1.0, 0.0):
            truths = truth_of(design, everywhere)
            in_view.append(bool(truths) and truths[-1].tip_px is not None)
            x, y = design.path[0]
            sides |= {("left", x < 0), ("right", x > 511), ("top", y < 0), ("bottom", y > 511)}
    assert 0.8 < np.mean(in_view) < 0.97
    assert {name for name, outside in sides if outside} == {"left", "right", "top", "bottom"}


def test_empty_fraction_is_the_share_of_empty_sets():
    rng = rng_of(1)
    empty = [not random_designs(rng, 128, 0.25, 0.4) for _ in range(300)]
    assert np.mean(empty) == pytest.approx(0.4, abs=0.09)


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_attenuation_is_never_negative_and_stays_within_the_outline(seed):
    for design in random_designs(rng_of(seed), 256, 0.5, 0.0):
        image = drawn(design, size=256)
        assert image.min() >= -0.05 * design.strength  # a lumen's edge between pixels
        label = label_instruments([replace(design, hidden_until=0.0)], 256, 0.5)
        beyond = cv2.dilate(label, np.ones((5, 5), np.uint8)) == 0
        beyond[[0, 1, 2, -3, -2, -1]] = beyond[:, [0, 1, 2, -3, -2, -1]] = False
        assert not (np.abs(image[beyond]) > 0.1).any()


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_every_instrument_shows_along_its_axis(seed):
    for design in random_designs(rng_of(seed), 512, 1.0, 0.0):
        image = cv2.GaussianBlur(drawn(design, size=512), (0, 0), 0.5)
        for truth in truth_of(design, np.ones((512, 512), dtype=bool)):
            if len(truth.centerline_px) < 20:
                continue
            columns, rows = np.rint(truth.centerline_px).astype(int).T
            wide = cv2.dilate(image, np.ones((3, 3)) if design.width < 5 else np.ones((9, 9)))
            assert np.median(wide[rows, columns]) > 0.3 * least_strength(design.width)


@given(seeds, st.floats(0.2, 0.45))
@settings(max_examples=60, deadline=None)
def test_no_profile_is_fainter_than_asked_for(seed, pitch_mm):
    for faintest in (0.5, 1.0, 2.0):
        for make in (guidewire_profile, catheter_profile):
            profile = make(rng_of(seed), 1.0, pitch_mm, faintest)
            least = faintest * least_strength(profile.width)
            assert min(least, 0.9) - 1e-9 <= profile.strength <= 1.7


def test_wider_instruments_may_be_fainter():
    assert least_strength(1) > least_strength(4) > least_strength(14) > 0.05


def test_a_wire_is_a_solid_cylinder_that_ends_at_its_tip():
    image = drawn(straight(Rod(4.0, 1.0)))
    assert image[:, 40].sum() == pytest.approx(0.5 * np.pi / 4 * 4, rel=0.02)
    assert image[64, 40] == pytest.approx(0.5, abs=0.02)
    assert image[64, 78] > 0.25  # column 80 is the tip
    assert not image[:, 82:].any()


def test_a_coil_is_denser_than_the_shaft_and_moves_with_the_tip():
    rods = Rod(4.0, 0.4, near=30), Rod(4.0, 1.0, far=30)
    for end in (100.0, 80.0):
        row = drawn(straight(*rods, length=end))[64]
        tip = int(end) - 20
        assert row[tip - 10] == pytest.approx(0.5, abs=0.02)
        assert row[tip - 50] == pytest.approx(0.2, abs=0.02)


def test_the_joint_of_shaft_and_coil_has_no_gap_and_no_lump():
    fade = 6.0
    rods = Rod(4.0, 0.5, near=30, fade=fade), Rod(4.0, 1.0, far=30, fade=fade)
    row = drawn(straight(*rods))[64, 30:70]
    assert (np.diff(row) > -0.01).all()
    assert row.max() < 0.52


def test_a_two_walled_catheter_is_paler_in_the_middle():
    profiles = [catheter_profile(rng_of(seed), 1.0, 0.2) for seed in range(400)]
    hollow = [p for p in profiles if any(rod.strength < 0 for rod in p.rods)]
    empty = [p for p in hollow if p.width > 8 and not any(rod.wave for rod in p.rods)]
    assert 20 < len(empty) < 200
    for profile in empty[:10]:
        design = straight(*profile.rods, length=150.0)
        column = drawn(replace(design, width=profile.width))[:, 10]
        wall = column.max()
        assert column[64] < 0.95 * wall
        assert column[64] >= 0
        assert wall == pytest.approx(0.5, rel=0.35)  # thin walls blur over a pixel
        np.testing.assert_allclose(column[54:64], column[65:75][::-1], atol=0.02)


def test_bands_are_dark_and_move_with_the_tip():
    for end in (100.0, 70.0):
        row = drawn(straight(Rod(6.0, 0.4), bands=(Band(20, 5, 6, 1.2),), length=end))[64]
        tip = int(end) - 20
        assert row[tip - 20] == pytest.approx(0.5 * 1.6, abs=0.03)
        assert row[tip - 12] == pytest.approx(0.2, abs=0.02)


def test_a_tapered_catheter_and_its_label_narrow_to_the_tip():
    design = straight(Rod(10.0, 1.0), taper=(40.0, 0.5), length=120.0)
    image, labels = drawn(design), label_instruments([design], 128, 1.0)
    assert (labels[:, 40] > 0).sum() == pytest.approx(10, abs=1)
    assert (labels[:, 92] > 0).sum() == pytest.approx(6, abs=1)
    assert image[64, 92] == pytest.approx(0.5 * 0.6, abs=0.02)  # as much thinner as narrower
    assert labels[64, 99] > 0
    assert not labels[:, 101:].any()


def test_an_instrument_that_starts_in_the_image_is_labelled_from_its_start():
    design = straight(Rod(8.0, 1.0))
    design = replace(design, path=design.path + np.array([50, 0]))
    labels = label_instruments([design], 160, 1.0)
    assert not labels[:, :30].any()
    assert labels[64, 31]
    assert (labels[:, 40] > 0).sum() == pytest.approx(8, abs=1)


def test_a_wire_fits_into_its_catheter():
    for seed in range(60):
        catheter, wire = random_pair(rng_of(seed), 512, 1.0, 0.3)
        assert wire.width <= max(0.65 * catheter.width, 1.0)


def test_coaxial_systems_run_on_one_axis_from_wide_to_narrow():
    for seed in range(40):
        designs = random_coaxial(rng_of(seed), 512, 1.0, 0.35)
        sheath, inner = designs[:2]
        assert (sheath.kind, inner.kind) == ("catheter", "catheter")
        assert sheath.end < inner.end
        assert sheath.width >= min(1.35 * inner.width, WIDEST_CATHETER) - 1e-9
        assert all(design.path is sheath.path for design in designs)


def test_electrodes_are_darker_than_the_shaft():
    for seed in range(20):
        design = random_electrode_catheter(rng_of(seed), 512, 1.0, 0.2)
        assert design.kind == "catheter"
        assert all(band.strength > 1 for band in design.bands)
        assert len(design.bands) in (1, 3, 7, 9, 19)


@given(seeds, st.floats(0.15, 0.45))
@settings(max_examples=60, deadline=None)
def test_tips_turn_less_than_two_rounds_and_no_tighter_than_a_wire_bends(seed, pitch_mm):
    for tip in (guidewire_tip, catheter_tip):
        turns = tip(rng_of(seed), pitch_mm)
        assert abs(turns.sum()) < 4 * np.pi
        assert np.abs(turns).max() <= 0.5 / 2.4 + 1e-9


def test_paths_mostly_start_just_outside_and_stay_in_view_up_to_their_tips():
    outside, steady = [], []
    for seed in range(120):
        rng = rng_of(seed)
        path = place(rng, trunk(rng, "guidewire"), 512, 1.0)
        inside = ((path > 0) & (path < 511)).all(axis=1)
        start = max(*-path[0], *(path[0] - 511))
        outside.append(10 < start < 25)
        steady.append(bool(inside[-1]) and bool(inside[int(np.argmax(inside)) + 30 :].all()))
    assert np.mean(outside) > 0.85
    assert 0.7 < np.mean(steady) < 0.97


def test_a_bend_turns_by_its_angle_on_its_radius():
    turns = bend(1.5, 40.0)
    assert turns.sum() == pytest.approx(1.5)
    assert length(turns) == pytest.approx(60, abs=0.5)


@given(seeds, st.floats(5, 30))
@settings(max_examples=30, deadline=None)
def test_a_companion_runs_at_about_its_distance(seed, distance):
    path = np.stack([np.arange(0.0, 400.0), np.full(400, 50.0)], axis=1)
    other = beside(rng_of(seed), path, distance)
    away = np.abs(other[:, 1] - 50)
    assert np.median(away) == pytest.approx(distance, rel=0.8)
    assert np.hypot(*np.diff(other, axis=0).T).max() <= 1 + 1e-9
