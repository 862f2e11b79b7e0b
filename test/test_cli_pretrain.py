# SPDX-License-Identifier: Apache-2.0
"""'fedefm_core pretrain' as a user meets it: two silos, two rounds; and bad input by sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from cli_runner import Result, run_cli

pytest.importorskip("torch", reason="needs the extra 'train'")

SILOS = 2
CONFIG = {
    "corpora": {"manifest": "corpora.yaml"},
    "rounds": 2,
    "local_steps": 1,
    "training": {"batch_size": 2},
    "evaluation": {"limit": 2},
    "tensorboard": False,
}
MANIFEST = {
    "size": 32,
    "cache": "cache",
    "corpora": {
        "retina": {"adapter": "simulated:retina", "count": 5},
        "angiography": {"adapter": "simulated:angiography", "count": 5},
    },
    "partition": {"silos": SILOS, "unseen": 1.0},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Config and manifest, with the drawn images in a cache beside them."""
    return tmp_path_factory.mktemp("pretrain")


def write(folder: Path, manifest: dict[str, object]) -> Path:
    (folder / "corpora.yaml").write_text(yaml.safe_dump(manifest))
    (folder / "pretrain.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder / "pretrain.yaml"


def refused(result: Result, out: Path) -> str:
    """The sentence with which it was; nothing was written."""
    assert result.code == 2, result.err
    assert not out.exists()
    assert result.err.startswith("Error: ")
    assert result.err.count("\n") == 1
    return result.err


def test_two_silos_and_two_rounds(folder: Path) -> None:
    config, out = write(folder, MANIFEST), folder / "run"
    done = run_cli("pretrain", config, "--out", out)
    assert done.code == 0, done.err
    assert "Θ after 2 rounds: accuracy" in done.out
    assert "retina: " in done.out
    assert (out / "foundation.safetensors").exists()
    assert (out / "checkpoint-00001" / "silo1.safetensors").exists()
    other = run_cli("pretrain", config, "--out", out, "--resume", "--set", "local_steps=2")
    assert other.code == 2
    assert "local_steps" in other.err
    again = run_cli("pretrain", config, "--out", out)
    assert again.code == 1
    assert "holds a run already" in again.err
    resumed = run_cli("pretrain", config, "--out", out, "--resume")
    assert resumed.code == 0, resumed.err


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"corpora": {"drive": {"adapter": "drive", "path": "nowhere"}}},
            "path of the corpus 'drive' does not exist",
        ),
        ({"labels": ["retina"]}, "'corpora.angiography.label' must be one of retina"),
        ({"silos": {"here": ["retina"], "there": []}}, "the silo 'there' is empty"),
        ({"partition": {"silos": 3, "unseen": 1.0}}, "leaves 1 of 3 silos empty"),
    ],
)
def test_bad_manifests(folder: Path, changes: dict[str, object], sentence: str) -> None:
    config, out = write(folder, {**MANIFEST, **changes}), folder / "never"
    assert sentence in refused(run_cli("pretrain", config, "--out", out), out)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("rouns=3", "did you mean 'rounds'"),
        ("training.optimiser.learning_rat=1", "did you mean 'learning_rate'"),
        ("algorithm={name: mfd, merge_guest: 0}", "did you mean 'merge_guests'"),
        ("algorithm={name: fedavgg}", "algorithm"),
        ("topology.name=rign", "did you mean 'ring'"),
        ("corpora.manifest=other.yaml", "other.yaml"),
    ],
)
def test_bad_settings(folder: Path, override: str, sentence: str) -> None:
    config, out = write(folder, MANIFEST), folder / "never"
    result = run_cli("pretrain", config, "--out", out, "--set", override)
    assert sentence in refused(result, out)
