# SPDX-License-Identifier: Apache-2.0
import json

import cv2
import numpy as np
import pytest
from cli_runner import run_cli

COUNT = 10  # the least


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Small noisy images: 'sim' as simulate lays them out, 'real' a plain folder, darker."""
    root = tmp_path_factory.mktemp("statistics")
    for name, mean in (("sim/images", 140), ("real", 90)):
        (root / name).mkdir(parents=True)
        for index in range(COUNT):
            rng = np.random.default_rng([mean, index])
            image = rng.normal(mean + index, 6, (160, 160)).round().astype(np.uint8)
            cv2.imwrite(str(root / name / f"{index}.png"), image)
    (root / "sim" / "truth.json").write_text("{}")
    cv2.imwrite(str(root / "sim" / "contact_sheet.png"), np.zeros((100, 100), np.uint8))
    return root


def compare(folders, *arguments):
    return run_cli("compare-statistics", folders / "sim", folders / "real", *arguments)


def test_report_and_plots(folders, tmp_path):
    result = compare(folders, "--out", tmp_path / "new")
    assert (result.code, result.err) == (0, "")
    assert f"{COUNT} simulated and {COUNT} real images" in result.out
    assert "told apart by" in result.out
    assert "grey/p50" in result.out
    report = json.loads((tmp_path / "new" / "statistics.json").read_text())
    assert report["auc"]["grey"] == 1
    assert report["images"] == {"simulated": COUNT, "real": COUNT}
    assert report["features"]["grey"]["p50"]["simulated"][2] == pytest.approx(144.5, abs=2)
    assert report["features"]["grey"]["p50"]["real"][2] == pytest.approx(94.5, abs=2)
    assert report["provenance"]["seed"] == 0
    assert cv2.imread(str(tmp_path / "new" / "statistics.png")) is not None


def test_limit_takes_the_first(folders):
    result = compare(folders, "--limit", COUNT - 1)
    assert result.code == 1
    assert f"got {COUNT - 1} simulated" in result.err


def test_what_cannot_be_measured_is_told(folders, tmp_path):
    (tmp_path / "strip").mkdir()
    for file in (folders / "real").iterdir():
        (tmp_path / "strip" / file.name).write_bytes(file.read_bytes())
    cv2.imwrite(str(tmp_path / "strip" / "narrow.png"), np.zeros((4, 300), np.uint8))
    (tmp_path / "strip" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    before = sorted(tmp_path.rglob("*"))
    result = run_cli("compare-statistics", folders / "sim", tmp_path / "strip")
    assert result.code == 0
    assert sorted(tmp_path.rglob("*")) == before  # nothing is written without --out
    assert "narrow.png" in result.err
    assert "300 x 4" in result.err
    assert "cut.png" in result.err


def test_wrong_arguments_are_answered_with_a_sentence(folders, tmp_path):
    (tmp_path / "few").mkdir()
    cv2.imwrite(str(tmp_path / "few" / "a.png"), np.zeros((90, 90), np.uint8))
    (tmp_path / "file").write_text("")
    cases = [
        ([folders / "sim", folders / "none"], 1, "none"),
        ([folders / "sim", tmp_path / "few"], 1, "got 1 real"),
        ([tmp_path / "few", folders / "real"], 1, "got 1 simulated"),
        ([folders / "sim", folders / "real", "--out", tmp_path / "file" / "x"], 1, "no writable"),
        ([folders / "sim"], 2, "real"),
        ([folders / "sim", folders / "real", "--limit", "-1"], 2, "limit"),
    ]
    for arguments, code, words in cases:
        result = run_cli("compare-statistics", *arguments)
        assert result.code == code, (arguments, result)
        assert words in result.err, (arguments, result)
        assert "Traceback" not in result.err
