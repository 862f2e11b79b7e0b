# SPDX-License-Identifier: Apache-2.0
"""Every command of docs/tutorial.md, in its order, at a smaller size."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from cli_runner import run_cli

pytest.importorskip("torch", reason="needs the extra 'train'")

from fedefm_core.export import parity

REPOSITORY = Path(__file__).resolve().parents[1]
KINDS = ("human", "animal", "phantom", "simulation", "angiography", "retina")
FEW = ["size=64", *(f"corpora.{kind}.count=5" for kind in KINDS)]
TRAINING = ["steps=2", "batch_size=2", "workers=0", "optimiser.warmup_steps=1"]
TRAINING += ["validation.frames=2", "validation.every_steps=2"]
SMALLER = {
    "pretrain": [f"corpora.override={FEW}", "rounds=1", "local_steps=1", "training.batch_size=2",
                 "evaluation.limit=2", "tensorboard=false"],
    "finetune": TRAINING,
    "distill": [*TRAINING, "pool_frames=2"],
    "evaluate": ["bootstrap_resamples=10"],
    "compare-models": ["bootstrap_resamples=10"],
}  # fmt: skip
OPTIONS = {
    "simulate": ["--count", "4"],
    "export": ["--parity-frames", "2"],
    "report": ["--examples", "1"],
}


def commands() -> list[list[str]]:
    """The commands of the tutorial, without 'fedefm_core'."""
    text = (REPOSITORY / "docs/tutorial.md").read_text()
    blocks = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    assert all(line.startswith("fedefm_core ") for line in lines)
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.slow
def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # After two steps of training, pixels are undecided, and rounding tips some of them over.
    monkeypatch.setitem(parity.LIMITS, "fp32", ("pixel_drift", 1e-4))
    (tmp_path / "config").symlink_to(REPOSITORY / "config")
    for verb, *arguments in commands():
        smaller = [f"--set={setting}" for setting in SMALLER.get(verb, [])]
        result = run_cli(verb, *arguments, *OPTIONS.get(verb, []), *smaller)
        assert result.code == 0, f"{verb}: {result.err}{result.out}"
    for made in ("student.onnx", "report/report.html", "compared/contact_sheet.png"):
        assert (tmp_path / "tutorial" / made).is_file()


def test_the_tutorial_has_the_whole_chain() -> None:
    verbs = list(dict.fromkeys(verb for verb, *_ in commands()))
    chain = ["pretrain", "simulate", "finetune", "distill", "export", "evaluate", "report"]
    assert [verb for verb in verbs if verb in chain] == chain
