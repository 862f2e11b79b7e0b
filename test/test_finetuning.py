# SPDX-License-Identifier: Apache-2.0
"""Training: what a sample is, what the loss sees, and that an interrupted run goes on as one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fedefm_core.config import parse_settings
from fedefm_core.errors import ConfigError, OutputError, WeightsError
from fedefm_core.finetuning import FinetuneSettings, finetune
from fedefm_core.finetuning.data import PoolSampler, PoolStream, Sample, tip_heatmap
from fedefm_core.finetuning.losses import SegmentationLoss, tip_loss
from fedefm_core.finetuning.segmentation import learning_rate
from fedefm_core.finetuning.settings import LossSettings
from fedefm_core.networks import load_network, read_weights_header, save_weights
from fedefm_core.networks.wirenet import Wirenet, WirenetSettings
from fedefm_core.simulation.backgrounds import UNKNOWN
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
    stream = PoolStream(pool, chosen)
    shapes = [
        [tuple(stream[item].image.shape) for item in items] for items in PoolSampler(chosen, 0)
    ]
    crop, whole = (1, 64, 64), (1, 96, 96)
    assert shapes == [[crop, crop], [whole], [crop, crop], [whole]]


def test_a_sampler_that_starts_later_gives_the_same_batches() -> None:
    chosen = settings(steps=9)
    assert list(PoolSampler(chosen, 0))[5:] == list(PoolSampler(chosen, 5))


def test_a_sample_depends_on_its_index_alone(pool: Path) -> None:
    one, other = PoolStream(pool, settings()), PoolStream(pool, settings())
    first, again = one[(3, False)], other[(3, False)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.image, one[(2, False)].image)


def test_crops_show_instruments_as_often_as_asked(pool: Path) -> None:
    always = PoolStream(pool, settings(instrument_share=1.0, crop=32))
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


def test_an_interrupted_run_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedefm_core.finetuning import segmentation

    chosen = settings(pool_frames=4)
    finetune(chosen, tmp_path / "whole")

    step, calls = segmentation._step, []

    def interrupted(*arguments: object) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(segmentation, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune(chosen, tmp_path / "parts")
    monkeypatch.setattr(segmentation, "_step", step)
    finetune(chosen, tmp_path / "parts", resume=True)

    for name in ("best", "last", "state"):
        whole, parts = (
            load_file(tmp_path / run / f"{name}.safetensors") for run in ("whole", "parts")
        )
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[key], parts[key]) for key in whole), name
    steps = [json.loads(x) for x in (tmp_path / "parts/metrics.jsonl").read_text().splitlines()]
    assert [s["step"] for s in steps if s["split"] == "validation"] == [2, 4]


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
