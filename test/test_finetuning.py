# SPDX-License-Identifier: Apache-2.0
"""Training: what a sample is, what the loss sees, and that an interrupted run goes on as one."""

from __future__ import annotations

import importlib
import json
import math
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedefm_core.config import parse_settings
from fedefm_core.errors import ConfigError, OutputError, WeightsError
from fedefm_core.finetuning import FinetuneSettings, finetune
from fedefm_core.finetuning.data import (
    PoolSampler,
    PoolStream,
    Sample,
    read_pool,
    tip_heatmap,
)
from fedefm_core.finetuning.losses import SegmentationLoss, tip_loss
from fedefm_core.finetuning.optimiser import learning_rate
from fedefm_core.finetuning.settings import AugmentationSettings, LossSettings
from fedefm_core.finetuning.training import interrupts_held
from fedefm_core.frames import to_grey8
from fedefm_core.networks import load_network, read_weights_header, save_weights
from fedefm_core.networks.wirenet import Wirenet, WirenetSettings
from fedefm_core.perception.types import UNKNOWN
from fedefm_core.simulation import simulate_frame
from fedefm_core.simulation.dataset import DatasetPlan, write_dataset

TINY = {
    "network": {"channels": [4, 8, 8, 8], "blocks": [1, 1, 1, 1]},
    "simulation": {"size": 96, "empty_fraction": 0.0},
    "steps": 4,
    "batch_size": 2,
    "workers": 0,
    "precision": "fp32",
    "crop": 64,
    "whole_every": 2,
    "whole_batch_size": 1,
    "save_every_steps": 1,
    "optimiser": {"warmup_steps": 1},
    "validation": {"frames": 2, "every_steps": 2},
}
NO_AUGMENTATION = {
    name: 0.0 for name in AugmentationSettings.model_fields if name.endswith("probability")
}


def settings(**changes: object) -> FinetuneSettings:
    return parse_settings(FinetuneSettings, {**TINY, **changes})


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    chosen = settings()
    for _ in write_dataset(DatasetPlan(chosen.seed, 6, chosen.simulation), folder):
        pass
    return folder


def logits_of(labels: Tensor, size: float = 20.0) -> Tensor:
    """Class logits that are sure of these labels, unknown ones taken as background."""
    known = torch.where(labels == UNKNOWN, 0, labels.long())[:, 0]
    return size * torch.nn.functional.one_hot(known, 3).permute(0, 3, 1, 2).float()


def batch(labels: Tensor) -> Sample:
    cells = labels.shape[-1] // 4
    return Sample(labels, labels, torch.zeros(len(labels), 2, cells, cells))


def stripes() -> Tensor:
    labels = torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
    labels[:, :, 10:14], labels[:, :, 30:33] = 1, 2
    return labels


def test_sure_and_right_costs_next_to_nothing_and_wrong_costs_much() -> None:
    labels = stripes()
    loss = SegmentationLoss(LossSettings())
    tips = torch.full((2, 2, 16, 16), -20.0)
    right = loss((logits_of(labels), tips), batch(labels), 0)
    wrong = loss((logits_of(torch.zeros_like(labels)), tips), batch(labels), 0)
    assert right["total"] < 0.01
    assert wrong["total"] > 1.0


def test_nothing_is_learnt_from_unknown_pixels() -> None:
    labels = stripes()
    labels[:, :, 40:50] = UNKNOWN
    loss = SegmentationLoss(LossSettings())
    classes = (torch.randn(2, 3, 64, 64)).requires_grad_()
    tips = torch.randn(2, 2, 16, 16, requires_grad=True)
    loss((classes, tips), batch(labels), 0)["total"].backward()
    assert classes.grad is not None
    assert tips.grad is not None
    assert not classes.grad[:, :, 40:50].any()
    assert classes.grad[:, :, :40].abs().sum() > 0
    assert not tips.grad[:, :, 10:12].any()
    assert tips.grad[:, :, :9].abs().min() > 0


def test_the_tip_loss_is_least_at_the_target_itself() -> None:
    target = torch.rand(1, 2, 8, 8) * 0.9 + 0.05
    labels = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    logits = torch.logit(target).requires_grad_()
    tip_loss(logits, target, labels).backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


def test_the_heat_map_peaks_at_the_cell_of_the_tip() -> None:
    heat = tip_heatmap([("guidewire", np.array([21.5, 9.5]))], (64, 96), 1.2)
    assert heat.shape == (2, 16, 24)
    assert heat[1, 2, 5] == pytest.approx(1.0)
    assert not heat[0].any()


def test_every_second_batch_holds_whole_frames(pool: Path) -> None:
    chosen = settings()
    stream = PoolStream(read_pool(pool), chosen)
    shapes = [
        [tuple(stream[item].image.shape) for item in items] for items in PoolSampler(chosen, 0)
    ]
    crop, whole = (1, 64, 64), (1, 96, 96)
    assert shapes == [[crop, crop], [whole], [crop, crop], [whole]]


def test_a_sampler_that_starts_later_gives_the_same_batches() -> None:
    chosen = settings(steps=9)
    assert list(PoolSampler(chosen, 0))[5:] == list(PoolSampler(chosen, 5))


def test_a_sample_depends_on_its_index_alone(pool: Path) -> None:
    one, other = PoolStream(read_pool(pool), settings()), PoolStream(read_pool(pool), settings())
    first, again = one[(3, False)], other[(3, False)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.image, one[(2, False)].image)


def test_crops_show_instruments_as_often_as_asked(pool: Path) -> None:
    always = PoolStream(read_pool(pool), settings(instrument_share=1.0, crop=32))
    shown = [bool(((always[(i, False)].labels) > 0).any()) for i in range(30)]
    assert all(shown)


def test_the_rate_falls_to_zero_and_jumps_back_at_a_restart() -> None:
    chosen = settings(
        steps=100, optimiser={"warmup_steps": 10, "restarts": [60], "learning_rate": 1e-2}
    )
    rates = [learning_rate(chosen, step) for step in range(100)]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[9] == pytest.approx(1e-2)
    assert rates[35] == pytest.approx(0.5e-2)
    assert rates[59] < 1e-5
    assert rates[60] == pytest.approx(1e-2)
    assert rates[99] < 2e-5
    assert all(math.isfinite(rate) for rate in rates)


@pytest.mark.parametrize(
    ("module", "function"),
    [
        ("training", "_step"),
        ("segmentation", "forward"),
        ("segmentation", "evaluate"),
        ("training", "_keep_best"),
    ],
)
def test_an_interrupted_run_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, function: str
) -> None:
    """Wherever Ctrl-C comes: in the middle of a step or of a validation."""
    code = importlib.import_module(f"fedefm_core.finetuning.{module}")

    chosen = settings(pool_frames=4, save_every_steps=100)
    finetune(chosen, tmp_path / "whole")

    real, calls = getattr(code, function), []

    def interrupted(*arguments: object) -> object:
        calls.append(1)
        result = real(*arguments)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)
        return result

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(code, function, interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune(chosen, tmp_path / "parts")
    assert signal.getsignal(signal.SIGINT) is handler
    monkeypatch.setattr(code, function, real)
    finetune(chosen, tmp_path / "parts", resume=True)

    for name in ("best", "last", "state"):
        whole, parts = (
            load_file(tmp_path / run / f"{name}.safetensors") for run in ("whole", "parts")
        )
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[key], parts[key]) for key in whole), name
    steps = [json.loads(x) for x in (tmp_path / "parts/metrics.jsonl").read_text().splitlines()]
    assert [s["step"] for s in steps if s["split"] == "validation"] == [2, 4]


def test_a_second_interrupt_ends_the_run_at_once() -> None:
    with interrupts_held() as interrupted:
        assert not interrupted()
        signal.raise_signal(signal.SIGINT)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_killed_run_writes_each_step_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedefm_core.finetuning import training

    step, calls = training._step, []

    def killed(*arguments: object) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 4:
            raise MemoryError
        return step(*arguments)  # type: ignore[arg-type]

    chosen = settings(save_every_steps=2)
    monkeypatch.setattr(training, "_step", killed)
    with pytest.raises(MemoryError):
        finetune(chosen, tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 3, "sp')
    finetune(chosen, tmp_path, resume=True)
    lines_read = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines_read if x["split"] == "train"] == [1, 2, 3, 4]


def test_a_state_without_sense_is_refused(tmp_path: Path) -> None:
    finetune(settings(steps=1), tmp_path)
    state = tmp_path / "state.safetensors"
    save_file(load_file(state), state, metadata={"progress": "{"})
    with pytest.raises(WeightsError, match="no training state of this run"):
        finetune(settings(steps=1), tmp_path, resume=True)


def test_deep_pictures_of_a_pool_are_windowed_as_at_inference(tmp_path: Path) -> None:
    chosen = settings(
        simulation={"size": 64, "bit_depth": 12}, augmentation=NO_AUGMENTATION, pool_frames=1
    )
    for _ in write_dataset(DatasetPlan(chosen.seed, 1, chosen.simulation), tmp_path):
        pass
    expected = to_grey8(simulate_frame(chosen.seed, 0, chosen.simulation).frame)
    image = PoolStream(read_pool(tmp_path), chosen)[(0, True)].image[0].numpy()
    np.testing.assert_array_equal(np.bincount(image.ravel()), np.bincount(expected.ravel()))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"crop": 128, "pool_frames": 1}, "'crop' must be at most 'simulation.size', 96"),
        ({"simulation": {"size": 100}}, "'simulation.size' must be a multiple of 32"),
        (
            {"network": {"channels": [4] * 5, "blocks": [1] * 5}, "pool_frames": 1, "crop": 32},
            "'simulation.size' must be a multiple of 64",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        finetune(settings(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_that_do_not_fit_are_refused_before_the_pool_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        finetune(settings(init="/nowhere/at/all", pool_frames=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_run_is_not_overwritten_nor_continued_with_other_settings(tmp_path: Path) -> None:
    finetune(settings(steps=1), tmp_path / "run")
    with pytest.raises(OutputError, match="holds a run already"):
        finetune(settings(steps=1), tmp_path / "run")
    with pytest.raises(ConfigError, match="batch_size"):
        finetune(settings(steps=1, batch_size=1), tmp_path / "run", resume=True)


def test_a_run_may_start_from_the_weights_of_another(tmp_path: Path) -> None:
    first = finetune(settings(steps=1), tmp_path / "first")
    halved = tmp_path / "halved.safetensors"
    save_weights(load_network(first), halved, read_weights_header(first), half=True)
    assert halved.stat().st_size < 0.7 * first.stat().st_size
    still = {"learning_rate": 1e-12, "weight_decay": 0.0, "warmup_steps": 0}
    second = finetune(settings(steps=1, init=str(halved), optimiser=still), tmp_path / "second")
    before, after = load_file(first), load_file(second)
    weights = [key for key, value in before.items() if value.ndim == 4]
    assert all(torch.allclose(before[k], after[k], atol=2e-3, rtol=1e-3) for k in weights)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    other = Wirenet(WirenetSettings(channels=(8, 8, 8, 8), blocks=(1, 1, 1, 1)))
    header = {"architecture": "wirenet", "settings": {}}
    save_weights(other, tmp_path / "other.safetensors", header)
    with pytest.raises(WeightsError, match="must have the shape"):
        finetune(settings(steps=1, init=str(tmp_path / "other.safetensors")), tmp_path / "run")


@pytest.mark.parametrize("network", [{"channels": [], "blocks": []}, {"channels": [0, 8, 8, 8]}])
def test_a_network_of_no_channels_is_refused(network: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"network\.channels"):
        settings(network=network)
