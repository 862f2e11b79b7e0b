# SPDX-License-Identifier: Apache-2.0
"""Training of segmenters: settings in, weights out."""

from fedefm_core.finetuning.segmentation import finetune
from fedefm_core.finetuning.settings import FinetuneSettings

__all__ = ["FinetuneSettings", "finetune"]
