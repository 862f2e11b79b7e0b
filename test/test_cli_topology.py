# SPDX-License-Identifier: Apache-2.0
"""'fedefm_core topology' as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
from cli_runner import run_cli

from fedefm_core.federation.topology_overlays import TOPOLOGIES

FOUR = """
title: Four towns
source: invented
nodes: {North: [50, 10], East: [48, 14], South: [44, 11], West: [47, 7]}
links:
  - [North, East, null, 1000]
  - [East, South, null, null]
  - [South, West, null, 100]
  - [West, North, null, null]
"""


@pytest.fixture
def four(tmp_path: Path) -> Path:
    path = tmp_path / "four.yaml"
    path.write_text(FOUR)
    return path


def test_table_report_and_drawings(four: Path, tmp_path: Path) -> None:
    report_path = tmp_path / "results" / "four.json"
    result = run_cli(
        "topology", four, "--model-mbit", 8, "--compute-ms", 10, "--json", report_path
    )
    assert result.code == 0, result.err
    assert "Four towns" in result.out
    for name in TOPOLOGIES:
        assert name in result.out
    report = json.loads(report_path.read_text())
    assert report["silos"] == ["North", "East", "South", "West"]
    assert set(report["topologies"]) == set(TOPOLOGIES)
    ring = report["topologies"]["ring"]
    assert ring["mfd_bytes_per_link"] == pytest.approx(2e6)
    assert f"{ring['gossip_ms']:.1f}" in result.out
    assert report["provenance"]["settings"]["model_mbit"] == 8
    drawn = sorted(path.name for path in report_path.parent.glob("*.png"))
    assert drawn == sorted(["four.png", *(f"four_{name}.png" for name in TOPOLOGIES)])
    for name in drawn:
        image = cv2.imread(str(report_path.parent / name))
        assert image.shape[1] == (2100 if name == "four.png" else 1050)  # 300 dpi, 2 or 1 columns
        assert image.std() > 5  # not blank


@pytest.mark.parametrize(
    ("options", "folder"),
    [
        (("--out", "figures", "--json", "report/four.json"), "figures"),
        (("--json", "report/four.json"), "report"),
        ((), "four_overlays"),
    ],
)
def test_where_drawings_go(
    options: tuple[str, ...],
    folder: str,
    four: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Path] = []

    def draw(topologies: object, underlay: object, report: object, folder: Path) -> list[Path]:
        asked.append(folder)
        return [folder / "drawn.png"]

    monkeypatch.setattr("fedefm_core.federation.topology_drawing.draw_topologies", draw)
    monkeypatch.chdir(tmp_path)
    result = run_cli("topology", four, *options)
    assert result.code == 0, result.err
    assert asked == [Path(folder)]
    assert f"{folder}/drawn.png" in result.out


def test_known_capacities_make_a_narrow_link_slow(
    four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "fedefm_core.federation.topology_drawing.draw_topologies", lambda *arguments: []
    )
    times = []
    for options in ((), ("--known-capacities",)):
        assert run_cli("topology", four, "--json", tmp_path / "four.json", *options).code == 0
        report = json.loads((tmp_path / "four.json").read_text())
        times.append(report["topologies"]["complete"]["mfd_ms"])
    assert times[1] > 1.5 * times[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gaja",), "did you mean 'gaia'?"),
        (("gaia", "--model-mbit", "-1"), "'model_mbit'"),
        (("gaia", "--compute-ms", "nan"), "'compute_ms'"),
        (("missing.yaml",), "Cannot read the configuration missing.yaml"),
    ],
)
def test_errors_are_one_sentence_and_nothing_is_written(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_cli("topology", *arguments)
    assert result.code == 1
    assert message in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(four: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run_cli("topology", four, "--out", tmp_path / "file" / "figures")
    assert result.code == 1
    assert "Cannot write the drawing" in result.err
