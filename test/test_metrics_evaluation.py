# SPDX-License-Identifier: Apache-2.0
import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from fedefm_core.errors import TruthError
from fedefm_core.evaluation.evaluate import (
    EvaluationSettings,
    frame_row,
    score_frame,
    summarise,
)
from fedefm_core.evaluation.truth import FrameTruth, find_truth, read_mask, read_truth
from fedefm_core.perception.types import CATHETER, GUIDEWIRE, Instrument

SETTINGS = EvaluationSettings(bootstrap_resamples=50)
PNG = cv2.imencode(".png", np.eye(64, dtype=np.uint8))[1].tobytes()
NO_TIPS = {"catheter": np.zeros((0, 2)), "guidewire": np.zeros((0, 2))}


def instrument(kind, tip):
    tip = None if tip is None else np.array(tip, dtype=float)
    return Instrument(kind, np.zeros((2, 2)), tip, None, None, 0.9, 10.0)


def truth(kind="human", **tips):
    return FrameTruth(kind, {**NO_TIPS, **{k: np.reshape(v, (-1, 2)) for k, v in tips.items()}})


def label_map(catheter_row=None, guidewire_row=None, shape=(64, 64)):
    labels = np.zeros(shape, dtype=np.uint8)
    if catheter_row is not None:
        labels[catheter_row - 3 : catheter_row + 4, :40] = CATHETER
    if guidewire_row is not None:
        labels[guidewire_row - 1 : guidewire_row + 2, :50] = GUIDEWIRE
    return labels


def test_perfect_frame():
    labels = label_map(20, 50)
    found = [instrument("catheter", (39, 20)), instrument("guidewire", (49, 50))]
    score = score_frame(
        "a", labels, found, labels, truth(catheter=(39, 20), guidewire=(49, 50)), SETTINGS
    )
    row = frame_row(score)
    for region in ("catheter", "guidewire", "foreground"):
        assert set(row["regions"][region].values()) == {1.0}
    assert row["tips"]["guidewire"] == {"error_px": [0.0], "missed": 0, "false": 0}


def test_classes_swapped_hurts_classes_but_not_the_foreground():
    labels = label_map(20, 50)
    swapped = np.choose(labels, [0, 2, 1]).astype(np.uint8)
    row = frame_row(score_frame("a", swapped, [], labels, None, SETTINGS))
    assert row["regions"]["foreground"]["dice"] == 1.0
    assert row["regions"]["guidewire"]["dice"] == 0.0
    assert row["tips"] is None


def test_a_wire_shifted_by_two_pixels():
    """Masks 3 px wide: Dice 1/3, clDice 0 (no skeleton in the other mask), F1 at 3 px 1."""
    moved, labels = label_map(None, 52), label_map(None, 50)
    row = frame_row(score_frame("a", moved, [], labels, None, SETTINGS))
    assert row["regions"]["guidewire"]["dice"] == pytest.approx(1 / 3, abs=1e-6)
    assert row["regions"]["guidewire"]["cldice"] == 0.0
    assert row["regions"]["guidewire"]["centerline_f1"] == 1.0
    assert row["regions"]["catheter"]["dice"] is None


def test_tips_of_another_kind_do_not_match():
    labels = label_map(20, 50)
    found = [instrument("catheter", (49, 50)), instrument("guidewire", None)]
    tips = score_frame("a", labels, found, labels, truth(guidewire=(49, 50)), SETTINGS).tips
    assert (tips["guidewire"].missed, tips["guidewire"].false) == (1, 0)
    assert (tips["catheter"].missed, tips["catheter"].false) == (0, 1)


def test_summary_by_kind_counts_what_it_says():
    labels = label_map(20, 50)
    scores = [
        score_frame("a", labels, [], labels, truth("human", guidewire=(49, 50)), SETTINGS),
        score_frame(
            "b",
            labels,
            [instrument("guidewire", (46, 54)), instrument("guidewire", (5, 5))],
            labels,
            truth("animal", guidewire=(49, 50)),
            SETTINGS,
        ),
        score_frame("c", label_map(20), [], label_map(20), truth("animal"), SETTINGS),
    ]
    summary = json.loads(json.dumps(summarise(scores, SETTINGS), allow_nan=False))
    assert list(summary) == ["all", "animal", "human"]
    assert [summary[group]["frames"] for group in summary] == [3, 2, 1]
    assert summary["all"]["regions"]["guidewire"]["dice"]["n"] == 2
    assert summary["all"]["regions"]["guidewire"]["dice"]["mean"] == 1.0
    tips = summary["all"]["tips"]["guidewire"]
    assert (tips["error_px"]["n"], tips["error_px"]["median"]) == (1, 5.0)
    assert (tips["missed"]["count"], tips["missed"]["n"], tips["missed"]["rate"]) == (1, 2, 0.5)
    assert (tips["false"]["count"], tips["false"]["n"], tips["false"]["rate"]) == (1, 2, 0.5)
    assert summary["human"]["tips"]["guidewire"]["error_px"]["median"] is None
    assert summary["human"]["regions"]["guidewire"]["dice"]["mean_interval"] is None
    assert summary["all"]["tips"]["all"]["false"]["count"] == 1


def test_summary_without_truth_has_no_tips_and_no_kinds():
    score = score_frame("a", label_map(20), [], label_map(20), None, SETTINGS)
    summary = summarise([score, score], SETTINGS)
    assert list(summary) == ["all"]
    assert summary["all"]["tips"] is None


def test_pooled_weighs_pixels_and_mean_weighs_frames():
    """One frame of 280 px found, one of 7 px missed."""
    small = np.zeros((64, 64), dtype=np.uint8)
    small[10:17, 5] = CATHETER
    scores = [
        score_frame("a", label_map(20), [], label_map(20), None, SETTINGS),
        score_frame("b", np.zeros_like(small), [], small, None, SETTINGS),
    ]
    dice = summarise(scores, SETTINGS)["all"]["regions"]["catheter"]["dice"]
    assert dice["mean"] == 0.5
    assert dice["pooled"] == pytest.approx(560 / 567, abs=1e-6)


@given(hnp.arrays(np.uint8, (12, 15), elements={"min_value": 0, "max_value": 2}))
def test_any_mask_is_perfect_against_itself(labels):
    """Holds only if thinning never wipes out a region: each has a skeleton of its own."""
    row = frame_row(score_frame("a", labels, [], labels, None, SETTINGS))
    for region, present in [
        ("catheter", (labels == 1).any()),
        ("guidewire", (labels == 2).any()),
        ("foreground", labels.any()),
    ]:
        assert set(row["regions"][region].values()) == ({1.0} if present else {None})


def write_mask(folder, name, mask):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.png").write_bytes(cv2.imencode(".png", mask)[1].tobytes())


def test_read_mask(tmp_path):
    write_mask(tmp_path, "a", label_map(20, 50))
    np.testing.assert_array_equal(read_mask(tmp_path, "a", (64, 64)), label_map(20, 50))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no mask"),
        (b"", "no readable PNG"),
        (b"\x89PNG\r\n\x1a\nrubbish", "no readable PNG"),
        (np.zeros((64, 32), np.uint8), "64 x 64 pixels .got 32 x 64 pixels."),
        (np.full((64, 64), 255, np.uint8), "got the value 255; 255, 'unknown'"),
        (np.full((64, 64), 3, np.uint16), "got the value 3"),
        (np.zeros((64, 64, 3), np.uint8), "must be grey"),
        (np.zeros((64, 64, 4), np.uint8), "must be grey"),
        (PNG[:40], "no readable PNG"),
        (PNG[:-30], "no readable PNG"),
        (PNG[:10], "no readable PNG"),
        (cv2.imencode(".jpg", np.zeros((64, 64), np.uint8))[1].tobytes(), "no readable PNG"),
    ],
)
def test_bad_masks_are_named(tmp_path, content, message):
    if isinstance(content, np.ndarray):
        write_mask(tmp_path, "a", content)
    elif content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(TruthError, match=message) as caught:
        read_mask(tmp_path, "a", (64, 64))
    assert "a.png" in str(caught.value)


def write_truth(path, frames):
    path.write_text(json.dumps({"seed": 1, "frames": frames}))
    return path


def test_read_truth(tmp_path):
    frames = [
        {
            "name": "0001",
            "kind": "human",
            "instruments": [
                {"kind": "guidewire", "tip_px": [1.5, 2.5]},
                {"kind": "guidewire", "tip_px": None},
            ],
        },
        {"name": "0002", "instruments": []},
    ]
    truth = read_truth(write_truth(tmp_path / "truth.json", frames))
    assert truth["0001"].kind == "human"
    assert truth["0001"].tips["guidewire"].tolist() == [[1.5, 2.5]]
    assert truth["0002"].tips["catheter"].shape == (0, 2)
    assert truth["0002"].kind is None


def test_find_truth(tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    assert find_truth(masks) is None
    path = write_truth(tmp_path / "truth.json", [])
    assert find_truth(masks) == path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no valid JSON|not valid JSON"),
        ("\x00", "not valid JSON"),
        ("[]", "a list 'frames'"),
        ('{"frames": {}}', "a list 'frames'"),
        ('{"frames": [3]}', "Frame 0"),
        ('{"frames": [{"name": 3}]}', "text 'name'"),
        ('{"frames": [{"name": "a"}]}', "list 'instruments'"),
        ('{"frames": [{"name": "a", "instruments": [], "kind": 3}]}', "'kind' must be text"),
        ('{"frames": [{"name": "a", "instruments": [], "kind": "all"}]}', "other than 'all'"),
        ("[" * 100_000, "not valid JSON"),
        ('{"frames": [{"name": "a", "instruments": [{"kind": "rope"}]}]}', "each instrument"),
        ('{"frames": [{"name": "a", "instruments": [3]}]}', "each instrument"),
        (
            '{"frames": [{"name": "a", "instruments": []}, {"name": "a", "instruments": []}]}',
            "twice",
        ),
    ],
)
def test_bad_truth_is_named(tmp_path, text, message):
    path = tmp_path / "truth.json"
    path.write_text(text)
    with pytest.raises(TruthError, match=message) as caught:
        read_truth(path)
    assert "truth.json" in str(caught.value)


@pytest.mark.parametrize(
    "tip", [3, "12", [1], [10**400, 1], [1, 2, 3], [1, "x"], [1, float("nan")], {"x": 1}]
)
def test_bad_tips_are_named(tmp_path, tip):
    frames = [{"name": "a", "instruments": [{"kind": "catheter", "tip_px": tip}]}]
    with pytest.raises(TruthError, match="'tip_px' must be two finite numbers"):
        read_truth(write_truth(tmp_path / "truth.json", frames))


def test_missing_truth_file(tmp_path):
    with pytest.raises(TruthError, match="Cannot read the truth file"):
        read_truth(tmp_path / "truth.json")
    with pytest.raises(TruthError, match="Cannot read the truth file"):
        read_truth(tmp_path)
