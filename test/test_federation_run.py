# SPDX-License-Identifier: Apache-2.0
"""Whole pretrainings: logs, equal seeds, interrupts at every moment, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from federation_manifest import settings_for, write_manifest
from safetensors.torch import load_file

from fedefm_core.errors import ConfigError, FedefmError, OutputError, WeightsError
from fedefm_core.federation import checkpoint
from fedefm_core.federation.run import Summary, pretrain
from fedefm_core.networks import load_network, read_weights_header


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("corpora"))


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_equal_runs(one: Path, other: Path) -> None:
    """The same weights, bit for bit, in checkpoint and foundation, and the same log but time."""
    files = sorted(path.relative_to(one) for path in one.rglob("*.safetensors"))
    assert files == sorted(path.relative_to(other) for path in other.rglob("*.safetensors"))
    assert len(files) >= 2
    for file in files:
        first, second = load_file(one / file), load_file(other / file)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), file
    for first_line, second_line in zip(lines_of(one), lines_of(other), strict=True):
        for line in (first_line, second_line):
            del line["total"]["seconds"]
        assert first_line == second_line


@pytest.fixture(scope="session")
def whole(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """A run that was not interrupted."""
    run = tmp_path_factory.mktemp("whole") / "run"
    return run, pretrain(settings_for(manifest), run)


def test_what_a_run_says(whole: tuple[Path, Summary], manifest: Path) -> None:
    run, summary = whole
    lines = lines_of(run)
    assert [line["round"] for line in lines] == [0, 1, 2]
    first, last = lines[0], lines[-1]
    assert first["bytes"] == 0
    assert first["steps"] == {"local": 6, "overseas": 0, "distillation": 0}
    assert last["steps"] == {"local": 6, "overseas": 6, "distillation": 3}
    assert last["theta"]["by_corpus"].keys() == {"dots", "bars", "waves"}
    assert set(last["silos"]) == {"silo0", "silo1", "silo2"}
    assert len(last["similarity"]) == 3
    assert all(0 < value < 1 + 1e-6 for value in last["similarity"].values())
    assert last["consensus_distance"] > 0
    assert last["simulated_ms"] > first["simulated_ms"] > 0
    parameters = sum(p.numel() for p in load_network(summary.foundation).parameters())
    assert last["bytes"] > 6 * 4 * parameters  # and the prototypes
    assert summary.totals.steps == {"local": 18, "overseas": 12, "distillation": 6}
    assert summary.totals.bytes == sum(line["bytes"] for line in lines)
    assert summary.theta == last["theta"]
    header = read_weights_header(summary.foundation)
    assert header["labels"] == ["dots", "bars", "waves"]
    assert header["round"] == 2
    assert json.loads((run / "summary.json").read_text())["theta"] == last["theta"]


def test_theta_is_the_mean_of_the_silos(whole: tuple[Path, Summary]) -> None:
    run, summary = whole
    states = [load_file(run / "checkpoint-00002" / f"silo{n}.safetensors") for n in range(3)]
    for name, theta in load_file(summary.foundation).items():
        mean = torch.stack([state[f"weights/{name}"] for state in states]).mean(0)
        torch.testing.assert_close(theta, mean)


def test_a_calibrated_head_changes_nothing_else(
    whole: tuple[Path, Summary], manifest: Path, tmp_path: Path
) -> None:
    calibrated = pretrain(settings_for(manifest, head="calibrated"), tmp_path / "run")
    found, plain = load_file(calibrated.foundation), load_file(whole[1].foundation)
    changed = {name for name in plain if not torch.equal(found[name], plain[name])}
    assert changed == {"head.weight", "head.bias"}
    for number in range(3):
        name = f"checkpoint-00002/silo{number}.safetensors"
        one, other = load_file(tmp_path / "run" / name), load_file(whole[0] / name)
        assert all(torch.equal(one[key], other[key]) for key in other)
    assert calibrated.silos == whole[1].silos
    assert calibrated.theta["loss"] != whole[1].theta["loss"]


def test_equal_seeds_give_equal_weights_and_others_do_not(
    whole: tuple[Path, Summary], manifest: Path, tmp_path: Path
) -> None:
    pretrain(settings_for(manifest), tmp_path / "again")
    assert_equal_runs(whole[0], tmp_path / "again")
    pretrain(settings_for(manifest, seed=1, rounds=1), tmp_path / "other")
    other = load_file(tmp_path / "other" / "foundation.safetensors")
    assert not torch.equal(other["head.weight"], load_file(whole[1].foundation)["head.weight"])


class Killed(BaseException):
    """As sudden as a signal, for tests in this process."""


def at_rename(original: Callable[..., None], stop: Callable[[], None]) -> Callable[..., None]:
    """os.replace that stops before the checkpoint of round 1 gets its name."""

    def replace(source: Any, target: Any) -> None:
        if str(target).endswith("checkpoint-00001"):
            stop()
        original(source, target)

    return replace


def at_removal(original: Callable[..., None], stop: Callable[[], None]) -> Callable[..., None]:
    """shutil.rmtree that stops when round 1 is on disk and round 0 still is."""

    def rmtree(path: Any, **options: Any) -> None:
        if str(path).endswith("checkpoint-00000"):
            stop()
        original(path, **options)

    return rmtree


def raise_killed() -> None:
    raise Killed


@pytest.mark.parametrize("moment", ["between files", "before the name", "before the removal"])
def test_a_run_that_stops_while_it_saves_goes_on_bit_for_bit(
    moment: str,
    whole: tuple[Path, Summary],
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        if moment == "between files":
            save, calls = checkpoint._save_silo, []

            def save_silo(path: Path, *rest: Any) -> None:
                calls.append(path)
                if len(calls) == 5:
                    raise Killed
                save(path, *rest)

            patch.setattr(checkpoint, "_save_silo", save_silo)
        elif moment == "before the name":
            patch.setattr(checkpoint.os, "replace", at_rename(os.replace, raise_killed))
        else:
            patch.setattr(checkpoint.shutil, "rmtree", at_removal(shutil.rmtree, raise_killed))
        with pytest.raises(Killed):
            pretrain(settings_for(manifest), tmp_path / "run")
    pretrain(settings_for(manifest), tmp_path / "run", resume=True)
    assert_equal_runs(whole[0], tmp_path / "run")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("moment", ["at_rename", "at_removal"])
def test_a_run_that_was_killed_goes_on_bit_for_bit(
    moment: str, whole: tuple[Path, Summary], manifest: Path, tmp_path: Path
) -> None:
    name = {"at_rename": "os.replace", "at_removal": "shutil.rmtree"}[moment]
    module, _, function = name.partition(".")
    code = f"""
import os, shutil, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_federation_run as t
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
{module}.{function} = t.{moment}({module}.{function}, kill)
t.pretrain(t.settings_for(Path({str(manifest)!r})), Path({str(tmp_path / "run")!r}))
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False)
    assert ended.returncode == -signal.SIGKILL
    pretrain(settings_for(manifest), tmp_path / "run", resume=True)
    assert_equal_runs(whole[0], tmp_path / "run")


def test_a_finished_run_resumes_to_the_same_end(
    whole: tuple[Path, Summary], manifest: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole[0], tmp_path / "run")
    again = pretrain(settings_for(manifest), tmp_path / "run", resume=True)
    assert again.theta == whole[1].theta
    assert_equal_runs(whole[0], tmp_path / "run")


def test_another_run_is_not_overwritten_nor_continued_with_other_settings(
    whole: tuple[Path, Summary], manifest: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole[0].rglob("*")}
    with pytest.raises(OutputError, match="holds a run already"):
        pretrain(settings_for(manifest), whole[0])
    changed = settings_for(manifest, rounds=9, algorithm={"name": "fedavg"})
    with pytest.raises(ConfigError, match="algorithm, rounds"):
        pretrain(changed, whole[0], resume=True)
    assert {path: path.stat().st_mtime_ns for path in whole[0].rglob("*")} == before


def test_a_damaged_checkpoint_is_named(
    whole: tuple[Path, Summary], manifest: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole[0], tmp_path / "run")
    (tmp_path / "run/checkpoint-00002/silo1.safetensors").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="checkpoint-00002 is damaged"):
        pretrain(settings_for(manifest), tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": {"name": "central"}},
        {"algorithm": {"name": "local"}},
        {"algorithm": {"name": "moon"}},
        {"algorithm": {"name": "consensus"}, "dropout": 0.4},
        {"algorithm": {"name": "gossip"}, "topology": {"name": "matcha", "underlay": "gaia"}},
        {"page_weights": True, "tensorboard": True},
    ],
    ids=["central", "local", "moon", "consensus", "matcha", "paged"],
)
def test_every_kind_of_run_comes_to_an_end(
    changes: dict[str, Any], manifest: Path, tmp_path: Path
) -> None:
    summary = pretrain(settings_for(manifest, rounds=2, **changes), tmp_path / "run")
    assert 0 <= summary.theta["accuracy"] <= 1
    assert summary.totals.steps["local"] >= 2 * 2
    assert (tmp_path / "run" / "tensorboard").exists() == changes.get("tensorboard", False)


def test_central_takes_the_steps_of_all_silos_on_all_images(
    manifest: Path, tmp_path: Path
) -> None:
    settings = settings_for(manifest, algorithm={"name": "central"}, rounds=1)
    summary = pretrain(settings, tmp_path / "run")
    assert summary.totals.steps["local"] == 2 * 3
    assert summary.silos.keys() == {"central"}
    assert summary.totals.bytes == 0


def test_training_learns(manifest: Path, tmp_path: Path) -> None:
    settings = settings_for(
        manifest, algorithm={"name": "central"}, rounds=6, local_steps=5, prototypes={}
    )
    pretrain(settings, tmp_path / "run")
    losses = [line["losses"]["local"]["central"] for line in lines_of(tmp_path / "run")]
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architecture": "wirenet"}, "no known setting|no foundation network"),
        ({"architecture": "vitt"}, "'vitt' is no known architecture"),
        ({"model": {"classes": 3}}, "'model.classes' comes from the corpora"),
        ({"model": {"chanels": [4, 4, 8]}}, "did you mean 'channels'"),
        ({"topology": {"name": "rign"}}, "did you mean 'ring'"),
        ({"topology": {"underlay": "gaja"}}, "did you mean 'gaia'"),
    ],
)
def test_what_cannot_be_trained_is_told_and_nothing_is_written(
    changes: dict[str, Any], reason: str, manifest: Path, tmp_path: Path
) -> None:
    with pytest.raises(FedefmError, match=reason):
        pretrain(settings_for(manifest, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
