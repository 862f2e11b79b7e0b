# SPDX-License-Identifier: Apache-2.0
"""Truth is what the picture shows: labels, centerlines and tips agree, at every size."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedefm_core.config import parse_settings
from fedefm_core.errors import ConfigError, SimulationError
from fedefm_core.frames import to_grey8
from fedefm_core.perception.types import CATHETER, GUIDEWIRE
from fedefm_core.simulation import KINDS, SimulationSettings, simulate_frame
from fedefm_core.simulation.instruments import Design, label_instruments, random_pair, truth_of
from fedefm_core.simulation.profiles import Rod
from fedefm_core.simulation.scene import Scene, random_scene, render

SMALL = SimulationSettings(size=256)
LABEL = {"catheter": CATHETER, "guidewire": GUIDEWIRE}
seeds = st.integers(0, 2**31 - 1)


def straight(kind="guidewire", start=(-5.0, 64.0), angle=0.0, length=80.0, **changes) -> Design:
    """An instrument along a straight line."""
    along = np.arange(0.0, 400.0)
    path = np.asarray(start) + np.outer(along, (np.cos(angle), np.sin(angle)))
    width = changes.pop("width", 2.0)
    rods = (Rod(width, 1.0),)
    return Design(
        kind=kind, path=path, end=length, width=width, strength=0.5, rods=rods, **changes
    )


def everywhere(size=128):
    return np.ones((size, size), dtype=bool)


def pixels_of(points, labels):
    columns, rows = np.rint(points).astype(int).T
    return labels[rows, columns]


def distance_to_centerlines(frame, kind):
    """(H, W) distance to the nearest centerline pixel of that kind; infinite without any."""
    canvas = np.full(frame.label_map.shape, 255, np.uint8)
    for truth in frame.instruments:
        if truth.kind == kind:
            columns, rows = np.rint(truth.centerline_px).astype(int).T
            canvas[rows, columns] = 0
    if canvas.all():
        return np.full(canvas.shape, np.inf)
    return cv2.distanceTransform(canvas, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_arguments_give_equal_bytes(kind):
    first, again, other = (simulate_frame(5, index, SMALL, kind) for index in (3, 3, 4))
    np.testing.assert_array_equal(first.frame.pixels, again.frame.pixels)
    np.testing.assert_array_equal(first.label_map, again.label_map)
    assert len(first.instruments) == len(again.instruments)
    for one, two in zip(first.instruments, again.instruments, strict=True):
        np.testing.assert_array_equal(one.centerline_px, two.centerline_px)
    assert (first.frame.pixels != other.frame.pixels).any()


@given(seeds, st.integers(0, 10**6), st.sampled_from([64, 96, 130]), st.sampled_from([8, 12, 16]))
@settings(max_examples=60, deadline=None)
def test_every_frame_is_well_formed(seed, index, size, bit_depth):
    frame = simulate_frame(seed, index, SimulationSettings(size=size, bit_depth=bit_depth))
    pixels = frame.frame.pixels
    assert pixels.shape == frame.label_map.shape == (size, size)
    assert pixels.dtype == (np.uint8 if bit_depth == 8 else np.uint16)
    assert pixels.max() < 2**bit_depth
    assert frame.label_map.dtype == np.uint8
    assert set(np.unique(frame.label_map)) <= {0, CATHETER, GUIDEWIRE}
    assert frame.kind in KINDS
    for truth in frame.instruments:
        line = truth.centerline_px
        assert truth.kind in LABEL
        assert line.dtype == np.float64
        assert np.isfinite(line).all()
        assert ((line >= -0.5) & (line <= size - 0.5)).all()
        steps = np.hypot(*np.diff(line, axis=0).T)
        assert steps.max() <= 1 + 1e-6
        assert (truth.tip_px is None) == (truth.heading_rad is None)
        if truth.tip_px is not None:
            np.testing.assert_array_equal(truth.tip_px, line[-1])
            assert -np.pi <= truth.heading_rad <= np.pi


@pytest.mark.parametrize("size", [64, 128, 256, 512, 1024])
def test_centerlines_lie_on_their_labels(size):
    on_label = {"catheter": [], "guidewire": []}
    chosen = SimulationSettings(size=size, empty_fraction=0)
    for index in range(24 if size < 1024 else 8):
        frame = simulate_frame(11, index, chosen)
        for truth in frame.instruments:
            labels = pixels_of(truth.centerline_px, frame.label_map)
            # A guidewire that crosses a catheter is drawn over it.
            good = labels > 0 if truth.kind == "catheter" else labels == GUIDEWIRE
            on_label[truth.kind].extend(good[1:-1])
            if truth.tip_px is not None and len(truth.centerline_px) > truth.width_px:
                around = cv2.dilate(frame.label_map, np.ones((3, 3), np.uint8))
                assert pixels_of(truth.tip_px[None], around)[0] > 0
    for values in on_label.values():
        assert len(values) > size
        assert np.mean(values) > 0.998


@pytest.mark.parametrize("size", [256, 512])
def test_labels_lie_on_their_centerlines(size):
    for index in range(24):
        frame = simulate_frame(12, index, SimulationSettings(size=size))
        for kind, label in LABEL.items():
            widths = [t.width_px for t in frame.instruments if t.kind == kind]
            reach = max([3.0 * size / 512, *widths]) / 2 + 1.5
            far = (frame.label_map == label) & (distance_to_centerlines(frame, kind) > reach)
            # Where an axis has left the view, its flank may still show: only at the view's edge.
            assert far.sum() <= 0.03 * max((frame.label_map == label).sum(), 1) + 2 * reach**2


@given(st.floats(0.5, 14), st.floats(0.1, 0.5), st.floats(60, 90))
@settings(max_examples=50, deadline=None)
def test_a_straight_label_has_the_physical_width_but_never_less_than_three(width, angle, length):
    design = straight(angle=angle, length=length, width=width)
    labels = label_instruments([design], 128, scale=1.0)
    expected = max(width, 3.0)
    tip = truth_of(design, everywhere())[-1].tip_px
    direction = np.array([np.cos(angle), np.sin(angle)])
    rows, columns = np.nonzero(labels)
    across = np.stack([columns, rows], axis=1) @ (-direction[1], direction[0])
    along = (np.stack([columns, rows], axis=1) - tip) @ direction
    middle = (along < -15) & (along >= -45)  # thirty pixels of the shaft
    assert middle.sum() / 30 == pytest.approx(expected, abs=0.75)
    assert across.max() - across.min() <= expected + 0.75
    assert along.max() + 0.5 == pytest.approx(0, abs=0.75)  # the far edge of that pixel


@pytest.mark.parametrize(("size", "scale"), [(256, 0.5), (512, 1.0), (1024, 2.0)])
def test_the_least_width_goes_with_the_size_of_the_image(size, scale):
    design = straight(start=(-5.0, size / 2), length=200.0, width=0.4)
    labels = label_instruments([design], size, scale)
    assert (labels[:, 100] > 0).sum() == pytest.approx(3 * scale, abs=0.75)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_a_wire_is_labelled_from_the_mouth_of_its_catheter_on(seed):
    catheter, wire = random_pair(np.random.default_rng(seed), 512, 1.0, 0.3)
    assert wire.hidden_until == catheter.end
    labels = label_instruments([catheter], 512, 1.0)
    wire_alone = label_instruments([wire], 512, 1.0)
    for truth in truth_of(wire, everywhere(512))[:1]:
        mouth = truth_of(catheter, everywhere(512))
        if mouth and mouth[-1].tip_px is not None:
            np.testing.assert_allclose(truth.centerline_px[0], mouth[-1].tip_px, atol=1e-9)
    both = label_instruments([wire, catheter], 512, 1.0)
    np.testing.assert_array_equal(both, np.where(wire_alone > 0, GUIDEWIRE, labels))


def test_inside_the_catheter_there_is_no_guidewire():
    catheter = straight("catheter", length=60.0, width=8.0)
    wire = straight(length=100.0, hidden_until=60.0)
    labels = label_instruments([catheter, wire], 128, 1.0)
    assert (labels[64, 0:54] == CATHETER).all()
    assert (labels[64, 57:94] == GUIDEWIRE).all()
    (truth,) = truth_of(wire, everywhere())
    np.testing.assert_allclose(truth.centerline_px[0], (55.0, 64.0))
    np.testing.assert_allclose(truth.tip_px, (95.0, 64.0))
    assert truth.heading_rad == pytest.approx(0)


def test_a_wire_that_is_wholly_in_its_catheter_is_not_there():
    wire = straight(length=50.0, hidden_until=60.0)
    assert truth_of(wire, everywhere()) == []
    assert not label_instruments([wire], 128, 1.0).any()


def test_an_instrument_beside_the_image_is_not_there():
    beside = straight(start=(-5.0, -50.0))
    assert truth_of(beside, everywhere()) == []
    assert not label_instruments([beside], 128, 1.0).any()


def test_a_tip_beyond_the_border_is_none():
    (truth,) = truth_of(straight(length=300.0), everywhere())
    assert truth.tip_px is None
    assert truth.heading_rad is None
    assert truth.centerline_px[-1, 0] == pytest.approx(127, abs=1)


def test_an_instrument_that_comes_back_into_view_has_two_stretches_and_one_tip():
    arc = np.linspace(0, np.pi, 400)
    path = np.stack([64 + 40 * np.cos(arc), 30 - 60 * np.sin(arc)], axis=1)
    path = np.concatenate([[[104.0, y] for y in np.arange(120.0, 30.0, -1)], path])
    path = np.concatenate([path, [[24.0, y] for y in np.arange(31.0, 100.0)]])
    first, last = truth_of(replace(straight(length=1e9), path=path), everywhere())
    assert first.tip_px is None
    np.testing.assert_allclose(last.tip_px, (24, 99))
    assert last.heading_rad == pytest.approx(np.pi / 2)


def test_truth_ends_where_the_exposed_field_ends():
    seen = everywhere()
    seen[:, 50:] = False
    (truth,) = truth_of(straight(length=100.0), seen)
    assert truth.tip_px is None
    assert truth.centerline_px[-1, 0] == pytest.approx(49, abs=1)


def collimated_scenes(count: int) -> list[tuple[Scene, np.random.Generator]]:
    """Scenes that are not exposed everywhere."""
    found = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        scene = random_scene(rng, SMALL, "human")
        if scene.field is not None:
            found.append((scene, rng))
    return found[:count]


def test_nothing_is_claimed_of_what_the_collimator_hides():
    for scene, rng in collimated_scenes(6):
        dark = scene.field < 0.5
        for start, angle in (((-5.0, 128.0), 0.0), ((128.0, -5.0), np.pi / 2)):
            frame = render(scene, [straight(start=start, angle=angle, length=256.0)], rng)
            assert not frame.label_map[dark].any()
            for truth in frame.instruments:
                assert not pixels_of(truth.centerline_px, dark).any()
        black = frame.frame.pixels[scene.field == 0]
        assert not black.size or black.mean() < 12  # black, but for burned-in text


def test_instruments_are_darker_than_what_is_around_them_or_paler_when_inverted():
    contrasts = {False: [], True: []}
    for inverted in contrasts:
        chosen = SimulationSettings(
            size=256,
            inverted_fraction=float(inverted),
            empty_fraction=0,
            kind_weights={"phantom": 1},
        )
        for index in range(10):
            frame = simulate_frame(2, index, chosen)
            mask = (frame.label_map > 0).astype(np.uint8)
            ring = cv2.dilate(mask, np.ones((9, 9))) - cv2.dilate(mask, np.ones((3, 3)))
            pixels = frame.frame.pixels.astype(float)
            contrasts[inverted].append(pixels[mask > 0].mean() - pixels[ring > 0].mean())
    assert np.median(contrasts[False]) < -3
    assert np.median(contrasts[True]) > 3


def test_the_kinds_are_drawn_by_their_weights():
    chosen = SimulationSettings(size=64, kind_weights={"animal": 3, "simulation": 1})
    kinds = [simulate_frame(0, index, chosen).kind for index in range(120)]
    assert set(kinds) == {"animal", "simulation"}
    assert kinds.count("animal") == pytest.approx(90, abs=20)
    assert {simulate_frame(0, 0, SMALL, kind).kind for kind in KINDS} == set(KINDS)


def test_some_frames_are_empty_and_as_many_as_asked_for():
    none = [simulate_frame(0, i, SimulationSettings(size=64, empty_fraction=1)) for i in range(5)]
    assert all(not frame.instruments and not frame.label_map.any() for frame in none)


def test_deep_pixels_show_as_the_same_picture():
    deep = simulate_frame(3, 1, SimulationSettings(size=256, bit_depth=12)).frame
    shown = to_grey8(deep)
    assert shown.dtype == np.uint8
    assert shown.std() > 5


def test_wrong_requests_are_refused_with_a_sentence():
    with pytest.raises(SimulationError, match=r"'kind' must be one of human, .* \(got 'mouse'\)"):
        simulate_frame(0, 0, SMALL, "mouse")
    with pytest.raises(ConfigError, match="size"):
        parse_settings(SimulationSettings, {"size": 8})
    with pytest.raises(ConfigError, match="did you mean 'size'"):
        parse_settings(SimulationSettings, {"sise": 512})


@pytest.mark.parametrize("weights", [{}, {"human": 0}, {"human": -1}, {"human": float("inf")}])
def test_weights_of_kinds_that_choose_none_are_refused(weights):
    with pytest.raises(ConfigError, match="kind_weights"):
        parse_settings(SimulationSettings, {"kind_weights": weights})


def test_the_simulator_needs_no_torch():
    code = "import sys, fedefm_core.simulation.dataset; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
