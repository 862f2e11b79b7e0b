# SPDX-License-Identifier: Apache-2.0
"""fedefm_core check, as a shell would run it."""

import json
import shutil

import numpy as np
import pytest
from cli_runner import run_cli
from corpora_trees import SHAPE, TREES, box, picture, write


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    TREES["drive"](folder / "drive")
    TREES["eiphantom"](folder / "phantom")
    TREES["cathaction"](folder / "cath")
    (folder / "m.yaml").write_text(
        "corpora:\n"
        "  retina: {adapter: drive, path: drive}\n"
        "  phantom: {adapter: eiphantom, path: phantom}\n"
        "  cath: {adapter: cathaction, path: cath}\n"
        "  human: {adapter: 'simulated:human', count: 20}\n"
    )
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "set")


def check(folder, *arguments):
    return run_cli("check", folder / "m.yaml", "--json", folder / "r.json", *arguments)


def report(folder):
    return json.loads((folder / "r.json").read_text())


def test_all_is_well(folder):
    before = set(folder.rglob("*"))
    result = check(folder)
    assert (result.code, result.err) == (0, "")
    assert "Fit for training." in result.out
    assert "phantom" in result.out
    found = report(folder)
    assert found["faults"] == found["duplicates"] == []
    assert found["labels"] == ["retina", "phantom", "cath", "human"]
    drive = found["corpora"]["retina"]
    assert drive["splits"] == {"train": 4, "validation": 1, "test": 2}
    assert (drive["files"], drive["read"], drive["masks"], drive["groups"]) == (7, 7, 5, 7)
    assert drive["sizes"] == {f"{SHAPE[1]}x{SHAPE[0]}": 7}
    share = box(1).mean()
    assert drive["mask_shares"] == {
        "background": pytest.approx(1 - share, abs=1e-5),
        "vessel": pytest.approx(share, abs=1e-5),
    }
    assert 110 < drive["grey_mean"] < 145
    assert found["corpora"]["human"]["drawn_by"] == "simulated:human"
    assert found["balance"]["cath"] == {"train": 9, "validation": 3, "test": 3}
    held = [silo["labels"] for silo in found["silos"].values()]
    assert sorted(map(str, held)) == [
        *("{'cath': 9}", "{'human': 14}", "{'phantom': 4}", "{'retina': 4}")
    ]
    assert found["provenance"]["settings"]["size"] == 64
    assert set(folder.rglob("*")) == before | {folder / "r.json"}


def test_broken_files_are_all_named(folder):
    image = folder / "drive/training/images/22_training.tif"
    image.write_bytes(image.read_bytes()[:200])
    (folder / "phantom/phantom_train/masks/1.npy").write_bytes(b"no array")
    write(folder / "phantom/phantom_train/masks/2.npy", box(7))
    write(folder / "cath/segmentation_human_dataset_train/human_dataset_train/img/x.jpg", box(9))
    (folder / "cath/segmentation_human_dataset_train/human_dataset_train/img/x.jpg").write_bytes(
        b""
    )
    result = check(folder)
    assert result.code == 1
    assert "Fault: retina: 1 of 7 files are broken" in result.err
    assert "Fault: phantom: 2 of 7 files are broken" in result.err
    found = report(folder)["corpora"]
    assert [entry["file"] for entry in found["retina"]["broken"]] == [str(image)]
    reasons = {entry["reason"] for entry in found["phantom"]["broken"]}
    assert any("1.npy" in reason for reason in reasons)
    assert any("values 7; expected 0 to 2" in reason for reason in reasons)
    assert [entry["reason"] for entry in found["cath"]["broken"]] == ["the file is empty"]
    assert str(image) in result.out.replace("\n", "")


def test_leaks_are_found(folder):
    phantom = folder / "phantom"
    shutil.copy(phantom / "phantom_train/images/0.png", phantom / "phantom_test/images/1.png")
    retina = folder / "drive/training/images/22_training.tif"
    shutil.copy(retina, phantom / "phantom_train/images/1.tif")
    none = [f"corpora.{name}.splits.validation=0" for name in ("retina", "phantom")]
    result = check(folder, "--set", none[0], "--set", none[1])
    assert result.code == 1
    found = report(folder)
    across = [set(group["across"]) for group in found["duplicates"]]
    assert len(across) == 2
    assert {"splits"} in across
    assert {"labels", "silos"} in across
    assert "several splits" in result.err
    assert "several labels" in result.err
    assert "phantom_test/images/1.png" in result.out.replace("\n", "")


def test_duplicates_across_silos(tmp_path):
    for number in range(8):
        write(tmp_path / f"a/{number}.png", picture(number % 7))
    (tmp_path / "m.yaml").write_text(
        "corpora: {a: {adapter: pictures, path: a, splits: {test: 0, validation: 0}}}\n"
        "partition: {silos: 8, unseen: 0}\n"
    )
    result = check(tmp_path)
    assert result.code == 1
    (group,) = report(tmp_path)["duplicates"]
    assert group["across"] == ["silos"]
    assert len(group["silos"]) == 2
    one = check(tmp_path, "--set", "partition.silos=1")
    assert one.code == 0
    assert report(tmp_path)["duplicates"][0]["across"] == []


def test_blank_images_are_no_duplicates(tmp_path):
    for number in range(8):
        write(tmp_path / f"a/{number}.png", np.zeros(SHAPE, np.uint8))
    (tmp_path / "m.yaml").write_text("corpora: {a: {adapter: pictures, path: a}}\n")
    assert check(tmp_path).code == 0
    assert report(tmp_path)["corpora"]["a"]["blank"] == 8


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("path: phantom", "path: nowhere"), "'phantom' does not exist"),
        (("path: phantom", "path: cath"), "holds no images in the layout expected"),
        (("path: phantom", "pth: phantom"), "did you mean 'path'?"),
        (("corpora:", "labels: [retina]\ncorpora:"), "'corpora.phantom.label'"),
        (("corpora:", "silos: {rome: []}\ncorpora:"), "the silo 'rome' is empty"),
        (("corpora:", "partition: {silos: 5}\ncorpora:"), "at most 4 silos"),
    ],
)
def test_a_wrong_manifest_ends_with_2_and_writes_nothing(change, sentence, folder):
    path = folder / "m.yaml"
    path.write_text(path.read_text().replace(*change))
    before = set(folder.rglob("*"))
    result = check(folder)
    assert result.code == 2
    assert sentence in result.err
    assert result.err.count("\n") == 1
    assert set(folder.rglob("*")) == before


def test_a_report_that_cannot_be_written_is_told_at_once(folder):
    result = run_cli("check", folder / "m.yaml", "--json", folder)
    assert result.code == 1
    assert "must be a file" in result.err


def test_without_a_manifest_the_embedded_one():
    result = run_cli("check")
    assert result.code == 0
    assert "retina" in result.out
