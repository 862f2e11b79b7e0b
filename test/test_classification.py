# SPDX-License-Identifier: Apache-2.0
"""Line positions as several labels an image: AUROC, runs, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_runner import run_cli
from corpora_trees import picture, write
from safetensors.torch import load_file
from test_finetuning import settings as segmentation
from training_runs import assert_same_files, interrupt_step

from fedefm_core.config import parse_settings, save_settings
from fedefm_core.errors import ConfigError, TruthError, WeightsError
from fedefm_core.finetuning import ClassificationSettings, finetune
from fedefm_core.finetuning.classification import ClassificationTask, scores
from fedefm_core.networks import (
    build_network,
    load_network,
    load_segmenter,
    read_weights_header,
    save_weights,
)

LABELS = ("ETT - Normal", "CVC - Abnormal")
NETWORK = {"image_size": 32, "channels": [4, 8, 8]}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.csv and train/UID.jpg of 12 patients with 2 images; the first label shows."""
    folder = tmp_path_factory.mktemp("ranzcr")
    with (folder / "train.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["StudyInstanceUID", *LABELS, "PatientID"])
        for number in range(24):
            first, second = number % 2, int(number % 3 == 0)
            rows.writerow([f"1.2.{number}", first, second, f"p{number // 2}"])
            image = picture(number, (40, 36)) // 2 + 120 * first * (np.arange(36) > 17)
            write(folder / f"train/1.2.{number}.jpg", image.astype(np.uint8))
    return folder


def settings(folder: Path, **changes: object) -> ClassificationSettings:
    values = {
        "task": "classification",
        "architecture": "small_cnn",
        "network": NETWORK,
        "data": {
            "table": str(folder / "train.csv"),
            "images": str(folder / "train"),
            "splits": {"validation": 0.3, "test": 0.1},
        },
        "steps": 4,
        "batch_size": 4,
        "workers": 0,
        "precision": "fp32",
        "optimiser": {"warmup_steps": 1},
        "validation": {"every_steps": 2},
    }
    return parse_settings(ClassificationSettings, {**values, **changes})


def test_auroc_is_that_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    truth = (rng.random((60, 3)) < 0.4).astype(np.float32)
    truth[:, 2] = 0
    said = np.clip(truth * 0.3 + rng.random((60, 3)).astype(np.float32) * 0.7, 0, 1)
    found = scores(torch.from_numpy(said), torch.from_numpy(truth), ("a", "b", "none"))
    for index, name in enumerate(("a", "b")):
        theirs = sklearn.roc_auc_score(truth[:, index], said[:, index])
        assert found[f"auroc_{name}"] == pytest.approx(theirs, abs=1e-6)
    assert np.isnan(found["auroc_none"])
    assert found["auroc_mean"] == pytest.approx((found["auroc_a"] + found["auroc_b"]) / 2)
    assert found["accuracy"] == pytest.approx(((said >= 0.5) == (truth > 0)).mean())


def test_a_patient_is_in_one_split(table: Path) -> None:
    task = ClassificationTask(settings(table))
    assert task.labels == LABELS
    groups = {s: {r.group for r in task.rows if r.split == s} for s in ("train", "validation")}
    assert groups["train"].isdisjoint(groups["validation"])
    assert len(task.rows) == 22  # one patient of twelve is for testing
    few = ClassificationTask(settings(table, labels={"percent": 25}))
    assert len(few._part("train")) == round(len(task._part("train")) / 4)


def test_it_learns_what_shows_and_says_what_it_is(table: Path, tmp_path: Path) -> None:
    chosen = settings(
        table,
        steps=60,
        optimiser={"learning_rate": 1e-2, "warmup_steps": 5, "average_decay": 0.5},
        validation={"every_steps": 60},
    )
    best = finetune(chosen, tmp_path)
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["auroc_ETT - Normal"] == 1.0
    header = read_weights_header(best)
    assert (header["task"], header["labels"]) == ("classification", list(LABELS))
    assert load_network(best).head.out_features == 2


def test_a_run_resumes_bit_for_bit(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(table)
    finetune(chosen, tmp_path / "whole")
    interrupt_step(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        finetune(chosen, tmp_path / "parts")
    finetune(chosen, tmp_path / "parts", resume=True)
    assert_same_files(tmp_path / "whole", tmp_path / "parts", ("best", "state"))


def test_it_starts_from_a_foundation_without_its_head(table: Path, tmp_path: Path) -> None:
    foundation = build_network("small_cnn", NETWORK)
    header = {"architecture": "small_cnn", "settings": NETWORK}
    save_weights(foundation, tmp_path / "foundation.safetensors", header)
    still = {"learning_rate": 1e-12, "weight_decay": 0.0, "warmup_steps": 0}
    chosen = settings(
        table, steps=1, init=str(tmp_path / "foundation.safetensors"), optimiser=still
    )
    best = load_file(finetune(chosen, tmp_path / "run"))
    before = load_file(tmp_path / "foundation.safetensors")
    assert torch.allclose(best["stem.0.weight"], before["stem.0.weight"], atol=1e-6)
    assert best["head.weight"].shape[0] == 2


def test_a_checkpoint_of_another_task_is_refused(table: Path, tmp_path: Path) -> None:
    classifier = finetune(settings(table, steps=1), tmp_path / "classifier")
    with pytest.raises(WeightsError, match="it is a small_cnn of another task, classification"):
        load_segmenter(classifier)
    with pytest.raises(WeightsError, match="fine-tuned for classification, this run is about seg"):
        finetune(segmentation(init=str(classifier)), tmp_path / "run")
    export = run_cli("export", tmp_path / "classifier", "--out", tmp_path / "model.onnx")
    assert export.code == 1
    assert "another task, classification" in export.err
    with pytest.raises(ConfigError, match="task"):
        finetune(segmentation(), tmp_path / "classifier", resume=True)
    segmenter = finetune(segmentation(steps=1), tmp_path / "segmenter")
    with pytest.raises(WeightsError, match="fine-tuned for segmentation, this run is about class"):
        finetune(settings(table, init=str(segmenter)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("1.2.3,1,1", "1.2.3,1,2", "'CVC - Abnormal' of 1.2.3 must be 0 or 1"),
        ("PatientID", "Patient", "has no column 'PatientID'"),
        ("1.2.3,", "1.2.99,", "names 1 images that are not in"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(
    table: Path, tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    text = (table / "train.csv").read_text()
    assert old in text
    (tmp_path / "train.csv").write_text(text.replace(old, new, 1))
    data = {
        "table": str(tmp_path / "train.csv"),
        "images": str(table / "train"),
        "splits": {"test": 0},
    }
    with pytest.raises(TruthError, match=sentence):
        finetune(settings(table, data=data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("side", ["wide", 31, None])
def test_a_side_that_is_none_is_refused(table: Path, tmp_path: Path, side: object) -> None:
    with pytest.raises(ConfigError, match="image_size"):
        finetune(settings(table, network={**NETWORK, "image_size": side}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_row_that_breaks_off_is_said(table: Path, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text((table / "train.csv").read_text() + "1.2.24,1\n")
    data = {"table": str(tmp_path / "train.csv"), "images": str(table / "train")}
    with pytest.raises(TruthError, match=r"the row of 1\.2\.24 breaks off"):
        finetune(settings(table, data=data), tmp_path / "run")


def test_nothing_to_validate_on_is_refused(table: Path, tmp_path: Path) -> None:
    data = settings(table).data.model_dump(mode="json")
    data["splits"] = {"validation": 0, "test": 0}
    with pytest.raises(TruthError, match="no images for validation"):
        finetune(settings(table, data=data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_line_takes_both_tasks(table: Path, tmp_path: Path) -> None:
    save_settings(settings(table, steps=1), tmp_path / "classifier.yaml")
    result = run_cli("finetune", tmp_path / "classifier.yaml", "--out", tmp_path / "run")
    assert result.code == 0
    (tmp_path / "none.yaml").write_text("task: guessing\n")
    refused = run_cli("finetune", tmp_path / "none.yaml", "--out", tmp_path / "other")
    assert refused.code == 1
    assert "guessing" in refused.err
