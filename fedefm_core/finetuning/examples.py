# SPDX-License-Identifier: Apache-2.0
"""Frames of a run's validation with what its best weights find in them, for reports."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml

from fedefm_core.config import load_settings
from fedefm_core.errors import ConfigError
from fedefm_core.evaluation.report_plots import Example
from fedefm_core.evaluation.run_records import BEST_WEIGHTS, CONFIG_FILE
from fedefm_core.finetuning.segmentation import SegmentationTask, forward, validation_batches
from fedefm_core.finetuning.settings import DistillSettings, FinetuneSettings
from fedefm_core.networks import load_network
from fedefm_core.networks.segmentation import decide


def run_examples(run_dir: Path, count: int) -> list[Example]:
    """Up to count validation frames and their label maps; [] before the first best weights, and
    of a classifier.

    Raises ConfigError, WeightsError or TruthError when the run is damaged.
    """
    weights = run_dir / BEST_WEIGHTS
    if not weights.is_file():
        return []
    settings = run_settings(run_dir)
    if settings is None:
        return []
    validation = settings.validation.model_copy(update={"frames": count})
    few = settings.model_copy(update={"validation": validation, "batch_size": 1})
    network = load_network(weights)
    examples = []
    with torch.inference_mode():
        for batch in validation_batches(few, run_dir):
            classes, _ = forward(network, batch.image, "fp32")
            labels, _ = decide(*classes.chunk(3, dim=1))
            planes = (batch.image, batch.labels, labels.to(torch.uint8))
            examples.append(Example(*(plane[0, 0].numpy() for plane in planes)))
    return examples


def run_settings(run_dir: Path) -> FinetuneSettings | None:
    """Of a finetune or a distill run, as config.yaml has them; None of a classifier."""
    path = run_dir / CONFIG_FILE
    try:
        content = yaml.safe_load(path.read_text())
        taught, task = "teachers" in content, content.get("task", SegmentationTask.name)
    except (OSError, TypeError, yaml.YAMLError) as error:
        raise ConfigError(f"Cannot read the settings of the run, {path}: {error}") from error
    if task != SegmentationTask.name:
        return None
    return load_settings(DistillSettings if taught else FinetuneSettings, path)
