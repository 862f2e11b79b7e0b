# SPDX-License-Identifier: Apache-2.0
"""Layer-wise rates, freezing, accumulation, early stop and few labels, each by what it must do."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from segmentation_networks import NETWORKS, build
from test_finetuning import settings
from torch import Tensor, nn
from training_runs import assert_same_files, interrupt_step

from fedefm_core.errors import ConfigError
from fedefm_core.finetuning import finetune, training
from fedefm_core.finetuning.data import PoolSampler
from fedefm_core.finetuning.fractions import labelled_part
from fedefm_core.finetuning.optimiser import (
    build_optimiser,
    check_freeze,
    freeze,
    is_inside,
    layer_scales,
    set_rate,
)
from fedefm_core.finetuning.segmentation import training_frames
from fedefm_core.finetuning.settings import FreezeSettings
from fedefm_core.networks import build_network

FOUNDATIONS = {
    "vit": {"image_size": 32, "patch_size": 8, "width": 12, "layers": 3, "heads": 3},
    "r50_vit": {"image_size": 64, "stem": 32, "stages": [1, 1, 1], "width": 12, "heads": 3},
    "small_cnn": {"image_size": 32, "channels": [4, 8, 8]},
}


def foundation(name: str) -> nn.Module:
    return build_network(
        name, {"mlp_width": 16} | FOUNDATIONS[name] if name != "small_cnn" else FOUNDATIONS[name]
    )


@pytest.mark.parametrize("network", [*(build(a) for a in NETWORKS), *map(foundation, FOUNDATIONS)])
def test_rates_grow_from_the_image_to_the_heads(network: nn.Module) -> None:
    stages = network.encoder_stages()
    names = [name for name, _ in network.named_parameters()]
    scales = layer_scales(network, 0.5)
    assert scales.keys() == set(names)
    for stage, prefixes in enumerate(stages):
        for prefix in prefixes:
            inside = [name for name in names if is_inside(name, prefix)]
            assert inside, prefix
            best = [n for n in inside if max_prefix(n, stages) == prefix]
            assert {scales[name] for name in best} == {0.5 ** (len(stages) - stage)}
    heads = [name for name in names if "head" in name]
    assert heads
    assert {scales[name] for name in heads} == {1.0}
    assert set(layer_scales(network, 1.0).values()) == {1.0}


def max_prefix(name: str, stages: list[tuple[str, ...]]) -> str:
    return max((p for stage in stages for p in stage if is_inside(name, p)), key=len)


def test_the_optimiser_has_a_group_for_each_rate() -> None:
    network = build("wirenet")
    one = build_optimiser(network, settings())
    assert [len(g["params"]) for g in one.param_groups] == [len(list(network.parameters()))]
    many = build_optimiser(network, settings(optimiser={"layer_decay": 0.5}))
    set_rate(many, 0.8)
    rates = [group["lr"] for group in many.param_groups]
    assert sorted(rates) == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8])
    assert sum(len(g["params"]) for g in many.param_groups) == len(list(network.parameters()))


def test_frozen_parts_stay_as_they_are_with_their_statistics(tmp_path: Path) -> None:
    always = {"parts": ["stem", "encoder.0"]}
    start = finetune(settings(steps=1), tmp_path / "start")
    best = finetune(settings(init=str(start), freeze=always), tmp_path / "frozen")
    before, after = load_file(start), load_file(best)
    frozen = [key for key in before if key.startswith(("stem.", "encoder.0."))]
    assert any("running_mean" in key for key in frozen)
    assert all(torch.equal(before[key], after[key]) for key in frozen)
    assert not torch.equal(before["class_head.weight"], after["class_head.weight"])


def test_freezing_ends_after_its_steps() -> None:
    network, chosen = build("wirenet"), FreezeSettings(parts=("stem",), steps=2)
    for step, still in ((0, True), (1, True), (2, False)):
        network.train()
        freeze(network, chosen, step)
        weight, norm = network.stem[1][0].weight, network.stem[1][1]
        assert (weight.requires_grad, norm.training) == (not still, not still)
        assert network.class_head.weight.requires_grad


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ("encodr", "did you mean 'encoder'"),
        ("zzz", "its parts are stem, down"),
        ("ste", "no part 'ste'"),
    ],
)
def test_a_part_that_is_not_there_is_refused(part: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        check_freeze(build("wirenet"), FreezeSettings(parts=(part,)))


def test_freezing_everything_is_refused() -> None:
    parts = tuple(name for name, _ in build("wirenet").named_children())
    with pytest.raises(ConfigError, match="nothing to train"):
        check_freeze(build("wirenet"), FreezeSettings(parts=parts))
    check_freeze(build("wirenet"), FreezeSettings(parts=parts, steps=1))


class Squares:
    """The loss mean((w - x)²) for the one weight of a network."""

    settings = settings(optimiser={"accumulate": 2, "warmup_steps": 0})

    def loss(self, network: nn.Module, batch: Tensor, step: int) -> dict[str, Tensor]:
        return {"total": (network.weight - batch).square().mean()}


def test_a_step_averages_the_gradients_of_its_batches() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 1.0)
    average = torch.optim.swa_utils.AveragedModel(network)
    optimiser = torch.optim.AdamW([{"params": list(network.parameters()), "scale": 1.0}])
    trainer = training.Trainer(Squares(), network, average, optimiser)  # type: ignore[arg-type]
    batches = iter([torch.tensor([0.5]), torch.tensor([0.8])])
    means = training._step(trainer, batches, 0)
    assert means["total"] == pytest.approx((0.25 + 0.04) / 2)
    assert float(network.weight.grad) == pytest.approx((2 * 0.5 + 2 * 0.2) / 2)


def test_batches_of_accumulated_steps_are_all_different() -> None:
    chosen = settings(optimiser={"accumulate": 3})
    batches = list(PoolSampler(chosen, 0))
    assert len(batches) == len(PoolSampler(chosen, 0)) == 3 * chosen.steps
    assert len({index for batch in batches for index, _ in batch}) == sum(map(len, batches))
    assert list(PoolSampler(chosen, 2)) == batches[6:]


def test_a_run_that_no_longer_improves_ends_early_and_stays_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedefm_core.finetuning import segmentation

    scores = iter([0.1, 0.3, 0.2, 0.3, 0.9])
    monkeypatch.setattr(
        segmentation, "evaluate", lambda *_: {"dice_mean": next(scores), "tip_score": 0.0}
    )
    chosen = settings(steps=9, validation={"frames": 1, "every_steps": 1, "patience": 2})
    finetune(chosen, tmp_path)
    finetune(chosen, tmp_path, resume=True)
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [x["dice_mean"] for x in lines if x["split"] == "validation"] == [0.1, 0.3, 0.2, 0.3]


def test_all_of_it_together_resumes_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(
        pool_frames=8,
        save_every_steps=100,
        optimiser={"warmup_steps": 1, "layer_decay": 0.7, "accumulate": 2},
        freeze={"parts": ["stem", "encoder"], "steps": 2},
        labels={"percent": 25},
    )
    finetune(chosen, tmp_path / "whole")
    interrupt_step(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        finetune(chosen, tmp_path / "parts")
    finetune(chosen, tmp_path / "parts", resume=True)
    assert_same_files(tmp_path / "whole", tmp_path / "parts", ("best", "last", "state"))
    assert len(training_frames(chosen, tmp_path / "whole")) == 2


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60),
    st.integers(0, 99),
)
def test_few_labels_are_nested_and_the_same_for_every_run(groups: list[str], seed: int) -> None:
    parts = [labelled_part(groups, percent, seed) for percent in (1, 5, 10, 25, 100)]
    for small, large in pairwise(parts):
        assert set(small) <= set(large)
    assert parts[-1] == list(range(len(groups)))
    assert len(parts[3]) == max(1, int(len(groups) / 4 + 0.5))
    assert parts[2] == labelled_part(groups, 10, seed)


def test_few_labels_come_from_few_patients() -> None:
    groups = [name for name in "abcdefghij" for _ in range(10)]
    assert len({groups[i] for i in labelled_part(groups, 10, 0)}) == 1
    assert labelled_part(groups, 10, 0) != labelled_part(groups, 10, 1)


def test_few_labels_of_an_endless_stream_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs frames to choose from"):
        finetune(settings(labels={"percent": 10}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
