# SPDX-License-Identifier: Apache-2.0
"""The validation set that imitates clinical frames, and what is scored on it."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from fedefm_core.experiments.exported_frames import (
    ExportedFrame,
    ExportedFramesSettings,
    compressed,
    draw_sheet,
    exported_frame,
    exported_frames,
    score,
    strokes,
    tolerance_of,
)
from fedefm_core.frames import Frame
from fedefm_core.simulation import SimulationSettings
from fedefm_core.simulation.settings import BackgroundSettings

SMALL = ExportedFramesSettings(
    frames=2,
    simulation=SimulationSettings(size=128, empty_fraction=0.0),
    side_px=(60, 200),
)


def truth_of(mask: np.ndarray, ignored: np.ndarray | None = None) -> ExportedFrame:
    none = np.zeros_like(mask)
    return ExportedFrame(
        "human", Frame(none.astype(np.uint8)), mask, none if ignored is None else ignored
    )


def band(top: int, bottom: int, side: int = 512) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[top:bottom, 20:-20] = True
    return mask


def test_the_kinds_take_turns_and_each_frame_is_its_numbers_own() -> None:
    frames = list(exported_frames(SMALL))
    assert [frame.kind for frame in frames] == ["human", "animal", "phantom"] * 2
    again = exported_frame(SMALL, 4)
    np.testing.assert_array_equal(frames[4].frame.pixels, again.frame.pixels)
    np.testing.assert_array_equal(frames[4].mask, again.mask)


def test_sizes_and_aspects_are_those_asked_for() -> None:
    shapes = [exported_frame(SMALL, index).frame.pixels.shape for index in range(10)]
    for height, width in shapes:
        assert 60 <= max(height, width) <= 200
        assert min(height, width) >= 0.74 * max(height, width) - 1
    assert len(set(shapes)) > 5
    assert any(height != width for height, width in shapes)


def test_masks_lie_on_the_instruments() -> None:
    """At full size and without a cut, the strokes follow the truth of the simulator."""
    from fedefm_core.simulation import simulate_frame

    plain = SMALL.model_copy(update={"side_px": (128, 128), "aspect": 1.0, "stroke_px": (3, 3)})
    for index in range(3):
        frame = exported_frame(plain, index)
        kind = plain.kinds[index]
        truth = simulate_frame(plain.seed, index, plain.simulation, kind)
        assert frame.mask.any()
        for line in truth.instruments:
            x, y = np.round(line.centerline_px).astype(int).T
            inside = (x >= 0) & (y >= 0) & (x < 128) & (y < 128)
            assert frame.mask[y[inside], x[inside]].mean() > 0.97


@pytest.mark.parametrize("width", [3, 5, 8])
def test_strokes_are_as_wide_as_asked(width: int) -> None:
    for y in (50.0, 50.25, 50.5):
        line = np.array([[10.0, y], [90.0, y]])
        drawn = strokes([line], (100, 100), width)
        assert drawn[:, 50].sum() == pytest.approx(width, abs=0.5)
        assert drawn[50, 10:91].all()
    oblique = strokes([np.array([[20.0, 20.0], [80.0, 50.0]])], (100, 100), width)
    caps = np.pi * width**2 / 4
    assert oblique.sum() == pytest.approx(width * np.hypot(60, 30) + caps, rel=0.1)
    assert not strokes([], (100, 100), width).any()


def test_a_mask_of_another_width_has_a_perfect_line_and_a_lower_dice() -> None:
    scored = score(band(250, 253), truth_of(band(248, 255)), 5.0)
    assert scored.f1 == 1.0
    assert scored.dice == pytest.approx(2 * 3 / (3 + 7))


def test_tolerance_is_that_of_an_image_of_512() -> None:
    assert tolerance_of((256, 200), 5.0) == 2.5
    truth = truth_of(band(100, 103, 256))
    assert score(band(102, 105, 256), truth, 5.0).f1 > 0.95
    assert score(band(103, 106, 256), truth, 5.0).f1 < 0.05


def test_what_is_ignored_counts_neither_way() -> None:
    true, other = band(100, 105), band(300, 305)
    assert score(true | other, truth_of(true), 5.0).f1 == pytest.approx(2 / 3, abs=0.01)
    assert score(true | other, truth_of(true, other), 5.0).f1 == 1.0
    assert score(true | other, truth_of(true, other), 5.0).dice == 1.0


def test_nothing_in_both_is_undefined() -> None:
    none = np.zeros((64, 64), bool)
    assert np.isnan(score(none, truth_of(none), 5.0).f1)


def test_unlabelled_lines_of_real_frames_are_ignored_but_not_near_the_truth(tmp_path) -> None:
    grey = np.full((128, 128), 150, np.uint8)
    grey[:, 60:63] = 60
    cv2.imwrite(str(tmp_path / "a.png"), grey)
    source = BackgroundSettings(path=tmp_path, share=1.0)
    settings = SMALL.model_copy(
        update={
            "kinds": ("human",),
            "simulation": SMALL.simulation.model_copy(update={"backgrounds": (source,)}),
        }
    )
    frames = [exported_frame(settings, index) for index in range(6)]
    assert all(not (frame.ignored & frame.mask).any() for frame in frames)
    assert sum(frame.ignored.any() for frame in frames) >= 4
    assert not exported_frame(SMALL, 0).ignored.any()


def test_compression_changes_little_at_high_quality_and_more_at_low() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    errors = [np.abs(compressed(grey, q).astype(int) - grey).mean() for q in (98, 60, 10)]
    assert errors[0] < errors[1] < errors[2]


def test_the_sheet_shows_every_frame_twice() -> None:
    frame = replace(truth_of(band(30, 34, 64)), frame=Frame(np.full((64, 64), 100, np.uint8)))
    sheet = draw_sheet([frame] * 4, columns=6, tile=64)
    assert sheet.shape == (2 * 64, 6 * 64, 3)
    assert (sheet[:64, :64] == 100).all()
    assert (sheet[:64, 64:128] == (0, 159, 230)).all(-1).any()
