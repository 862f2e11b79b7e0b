# SPDX-License-Identifier: Apache-2.0
"""report: one page of runs and evaluations that needs nothing else, and what it refuses."""

from __future__ import annotations

import json
import re
from math import nan
from pathlib import Path

import numpy as np
import pytest
from cli_runner import run_cli
from test_finetuning import settings
from test_metrics_distances import SETTINGS, scored

from fedefm_core.errors import OutputError
from fedefm_core.evaluation.evaluate import frame_row, summarise
from fedefm_core.evaluation.run_records import RunRecord, read_records
from fedefm_core.finetuning import finetune
from fedefm_core.finetuning.examples import run_examples


def evaluation(path: Path, images: str = "set <one>") -> Path:
    """What 'evaluate' would write of three frames."""
    scores = [scored("a", 10, 52.0), scored("b", 12, 49.0), scored("c", 10, 54.0)]
    report = {
        "images": images,
        "model": {"name": "wire", "precision": "int8", "weights_sha256": "ab" * 32},
        "groups": summarise(scores, SETTINGS),
        "frames": [frame_row(score) for score in scores],
    }
    path.write_text(json.dumps(report))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    finetune(settings(), folder)
    evaluation(folder / "test.json")
    return folder


def test_a_page_of_a_run_holds_all_it_needs(run: Path, tmp_path: Path) -> None:
    result = run_cli("report", run, "--out", tmp_path / "out", "--examples", 2)
    assert result.code == 0
    page = (tmp_path / "out/report.html").read_text()
    assert page.count('<img src="data:image/png;base64,') == 6
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "set &lt;one&gt;" in page
    assert "Research use only" in page
    assert "Of 3 tips, 3 were found and 0 missed" in page
    plots = {path.name for path in (tmp_path / "out/plots").iterdir()}
    for name in ("loss", "validation", "dice", "tips", "reliability", "examples_tiny"):
        assert {f"{name}.png", f"{name}.pdf"} <= plots


def test_reports_alone_need_no_run(tmp_path: Path) -> None:
    files = [evaluation(tmp_path / f"{name}.json") for name in ("first", "second")]
    result = run_cli("report", *files, "--out", tmp_path / "out")
    assert result.code == 0
    page = (tmp_path / "out/report.html").read_text()
    assert "first" in page
    assert "second" in page
    assert "<h2>Training</h2>" not in page


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "folder").mkdir()
    (tmp_path / "pretrained").mkdir()
    (tmp_path / "pretrained/config.yaml").write_text("rounds: 1\n")
    (tmp_path / "pretrained/metrics.jsonl").write_text('{"round": 0}\n')
    for path, words in (
        ("other.json", "a report of 'evaluate' (it is something else)"),
        ("none", "not there"),
        ("folder", "config.yaml"),
        ("pretrained", "is no folder of 'finetune' or 'distill'"),
    ):
        result = run_cli("report", tmp_path / path, "--out", tmp_path / "out")
        assert result.code == 1
        assert words in result.err
        assert path in result.err
    assert not (tmp_path / "out").exists()


def test_examples_are_the_validation_of_the_run(run: Path) -> None:
    examples = run_examples(run, 2)
    assert len(examples) == 2
    assert examples[0].grey.shape == examples[0].found.shape == (96, 96)
    assert np.isin(examples[0].found, (0, 1, 2)).all()
    with pytest.raises(OutputError):
        read_records([run / "nothing"])


def test_an_undefined_score_is_not_the_best() -> None:
    lines = [{"step": i, "split": "validation", "dice_mean": v} for i, v in enumerate((nan, 0.5))]
    best = RunRecord("run", Path("run"), {"steps": 1}, lines).best()
    assert best is not None
    assert best["step"] == 1


def test_two_runs_of_one_name_are_told_apart(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "b/tiny"
    other.mkdir(parents=True)
    for name in ("config.yaml", "metrics.jsonl"):
        (other / name).write_bytes((run / name).read_bytes())
    names = [record.name for record in read_records([run, other])]
    assert len(set(names)) == 2
    assert all(name.endswith("/tiny") for name in names)
