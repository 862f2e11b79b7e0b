# SPDX-License-Identifier: Apache-2.0
"""Teachers into a student: what the loss says, which frames are used, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_runner import run_cli
from corpora_trees import picture, write
from segmentation_networks import NETWORKS, build, registered
from test_finetuning import TINY
from training_runs import assert_same_files, interrupt_step

from fedefm_core.config import parse_settings, save_settings
from fedefm_core.errors import ConfigError, FrameError, WeightsError
from fedefm_core.finetuning import DistillSettings, distill
from fedefm_core.finetuning.data import Sample
from fedefm_core.finetuning.distillation import DistillationTask, soft_loss, teach
from fedefm_core.networks import build_network, read_weights_header, save_weights
from fedefm_core.perception.types import UNKNOWN


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights files of two segmenters and of a foundation."""
    folder = tmp_path_factory.mktemp("teachers")
    files = {}
    for name in ("vit", "unet"):
        header = {"architecture": registered(name), "settings": NETWORKS[name]}
        files[name] = folder / f"{name}.safetensors"
        save_weights(build(name), files[name], header)
    small = {"image_size": 32, "channels": [4, 8, 8]}
    files["foundation"] = folder / "foundation.safetensors"
    header = {"architecture": "small_cnn", "settings": small}
    save_weights(build_network("small_cnn", small), files["foundation"], header)
    return files


def settings(teachers: dict[str, Path], *names: str, **changes: object) -> DistillSettings:
    paths = [str(teachers[name]) for name in names or ("vit",)]
    return parse_settings(DistillSettings, {**TINY, "teachers": paths, **changes})


def test_the_soft_loss_is_zero_at_the_teacher_and_the_divergence_elsewhere() -> None:
    logits = torch.randn(2, 3, 4, 4)
    assert float(soft_loss(logits, torch.softmax(logits / 3, 1), 3.0)) == pytest.approx(
        0, abs=1e-6
    )
    sure = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    flat = torch.zeros(1, 3, 1, 1)
    assert float(soft_loss(flat, sure, 2.0)) == pytest.approx(4 * math.log(3))


def test_several_teachers_teach_their_mean(teachers: dict[str, Path]) -> None:
    task = DistillationTask(settings(teachers, "vit", "unet"))
    task.check()
    image = torch.randint(0, 256, (1, 1, 32, 32), dtype=torch.uint8)
    each = [teach([teacher], image, 2.0, "fp32") for teacher in task.teachers]
    both = teach(task.teachers, image, 2.0, "fp32")
    for place in (0, 1):
        mean = (each[0][place] + each[1][place]) / 2
        torch.testing.assert_close(both[place], mean)
        assert not both[place].requires_grad


def test_frames_without_labels_teach_by_the_teacher_alone(teachers: dict[str, Path]) -> None:
    task = DistillationTask(settings(teachers))
    task.check()
    image = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    labels = torch.full_like(image, UNKNOWN)
    batch = Sample(image, labels, torch.full((2, 2, 8, 8), -1.0))
    parts = task.loss(build("wirenet"), batch, 0)
    assert set(parts) == {"soft", "soft_tip", "total"}
    labels[0] = 0
    mixed = task.loss(build("wirenet"), batch, 0)
    assert {"dice_ce", "tip"} <= set(mixed)
    assert torch.isfinite(mixed["total"])


def test_a_student_comes_nearer_to_its_teacher(teachers: dict[str, Path], tmp_path: Path) -> None:
    chosen = settings(teachers, hard=0.0, steps=12, pool_frames=2, optimiser={"warmup_steps": 0})
    distill(chosen, tmp_path)
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    soft = [x["soft"] for x in lines if x["split"] == "train"]
    assert np.mean(soft[-3:]) < 0.7 * np.mean(soft[:3])


def test_real_frames_take_their_share_and_a_run_resumes_bit_for_bit(
    teachers: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        write(tmp_path / f"real/{number}.png", picture(number))
    (tmp_path / "real/torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    chosen = settings(
        teachers, pool_frames=4, unlabelled=[str(tmp_path / "real")], save_every_steps=100
    )
    best = distill(chosen, tmp_path / "whole")
    record = json.loads((tmp_path / "whole/unlabelled/frames.json").read_text())
    assert len(record["frames"]) == 3
    assert "torn.png" in record["set_aside"][0]
    stream = DistillationTask(chosen).stream(tmp_path / "whole")
    real = [bool((stream[(i, True)].labels == UNKNOWN).all()) for i in range(60)]
    assert 15 < sum(real) < 45
    header = read_weights_header(best)
    assert header["architecture"] == "wirenet"
    assert [t["architecture"] for t in header["teachers"]] == ["vit_segmenter"]

    interrupt_step(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        distill(chosen, tmp_path / "parts")
    distill(chosen, tmp_path / "parts", resume=True)
    assert_same_files(tmp_path / "whole", tmp_path / "parts", ("best", "state"))


def test_what_cannot_teach_is_refused_before_anything_is_written(
    teachers: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(WeightsError, match="it is a small_cnn of another task"):
        distill(settings(teachers, "foundation"), out)
    with pytest.raises(ConfigError, match="set 'pool_frames' or 'data' too"):
        distill(settings(teachers, unlabelled=[str(tmp_path)]), out)
    with pytest.raises(FrameError, match="holds no image files"):
        distill(settings(teachers, unlabelled=[str(tmp_path)], pool_frames=1), out)
    with pytest.raises(ConfigError, match="teachers"):
        parse_settings(DistillSettings, {**TINY, "teachers": []})
    assert not out.exists()


def test_other_teachers_do_not_go_on_with_a_run(teachers: dict[str, Path], tmp_path: Path) -> None:
    moved = tmp_path / "teacher.safetensors"
    moved.write_bytes(teachers["vit"].read_bytes())
    chosen = settings({"vit": moved}, steps=1)
    distill(chosen, tmp_path / "run")
    moved.write_bytes(teachers["unet"].read_bytes())
    with pytest.raises(ConfigError, match="their weights differ"):
        distill(chosen, tmp_path / "run", resume=True)


def test_the_command_line(teachers: dict[str, Path], tmp_path: Path) -> None:
    save_settings(settings(teachers, steps=1), tmp_path / "distill.yaml")
    arguments = ("distill", tmp_path / "distill.yaml", "--out", tmp_path / "run")
    result = run_cli(*arguments, "--teacher", teachers["unet"])
    assert result.code == 0
    assert "best.safetensors" in result.out
    again = run_cli(*arguments, "--teacher", tmp_path / "none.safetensors")
    assert again.code == 1
    assert "none.safetensors" in again.err
