# SPDX-License-Identifier: Apache-2.0
"""Instruments found in label maps whose wires are known exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perception_scenes import (
    SIZE,
    Wire,
    angle_between,
    arc,
    distance_to,
    heading,
    label_map,
    network_output,
    path,
    perceive,
    segment,
    tip_heatmap,
    turtle,
)

from fedefm_core.perception import CATHETER, GUIDEWIRE, InstrumentSettings, find_instruments
from fedefm_core.perception.preprocess import fit
from fedefm_core.perception.thinning import thin
from fedefm_core.perception.tips import TipSettings

BOX = fit((SIZE, SIZE), (SIZE, SIZE))
ENTRY = -20.0  # x of a point outside the view, where wires come from


LINES = {
    "straight": segment((ENTRY, 100.3), (300.2, 180.7)),
    "vertical": segment((200.4, ENTRY), (200.4, 333.3)),
    "diagonal": segment((ENTRY, ENTRY), (301.0, 301.0)),
    "arc": path(segment((ENTRY, 350), (200, 350)), arc((200, 250), 100, np.pi / 2, -0.6)),
    "j-tip": path(segment((ENTRY, 400), (300, 400)), arc((300, 380), 20, np.pi / 2, -np.pi / 2)),
    "loop": turtle((ENTRY, 300), 0, (300, 0), (50 * 5.4, -1 / 50), (180, 0)),
    "small loop": turtle((ENTRY, 300), 0, (300, 0), (20 * 5.4, -1 / 20), (180, 0)),
    "figure eight": turtle(
        (ENTRY, 200), 0.3, (220, 0), (60 * 5.2, -1 / 60), (150, 0), (55 * 4.6, 1 / 55), (40, 0)
    ),
}


@pytest.mark.parametrize("label", [CATHETER, GUIDEWIRE])
@pytest.mark.parametrize("name", LINES)
def test_one_wire_is_found_whole_and_sub_pixel(name: str, label: int) -> None:
    line = LINES[name]
    (found,) = perceive([Wire(label, line)])
    assert found.tip_px is not None
    assert np.hypot(*(found.tip_px - line[-1])) < (1.5 if label == CATHETER else 1.0)
    assert found.heading_rad is not None
    assert angle_between(found.heading_rad, heading(line)) < (0.5 if name == "j-tip" else 0.2)
    inner = found.centerline_px[5:-5]
    assert np.median(distance_to(inner, line)) < 0.2
    assert distance_to(inner, line).max() < 2  # where a wire crosses itself
    inside = line[(line >= -0.5).all(axis=1)]
    length = np.hypot(*np.diff(inside, axis=0).T).sum()
    assert found.length_px == pytest.approx(length, abs=4)
    assert found.confidence > 0.8


def test_the_centerline_runs_from_the_border_to_the_tip() -> None:
    for line in (LINES["straight"], LINES["straight"] * [-1, 1] + [SIZE - 1, 0]):
        (found,) = perceive([Wire(GUIDEWIRE, line)])
        assert min(found.centerline_px[0, 0], SIZE - 1 - found.centerline_px[0, 0]) < 1
        np.testing.assert_allclose(found.centerline_px[-1], found.tip_px)
        assert np.hypot(*np.diff(found.centerline_px, axis=0).T).max() < 2.5


def test_a_wire_from_border_to_border_has_no_tip() -> None:
    (found,) = perceive([Wire(CATHETER, segment((ENTRY, 100), (SIZE + 20, 300)), False)])
    assert found.tip_px is None
    assert found.heading_rad is None
    assert found.covariance_px is None
    assert found.length_px == pytest.approx(np.hypot(SIZE, 200 * SIZE / 552), abs=4)


def test_a_wire_out_of_a_catheter_is_two_instruments() -> None:
    bend = path(segment((ENTRY, 300), (200, 300)), arc((200, 240), 60, np.pi / 2, 0))
    mouth = bend[-1]
    wires = [Wire(CATHETER, bend), Wire(GUIDEWIRE, segment(mouth, np.add(mouth, (30, -150))))]
    catheter, guidewire = perceive(wires)
    assert (catheter.kind, guidewire.kind) == ("catheter", "guidewire")
    assert np.hypot(*(catheter.tip_px - mouth)) < 1.5
    assert np.hypot(*(guidewire.centerline_px[0] - mouth)) < 5
    assert np.hypot(*(guidewire.tip_px - mouth - [30, -150])) < 1


def test_a_wire_out_of_a_catheter_and_out_of_view_has_no_tip() -> None:
    wires = [
        Wire(CATHETER, segment((ENTRY, 200), (250, 210))),
        Wire(GUIDEWIRE, segment((250, 210), (SIZE + 20, 300)), False),
    ]
    catheter, guidewire = perceive(wires)
    assert catheter.tip_px is not None
    assert guidewire.tip_px is None
    assert guidewire.centerline_px[0, 0] < guidewire.centerline_px[-1, 0]


@pytest.mark.parametrize("angle", [0.35, 0.8, np.pi / 2])
def test_crossing_wires_go_straight_on(angle: float) -> None:
    lines = []
    for slope in (-angle / 2, angle / 2):
        ahead = np.array([np.cos(slope), np.sin(slope)])
        lines.append(
            segment(np.array([260, 250]) - 400 * ahead, np.array([260, 250]) + 150 * ahead)
        )
    found = perceive([Wire(GUIDEWIRE, line) for line in lines])
    assert len(found) == 2
    for line in lines:
        one = min(found, key=lambda one: np.hypot(*(one.tip_px - line[-1])))
        assert np.hypot(*(one.tip_px - line[-1])) < 1
        assert distance_to(one.centerline_px, line).max() < 2


@pytest.mark.parametrize(("over", "under"), [(GUIDEWIRE, CATHETER), (CATHETER, GUIDEWIRE)])
@pytest.mark.parametrize("end", [(330, 60), (330, 200)])
def test_an_instrument_under_another_stays_one(
    over: int, under: int, end: tuple[float, float]
) -> None:
    lower = Wire(under, segment((ENTRY, 250), (400, 260)))
    upper = Wire(over, segment((100, SIZE + 20), end))
    found = {one.kind: one for one in perceive([lower, upper])}
    assert len(perceive([lower, upper])) == 2
    kind = "catheter" if under == CATHETER else "guidewire"
    assert found[kind].length_px == pytest.approx(400.5, abs=4)
    assert np.hypot(*(found[kind].tip_px - [400, 260])) < 1
    assert distance_to(found[kind].centerline_px, lower.line).max() < 1.5


def test_parallel_wires_stay_apart() -> None:
    lines = [segment((ENTRY, y), (300 + y, y + 30)) for y in (200.0, 208.0)]
    found = perceive([Wire(GUIDEWIRE, line) for line in lines])
    assert len(found) == 2
    for one in found:
        assert min(distance_to(one.centerline_px, line).max() for line in lines) < 1


def test_a_loop_that_closes_on_itself_ends_where_the_heatmap_says() -> None:
    line = path(segment((200, ENTRY), (200, 300)), arc((230, 300), 30, np.pi, np.pi - 7.0))
    (found,) = perceive([Wire(GUIDEWIRE, line)])
    assert np.hypot(*(found.tip_px - line[-1])) < 2
    length = np.hypot(*np.diff(line[line[:, 1] >= -0.5], axis=0).T).sum()
    assert found.length_px == pytest.approx(length, abs=6)


def test_a_hole_in_the_label_map_is_bridged_and_a_long_one_is_not() -> None:
    labels = label_map([Wire(GUIDEWIRE, segment((ENTRY, 200), (400, 200)))])
    labels[:, 200:210] = 0
    assert len(find_instruments(network_output(labels), BOX)) == 1
    labels[:, 200:240] = 0
    assert len(find_instruments(network_output(labels), BOX)) == 2


def test_an_end_that_the_heatmap_does_not_support_is_no_tip() -> None:
    wire = Wire(GUIDEWIRE, LINES["straight"])
    labels = label_map([wire])
    (unsupported,) = find_instruments(network_output(labels), BOX)
    assert unsupported.tip_px is None
    assert np.hypot(*(unsupported.centerline_px[-1] - wire.line[-1])) < 2
    asked_for = InstrumentSettings(tip=TipSettings(min_support=0))
    (faint,) = find_instruments(network_output(labels), BOX, asked_for)
    assert faint.confidence < 0.1
    assert np.hypot(*(faint.tip_px - wire.line[-1])) < 2


def test_covariance_grows_when_outline_and_heatmap_disagree() -> None:
    wire = Wire(GUIDEWIRE, LINES["straight"])
    shifted = Wire(GUIDEWIRE, LINES["straight"] + [8.0, 2.0])
    labels = label_map([wire])
    (agreeing,) = find_instruments(network_output(labels, tip_heatmap([wire])), BOX)
    (disagreeing,) = find_instruments(network_output(labels, tip_heatmap([shifted])), BOX)
    assert np.trace(disagreeing.covariance_px) > 2 * np.trace(agreeing.covariance_px)
    assert np.linalg.eigvalsh(agreeing.covariance_px).min() >= 0.25


def test_specks_and_solid_areas_are_no_instruments() -> None:
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[10:13, 10:13] = GUIDEWIRE
    labels[100:300, 100:300] = CATHETER
    assert find_instruments(network_output(labels), BOX) == ()


def test_padding_of_the_network_image_is_no_part_of_the_view() -> None:
    labels = np.full((SIZE, SIZE), CATHETER, np.uint8)
    box = fit((256, 512), (SIZE, SIZE))
    labels[128:384] = 0
    assert find_instruments(network_output(labels), box) == ()


@settings(max_examples=20, deadline=None)
@given(
    angle=st.floats(-1.2, 1.2),
    bend=st.floats(-0.004, 0.004),
    length=st.floats(150, 350),
    turns=st.integers(0, 3),
    mirrored=st.booleans(),
)
def test_turning_the_image_turns_the_tip(
    angle: float, bend: float, length: float, turns: int, mirrored: bool
) -> None:
    s = np.linspace(-200, length, 500)
    direction = angle + bend * s
    step = np.column_stack((np.cos(direction), np.sin(direction))) * (s[1] - s[0])
    line = np.cumsum(step, axis=0)
    line += np.array([60.0, 256.0]) - line[np.argmin(abs(s - 60))]
    if not ((line[-1] > 20) & (line[-1] < SIZE - 20)).all():
        return
    wire = Wire(GUIDEWIRE, line)
    output = network_output(label_map([wire]), tip_heatmap([wire]))
    first = find_instruments(output, BOX)
    labels = np.rot90(output.label_map, turns)
    heat = np.rot90(output.tip_heatmap, turns, axes=(1, 2))
    if mirrored:
        labels, heat = labels[:, ::-1], heat[:, :, ::-1]
    turned = network_output(np.ascontiguousarray(labels), np.ascontiguousarray(heat))
    second = find_instruments(turned, BOX)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert (a.tip_px is None) == (b.tip_px is None)
        if a.tip_px is None:
            continue
        ahead = np.array([np.cos(a.heading_rad), np.sin(a.heading_rad)])
        point = np.array([a.tip_px, a.tip_px + ahead])
        for _ in range(turns):  # rot90 turns counter-clockwise: (x, y) -> (y, W - 1 - x)
            point = np.column_stack((point[:, 1], SIZE - 1 - point[:, 0]))
        if mirrored:
            point[:, 0] = SIZE - 1 - point[:, 0]
        assert np.hypot(*(b.tip_px - point[0])) < 0.7
        assert angle_between(b.heading_rad, heading(point)) < 0.15


def test_a_skeleton_keeps_the_topology_and_is_thin() -> None:
    y, x = np.mgrid[:60, :60]
    ring = (abs(np.hypot(x - 30, y - 30) - 20) < 4).astype(np.uint8)
    pixels = thin(ring, 20)
    assert np.hypot(pixels % 60 - 30, pixels // 60 - 30) == pytest.approx(20, abs=1.5)
    assert len(pixels) == ring.sum() < 2 * np.pi * 20 * 1.1


def test_settings_are_honoured() -> None:
    wires = [Wire(GUIDEWIRE, segment((ENTRY, y), (30 + y, y))) for y in (100, 200, 300)]
    assert len(perceive(wires)) == 3
    assert len(perceive(wires, InstrumentSettings(max_instruments=2))) == 2
    assert len(perceive(wires, InstrumentSettings(min_length_px=250))) == 1
