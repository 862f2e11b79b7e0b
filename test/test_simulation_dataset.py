# SPDX-License-Identifier: Apache-2.0
"""The verb 'simulate': what it writes, that it resumes, and what it refuses."""

from __future__ import annotations

import json
import sys

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fedefm_core.cli import app, main
from fedefm_core.errors import OutputError, SimulationError
from fedefm_core.simulation import KINDS, SimulationSettings, dataset, simulate_frame
from fedefm_core.simulation.dataset import DatasetPlan, write_dataset

TINY = SimulationSettings(size=64)
PLAN = DatasetPlan(seed=3, count=5, settings=TINY)


@pytest.fixture(autouse=True)
def quick_sheet(request, monkeypatch):
    """Spare the tests that do not look at it the time that a contact sheet takes."""
    if "sheet" not in request.node.name:
        monkeypatch.setattr(
            dataset, "draw_contact_sheet", lambda folder, entries, path: path.write_bytes(b"")
        )


def write(plan, folder, workers=1):
    return list(write_dataset(plan, folder, workers))


def pictures(folder):
    """Bytes of all images and masks by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("*/*.png"))
    }


def truth(folder):
    return json.loads((folder / "truth.json").read_text())


def test_images_masks_and_truth_are_those_of_the_simulator(tmp_path):
    assert write(PLAN, tmp_path / "set") == [True] * 5
    content = truth(tmp_path / "set")
    assert content["seed"] == 3
    assert content["settings"] == TINY.model_dump(mode="json")
    assert {"created", "versions", "git_revision"} <= set(content["provenance"])
    assert [entry["name"] for entry in content["frames"]] == [f"{i:06d}" for i in range(5)]
    for index, entry in enumerate(content["frames"]):
        frame = simulate_frame(3, index, TINY)
        image = cv2.imread(str(tmp_path / "set" / entry["image"]), cv2.IMREAD_UNCHANGED)
        mask = cv2.imread(str(tmp_path / "set" / entry["mask"]), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(image, frame.frame.pixels)
        np.testing.assert_array_equal(mask, frame.label_map)
        assert entry["kind"] == frame.kind
        assert len(entry["instruments"]) == len(frame.instruments)
        for written, drawn in zip(entry["instruments"], frame.instruments, strict=True):
            assert written["kind"] == drawn.kind
            np.testing.assert_allclose(written["centerline_px"], drawn.centerline_px, atol=5.1e-4)
            assert written["width_px"] == pytest.approx(drawn.width_px, abs=1e-3)
            assert (written["tip_px"] is None) == (drawn.tip_px is None)
            assert (written["heading_rad"] is None) == (drawn.heading_rad is None)


def test_a_sequence_is_stamped_at_30_hz(tmp_path):
    write(DatasetPlan(3, 6, TINY, "phantom", sequence=True), tmp_path / "set")
    stamps = [entry["stamp_ns"] for entry in truth(tmp_path / "set")["frames"]]
    assert stamps == [round(index * 1e9 / 30) for index in range(6)]


@pytest.mark.parametrize("bit_depth", [12, 16])
def test_deep_images_are_written_with_16_bits(tmp_path, bit_depth):
    chosen = SimulationSettings(size=64, bit_depth=bit_depth)
    write(DatasetPlan(3, 2, chosen), tmp_path / "set")
    image = cv2.imread(str(tmp_path / "set/images/000001.png"), cv2.IMREAD_UNCHANGED)
    assert image.dtype == np.uint16
    assert 255 < image.max() < 2**bit_depth


@pytest.mark.parametrize("sequence", [False, True])
def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path, monkeypatch, sequence):
    monkeypatch.setattr(dataset, "BLOCK", 3)
    plan = DatasetPlan(8, 10, TINY, sequence=sequence)
    write(plan, tmp_path / "one", workers=1)
    assert write(plan, tmp_path / "three", workers=3) == [True] * 10
    assert pictures(tmp_path / "one") == pictures(tmp_path / "three")
    assert truth(tmp_path / "one")["frames"] == truth(tmp_path / "three")["frames"]


@pytest.mark.parametrize("torn", ["", '{"name":"0000'])
def test_an_interrupted_run_goes_on_where_it_ended(tmp_path, monkeypatch, torn):
    monkeypatch.setattr(dataset, "BLOCK", 1)
    write(PLAN, tmp_path / "whole")
    run = write_dataset(PLAN, tmp_path / "set")
    assert [next(run) for _ in range(3)] == [True] * 3
    run.close()  # what a KeyboardInterrupt does to it
    with (tmp_path / "set" / dataset.PARTIAL_FILE).open("a") as lines:
        lines.write(torn)
    assert not (tmp_path / "set/truth.json").exists()
    assert write(PLAN, tmp_path / "set") == [False] * 3 + [True] * 2
    assert pictures(tmp_path / "set") == pictures(tmp_path / "whole")
    assert truth(tmp_path / "set")["frames"] == truth(tmp_path / "whole")["frames"]
    assert not (tmp_path / "set" / dataset.PARTIAL_FILE).exists()


def test_a_finished_run_is_left_as_it_is_and_a_lost_file_is_drawn_again(tmp_path):
    folder = tmp_path / "set"
    write(PLAN, folder)
    before, text = pictures(folder), (folder / "truth.json").read_text()
    assert write(PLAN, folder) == [False] * 5
    assert (folder / "truth.json").read_text() == text
    (folder / "masks/000002.png").unlink()
    assert write(PLAN, folder) == [False] * 4 + [True]
    assert pictures(folder) == before


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (DatasetPlan(4, 5, TINY), "seed 3, not 4"),
        (DatasetPlan(3, 6, TINY), "count 5, not 6"),
        (DatasetPlan(3, 5, TINY, kind="animal"), 'kind null, not "animal"'),
        (DatasetPlan(3, 5, TINY, sequence=True), "sequence false, not true"),
        (DatasetPlan(3, 5, SimulationSettings(size=96)), "settings"),
    ],
)
def test_another_data_set_in_the_folder_is_not_touched(tmp_path, other, message):
    write(PLAN, tmp_path)
    before = pictures(tmp_path)
    with pytest.raises(OutputError, match="holds another data set") as caught:
        write(other, tmp_path)
    assert message in str(caught.value)
    assert pictures(tmp_path) == before


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(OutputError, match=r"must be new, empty .*it holds thesis.tex"):
        write(PLAN, tmp_path)
    with pytest.raises(OutputError, match="must be a folder"):
        write(PLAN, tmp_path / "thesis.tex")


@pytest.mark.parametrize("text", ["{", "[]", '{"frames": 3}', "\xff\xfe"])
@pytest.mark.parametrize("name", ["truth.json", dataset.PARTIAL_FILE])
def test_a_damaged_record_is_refused_with_a_sentence(tmp_path, name, text):
    (tmp_path / name).write_text(text + "\n", encoding="latin-1")
    with pytest.raises(OutputError, match=r"truth|holds another data set"):
        write(PLAN, tmp_path)


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"Cannot write .*set: Not a directory"):
        write(PLAN, tmp_path / "file" / "set")


def test_a_full_disk_is_a_sentence_and_the_run_can_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "BLOCK", 1)
    real = dataset._write_png

    def full(path, pixels):
        with dataset._writing(path):
            if path.name == "000003.png":
                raise OSError(28, "No space left on device")
        real(path, pixels)

    monkeypatch.setattr(dataset, "_write_png", full)
    with pytest.raises(OutputError, match=r"Cannot write .*000003.png: No space left on device"):
        write(PLAN, tmp_path / "set")
    monkeypatch.setattr(dataset, "_write_png", real)
    assert write(PLAN, tmp_path / "set") == [False] * 3 + [True] * 2


def test_an_unknown_kind_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(SimulationError, match="'kind' must be one of"):
        write(DatasetPlan(3, 5, TINY, kind="mouse"), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_the_contact_sheet_is_a_picture_with_ink_for_any_count(tmp_path):
    for count in (1, 13):
        folder = tmp_path / str(count)
        write(DatasetPlan(3, count, TINY), folder)
        sheet = cv2.imread(str(folder / "contact_sheet.png"))
        assert min(sheet.shape[:2]) > 300
        assert sheet.std() > 10


@pytest.mark.parametrize("kind", KINDS)
def test_the_verb_writes_the_kind_that_was_asked_for(tmp_path, kind):
    out = tmp_path / "set"
    command = ["simulate", "--out", str(out), "--count", "2", "--seed", "1", "--size", "64"]
    result = CliRunner().invoke(app, [*command, "--kind", kind, "--workers", "1"])
    assert result.exit_code == 0, result.output
    assert "2 frames drawn" in result.output
    assert {entry["kind"] for entry in truth(out)["frames"]} == {kind}
    assert sorted(path.name for path in out.iterdir()) == [
        "contact_sheet.png",
        "images",
        "masks",
        "truth.json",
    ]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--size", "8"], "'simulation.size'"),
        (["--bit-depth", "10"], "'simulation.bit_depth'"),
        (["--kind", "mouse"], "'kind' must be one of"),
    ],
)
def test_wrong_options_are_one_sentence(tmp_path, monkeypatch, capsys, options, sentence):
    command = ["fedefm_core", "simulate", "--out", str(tmp_path / "set"), "--count", "1"]
    monkeypatch.setattr(sys, "argv", [*command, "--seed", "0", *options])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    message = capsys.readouterr().err
    assert sentence in message
    assert message.count("\n") == 1


def test_each_kind_comes_in_turn(tmp_path):
    plan = DatasetPlan(1, 8, TINY, kind="each")
    assert all(write_dataset(plan, tmp_path / "set"))
    frames = json.loads((tmp_path / "set" / "truth.json").read_text())["frames"]
    assert [frame["kind"] for frame in frames] == 2 * list(KINDS)
    with pytest.raises(SimulationError, match="'kind' must be one of human"):
        list(
            write_dataset(DatasetPlan(1, 8, TINY, kind="each", sequence=True), tmp_path / "other")
        )


def test_backgrounds_that_are_not_there_are_told_before_anything_is_drawn(tmp_path):
    for missing in ({"path": "nowhere"}, {"path": str(tmp_path), "polygons": "nowhere"}):
        settings = SimulationSettings(size=64, backgrounds=[{**missing, "share": 1e-9}])
        with pytest.raises(SimulationError, match=r"nowhere do(es)? not exist"):
            list(write_dataset(DatasetPlan(1, 2, settings), tmp_path / "out"))
        assert not (tmp_path / "out").exists()
