# SPDX-License-Identifier: Apache-2.0
"""Vessel trees to steer through, the wire in them, and their X-rays: closed forms and laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedefm_core.simulation.curves import arc_length
from fedefm_core.simulation.detector import Detector
from fedefm_core.simulation.fluoroscope import Fluoroscope
from fedefm_core.simulation.navigation_case import guidewire, random_case
from fedefm_core.simulation.vessel_tree import SIZE, Branch, VesselTree, random_tree, smoothed
from fedefm_core.simulation.wire_motion import Tip, Torsion, Wire, axis_of, move

SEEDS = st.integers(0, 200)
UP = np.array([0.0, -1.0])


def straight(
    start: tuple[float, float], degrees: float, length: int, parent: int | None
) -> Branch:
    """A straight vessel; 0 degrees: upwards, positive: to the right."""
    angle = np.deg2rad(degrees)
    along = np.array([np.sin(angle), -np.cos(angle)])
    return Branch(np.array(start) + np.arange(length + 1)[:, None] * along, 10.0, parent)


FORK = VesselTree(
    (
        straight((256, 500), 0, 200, None),
        straight((256, 300), -35, 120, 0),
        straight((256, 300), 35, 120, 0),
    )
)


# --- trees ------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_a_tree_parts_in_two_twice_within_the_view(seed: int) -> None:
    tree = random_tree(np.random.default_rng(seed))
    assert len(tree.branches) == 7
    assert len(tree.leaves) == 4
    for leaf in tree.leaves:
        lineage = tree.lineage(leaf)
        assert lineage[0] == 0
        steps = np.linalg.norm(np.diff(tree.route(lineage), axis=0), axis=1)
        assert steps.max() <= 1 + 1e-9
    for number in (0, 1, 2):
        left, right = tree.children(number)
        assert tree.branches[left].path[-1][0] < tree.branches[right].path[-1][0] or number > 0
    inside = np.concatenate([branch.path for branch in tree.branches[1:]])
    assert inside.min() > 0
    assert inside.max() < SIZE


def test_a_case_is_that_of_its_seed() -> None:
    one, same, other = random_case(3), random_case(3), random_case(4)
    assert np.array_equal(one.anatomy, same.anatomy)
    assert not np.array_equal(one.anatomy, other.anatomy)
    plan = one.plan
    assert [fork.at for fork in plan.forks] == sorted(fork.at for fork in plan.forks)
    assert len(plan.forks) == 2
    assert plan.forks[-1].at < plan.length
    distance = np.linalg.norm(one.tree.branches[one.target].path - plan.path[-1], axis=1).min()
    assert distance < 1


def test_smoothing_leaves_a_straight_path_and_the_ends() -> None:
    path = FORK.route((0,))
    assert smoothed(path, 10.0) == pytest.approx(path, abs=1e-3)
    bent = smoothed(FORK.route((0, 2)), 10.0)
    assert bent[[0, -1]] == pytest.approx(FORK.route((0, 2))[[0, -1]], abs=1e-6)


# --- the wire ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("tip_rad", "branch"), [(0.0, 2), (np.pi, 1), (0.9, 2), (np.pi + 0.9, 1)])
def test_the_tip_enters_the_branch_that_it_points_into(tip_rad: float, branch: int) -> None:
    wire = Wire(190.0, hub_rad=tip_rad, tip_rad=tip_rad)
    assert move(wire, FORK, 30.0, 0.0, 1.0).lineage == (0, branch)


def test_drawn_back_before_the_fork_it_may_choose_again() -> None:
    wire = move(Wire(190.0), FORK, 40.0, 0.0, 1.0)
    back = move(wire, FORK, -50.0, 0.0, 1.0)
    assert back.lineage == (0,)
    turned = move(back, FORK, 0.0, np.pi, 10.0)
    assert move(turned, FORK, 60.0, 0.0, 1.0).lineage == (0, 1)


def test_blind_ends_hold_it_and_it_cannot_leave_by_the_root() -> None:
    wire = move(Wire(190.0), FORK, 1e4, 0.0, 1.0)
    assert wire.insertion == pytest.approx(320.0)
    assert move(wire, FORK, -1e4, 0.0, 1.0).insertion == 0.0


def test_a_turn_arrives_late_and_less_by_the_play() -> None:
    torsion = Torsion(play_rad=0.2, lag_s=0.5)
    wire = move(Wire(100.0), FORK, 0.0, 1.0, 0.5, torsion=torsion)
    assert wire.hub_rad == 1.0
    assert wire.tip_rad == pytest.approx(0.8 * (1 - np.exp(-1)))
    assert move(wire, FORK, 0.0, 0.0, 100.0, torsion=torsion).tip_rad == pytest.approx(0.8)
    assert move(Wire(100.0), FORK, 0.0, 0.1, 9.0, torsion=torsion).tip_rad == 0.0


@pytest.mark.parametrize(("tip_rad", "share"), [(0.0, 1.0), (np.pi / 2, 0.0), (np.pi, -1.0)])
def test_the_bent_tip_shows_by_the_cosine_of_its_angle(tip_rad: float, share: float) -> None:
    tip = Tip(length=20.0, deflection=0.3)
    end = axis_of(Wire(150.0, tip_rad, tip_rad), FORK, tip)[-1]
    assert end == pytest.approx([256 + share * 3.0, 350.0], abs=1e-6)  # half of 20 x 0.3


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(60, 400), st.floats(0, 6.3))
def test_the_wire_stays_within_the_vessel(seed: int, insertion: float, tip_rad: float) -> None:
    tree = random_tree(np.random.default_rng(seed))
    wire = move(Wire(50.0, tip_rad, tip_rad), tree, insertion, 0.0, 1.0)
    axis = axis_of(wire, tree)
    route = tree.route(wire.lineage)
    gaps = np.linalg.norm(axis[:, None] - route[None], axis=-1).min(axis=1)
    assert gaps.max() < max(branch.radius for branch in tree.branches) + 1
    assert arc_length(axis)[-1] == pytest.approx(wire.insertion, rel=0.08)


# --- its X-rays -------------------------------------------------------------------------------

DETECTOR = Detector(
    photons=2000,
    scatter_fraction=0.5,
    glare_fraction=0.0,
    blur_px=0.5,
    noise_blur_px=0.0,
    electronic_noise=0.0,
    gamma=1.0,
    sharpening=0.0,
    brightness=0.5,
    contrast=0.1,
)


def test_a_flat_view_shows_its_brightness_and_the_noise_of_its_photons() -> None:
    rng = np.random.default_rng(0)
    view = Fluoroscope(np.full((SIZE, SIZE), 1.0, np.float32), DETECTOR, rng)
    picture = view.frame([], rng) / 255.0
    assert picture.mean() == pytest.approx(0.5, abs=0.01)
    # 0.8 x contrast over the least spread is worth 0.8 of log signal; sigma of it is 1 / sqrt(N).
    assert picture.std() == pytest.approx(0.8 * 0.1 / 0.1 / np.sqrt(2000), rel=0.1)
    assert (view.frame([], rng, noise=4.0) / 255.0).std() == pytest.approx(
        4 * picture.std(), rel=0.1
    )


def test_the_wire_is_dark_where_it_lies_and_only_there() -> None:
    rng = np.random.default_rng(0)
    view = Fluoroscope(np.full((SIZE, SIZE), 1.0, np.float32), DETECTOR, rng)
    axis = np.stack([np.full(300, 256.0), np.arange(550.0, 250.0, -1.0)], axis=1)
    frames = np.mean([view.frame([guidewire(axis)], rng) for _ in range(8)], axis=0)
    along, beside = frames[300:500, 255:258], frames[300:500, 200:230]
    assert along.mean() < beside.mean() - 40
    assert frames[100:200, 255:258].mean() == pytest.approx(beside.mean(), abs=4)


def test_no_two_frames_show_the_same_noise() -> None:
    rng = np.random.default_rng(0)
    view = Fluoroscope(np.full((SIZE, SIZE), 1.0, np.float32), DETECTOR, rng)
    frames = [view.frame([], rng).astype(float) for _ in range(6)]
    for a in range(6):
        for b in range(a):
            assert abs(np.corrcoef(frames[a].ravel(), frames[b].ravel())[0, 1]) < 0.05
