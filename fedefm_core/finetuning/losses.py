# SPDX-License-Identifier: Apache-2.0
"""The segmentation loss: Dice + cross-entropy + clDice on the label map, and tip heat maps.

clDice: Shit et al., 'clDice, a novel topology-preserving loss function for tubular structure
segmentation', CVPR 2021; MONAI's implementation.
"""

from __future__ import annotations

import torch
from monai.losses import MaskedDiceLoss, SoftclDiceLoss
from torch import Tensor
from torch.nn import functional

from fedefm_core.finetuning.data import Sample
from fedefm_core.finetuning.settings import LossSettings
from fedefm_core.networks.segmentation import STRIDE
from fedefm_core.perception.types import UNKNOWN

Logits = tuple[Tensor, Tensor]


class SegmentationLoss:
    """Callable on (class_logits, tip_logits), a batch and the step; returns parts and 'total'."""

    def __init__(self, settings: LossSettings) -> None:
        self.settings = settings
        self.dice = MaskedDiceLoss(batch=True)
        self.cldice = SoftclDiceLoss(iter_=settings.cldice_iterations)

    def __call__(self, logits: Logits, batch: Sample, step: int) -> dict[str, Tensor]:
        classes, tips = (t.float() for t in logits)
        parts = {
            "dice_ce": self._dice_ce(classes, batch.labels),
            "tip": tip_loss(tips, batch.tips, batch.labels),
        }
        turn, off_turn = divmod(step, self.settings.cldice_every)
        if self.settings.cldice > 0 and not off_turn:
            count = min(self.settings.cldice_frames, len(classes))
            chosen = [(turn * count + i) % len(classes) for i in range(count)]
            parts["cldice"] = self._cldice(classes[chosen], batch.labels[chosen])
        weights = self.settings.model_dump()
        total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        return {**parts, "total": total}

    def _dice_ce(self, classes: Tensor, labels: Tensor) -> Tensor:
        """Dice of catheter, guidewire and both together, plus cross-entropy, of known pixels."""
        entropy = functional.cross_entropy(classes, labels[:, 0].long(), ignore_index=UNKNOWN)
        probability = torch.softmax(classes, 1)[:, 1:]
        dice: Tensor = self.dice(
            _with_foreground(probability),
            _with_foreground(one_hot(labels)),
            (labels != UNKNOWN).float(),
        )
        return dice + entropy

    def _cldice(self, classes: Tensor, labels: Tensor) -> Tensor:
        """clDice of the two instrument classes at half resolution, where thin wires stay whole."""
        known = (labels != UNKNOWN).float()
        probability = functional.max_pool2d(torch.softmax(classes, 1)[:, 1:] * known, 2)
        loss: Tensor = self.cldice(functional.max_pool2d(one_hot(labels), 2), probability)
        return loss


def one_hot(labels: Tensor) -> Tensor:
    """(B, 1, H, W) labels to (B, 2, H, W) float32: catheter, guidewire."""
    return torch.cat([(labels == 1), (labels == 2)], dim=1).float()


def _with_foreground(classes: Tensor) -> Tensor:
    """(B, 2, H, W) to (B, 3, H, W): the third is any instrument."""
    return torch.cat([classes, classes.sum(1, keepdim=True)], dim=1)


def tip_loss(logits: Tensor, target: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy to Gaussian targets, summed over known cells, mean over batch and kinds.

    Cells of unknown labels and those whose target is negative are not known.

    A proper scoring rule: the heat map tends to the probability of a tip, blurred by the
    target's Gaussian, so that its peak and spread say how sure the network is.
    """
    loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    unknown = functional.max_pool2d((labels == UNKNOWN).float(), STRIDE)
    return (loss * (1 - unknown) * (target >= 0)).sum(dim=(2, 3)).mean()
