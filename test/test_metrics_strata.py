# SPDX-License-Identifier: Apache-2.0
"""Recall by width and contrast: counts that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fedefm_core.evaluation.strata import LineTruth, score_line, summarise_lines


def line(kind: str = "guidewire", width: float = 1.0, contrast: float | None = 2.0) -> LineTruth:
    """Along y = 20 from x = 0 to 39."""
    points = np.stack([np.arange(40.0), np.full(40, 20.0)], axis=1)
    return LineTruth(kind, points, width, contrast)


def label_map(value: int, row: int = 20, columns: slice = np.s_[:]) -> np.ndarray:
    labels = np.zeros((64, 64), np.uint8)
    labels[row, columns] = value
    return labels


def test_all_of_it_is_found_within_the_tolerance_and_none_beyond() -> None:
    assert score_line(line(), label_map(2, row=23), 3.0).found == 40
    assert score_line(line(), label_map(2, row=24), 3.0).found == 0
    assert score_line(line(), np.zeros((64, 64), np.uint8), 3.0).found == 0


def test_half_of_it_and_as_another_kind() -> None:
    score = score_line(line("catheter"), label_map(2, columns=np.s_[:20]), 0.5)
    assert (score.points, score.found, score.found_as_kind) == (40, 20, 0)


def test_bins_pool_points_and_leave_out_what_is_not_known() -> None:
    half = label_map(2, columns=np.s_[:20])
    scores = [
        score_line(truth, half, 0.5)
        for truth in (line(width=1.0), line(width=3.0, contrast=None), line("catheter", width=9.0))
    ]
    summary = summarise_lines(scores)
    assert [bin["n"] for bin in summary["width_px"].values()] == [1, 1, 0, 1]
    assert summary["width_px"]["< 2"] == {"n": 1, "recall": 0.5, "recall_as_kind": 0.5}
    assert summary["width_px"][">= 8"]["recall_as_kind"] == 0.0
    assert summary["width_px"]["4 to 8"]["recall"] is None
    assert summary["contrast_to_noise"]["1.5 to 3"]["n"] == 2
    assert summary["contrast_to_noise"]["1.5 to 3"]["recall"] == pytest.approx(0.5)
