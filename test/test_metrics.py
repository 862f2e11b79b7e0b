# SPDX-License-Identifier: Apache-2.0
import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedefm_core.evaluation.metrics import (
    REGION_METRICS,
    RegionCounts,
    assign,
    bootstrap_interval,
    centerline_f1,
    centerline_precision,
    centerline_recall,
    cl_dice,
    count_region,
    dice,
    iou,
    match_tips,
    nan_mean,
    nan_quantile,
    widen,
)

MASKS = hnp.arrays(np.bool_, (6, 8))
POINTS = hnp.arrays(
    np.float64, st.tuples(st.integers(0, 5), st.just(2)), elements=st.floats(0, 100)
)


def horizontal_line(row, width=1, shape=(40, 60), columns=slice(5, 55)):
    mask = np.zeros(shape, dtype=bool)
    mask[row - width // 2 : row + width // 2 + 1, columns] = True
    return mask


def counts_of(predicted, true, tolerance=3.0, predicted_skeleton=None, true_skeleton=None):
    """Counts of masks that are their own skeletons unless told otherwise."""
    return count_region(
        predicted,
        true,
        predicted if predicted_skeleton is None else predicted_skeleton,
        true if true_skeleton is None else true_skeleton,
        tolerance,
    )


def test_closed_form_overlap():
    predicted = np.zeros((10, 10), dtype=bool)
    true = predicted.copy()
    predicted[0:4, 0:4] = True  # 16 px
    true[2:6, 0:4] = True  # 16 px, 8 in common
    counts = counts_of(predicted, true)
    assert dice(counts) == pytest.approx(0.5)
    assert iou(counts) == pytest.approx(8 / 24)


@pytest.mark.parametrize("name", REGION_METRICS)
def test_perfect_and_disjoint(name):
    line, far = horizontal_line(10), horizontal_line(30)
    assert REGION_METRICS[name](counts_of(line, line)) == 1.0
    assert REGION_METRICS[name](counts_of(line, far)) == 0.0


def test_empty_masks():
    line, empty = horizontal_line(10), np.zeros((40, 60), dtype=bool)
    for name, metric in REGION_METRICS.items():
        assert np.isnan(metric(counts_of(empty, empty))), name
    for predicted, true in [(line, empty), (empty, line)]:
        for metric in (dice, iou, cl_dice, centerline_f1):
            assert metric(counts_of(predicted, true)) == 0.0
    assert centerline_precision(counts_of(line, empty)) == 0.0
    assert np.isnan(centerline_precision(counts_of(empty, line)))
    assert centerline_recall(counts_of(empty, line)) == 0.0
    assert np.isnan(centerline_recall(counts_of(line, empty)))


def test_cl_dice_of_a_wide_and_a_half_line():
    """Topology precision 1 (all of the prediction's skeleton is inside), sensitivity one half."""
    true = horizontal_line(20, width=5, columns=slice(5, 55))
    predicted = horizontal_line(20, width=3, columns=slice(5, 30))
    counts = counts_of(
        predicted,
        true,
        predicted_skeleton=horizontal_line(20, columns=slice(5, 30)),
        true_skeleton=horizontal_line(20, columns=slice(5, 55)),
    )
    assert cl_dice(counts) == pytest.approx(2 * 1.0 * 0.5 / 1.5)


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (3, 1.0), (4, 0.0)])
def test_centerline_f1_has_a_closed_tolerance(shift, expected):
    counts = counts_of(horizontal_line(20 + shift), horizontal_line(20), tolerance=3.0)
    assert centerline_f1(counts) == expected


def test_centerline_precision_and_recall_of_an_overshoot():
    """50 px true, 80 px predicted: 3 px beyond the end are still near, so (50 + 3) / 80."""
    true = horizontal_line(20, shape=(40, 100), columns=slice(5, 55))
    predicted = horizontal_line(20, shape=(40, 100), columns=slice(5, 85))
    counts = counts_of(predicted, true)
    assert centerline_precision(counts) == pytest.approx(53 / 80)
    assert centerline_recall(counts) == 1.0
    assert centerline_f1(counts) == pytest.approx(2 * (53 / 80) / (53 / 80 + 1))


def test_pooled_is_the_formula_of_summed_counts():
    small, large = np.zeros((20, 20), dtype=bool), np.ones((20, 20), dtype=bool)
    small[0, :2] = True
    half = large.copy()
    half[:10] = False
    frames = np.array([counts_of(small, small), counts_of(half, large)])  # dice 1 and 2/3
    pooled = RegionCounts(*frames.sum(axis=0))
    assert dice(pooled) == pytest.approx(2 * (2 + 200) / (4 + 600))
    assert nan_mean(dice(RegionCounts(*frames.T))) == pytest.approx((1 + 2 / 3) / 2)


def test_masks_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        counts_of(np.zeros((3, 4), bool), np.zeros((4, 3), bool))


@given(MASKS, st.floats(0, 5))
def test_widen_is_euclidean(mask, radius):
    ys, xs = np.nonzero(mask)
    grid_y, grid_x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    squared = (grid_y[..., None] - ys) ** 2 + (grid_x[..., None] - xs) ** 2
    np.testing.assert_array_equal(widen(mask, radius), (squared <= radius * radius).any(-1))


@given(MASKS, MASKS)
def test_region_metrics_are_bounded_symmetric_and_flip_invariant(a, b):
    counts, swapped = counts_of(a, b), counts_of(b, a)
    flipped = counts_of(a[::-1, ::-1].T, b[::-1, ::-1].T)
    for name, metric in REGION_METRICS.items():
        value = metric(counts)
        assert np.isnan(value) or 0 <= value <= 1
        np.testing.assert_equal(metric(flipped), value)
        if name not in ("centerline_precision", "centerline_recall"):
            np.testing.assert_allclose(metric(swapped), value)
    np.testing.assert_equal(centerline_precision(counts), centerline_recall(swapped))


@given(MASKS, MASKS)
def test_dice_and_iou_are_one_another(a, b):
    counts = counts_of(a, b)
    np.testing.assert_allclose(dice(counts), 2 * iou(counts) / (1 + iou(counts)))


@given(MASKS, MASKS, st.integers(2, 4))
def test_overlap_does_not_depend_on_scale(a, b, factor):
    def grow(mask):
        return mask.repeat(factor, 0).repeat(factor, 1)

    small, large = counts_of(a, b), counts_of(grow(a), grow(b))
    np.testing.assert_allclose(dice(large), dice(small))
    np.testing.assert_allclose(iou(large), iou(small))


@settings(max_examples=30)
@given(st.lists(st.tuples(MASKS, MASKS), min_size=1, max_size=4), st.randoms())
def test_order_of_frames_does_not_matter(pairs, random):
    def all_values(pairs):
        frames = np.array([counts_of(a, b) for a, b in pairs])
        pooled, each = RegionCounts(*frames.sum(0)), RegionCounts(*frames.T)
        return [[m(pooled), nan_mean(m(each))] for m in REGION_METRICS.values()]

    shuffled = random.sample(pairs, len(pairs))
    np.testing.assert_allclose(all_values(shuffled), all_values(pairs))


def test_tips_are_matched_not_taken_greedily():
    """Greedy takes the pair at 1 px and leaves 11 px; least total cost is 5 + 5 px."""
    true = np.array([[0.0, 0.0], [6.0, 0.0]])
    predicted = np.array([[5.0, 0.0], [11.0, 0.0]])
    match = match_tips(predicted, true, gate_px=20.0)
    assert match.pairs.tolist() == [[0, 0], [1, 1]]
    assert match.errors_px.tolist() == [5.0, 5.0]


def test_tips_missed_and_false():
    true = np.array([[10.0, 10.0], [90.0, 90.0]])
    predicted = np.array([[13.0, 14.0], [50.0, 50.0], [50.0, 60.0]])
    match = match_tips(predicted, true, gate_px=20.0)
    assert match.errors_px.tolist() == [5.0]
    assert (match.missed, match.false) == (1, 2)


def test_tip_gate_is_open():
    true, predicted = np.array([[0.0, 0.0]]), np.array([[20.0, 0.0]])
    match = match_tips(predicted, true, gate_px=20.0)
    assert (len(match.pairs), match.missed, match.false) == (0, 1, 1)
    assert len(match_tips(predicted, true, gate_px=20.1).pairs) == 1


def test_no_tips_at_all():
    none = np.zeros((0, 2))
    for predicted, true in itertools.product([none, np.ones((2, 2))], [none, np.ones((3, 2))]):
        match = match_tips(predicted, true, gate_px=20.0)
        assert match.missed == len(true) - len(match.pairs)
        assert match.false == len(predicted) - len(match.pairs)


@given(POINTS, POINTS, st.floats(0.1, 10), st.randoms())
def test_tip_matching_properties(predicted, true, factor, random):
    match = match_tips(predicted, true, gate_px=30.0)
    assert len(set(match.pairs[:, 0])) == len(set(match.pairs[:, 1])) == len(match.pairs)
    assert np.all(match.errors_px < 30.0)

    def cost(match):
        return match.errors_px.sum() + 30.0 * (match.missed + match.false) / 2

    order = random.sample(range(len(predicted)), len(predicted))
    assert cost(match_tips(predicted[order], true, 30.0)) == pytest.approx(cost(match))
    assert cost(match_tips(true, predicted, 30.0)) == pytest.approx(cost(match))
    scaled = match_tips(predicted * factor, true * factor, 30.0 * factor)
    total = scaled.errors_px.sum() / factor + 30.0 * (scaled.missed + scaled.false) / 2
    assert total == pytest.approx(cost(match), abs=1e-6)


@settings(max_examples=60)
@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(0, 5), st.integers(0, 5)),
        elements=st.floats(-100, 100) | st.integers(-2, 2).map(float),
    )
)
def test_assign_is_as_cheap_as_the_cheapest_of_all(cost):
    pairs = assign(cost)
    assert len(pairs) == min(cost.shape)
    wide = cost if cost.shape[0] <= cost.shape[1] else cost.T
    cheapest = min(
        sum(wide[row, column] for row, column in enumerate(columns))
        for columns in itertools.permutations(range(wide.shape[1]), wide.shape[0])
    )
    assert cost[pairs[:, 0], pairs[:, 1]].sum() == pytest.approx(cheapest, abs=1e-6)


def test_assign_agrees_with_scipy():
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(0)
    for shape in [(30, 30), (20, 45), (45, 20)]:
        cost = rng.normal(size=shape)
        pairs, expected = assign(cost), optimize.linear_sum_assignment(cost)
        np.testing.assert_array_equal(pairs.T, expected)


@given(
    hnp.arrays(np.float64, (3, 7), elements=st.floats(-10, 10) | st.just(np.nan)), st.floats(0, 1)
)
def test_nan_mean_and_quantile_agree_with_numpy(values, q):
    values[:, 0] = 1.0  # numpy warns of rows with nothing in them
    np.testing.assert_allclose(nan_mean(values), np.nanmean(values, axis=-1), atol=1e-12)
    np.testing.assert_allclose(nan_quantile(values, q), np.nanquantile(values, q, axis=-1))


def test_nan_mean_and_quantile_of_nothing():
    assert np.isnan(nan_mean(np.array([np.nan, np.nan])))
    assert np.isnan(nan_quantile(np.array([np.nan, np.nan]), 0.5))


def test_bootstrap_of_a_mean_is_near_the_normal_interval():
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    low, high = bootstrap_interval(nan_mean, values, seed=0, resamples=4000)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)


def test_bootstrap_is_seeded_and_blockwise_equal(monkeypatch):
    values = np.random.default_rng(1).normal(size=50)
    first = bootstrap_interval(nan_mean, values, seed=3)
    assert bootstrap_interval(nan_mean, values, seed=3) == first
    assert bootstrap_interval(nan_mean, values, seed=4) != first
    monkeypatch.setattr("fedefm_core.evaluation.metrics.BLOCK_ELEMENTS", 333)
    assert bootstrap_interval(nan_mean, values, seed=3) == first


def test_bootstrap_without_enough_to_say():
    assert bootstrap_interval(nan_mean, np.array([1.0]), seed=0) is None
    assert bootstrap_interval(nan_mean, np.array([np.nan, np.nan]), seed=0) is None
    assert bootstrap_interval(nan_mean, np.array([np.nan, 0.0]), seed=0) is None
    assert bootstrap_interval(nan_mean, np.array([2.0, 2.0]), seed=0) == (2.0, 2.0)


def test_needs_numpy_only():
    code = (
        "import sys, fedefm_core.evaluation.metrics\n"
        "sys.exit(str({'torch', 'cv2', 'scipy', 'monai', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert done.stderr.strip() == "set()"
