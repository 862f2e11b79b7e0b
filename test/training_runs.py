# SPDX-License-Identifier: Apache-2.0
"""Trainings that are interrupted, and whether they end as those that are not."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedefm_core.finetuning import training


def interrupt_step(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have the next training hear Ctrl-C in its step of that number, counted from 1."""
    step, calls = training._step, []

    def interrupted(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == number:
            signal.raise_signal(signal.SIGINT)
        return step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "_step", interrupted)


def assert_same_files(one: Path, other: Path, names: tuple[str, ...]) -> None:
    """The safetensors files of two runs hold the same, bit for bit."""
    for name in names:
        whole, parts = (load_file(run / f"{name}.safetensors") for run in (one, other))
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[key], parts[key]) for key in whole), name
