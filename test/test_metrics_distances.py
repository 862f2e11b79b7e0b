# SPDX-License-Identifier: Apache-2.0
"""Distances, mIoU, calibration, coverage, the paired test: closed forms and other libraries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedefm_core.evaluation.calibration import (
    BINS,
    calibration_counts,
    ellipse_limit,
    expected_calibration_error,
    squared_mahalanobis,
)
from fedefm_core.evaluation.comparison import compare, most_different, sign_flip_p
from fedefm_core.evaluation.distances import (
    F1_TOLERANCES_PX,
    centerline_distance,
    f1_at,
    hausdorff95,
    near_counts,
    skeleton_gaps,
)
from fedefm_core.evaluation.evaluate import EvaluationSettings, score_frame, summarise
from fedefm_core.evaluation.metrics import confusion, match_tips, mean_iou, pixel_accuracy
from fedefm_core.evaluation.truth import FrameTruth
from fedefm_core.perception.types import Instrument

SETTINGS = EvaluationSettings(bootstrap_resamples=20)


def blob(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = np.zeros((40, 50), bool)
    y, x = rng.integers(2, 20, 2)
    mask[y : y + 12, x : x + 20] = True
    return mask ^ (rng.random(mask.shape) < 0.02)


def line(row: int, width: int = 60) -> np.ndarray:
    mask = np.zeros((40, width), bool)
    mask[row, 5:-5] = True
    return mask


@pytest.mark.parametrize("seed", range(4))
def test_hausdorff_is_that_of_monai(seed: int) -> None:
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    predicted, true = blob(seed), blob(seed + 10)
    theirs = metrics.compute_hausdorff_distance(
        torch.from_numpy(predicted)[None, None],
        torch.from_numpy(true)[None, None],
        include_background=True,
        percentile=95,
    )
    assert hausdorff95(predicted, true) == pytest.approx(float(theirs), rel=1e-5)


def test_distances_of_parallel_lines_and_of_nothing() -> None:
    assert hausdorff95(line(10), line(14)) == pytest.approx(4)
    assert centerline_distance(skeleton_gaps(line(10), line(14))) == pytest.approx(4)
    assert centerline_distance(skeleton_gaps(line(10), line(10))) == 0
    nothing = np.zeros((40, 60), bool)
    for pair in ((nothing, line(10)), (line(10), nothing)):
        assert np.isnan(hausdorff95(*pair))
        assert np.isnan(centerline_distance(skeleton_gaps(*pair)))


def test_f1_steps_at_the_distance_of_the_lines() -> None:
    assert F1_TOLERANCES_PX == (1, 2, 3, 5)
    assert f1_at(near_counts(skeleton_gaps(line(10), line(12)))).tolist() == [0, 1, 1, 1]
    assert f1_at(near_counts(skeleton_gaps(line(10), line(14)))).tolist() == [0, 0, 0, 1]
    nothing = np.zeros((40, 60), bool)
    assert f1_at(near_counts(skeleton_gaps(nothing, line(10)))).tolist() == [0] * 4
    assert np.isnan(f1_at(near_counts(skeleton_gaps(nothing, nothing)))).all()
    half = line(10)
    half[:, 30:] = False  # precision 1; recall of the near part
    near, predicted, back, true = near_counts(skeleton_gaps(half, line(10)))[0]
    assert (near, predicted, back, true) == (25, 25, 26, 50)


def test_mean_iou_is_that_of_scikit_learn_and_differs_by_the_background() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    true = rng.choice(3, (30, 30), p=[0.8, 0.1, 0.1]).astype(np.uint8)
    predicted = np.where(rng.random(true.shape) < 0.8, true, 0).astype(np.uint8)
    counts = confusion(predicted, true)
    np.testing.assert_array_equal(
        counts, sklearn.confusion_matrix(true.ravel(), predicted.ravel(), labels=[0, 1, 2])
    )
    for with_background, labels in ((True, [0, 1, 2]), (False, [1, 2])):
        theirs = sklearn.jaccard_score(
            true.ravel(), predicted.ravel(), labels=labels, average="macro"
        )
        assert mean_iou(counts, with_background) == pytest.approx(theirs)
    assert pixel_accuracy(counts) == pytest.approx((true == predicted).mean())
    assert np.isnan(mean_iou(np.diag([9, 0, 0]), False))
    assert mean_iou(np.diag([9, 0, 0]), True) == 1


def test_calibration_error_is_that_of_scikit_learns_curve() -> None:
    calibration = pytest.importorskip("sklearn.calibration")
    rng = np.random.default_rng(1)
    said = rng.random(5000)
    right = rng.random(5000) < said**2
    share, mean = calibration.calibration_curve(right, said, n_bins=BINS)
    weight = np.histogram(said, BINS, (0, 1))[0] / len(said)
    ours = expected_calibration_error(calibration_counts(said, right))
    assert ours == pytest.approx(float((weight * np.abs(share - mean)).sum()))
    assert expected_calibration_error(calibration_counts(np.ones(9), np.ones(9, bool))) == 0
    assert np.isnan(expected_calibration_error(np.zeros((BINS, 3))))


@given(st.floats(0.5, 5), st.floats(0.5, 5), st.floats(0, 3.1))
def test_honest_covariances_cover_what_they_say(long: float, short: float, turn: float) -> None:
    rng = np.random.default_rng(2)
    axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    covariance = axes @ np.diag([long**2, short**2]) @ axes.T
    true = np.array([[50.0, 50.0]])
    inside = []
    for error in rng.multivariate_normal([0, 0], covariance, 300):
        tip = true[0] + error
        found = Instrument("guidewire", np.zeros((2, 2)), tip, 0.0, covariance, 0.9, 9.0)
        match = match_tips(tip[None], true, 1000.0)
        (squared,) = squared_mahalanobis(match, [found], true)
        inside.append(squared <= ellipse_limit(0.9))
    assert np.mean(inside) == pytest.approx(0.9, abs=0.06)


def test_tips_without_covariance_say_nothing() -> None:
    found = Instrument("guidewire", np.zeros((2, 2)), np.zeros(2), 0.0, None, 0.9, 9.0)
    match = match_tips(np.zeros((1, 2)), np.zeros((1, 2)), 20.0)
    assert len(squared_mahalanobis(match, [found], np.zeros((1, 2)))) == 0


def scored(name: str, row: int, tip: float, count: int = 1):
    labels, mask = line(row).astype(np.uint8) * 2, line(10).astype(np.uint8) * 2
    where = np.array([tip, 10.0])
    found = Instrument("guidewire", np.zeros((2, 2)), where, 0.0, np.eye(2) * 4, 0.9, 9.0)
    tips = {"guidewire": np.array([[54.0, 10.0]]), "catheter": np.zeros((0, 2))}
    truth = FrameTruth("human", tips, (), count)
    probability = np.full(mask.shape, 0.8)
    return score_frame(name, labels, [found], mask, truth, SETTINGS, probability, 0.5)


def test_the_summary_has_all_of_it() -> None:
    scores = [scored("a", 10, 52.0), scored("b", 12, 49.0, 4), scored("c", 10, 54.0, 1)]
    found = summarise(scores, SETTINGS)["all"]
    more = found["tips_more"]["guidewire"]
    assert more["pck"]["3"]["count"] == 2
    assert more["pck"]["9"]["rate"] == 1
    assert more["error_mm"]["median"] == pytest.approx(1.0)
    # squared deviations 1, 6.25 and 0 against limits 1.39, 4.61 and 5.99
    assert [c["count"] for c in more["covariance_coverage"].values()] == [2, 2, 2]
    assert found["classes"]["miou_without_background"]["mean"] == pytest.approx(2 / 3)
    f1 = found["distances"]["guidewire"]["centerline_f1_at"]
    assert (f1["1"]["mean"], f1["2"]["mean"]) == (pytest.approx(2 / 3), 1.0)
    assert found["distances"]["guidewire"]["hausdorff95_px"]["mean"] == pytest.approx(2 / 3)
    wrong = 100 / 7200  # of the pixels, two lines of 50 are wrong in one frame
    assert found["calibration"]["all_pixels"]["ece"] == pytest.approx(0.2 - wrong, abs=1e-6)
    assert found["calibration"]["called_instrument"]["ece"] == pytest.approx(0.8 - 2 / 3, abs=1e-6)
    assert {label: by["frames"] for label, by in found["by_instruments"].items()} == {
        "1": 2,
        ">= 3": 1,
    }


def test_the_paired_test_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    differences = np.random.default_rng(3).normal(0.3, 1.0, 12)
    theirs = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p(differences, 0) == pytest.approx(theirs.pvalue, abs=0.01)
    assert sign_flip_p(np.zeros(5), 0) == 1
    assert sign_flip_p(np.full(30, 0.1), 0) < 0.001


def test_two_models_on_the_same_frames() -> None:
    first = [scored(name, 10, 54.0) for name in "abc"]
    second = [scored(name, row, 54.0) for name, row in zip("abc", (10, 30, 10), strict=True)]
    found = compare(first, second, SETTINGS)
    dice = found["guidewire_dice"]
    assert (dice["first"], dice["second"]) == (1.0, pytest.approx(2 / 3))
    assert dice["difference"] == pytest.approx(-1 / 3)
    assert (dice["first_better"], dice["second_better"]) == (1, 0)
    assert found["catheter_dice"] == {"n": 0}
    assert most_different(first, second, "foreground_dice", 2)[0] == 1
    with pytest.raises(ValueError, match="same frames"):
        compare(first, second[::-1], SETTINGS)
