# SPDX-License-Identifier: Apache-2.0
"""finetune: the task that the settings name, trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ConfigDict

from fedefm_core.config import Settings, load_settings
from fedefm_core.finetuning.classification import ClassificationTask
from fedefm_core.finetuning.segmentation import SegmentationTask
from fedefm_core.finetuning.settings import ClassificationSettings, FinetuneSettings
from fedefm_core.finetuning.training import train


def finetune(
    settings: FinetuneSettings | ClassificationSettings, run_dir: Path, resume: bool = False
) -> Path:
    """Train into run_dir and return the path of the best weights; files and errors as train has
    them, and TruthError or FrameError for data that cannot be used."""
    if isinstance(settings, ClassificationSettings):
        return train(ClassificationTask(settings), run_dir, resume)
    return train(SegmentationTask(settings), run_dir, resume)


def load_run_settings(
    paths: Sequence[Path], overrides: Sequence[str] = ()
) -> FinetuneSettings | ClassificationSettings:
    """The settings of the task that 'task' names, segmentation without it; errors as
    load_settings has them."""
    task = load_settings(_Task, paths, overrides).task
    if task == ClassificationTask.name:
        return load_settings(ClassificationSettings, paths, overrides)
    return load_settings(FinetuneSettings, paths, overrides)


class _Task(Settings):
    model_config = ConfigDict(extra="ignore")
    task: str = SegmentationTask.name
