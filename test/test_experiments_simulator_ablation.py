# SPDX-License-Identifier: Apache-2.0
"""The simulator's ablation: plan, figures in closed form, resuming, and how the CLI finds it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_runner import run_cli

from fedefm_core.config import load_settings, parse_settings
from fedefm_core.errors import ConfigError, OutputError
from fedefm_core.experiments.parts import held_result, keep_result
from fedefm_core.experiments.simulator_ablation import (
    AblationResult,
    Part,
    SimulatorAblationSettings,
    _estimate,
    _part_sha256,
    plan,
    report,
    table,
)
from fedefm_core.experiments.study import Result, markdown, write_page

REPOSITORY = Path(__file__).resolve().parents[1]
SHIPPED = REPOSITORY / "config" / "experiments" / "simulator_ablation.yaml"

TINY = """
study: simulator_ablation
base: [{base}]
set: [steps=2]
seeds: [1, 2]
variants:
  - {{name: full, title: everything}}
  - {{name: no_vessels, title: no vessels, set: [simulation.ingredients.vessels=false]}}
validation:
  frames: 1
  simulation: {{size: 64}}
"""
BASE = """
network: {channels: [4, 8], blocks: [1, 1]}
simulation: {size: 64}
steps: 9
batch_size: 2
workers: 0
precision: fp32
pool_frames: 3
crop: 32
whole_batch_size: 1
validation: {frames: 1, every_steps: 2}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(BASE)
    path = tmp_path / "study.yaml"
    path.write_text(TINY.format(base=tmp_path / "base.yaml"))
    return path


@pytest.fixture
def settings(config: Path) -> SimulatorAblationSettings:
    return load_settings(SimulatorAblationSettings, config)


def held(part: Part, settings: SimulatorAblationSettings, out: Path) -> AblationResult | None:
    return held_result(AblationResult, out / part.folder, _part_sha256(part, settings))


def result_of(f1: list[float], marked: dict[str, float] | None = None) -> AblationResult:
    kinds = ("human", "animal", "phantom")
    values = {kind: list(f1) for kind in kinds}
    return AblationResult("", 60.0, values, values, marked or {})


def test_parts_differ_in_their_ingredient_and_seed_alone(
    settings: SimulatorAblationSettings,
) -> None:
    parts = plan(settings)
    assert [part.key for part in parts] == [
        ("full", 1),
        ("no_vessels", 1),
        ("full", 2),
        ("no_vessels", 2),
    ]
    full, less = parts[0].settings, parts[1].settings
    assert full.steps == less.steps == 2
    assert parts[2].settings.seed == 2
    assert not less.simulation.ingredients.vessels
    ingredients = less.simulation.ingredients.model_copy(update={"vessels": True})
    simulation = less.simulation.model_copy(update={"ingredients": ingredients})
    assert less.model_copy(update={"simulation": simulation}) == full


def test_a_variant_with_an_unknown_setting_is_answered_with_the_nearest(
    settings: SimulatorAblationSettings,
) -> None:
    values = settings.model_dump(mode="json")
    values["variants"][1]["set"] = ["simulation.ingredients.vessel=false"]
    wrong = parse_settings(SimulatorAblationSettings, values)
    with pytest.raises(ConfigError, match="did you mean 'vessels'"):
        plan(wrong)


def test_two_variants_of_one_name_are_refused(settings: SimulatorAblationSettings) -> None:
    values = settings.model_dump(mode="json")
    values["variants"][1]["name"] = "full"
    with pytest.raises(ConfigError, match="twice: full"):
        parse_settings(SimulatorAblationSettings, values)


def test_the_shipped_study_fits_the_brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    study = load_settings(SimulatorAblationSettings, SHIPPED)
    parts = plan(study)
    assert len(study.seeds) == 2
    assert parts[0].settings.simulation.backgrounds
    trained_on = {str(b.pattern) for b in parts[0].settings.simulation.backgrounds}
    assert "test_*" not in trained_on
    changed = [p.settings.model_dump(exclude={"seed"}) for p in parts if p.seed == 1]
    assert all(a != b for i, a in enumerate(changed) for b in changed[:i])


def test_the_shipped_study_leaves_out_volumes_alone_without_ct(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(REPOSITORY)
    parts = {p.key: p for p in plan(load_settings(SimulatorAblationSettings, SHIPPED))}
    full = parts["full", 1].settings.simulation.backgrounds
    no_ct = parts["no_ct", 1].settings.simulation.backgrounds
    assert no_ct == tuple(b for b in full if b.path.parent.name != "ct")


def test_estimates_in_closed_form() -> None:
    base = np.array([[0.5, 0.2], [0.7, 0.2], [0.6, np.nan]])
    better = base + 0.1
    worse = base - 0.3
    estimate = _estimate([(better, base), (worse, base)])
    assert estimate["difference"] == pytest.approx(-0.1)
    assert estimate["by_seed"] == pytest.approx([0.1, -0.3])
    # kinds count alike: (0.6 + 0.2) / 2 less the difference of each
    assert estimate["mean"] == pytest.approx(0.4 - 0.1)
    assert estimate["interval"] == pytest.approx((-0.1, -0.1))


def test_the_interval_covers_what_frames_say_differently() -> None:
    base = np.zeros((200, 1))
    own = np.random.default_rng(0).normal(0.2, 0.1, (200, 1))
    low, high = _estimate([(own, base)])["interval"]
    assert low < 0.2 < high
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / np.sqrt(200), rel=0.15)


def test_without_any_finished_part_the_page_says_so(
    settings: SimulatorAblationSettings, tmp_path: Path
) -> None:
    result = report(settings, {}, tmp_path)
    assert "0 of 4 parts are finished" in result.text
    assert not result.pictures
    header, *rows = table(settings, result.report["variants"])
    assert rows[0] == ("everything", "0", "-", "", "", "-", "", "-", "")
    assert rows[1] == ("no vessels", "0", *["-"] * (len(header) - 2))
    json.dumps(result.report, allow_nan=False)


def test_differences_pair_the_seeds(settings: SimulatorAblationSettings, tmp_path: Path) -> None:
    results = {
        ("full", 1): result_of([0.5, 0.5], {"a": 0.4, "b": 0.2}),
        ("full", 2): result_of([0.7, 0.7], {"a": 0.4, "b": 0.2}),
        ("no_vessels", 2): result_of([0.6, 0.8], {"a": 0.5, "b": 0.3}),
    }
    result = report(settings, results, tmp_path)
    row = result.report["variants"]["no_vessels"]
    assert row["seeds"] == 1
    assert row["f1"]["difference"] == pytest.approx(0.0)
    assert row["f1"]["by_kind"]["human"] == pytest.approx(0.7)
    assert row["marked"]["difference"] == pytest.approx(0.1)
    plot = cv2.imread(str(tmp_path / "differences.png"))
    assert plot.shape[1] > 1000
    assert plot.std() > 5
    assert "![What leaving" in markdown(result, tmp_path, "make it")


def test_a_kept_result_is_read_again_and_one_of_other_settings_is_refused(
    settings: SimulatorAblationSettings, tmp_path: Path
) -> None:
    part = plan(settings)[0]
    assert held(part, settings, tmp_path) is None
    folder = tmp_path / part.folder
    (folder / "pool").mkdir(parents=True)
    kept = AblationResult(
        _part_sha256(part, settings), 3.0, {"human": [0.5]}, {"human": [1.0]}, {}
    )
    keep_result(kept, folder)
    assert not (folder / "pool").exists()
    assert held(part, settings, tmp_path) == kept
    renamed = settings.model_copy(update={"seeds": (1,)})
    assert held(part, renamed, tmp_path) == kept
    validation = settings.validation.model_copy(update={"seed": 5})
    with pytest.raises(OutputError, match="other settings"):
        held(part, settings.model_copy(update={"validation": validation}), tmp_path)
    (folder / "result.json").write_text(json.dumps(asdict(kept))[:-9])
    with pytest.raises(OutputError, match="damaged"):
        held(part, settings, tmp_path)


def test_the_page_is_markdown_with_relative_links(tmp_path: Path) -> None:
    result = Result(
        report={},
        title="T",
        text="words",
        tables={"Figures": [("a", "b"), ("1", "2")]},
        pictures={"Plot": tmp_path / "x" / "plot.png"},
    )
    page = markdown(result, tmp_path, "do it")
    assert page.startswith("<!-- SPDX-License-Identifier: Apache-2.0 -->\n\n# T\n")
    assert "| a | b |\n| --- | ---: |\n| 1 | 2 |" in page
    assert "![Plot](x/plot.png)" in page
    assert "`do it`" in page


def test_a_page_elsewhere_has_its_pictures_beside_it(tmp_path: Path) -> None:
    (tmp_path / "plot.png").write_bytes(b"png")
    result = Result(report={}, title="T", pictures={"Plot": tmp_path / "plot.png"})
    page = tmp_path / "docs" / "results.md"
    write_page(result, page, "do it")
    assert "![Plot](images/results_plot.png)" in page.read_text()
    assert (tmp_path / "docs" / "images" / "results_plot.png").read_bytes() == b"png"
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write the page"):
        write_page(result, tmp_path / "file" / "results.md", "do it")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("study: simulator_ablations\n", "did you mean 'simulator_ablation'"),
        ("study: real\n", "did you mean 'real_images'"),
        ("study: xyzzy\n", "there is: downstream, real_images, simulator_ablation"),
        ("steps: 3\n", "must name its study with the key 'study'"),
    ],
)
def test_an_unknown_study_is_answered_with_the_nearest(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    result = run_cli("experiment", path, "--out", tmp_path / "out")
    assert result.code == 1
    assert told in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_miniature_from_end_to_end_and_again(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run_cli("experiment", config, "--out", out, "--set", "seeds=[1]")
    assert first.code == 0, first.err
    assert "Part 1 of 2: everything, seed 1" in first.err
    assert "Part 2 of 2" in first.err
    assert "min left" in first.err
    report = json.loads((out / "report.json").read_text())
    assert report["finished"] == 2
    assert report["provenance"]["settings"]["seeds"] == [1]
    for name in ("report.md", "differences.png", "exported_frames.png"):
        assert (out / name).stat().st_size > 500
    again = run_cli("experiment", config, "--out", out, "--set", "seeds=[1]")
    assert again.code == 0
    assert "Part" not in again.err
    repeated = json.loads((out / "report.json").read_text())
    assert repeated["variants"] == report["variants"]
