# SPDX-License-Identifier: Apache-2.0
"""compare-models: two models on the same images, their differences and where they are."""

import json

import cv2
from cli_runner import run_cli
from model_fixture import write_threshold_model
from test_cli_evaluate import dataset, made  # noqa: F401 - fixtures


def compare(dataset, second, *arguments):  # noqa: F811
    return run_cli(
        *("compare-models", dataset / "model.onnx", second),
        *("--images", dataset / "images", "--masks", dataset / "masks"),
        *("--out", dataset / "out", *arguments),
    )


def test_a_coarser_model_is_worse_and_is_shown_where(dataset):  # noqa: F811
    coarse = write_threshold_model(dataset / "coarse.onnx", size=(32, 32))
    result = compare(dataset, coarse, "--frames", 2)
    assert (result.code, result.err) == (0, "")
    found = json.loads((dataset / "out/comparison.json").read_text())
    dice = found["metrics"]["foreground_dice"]
    assert (dice["first"], dice["n"], dice["first_better"]) == (1.0, 3, 3)
    assert dice["difference"] < 0
    for name in ("first", "second"):
        assert len(json.loads((dataset / f"out/{name}.json").read_text())["frames"]) == 3
    sheet = cv2.imread(str(dataset / "out/contact_sheet.png"))
    assert sheet.shape[1] > 1.5 * sheet.shape[0]  # two rows of four
    assert "foreground_dice" in result.out


def test_a_model_does_not_differ_from_itself(dataset):  # noqa: F811
    assert compare(dataset, dataset / "model.onnx").code == 0
    found = json.loads((dataset / "out/comparison.json").read_text())["metrics"]
    assert all((m["difference"], m["p"]) == (0.0, 1.0) for m in found.values())


def test_wrong_arguments_are_answered_with_a_sentence(dataset):  # noqa: F811
    refused = compare(dataset, dataset / "model.onnx", "--metric", "beauty")
    assert refused.code == 1
    assert "there is: foreground_dice" in refused.err
    assert compare(dataset, "none").code == 1
    (dataset / "masks/f1.png").unlink()
    missing = compare(dataset, dataset / "model.onnx")
    assert missing.code == 1
    assert "f1.png" in missing.err
    assert not (dataset / "out").exists()
