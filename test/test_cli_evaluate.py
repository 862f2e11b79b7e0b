# SPDX-License-Identifier: Apache-2.0
import json
import shutil

import cv2
import numpy as np
import pytest
from cli_runner import run_cli
from model_fixture import draw_instruments, write_threshold_model

TIPS = {"guidewire": (90.0, 70.0), "catheter": (60.0, 110.0)}
KINDS = ("human", "animal", "human")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set on which the threshold model is perfect, in the layout of 'simulate'."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    frames = []
    for number, kind in enumerate(KINDS):
        image = draw_instruments(
            guidewire=[(0, 20 + 10 * number), TIPS["guidewire"]],
            catheter=[(0, 100), TIPS["catheter"]],
        )
        mask = np.select([image < 40, image < 80], [2, 1], 0).astype(np.uint8)
        cv2.imwrite(str(folder / "images" / f"f{number}.png"), image)
        cv2.imwrite(str(folder / "masks" / f"f{number}.png"), mask)
        instruments = [{"kind": k, "tip_px": tip} for k, tip in TIPS.items()]
        frames.append({"name": f"f{number}", "kind": kind, "instruments": instruments})
    (folder / "truth.json").write_text(json.dumps({"seed": 0, "frames": frames}))
    write_threshold_model(folder / "model.onnx")
    return folder


@pytest.fixture
def dataset(made, tmp_path):
    return shutil.copytree(made, tmp_path / "set")


def evaluate(dataset, *arguments):
    return run_cli(
        *("evaluate", "--model", dataset / "model.onnx", "--images", dataset / "images"),
        *("--masks", dataset / "masks", "--json", dataset / "report.json", *arguments),
    )


def report(dataset):
    return json.loads((dataset / "report.json").read_text())


def test_perfect_model(dataset):
    result = evaluate(dataset)
    assert (result.code, result.err) == (0, "")
    found = report(dataset)
    assert set(found["groups"]) == {"all", "human", "animal"}
    assert found["groups"]["human"]["frames"] == 2
    for region in ("catheter", "guidewire", "foreground"):
        for metric in found["groups"]["all"]["regions"][region].values():
            assert (metric["mean"], metric["pooled"], metric["n"]) == (1.0, 1.0, 3)
    tips = found["groups"]["all"]["tips"]
    for kind in TIPS:
        assert tips[kind]["error_px"]["n"] == 3
        assert tips[kind]["error_px"]["median"] < 4
        assert (tips[kind]["missed"]["count"], tips[kind]["missed"]["n"]) == (0, 3)
        assert (tips[kind]["false"]["count"], tips[kind]["false"]["n"]) == (0, 3)
    assert found["no_tips_because"] is None
    assert [frame["name"] for frame in found["frames"]] == ["f0", "f1", "f2"]
    assert found["provenance"]["versions"]["numpy"]
    assert found["provenance"]["settings"]["tip_gate_px"] == 20.0
    assert len(found["model"]["weights_sha256"]) == 64
    assert "Dice" in result.out
    assert "median px" in result.out


def test_without_truth_tips_are_null_with_a_reason(dataset):
    (dataset / "truth.json").unlink()
    result = evaluate(dataset)
    assert result.code == 0
    assert report(dataset)["groups"]["all"]["tips"] is None
    assert list(report(dataset)["groups"]) == ["all"]
    assert "truth.json" in report(dataset)["no_tips_because"]
    assert "No tip errors" in result.out


def test_truth_elsewhere(dataset):
    (dataset / "truth.json").rename(dataset / "elsewhere.json")
    assert evaluate(dataset, "--truth", dataset / "elsewhere.json").code == 0
    assert report(dataset)["groups"]["all"]["tips"]["all"]["error_px"]["n"] == 6


def test_same_report_twice(dataset):
    def figures():
        assert evaluate(dataset).code == 0
        found = report(dataset)
        return found["groups"], found["frames"]

    assert figures() == figures()


def test_settings_can_be_set(dataset):
    evaluate(dataset, "--set", "tip_gate_px=0.001", "--set", "bootstrap_resamples=10")
    found = report(dataset)
    assert found["provenance"]["settings"]["tip_gate_px"] == 0.001
    assert found["groups"]["all"]["tips"]["all"]["missed"]["rate"] == 1.0


def test_bad_images_and_masks_without_image_are_told(dataset):
    (dataset / "images" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (dataset / "masks" / "extra.png").write_bytes(b"")
    result = evaluate(dataset)
    assert result.code == 0
    assert "cut.png" in report(dataset)["set_aside"][0]
    assert report(dataset)["masks_without_image"] == ["extra.png"]
    assert "cut.png" in result.err
    assert "Masks without image: 1" in result.err


def damage(dataset, what):
    masks, truth = dataset / "masks", dataset / "truth.json"
    if what == "missing mask":
        (masks / "f1.png").unlink()
    elif what == "small mask":
        cv2.imwrite(str(masks / "f1.png"), np.zeros((64, 128), np.uint8))
    elif what == "0 and 255":
        cv2.imwrite(str(masks / "f1.png"), np.full((128, 128), 255, np.uint8))
    elif what == "no PNG":
        (masks / "f1.png").write_text("no PNG")
    elif what == "no masks":
        shutil.rmtree(masks)
    elif what == "truth of another set":
        truth.write_text('{"frames": [{"name": "other", "instruments": []}]}')
    elif what == "two images of one name":
        shutil.copy(dataset / "images" / "f1.png", dataset / "images" / "F1.bmp")
    elif what == "broken truth":
        truth.write_text("{")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("missing mask", ["f1.png", "missing"]),
        ("small mask", ["f1.png", "128 x 128", "128 x 64"]),
        ("0 and 255", ["f1.png", "255"]),
        ("no PNG", ["f1.png", "no readable PNG"]),
        ("no masks", ["masks"]),
        ("truth of another set", ["truth.json", "f0"]),
        ("broken truth", ["truth.json", "JSON"]),
        ("two images of one name", ["f1.png", "F1.bmp"]),
    ],
)
def test_wrong_data_is_named(dataset, what, words):
    damage(dataset, what)
    result = evaluate(dataset)
    assert result.code == 1
    assert all(word in result.err for word in words), result.err
    assert "Traceback" not in result.err
    assert not (dataset / "report.json").exists()


def test_wrong_arguments_are_answered_with_a_sentence(dataset):
    (dataset / "folder").mkdir()
    cases = [
        (["--images", dataset / "none"], 1, "none"),
        (["--images", dataset / "folder"], 1, "holds no image"),
        (["--images", dataset / "truth.json"], 1, "truth.json"),
        (["--masks", dataset / "truth.json"], 1, "truth.json"),
        (["--truth", dataset / "none.json"], 1, "none.json"),
        (["--truth", dataset / "folder"], 1, "folder"),
        (["--truth", dataset / "model.onnx"], 1, "model.onnx"),
        (["--json", dataset / "folder"], 1, "must be a file"),
        (["--json", dataset / "truth.json" / "x.json"], 1, "no writable folder"),
        (["--json", "/proc/fedefm/x.json"], 1, "/proc"),
        (["--model", "none"], 1, "none"),
        (["--runtime", "abacus"], 1, "abacus"),
        (["--threads", "-3"], 2, "threads"),
        *(
            ([option, "n" * 300], 1, "name too long")
            for option in ("--masks", "--json", "--model")
        ),
        (["--set", "tip_gate=3"], 1, "did you mean 'tip_gate_px'?"),
        (["--set", "tip_gate_px"], 1, "key=value"),
        (["--set", "tip_gate_px=-1"], 1, "tip_gate_px"),
        (["--set", "tip_gate_px=.nan"], 1, "tip_gate_px"),
        (["--set", "tip_gate_px=.inf"], 1, "tip_gate_px"),
        (["--set", "centerline_tolerance_px=1e9"], 1, "centerline_tolerance_px"),
        (["--set", "bootstrap_resamples=x"], 1, "bootstrap_resamples"),
        (["--set", "bootstrap_seed=-1"], 1, "bootstrap_seed"),
        (["--set", "confidence=1"], 1, "confidence"),
        (["extra"], 2, "extra"),
    ]
    for arguments, code, message in cases:
        result = evaluate(dataset, *arguments)
        assert result.code == code, (arguments, result)
        assert message in result.err, (arguments, result)
        assert "Traceback" not in result.err
        assert not (dataset / "report.json").exists(), arguments
    assert run_cli("evaluate").code == 2


def test_figures_are_shown_even_if_the_disk_is_full(dataset, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", refuse)
    result = evaluate(dataset)
    assert result.code == 1
    assert "guidewire" in result.out
    assert "No space left on device" in result.err


def test_multi_frame_images_have_numbered_masks(dataset):
    """An image source of several frames looks for STEM_0001.png and on, as 'predict' writes."""
    multi = dataset / "multi"
    multi.mkdir()
    page = cv2.imread(str(dataset / "images" / "f0.png"), cv2.IMREAD_UNCHANGED)
    assert cv2.imwritemulti(str(multi / "cine.tif"), [page, page])
    for number in (1, 2):
        shutil.copy(dataset / "masks" / "f0.png", dataset / "masks" / f"cine_000{number}.png")
    (dataset / "truth.json").unlink()
    result = evaluate(dataset, "--images", multi / "cine.tif")
    assert result.code == 0, result.err
    assert [frame["name"] for frame in report(dataset)["frames"]] == ["cine_0001", "cine_0002"]
    assert report(dataset)["groups"]["all"]["regions"]["foreground"]["dice"]["mean"] == 1.0
