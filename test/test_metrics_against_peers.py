# SPDX-License-Identifier: Apache-2.0
"""Our metrics beside those of scikit-learn and MONAI, where they have the same one."""

import numpy as np
import pytest

from fedefm_core.evaluation.metrics import RegionCounts, count_region, dice, iou, nan_mean

LABELS = (1, 2)


@pytest.fixture(scope="module")
def label_maps():
    """(n, H, W) predicted and true; one frame without class 2, one without anything."""
    rng = np.random.default_rng(0)
    true = rng.choice(3, (6, 16, 20), p=[0.7, 0.2, 0.1])
    predicted = np.where(rng.random(true.shape) < 0.7, true, rng.choice(3, true.shape))
    true[1][true[1] == 2] = 0
    predicted[2], true[2] = 0, 0
    return predicted, true


def frame_counts(predicted, true, label):
    none = np.zeros(predicted.shape[1:], dtype=bool)
    return np.array(
        [
            count_region(p == label, t == label, none, none, 3.0)
            for p, t in zip(predicted, true, strict=True)
        ]
    )


@pytest.mark.parametrize("label", LABELS)
def test_pooled_overlap_is_that_of_scikit_learn(label_maps, label):
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    predicted, true = label_maps
    pooled = RegionCounts(*frame_counts(predicted, true, label).sum(0))
    p, t = (predicted == label).ravel(), (true == label).ravel()
    assert dice(pooled) == pytest.approx(sklearn_metrics.f1_score(t, p))
    assert iou(pooled) == pytest.approx(sklearn_metrics.jaccard_score(t, p))


def test_overlap_by_frame_is_that_of_monai(label_maps):
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.metrics")
    predicted, true = label_maps
    one_hot = [
        torch.from_numpy(np.stack([maps == k for k in range(3)], axis=1)) for maps in label_maps
    ]
    for theirs, ours in [(monai.DiceMetric, dice), (monai.MeanIoU, iou)]:
        # ignore_empty=False counts two empty masks as 1; with True, empty truth as NaN. Ours: NaN
        # for two empty masks, 0 for a prediction where there is nothing.
        kept = theirs(include_background=False, ignore_empty=True)(*one_hot).numpy()
        for column, label in enumerate(LABELS):
            values = ours(RegionCounts(*frame_counts(predicted, true, label).T))
            has_truth = (true == label).any((1, 2))
            np.testing.assert_allclose(values[has_truth], kept[has_truth, column], rtol=1e-6)
            assert np.isnan(values[2])
    assert dice(RegionCounts(*frame_counts(predicted, true, 2).T))[1] == 0.0


def test_mean_over_frames_is_that_of_monai(label_maps):
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.metrics")
    predicted, true = (maps[[0, 3, 4, 5]] for maps in label_maps)
    metric = monai.DiceMetric(include_background=False, reduction="mean_batch")
    metric(
        *(
            torch.from_numpy(np.stack([m == k for k in range(3)], axis=1))
            for m in (predicted, true)
        )
    )
    ours = [nan_mean(dice(RegionCounts(*frame_counts(predicted, true, k).T))) for k in LABELS]
    np.testing.assert_allclose(metric.aggregate().numpy(), ours, rtol=1e-6)
