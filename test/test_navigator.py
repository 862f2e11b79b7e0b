# SPDX-License-Identifier: Apache-2.0
"""Navigator, simulated robot and permission, and all of them in a vessel tree; without ROS."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedefm_core.simulation.curves import heading_at_end
from fedefm_core.simulation.navigation_case import PIXEL_MM, START_PX, random_case
from fedefm_core.simulation.wire_motion import Wire, axis_of, move
from fedefm_ros.navigator import (
    STILL,
    Command,
    Navigator,
    NavigatorSettings,
    Phase,
    PlannedFork,
    PlannedPath,
    SeenTip,
)
from fedefm_ros.permission import LASTS_S, Permission
from fedefm_ros.simulated_robot import RobotLimits, SimulatedRobot

SETTINGS = NavigatorSettings()
EAST = 0.0
# 100 mm to the right, and the way goes right at 50 mm.
PATH = PlannedPath(
    np.stack([np.arange(0.0, 100.1, 0.5), np.zeros(201)], axis=1), [PlannedFork(50.0, 1)]
)


def seen(x: float, y: float = 0.0, heading_rad: float = EAST) -> SeenTip:
    return SeenTip((x, y), heading_rad)


# --- where a tip is ---------------------------------------------------------------------------


def test_a_place_has_length_side_and_direction() -> None:
    place = PATH.place(seen(30.2, 2.0, 0.3))
    assert (place.at_mm, place.turned_rad) == pytest.approx((30.0, 0.3))
    assert place.aside_mm == pytest.approx(math.hypot(0.2, 2.0))  # y down: to the right
    assert PATH.place(seen(30.0, -2.0)).aside_mm == pytest.approx(-2.0)
    assert PATH.place(seen(0.0, 0.0, 4.0)).turned_rad == pytest.approx(4.0 - 2 * math.pi)


def test_forks_before_and_behind() -> None:
    assert PATH.next_fork(49.9) is PATH.last_fork(50.0) is PATH.forks[0]
    assert PATH.next_fork(50.0) is None
    assert PATH.last_fork(49.9) is None


# --- what is done about it --------------------------------------------------------------------


def test_without_permission_or_a_tip_nothing_moves() -> None:
    navigator = Navigator(PATH)
    assert navigator.command(0.04, permitted=True) == STILL
    navigator.see(seen(10.0))
    assert navigator.command(0.04, permitted=False) == STILL
    assert navigator.command(0.04, permitted=True) == Command(SETTINGS.speed_mm_s, 0.0)


def test_it_moves_no_farther_than_a_step_until_the_tip_is_seen_again() -> None:
    navigator = Navigator(PATH)
    for _ in range(3):
        navigator.see(seen(10.0))
        fed = sum(navigator.command(0.02, permitted=True).insert_mm_s * 0.02 for _ in range(50))
        assert 0 < fed <= SETTINGS.step_mm


def test_before_a_fork_it_turns_until_the_tip_points_there() -> None:
    navigator = Navigator(PATH)
    navigator.see(seen(50.0 - SETTINGS.aim_mm + 0.5))
    assert navigator.phase is Phase.AIM
    assert navigator.command(0.04, permitted=True) == Command(0.0, SETTINGS.turn_rad_s)
    navigator.see(seen(44.0, heading_rad=-1.0))  # to the wrong side
    assert navigator.phase is Phase.AIM
    for heading_rad in (SETTINGS.aimed_rad, -1.0, SETTINGS.aimed_rad):  # once is not enough
        navigator.see(seen(44.0, heading_rad=heading_rad))
        assert navigator.phase is Phase.AIM
    navigator.see(seen(44.0, heading_rad=SETTINGS.aimed_rad))
    assert navigator.phase is Phase.ADVANCE
    assert navigator.command(0.04, permitted=True) == Command(SETTINGS.slow_mm_s, 0.0)
    navigator.see(seen(46.0))  # aimed once is enough
    assert navigator.phase is Phase.ADVANCE


def test_in_a_wrong_branch_it_goes_back_and_aims_anew() -> None:
    navigator = Navigator(PATH)
    navigator.see(seen(60.0, -SETTINGS.astray_mm - 0.1))
    assert (navigator.phase, navigator.retries) == (Phase.BACK, 1)
    assert navigator.command(0.04, permitted=True) == Command(-SETTINGS.slow_mm_s, 0.0)
    navigator.see(seen(50.0 - SETTINGS.back_mm + 0.5))
    assert navigator.phase is Phase.BACK
    navigator.see(seen(50.0 - SETTINGS.back_mm))
    assert navigator.phase is Phase.AIM


def test_a_tip_that_gets_nowhere_is_in_a_wrong_place() -> None:
    navigator = Navigator(PATH)
    for _ in range(20):
        navigator.see(seen(70.0, 1.0))
        for _ in range(3):
            navigator.command(0.02, permitted=True)
    assert navigator.retries >= 1


def test_a_tip_where_no_vessel_is_moves_nothing() -> None:
    navigator = Navigator(PATH)
    navigator.see(seen(60.0, SETTINGS.implausible_mm + 1.0))
    assert navigator.command(0.04, permitted=True) == STILL


def test_at_the_end_it_rests() -> None:
    navigator = Navigator(PATH)
    navigator.see(seen(99.5))
    assert navigator.phase is Phase.REACHED
    assert navigator.command(0.04, permitted=True) == STILL


@pytest.mark.parametrize("seed", range(8))
def test_with_true_tips_it_reaches_every_target(seed: int) -> None:
    case = random_case(seed)
    forks = [PlannedFork(fork.at * PIXEL_MM, fork.side) for fork in case.plan.forks]
    navigator = Navigator(PlannedPath(case.plan.path * PIXEL_MM, forks))
    wire = Wire(START_PX, case.tip_rad, case.tip_rad)
    for _ in range(600):
        axis = axis_of(wire, case.tree)
        navigator.see(SeenTip(tuple(axis[-1] * PIXEL_MM), heading_at_end(axis, 10)))
        for _ in range(2):
            told = navigator.command(0.05, permitted=True)
            fed_px = told.insert_mm_s * 0.05 / PIXEL_MM
            wire = move(wire, case.tree, fed_px, told.turn_rad_s * 0.05, 0.05)
        if navigator.phase is Phase.REACHED:
            break
    assert navigator.phase is Phase.REACHED
    assert wire.lineage[-1] == case.target


# --- permission -------------------------------------------------------------------------------


def test_a_yes_lasts_a_moment_and_a_no_ends_it() -> None:
    permission = Permission()
    assert not permission.holds(0.0)
    permission.heard(True, 1.0)
    assert permission.holds(1.0 + LASTS_S - 1e-6)
    assert not permission.holds(1.0 + LASTS_S)
    permission.heard(True, 2.0)
    permission.heard(False, 2.01)
    assert not permission.holds(2.02)
    permission.heard(True, 3.0)
    permission.ended()
    assert not permission.holds(3.0)


# --- the robot --------------------------------------------------------------------------------


def test_speed_is_cut_to_the_limits_and_reached_by_the_acceleration() -> None:
    robot = SimulatedRobot(RobotLimits(insert_m_s=0.03, insert_m_s2=0.2))
    robot.command(1.0, -100.0, 0.0)
    first = robot.step(0.05, 0.0, permitted=True)
    assert first.velocity == pytest.approx((0.01, -1.0))
    assert first.position == pytest.approx((0.0005, -0.05))
    for _ in range(10):
        robot.command(1.0, -100.0, 0.0)
        last = robot.step(0.05, 0.0, permitted=True)
    assert last.velocity == pytest.approx((0.03, -3.0))


def test_it_stops_at_once_and_turns_round_from_rest() -> None:
    robot = SimulatedRobot()
    robot.command(0.03, 0.0, 0.0)
    for _ in range(20):
        robot.step(0.02, 0.0, permitted=True)
    robot.command(-0.03, 0.0, 0.0)
    assert robot.step(0.02, 0.0, permitted=True).velocity[0] == pytest.approx(-0.004)
    assert robot.step(0.02, 0.0, permitted=False).velocity == (0.0, 0.0)


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(0, 0.5), st.booleans())
def test_it_moves_only_by_permission_and_by_a_command_that_lasts(
    speed: float, age_s: float, permitted: bool
) -> None:
    robot = SimulatedRobot()
    robot.command(speed, 0.0, 10.0)
    drive = robot.step(0.02, 10.0 + age_s, permitted)
    may = permitted and age_s < robot.limits.command_lasts_s and math.isfinite(speed)
    assert abs(drive.velocity[0]) <= robot.limits.insert_m_s
    assert (drive.velocity[0] != 0) == (may and speed != 0)
