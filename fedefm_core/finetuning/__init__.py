# SPDX-License-Identifier: Apache-2.0
"""Training on labels and from teachers: settings in, weights out."""

from fedefm_core.finetuning.distillation import distill
from fedefm_core.finetuning.finetune import finetune, load_run_settings
from fedefm_core.finetuning.settings import (
    ClassificationSettings,
    DistillSettings,
    FinetuneSettings,
)

__all__ = [
    "ClassificationSettings",
    "DistillSettings",
    "FinetuneSettings",
    "distill",
    "finetune",
    "load_run_settings",
]
