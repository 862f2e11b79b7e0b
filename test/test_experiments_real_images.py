# SPDX-License-Identifier: Apache-2.0
"""The study on real images: its scores from hand-made masks, its table, its missing sources."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fedefm_core.errors import FrameError
from fedefm_core.experiments.real_images import (
    CatheterSettings,
    NegativeSettings,
    RealImagesSettings,
    draw_lines,
    line_scores,
    marked_catheters,
    mean_scores,
    table,
)

SIDE = 100


def columns(*xs: int, top: int = 0, bottom: int = SIDE) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    for x in xs:
        mask[top:bottom, x] = True
    return mask


NONE = columns()


def test_a_line_within_tolerance_is_found_and_one_beyond_is_not() -> None:
    truth = columns(50)
    assert line_scores(columns(53), truth, NONE, 3.0)["f1"] == 1.0
    assert line_scores(columns(54), truth, NONE, 3.0) == {"precision": 0, "recall": 0, "f1": 0}


def test_half_found_and_half_false() -> None:
    half = line_scores(columns(50, bottom=50), columns(50), NONE, 0.0)
    assert (half["precision"], half["recall"]) == (1.0, 0.5)
    assert half["f1"] == pytest.approx(2 / 3)
    false = line_scores(columns(20, 50), columns(50), NONE, 2.0)
    assert (false["precision"], false["recall"]) == (0.5, 1.0)


def test_what_lies_on_an_uncertain_line_counts_neither_way() -> None:
    scores = line_scores(columns(20, 50), columns(50), columns(21), 2.0)
    assert scores == {"precision": 1.0, "recall": 1.0, "f1": 1.0}


def test_nothing_predicted_scores_zero() -> None:
    assert line_scores(NONE, columns(50), NONE, 5.0)["f1"] == 0.0


def test_drawn_lines_pass_through_their_points_without_gaps() -> None:
    points = ((5.0, 5.0), (30.0, 60.0), (80.0, 40.0), (90.0, 95.0))
    drawn = draw_lines([points], (SIDE, SIDE))
    for x, y in points:
        assert drawn[int(y), int(x)]
    assert cv2.connectedComponents(drawn.astype(np.uint8), connectivity=8)[0] == 2
    straight = draw_lines([((10.0, 50.0), (50.0, 50.0), (90.0, 50.0))], (SIDE, SIDE))
    np.testing.assert_array_equal(straight, columns(50, top=10, bottom=91).T)


def test_no_lines_draw_nothing() -> None:
    assert not draw_lines([], (SIDE, SIDE)).any()


def test_marked_catheters_asks_the_model_about_each_frame(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "frame.png"), np.full((SIDE, SIDE), 90, np.uint8))
    settings = RealImagesSettings(
        root=tmp_path,
        catheters=(CatheterSettings(file=Path("frame.png"), lines=(((50, 0), (50, 99)),)),),
    )
    found = marked_catheters(settings, lambda frame: columns(50).astype(np.uint8))
    missed = marked_catheters(settings, lambda frame: np.zeros(frame.pixels.shape, np.uint8))
    assert found["frame_0000"]["f1"] == 1.0
    assert mean_scores({"a": found["frame_0000"], "b": missed["frame_0000"]})["f1"] == 0.5


def test_a_missing_frame_is_told(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "frame.png"), np.full((SIDE, SIDE), 90, np.uint8))
    lines = (((50.0, 0.0), (50.0, 99.0)),)
    for marked, told in (
        (CatheterSettings(file=Path("frame.png"), frame=7, lines=lines), "has no frame 7"),
        (CatheterSettings(file=Path("other.png"), lines=lines), "other.png"),
    ):
        settings = RealImagesSettings(root=tmp_path, catheters=(marked,))
        with pytest.raises(FrameError, match=told):
            marked_catheters(settings, lambda frame: frame.pixels)


def test_a_missing_source_of_negatives_is_told(tmp_path: Path) -> None:
    from fedefm_core.experiments.real_images import real_images
    from fedefm_core.perception import Segmenter, open_runtime

    (tmp_path / "empty").mkdir()
    segmenter = Segmenter(open_runtime(None, "openvino"))
    for path, pattern, told in (("none", "*", "none"), ("empty", "a*", r"fits 'a\*'")):
        source = NegativeSettings(name="n", path=Path(path), pattern=pattern)
        settings = RealImagesSettings(root=tmp_path, negatives=(source,))
        with pytest.raises(FrameError, match=told):
            real_images(settings, segmenter, tmp_path / "out")


def test_rows_of_the_table() -> None:
    share = {"share": 0.00123, "tips": 2, "frames": 40}
    report = {
        "negatives": {"retina": share},
        "vessels": {"share": 0.03, "tips": 5, "frames": 300},
        "catheters": {"mean": {"precision": 0.5, "recall": 0.25, "f1": 1 / 3}, "frames": {"a": 0}},
    }
    header, *rows = table(report)
    assert all(len(row) == len(header) for row in rows)
    assert rows[0] == ("retina", "0.123 %", "2", "40")
    assert rows[1] == ("labelled vessels", "3.000 %", "5", "300")
    assert rows[2] == ("marked catheters", "F1 0.33 (precision 0.50, recall 0.25)", "", "1")
    assert len(table({"negatives": {}})) == 1
