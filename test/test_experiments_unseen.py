# SPDX-License-Identifier: Apache-2.0
"""The study of unseen data: plan, choice of rates, figures, resuming, bad input, a miniature."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cli_runner import run_cli

pytest.importorskip("torch", reason="needs the extra 'train'")

from fedefm_core.config import load_settings, parse_settings
from fedefm_core.errors import ConfigError, OutputError
from fedefm_core.experiments import unseen, unseen_report
from fedefm_core.experiments.unseen import Key, Outcome, UnseenSettings
from fedefm_core.experiments.unseen_cell import (
    RESULT,
    CellResult,
    grey_levels,
    task_sha256,
)

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = REPOSITORY / "config" / "experiments"

MANIFEST = """
size: 16
cache: cache
corpora:
  human: {adapter: "simulated:human", count: 5}
  retina: {adapter: "simulated:retina", count: 5}
partition: {silos: 2}
"""
TINY: dict[str, Any] = {
    "study": "unseen",
    "base": {
        "architecture": "small_cnn",
        "model": {"channels": [4, 4, 4]},
        "training": {"batch_size": 2},
    },
    "steps": 4,
    "bytes_of": "mfd",
    "points": 2,
    "tuning": {"rates": [0.02, 0.1], "seeds": [101], "unseen": [1.0]},
    "probes": {"images": 3, "test": 1, "wires": {"steps": 2, "hidden": 4}, "wire_size": 24},
    "variants": {
        "untrained": {"title": "untrained", "untrained": True},
        "gossip": {"title": "gossip", "set": {"algorithm": {"name": "gossip"}}},
        "mfd": {"title": "MFD", "set": {"algorithm": {"name": "mfd", "distil_steps": 0}}},
        "hostile": {
            "title": "MFD, noise",
            "tuned_as": "mfd",
            "set": {"algorithm": {"name": "mfd"}, "hostile": {"attack": "noise"}},
        },
    },
    "groups": [
        {
            "name": "headline",
            "title": "Against E",
            "variants": ["untrained", "gossip", "mfd"],
            "local_steps": [1, 2],
            "seeds": [1],
            "budgets": ["steps", "bytes"],
            "against": "mfd",
            "curves": True,
        },
        {
            "name": "features",
            "title": "Features",
            "variants": ["gossip", "hostile"],
            "local_steps": [2],
            "seeds": [1],
            "measures": ["head", "silos", "lda", "linear", "knn", "wires"],
        },
    ],
    "claims": [
        {
            "text": "MFD over gossip",
            "group": "headline",
            "variant": "mfd",
            "rivals": ["gossip", "untrained"],
            "local_steps": 2,
            "at_least": 10,
        }
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest, with the drawn images in a cache beside it."""
    root = tmp_path_factory.mktemp("unseen")
    (root / "corpora.yaml").write_text(MANIFEST)
    return root


def values_in(folder: Path, **changes: Any) -> dict[str, Any]:
    base = {**TINY["base"], "corpora": {"manifest": str(folder / "corpora.yaml")}}
    return {**TINY, "base": base, **changes}


def settings_in(folder: Path, **changes: Any) -> UnseenSettings:
    return parse_settings(UnseenSettings, values_in(folder, **changes))


def result_of(head: float, lda: float, **more: Any) -> CellResult:
    scores: dict[str, float | None] = {"head": head, "lda": lda}
    return CellResult("", 1.0, 3, {**scores, **more}, scores, failed="")


def test_tuning_sees_neither_the_seeds_nor_the_images_of_the_tables(folder: Path) -> None:
    settings = settings_in(folder)
    tuning = unseen.tuning_keys(settings)
    assert {key.variant for key in tuning} == {"gossip", "mfd"}  # hostile takes mfd's
    assert {(key.seed, key.split) for key in tuning} == {(101, "validation")}
    assert len(tuning) == 2 * 2 * 2  # variants, E, rates
    test = list(unseen._test_keys(settings, defaultdict(lambda: 0.1)))
    assert {(key.seed, key.split) for key in test} == {(1, "test")}
    assert len(test) == len(set(test)) == 6 + 1  # gossip at E = 2 is in both tables
    assert unseen.tuning_keys(settings_in(folder, tuning={"rates": [0.1]})) == []


def test_each_measure_has_the_rate_that_is_best_for_it(folder: Path) -> None:
    settings = settings_in(folder)
    results = {key: result_of(0.5, 0.5) for key in unseen.tuning_keys(settings)}
    for key in results:
        if key.variant == "mfd" and key.local_steps == 2:
            better = key.rate == 0.1
            results[key] = result_of(0.4 if better else 0.6, 0.9 if better else 0.3)
        if key.variant == "gossip" and key.local_steps == 1 and key.rate == 0.02:
            results[key] = CellResult("", 1.0, failed="The loss became nan")
    rates = unseen.choose_rates(settings, results)
    assert rates[("mfd", 1.0, 2), "head"] == rates[("hostile", 1.0, 2), "silos"] == 0.02
    assert rates[("mfd", 1.0, 2), "lda"] == rates[("hostile", 1.0, 2), "wires"] == 0.1
    assert rates[("gossip", 1.0, 1), "head"] == 0.1  # the other failed
    assert rates[("gossip", 1.0, 2), "head"] == 0.02  # equal: the smaller
    keys = list(unseen.group_keys(settings, settings.groups[1], rates))
    assert [key.rate for key in keys if key.variant == "hostile"] == [0.02, 0.1]


def outcome_of(settings: UnseenSettings, heads: dict[str, list[float]]) -> Outcome:
    """Cells of the headline alone, by variant and seed."""
    rates = unseen.choose_rates(settings, {})
    group = settings.groups[0]
    results = {
        key: result_of(heads[key.variant][group.seeds.index(key.seed)], 0.5)
        for key in unseen.group_keys(settings, group, rates)
    }
    return Outcome(results, rates, {"accuracy": 0.5, "kinds": {}})


def test_tables_and_margins_in_closed_form(folder: Path) -> None:
    headline = {**TINY["groups"][0], "seeds": [1, 2], "local_steps": [2]}
    settings = settings_in(folder, groups=[headline], tuning={"rates": [0.1]})
    heads = {"untrained": [0.2, 0.2], "gossip": [0.4, 0.6], "mfd": [0.7, 0.7]}
    outcome = outcome_of(settings, heads)
    rows = unseen_report.group_rows(settings, outcome, settings.groups[0], "steps")
    assert rows[0] == ("with", "own head", "LDA head")
    assert rows[2] == ("gossip", "50.0 ± 14.1", "50.0 ± 0.0")
    apart = unseen_report.difference_rows(settings, outcome, settings.groups[0])
    assert apart[2] == ("gossip", "-20.0 (-30.0 to -10.0)", "+0.0 (+0.0 to +0.0)")
    claim = unseen_report._claim(settings, outcome, settings.claims[0])
    assert claim["best_rival"] == "gossip"
    assert claim["margin"] == pytest.approx(20)
    assert claim["met"]
    stricter = settings.claims[0].model_copy(update={"at_least": 25.0})
    assert not unseen_report._claim(settings, outcome, stricter)["met"]


def test_a_training_that_failed_is_told_and_not_averaged(folder: Path) -> None:
    headline = {**TINY["groups"][0], "seeds": [1, 2], "local_steps": [2]}
    settings = settings_in(folder, groups=[headline], tuning={"rates": [0.1]})
    outcome = outcome_of(settings, {name: [0.5, 0.5] for name in ("untrained", "gossip", "mfd")})
    key = Key("gossip", 1.0, 2, 0.1, 2, "test")
    outcome.results[key] = CellResult("", 1.0, failed="The loss became nan")
    rows = unseen_report.group_rows(settings, outcome, settings.groups[0], "steps")
    assert rows[2][1] == "50.0 (1 seeds)"


def test_grey_levels_tell_apart_only_what_differs_in_them(folder: Path) -> None:
    from fedefm_core.corpora import load_corpora, load_manifest

    manifest = load_manifest(folder / "corpora.yaml")
    found = grey_levels(manifest)
    assert set(found["kinds"]) == {"human", "retina"}
    corpus = load_corpora(manifest)["human"]
    images = np.asarray(corpus.images[corpus.indices("test")], np.float64)
    assert found["kinds"]["human"]["mean"] == pytest.approx(images.mean())


@pytest.mark.parametrize("name", ["unseen.yaml", "unseen_paper.yaml"])
def test_the_shipped_studies_are_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    study = load_settings(UnseenSettings, CONFIGS / name)
    unseen._check_names(study)
    for variant in study.variants:
        settings = unseen.pretrain_settings(study, Key(variant, 1.0, 5, 0.1, 1, "test"))
        assert settings.training.optimiser.momentum == 0  # see the comment there
    tuned_on = set(study.tuning.seeds)
    assert all(tuned_on.isdisjoint(group.seeds) for group in study.groups)
    headline = study.groups[0]
    assert headline.local_steps == (1, 5, 20)
    assert len(headline.seeds) >= 3
    assert {"central", "fedavg", "gossip", "mfd", "consensus", "untrained"} <= set(study.variants)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"bytes_of": "mdf"}, "did you mean 'mfd'"),
        ({"stepps": 3}, "did you mean 'steps'"),
        ({"variants": {"mfd": {"title": "M"}}}, "'groups.headline' must name one of mfd"),
        ({"base": {"corpora": {"manifest": "nowhere.yaml"}}}, "nowhere.yaml"),
        ({"base": {"corpora": {"override": ["partition.silos=9"]}}}, "leaves 3 of 9 silos"),
        ({"base": {"local_step": 1}}, "did you mean 'local_steps'"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_nothing_is_written(
    folder: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    config, out = tmp_path / "study.yaml", tmp_path / "out"
    config.write_text(yaml.safe_dump(values_in(folder, **changes)))
    result = run_cli("experiment", config, "--out", out)
    assert result.code == 2, result.err
    assert sentence in result.err
    assert result.err.startswith("Error: ")
    assert len(result.err) < 400
    assert not out.exists()


def test_a_miniature_from_end_to_end_again_and_with_other_settings(
    folder: Path, tmp_path: Path
) -> None:
    config, out, page = tmp_path / "study.yaml", tmp_path / "out", tmp_path / "docs" / "page.md"
    config.write_text(yaml.safe_dump(values_in(folder)))
    first = run_cli("experiment", config, "--out", out, "--page", page)
    assert first.code == 0, first.err
    assert "1 of 8 (" in first.err
    assert "min left" in first.err
    report = json.loads((out / "report.json").read_text())
    assert [claim["met"] for claim in report["claims"]] != [None]
    assert {row["budget"] for row in report["groups"]["headline"]} == {"steps", "bytes"}
    features = {row["measure"]: row["mean"] for row in report["groups"]["features"]}
    assert features.keys() == {"head", "silos", "lda", "linear", "knn", "wires"}
    assert all(0 <= mean <= 1 for mean in features.values())
    for name in ("report.md", "headline_E.png", "headline_round.png", "headline_bytes.png"):
        assert (out / name).stat().st_size > 500
    assert "privacy" in page.read_text().lower()
    assert (page.parent / "images" / "page_headline_E.png").exists()
    assert not list(out.rglob("checkpoint-*"))

    cells = sorted(out.rglob(RESULT))
    cells[0].unlink()  # as if it had been interrupted there
    again = run_cli("experiment", config, "--out", out)
    assert again.code == 0, again.err
    assert again.err.count("min left") == 1
    repeated = json.loads((out / "report.json").read_text())
    assert repeated["groups"] == report["groups"]

    other = run_cli("experiment", config, "--out", out, "--set", "steps=5")
    assert other.code == 1
    assert "is the result of other settings" in other.err


def test_a_damaged_result_is_told(folder: Path, tmp_path: Path) -> None:
    settings = settings_in(folder)
    key = unseen.tuning_keys(settings)[0]
    task = unseen.cell_task(settings, key)
    assert task_sha256(task) == task_sha256(unseen.cell_task(settings, key))
    (tmp_path / RESULT).write_text('{"sha256": ')
    with pytest.raises(OutputError, match="damaged"):
        unseen._held(task, tmp_path)


def test_probes_are_measured_only_where_a_table_shows_them(folder: Path) -> None:
    settings = settings_in(folder)
    in_table = Key("gossip", 1.0, 2, 0.1, 1, "test")
    elsewhere = Key("gossip", 1.0, 1, 0.1, 1, "test")
    assert unseen.cell_task(settings, in_table).full
    assert not unseen.cell_task(settings, elsewhere).full


def test_a_claim_is_about_what_its_table_holds(folder: Path) -> None:
    claim = {**TINY["claims"][0], "local_steps": 20}
    with pytest.raises(ConfigError, match="'headline' has no head at p = 1, E = 20"):
        unseen.check(settings_in(folder, claims=[claim]))
