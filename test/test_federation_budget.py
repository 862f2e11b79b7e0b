# SPDX-License-Identifier: Apache-2.0
"""Hostile silos, rehearsals that count what a run will spend, and Θ kept on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'train'")

from federation_silos import (  # noqa: E402
    CLASSES,
    NAMES,
    matrix,
    silos,
    start,
    step,
)
from safetensors.torch import load_file  # noqa: E402

from fedefm_core.config import parse_settings  # noqa: E402
from fedefm_core.errors import ConfigError  # noqa: E402
from fedefm_core.federation.budget import (  # noqa: E402
    Spent,
    rehearse,
    rounds_for_bytes,
    rounds_within,
)
from fedefm_core.federation.hostility import (  # noqa: E402
    HostileSilo,
    HostilitySettings,
    hostile_silos,
)
from fedefm_core.federation.run import kept_weights, pretrain  # noqa: E402
from fedefm_core.federation.settings import PretrainSettings  # noqa: E402
from fedefm_core.federation.silo import Task  # noqa: E402


def hostile(**values: Any) -> HostileSilo:
    """The first of federation_silos' silos, turned."""
    honest = silos()[0]
    settings = parse_settings(HostilitySettings, values)
    parts = (honest.name, honest.data, honest.network, honest.settings, CLASSES, honest.seed)
    return HostileSilo(*parts, hostility=settings)


def test_a_flipped_step_goes_the_other_way() -> None:
    before, honest = matrix(start()), step(matrix(start()), silos()[0])
    turned = hostile(attack="sign_flip", scale=3.0)
    for trained in (
        turned.train_local(start(), 1, Task(1)),
        turned.train_overseas(start(), 1, "b", Task(1)),
    ):
        expected = before - 3 * (honest - before)
        np.testing.assert_allclose(matrix(trained.weights), expected, rtol=2e-5, atol=2e-6)


def test_noise_is_as_large_as_asked_and_the_same_again() -> None:
    honest = step(matrix(start()), silos()[0])
    noisy = [hostile(attack="noise", scale=2.0).train_local(start(), 1, Task(1)) for _ in "ab"]
    first, again = (matrix(trained.weights) for trained in noisy)
    np.testing.assert_array_equal(first, again)
    size = np.sqrt(np.mean((first - honest) ** 2)) / np.sqrt(np.mean(honest**2))
    assert 0.8 < size < 4


def test_poisoned_images_bear_the_name_of_the_next_kind() -> None:
    poisoned, honest = hostile(attack="label_poison"), silos()[0]
    assert set(poisoned.data.labels) == {1}
    assert set(honest.data.labels) == {0}
    honest.data = poisoned.data
    expected = step(matrix(start()), honest)
    trained = poisoned.train_local(start(), 0, Task(1))
    np.testing.assert_allclose(matrix(trained.weights), expected, rtol=2e-5, atol=2e-6)


def test_who_is_hostile_is_drawn_by_the_seed_and_leaves_one_honest() -> None:
    one = HostilitySettings(attack="noise")
    assert hostile_silos(HostilitySettings(), NAMES, 0) == frozenset()
    assert hostile_silos(one, NAMES, 4) == hostile_silos(one, NAMES, 4)
    assert len({hostile_silos(one, NAMES, seed) for seed in range(20)}) == 3
    with pytest.raises(ConfigError, match="one honest silo at least"):
        hostile_silos(HostilitySettings(attack="noise", silos=3), NAMES, 0)


def settings_for(folder: Path, algorithm: dict[str, Any], **changes: Any) -> PretrainSettings:
    """Three silos of one simulated kind each, all of it tiny."""
    manifest = folder / "corpora.yaml"
    if not manifest.exists():
        lines = ["size: 16", "cache: cache", "corpora:"]
        for name in ("one", "two", "three"):
            lines.append(f"  {name}: {{adapter: 'simulated:retina', count: 6}}")
        manifest.write_text("\n".join(lines) + "\n")
    values: dict[str, Any] = {
        "model": {"channels": [4, 4, 4]},
        "corpora": {"manifest": str(manifest)},
        "algorithm": algorithm,
        "rounds": 4,
        "local_steps": 2,
        "training": {"batch_size": 2},
        "evaluation": {"every_rounds": 4},
        "tensorboard": False,
        **changes,
    }
    return parse_settings(PretrainSettings, values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("budget")


@pytest.mark.parametrize(
    ("algorithm", "changes"),
    [
        (
            {"name": "mfd", "merge_weight": "sharpened"},
            {"prototypes": {"weight": 0.5}, "topology": {"name": "complete"}},
        ),
        ({"name": "gossip"}, {"topology": {"name": "matcha"}, "dropout": 0.3}),
        ({"name": "central"}, {}),
    ],
)
def test_a_rehearsal_spends_what_the_run_spends(
    folder: Path, algorithm: dict[str, Any], changes: dict[str, Any]
) -> None:
    settings = settings_for(folder, algorithm, **changes)
    out = folder / algorithm["name"]
    pretrain(settings, out)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    totals = [line["total"] for line in lines]
    expected = [Spent(sum(t["steps"].values()) / 3, t["bytes"]) for t in totals]
    rehearsed = rehearse(settings)
    assert [next(rehearsed) for _ in lines] == expected


def test_rounds_fit_their_budgets(folder: Path) -> None:
    # Round 0: 2 steps at home. Then 1 overseas and 1 of distillation; the model goes out and home
    # on three links.
    rounds, spent = rounds_within(settings_for(folder, {"name": "mfd"}), steps=8)
    assert (rounds, spent[-1].steps) == (4, 8.0)
    a_round = spent[1].bytes
    assert [now.bytes for now in spent] == [0, a_round, 2 * a_round, 3 * a_round]
    assert rounds_within(settings_for(folder, {"name": "mfd"}), steps=7)[0] == 3
    assert rounds_within(settings_for(folder, {"name": "local"}), steps=1)[0] == 1
    assert rounds_for_bytes(spent, 2 * a_round) == 3
    assert rounds_for_bytes(spent[1:], 1) == 1


def test_theta_is_kept_where_asked_and_leaves_hostile_silos_out(folder: Path) -> None:
    settings = settings_for(
        folder,
        {"name": "local"},
        rounds=3,
        keep_rounds=[1, 2],
        checkpoint_every=2,
        hostile={"attack": "noise", "scale": 100.0},
    )
    out = folder / "kept"
    pretrain(settings, out)
    kept = [path.name for path in sorted(out.glob("foundation-*.safetensors"))]
    assert kept == [kept_weights(out, round).name for round in (1, 2)]
    assert [path.name for path in out.glob("checkpoint-*")] == ["checkpoint-00002"]
    last, foundation = load_file(kept_weights(out, 2)), load_file(out / "foundation.safetensors")
    hostile = json.loads((out / "provenance.json").read_text())["hostile"]
    honest = [n for n in ("silo0", "silo1", "silo2") if n not in hostile]
    assert len(honest) == 2
    silo_weights = [load_file(out / "checkpoint-00002" / f"{n}.safetensors") for n in honest]
    for name, tensor in foundation.items():
        assert torch.equal(tensor, last[name])
        mean = sum(weights[f"weights/{name}"] for weights in silo_weights) / 2
        torch.testing.assert_close(tensor, mean)


def test_a_run_interrupted_between_checkpoints_ends_the_same(folder: Path) -> None:
    settings = settings_for(folder, {"name": "gossip"}, checkpoint_every=2, keep_rounds=[0])
    whole, broken = folder / "whole", folder / "broken"
    pretrain(settings, whole)

    class StopRunError(Exception):
        pass

    def until_round_3(items: Any, title: str, total: int) -> Any:
        for number, item in enumerate(items):
            if title == "Pretraining" and number == 3:
                raise StopRunError
            yield item

    with pytest.raises(StopRunError):
        pretrain(settings, broken, track=until_round_3)
    assert not (broken / "foundation-00003.safetensors").exists()
    pretrain(settings, broken, resume=True)
    for name in ("foundation.safetensors", "foundation-00000.safetensors"):
        one, other = load_file(whole / name), load_file(broken / name)
        assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    rounds = [json.loads(line)["round"] for line in (broken / "metrics.jsonl").open()]
    assert rounds == [0, 1, 2, 3]
