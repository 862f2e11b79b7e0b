# SPDX-License-Identifier: Apache-2.0
"""The loss of distillation at home, equations (2), (3) and (11) of the FedEFM paper, in parts.

    θ_i ← θ_i − α Σ_j w_j ∇L_MD(θ_i, θ̂_j, ξ_i)                                           (2)
    L_MD = β T² Σ_j L_c(Q_S^T, Q_j^T) + (1 − β) L_c(Q_S, y),   Q^T = softmax(logits / T)  (11)

w_j is the weight of expert j, in the paper EMD(θ_i, θ̂_j), a similarity. Experts are always
detached. Legend: B images, K kinds, D features, N positions, C channels, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from fedefm_core.config import Settings
from fedefm_core.emd import similarity
from fedefm_core.networks.foundation import FoundationOutput, MapName

LEAST_SIMILARITY = 0.05  # below it, its inverse would let one model speak alone


class DistillationSettings(Settings):
    """Parts of the loss; each may be chosen on its own.

    beta, temperature: β and T of (11).
    scope: what the expert teaches. all: its softmax over all kinds. absent: over the kinds that
        the silo does not hold, renormalised (with one corpus a silo, an expert calls ξ_i by
        another silo's name, and distilled over all kinds it argues against y). features: the
        directions of its dense map, position by position, and nothing to the head.
    weight: w_j. none: 1. detached: EMD_j scales the step. product: literally (2) as a product,
        differentiated through: descending EMD·L adds L·∇EMD, which lowers the similarity.
        pull: detached, and + λ (1 − EMD_j), which raises it. sharpened: E softmax(EMD / τ).
        uniform, inverse: controls: equal, and as 1 / EMD, both with the sum of the detached.
    pull: λ. sharpness: τ. map: which dense map EMD compares.
    weight_of: experts: one weight each, the mean over emd_samples images of the batch. samples:
        one for each image.
    sum: mean: (2) with the single-teacher form of (11), divided by E, so that the step does not
        grow with the neighbours. single: as printed in (2), with the single-teacher form.
        double: both sums over j, as (2) and (11) read literally.
    """

    beta: float = Field(0.5, ge=0, le=1)
    temperature: float = Field(3.0, gt=0)
    scope: Literal["all", "absent", "features"] = "absent"
    weight: Literal["none", "detached", "product", "pull", "sharpened", "uniform", "inverse"] = (
        "detached"
    )
    pull: float = Field(1.0, ge=0)
    sharpness: float = Field(0.05, gt=0)
    map: MapName = "late"
    weight_of: Literal["experts", "samples"] = "experts"
    emd_samples: int = Field(4, ge=1)
    sum: Literal["mean", "single", "double"] = "mean"


@dataclass(frozen=True)
class Lesson:
    """The loss, and the similarity (E,) of each expert; none where weights need none."""

    loss: Tensor
    similarity_e: Tensor | None


def distillation_loss(
    student: FoundationOutput,
    labels_b: Tensor,
    experts: Sequence[FoundationOutput],
    absent_k: Tensor,
    settings: DistillationSettings,
) -> Lesson:
    """The loss of one batch whose gradient is the step of (2).

    experts: outputs for the same batch. absent_k: (K,) bool, kinds that the silo does not hold.
    """
    home_b = functional.cross_entropy(student.logits_bk, labels_b, reduction="none")
    taught_eb = torch.stack([_taught(student, expert, absent_k, settings) for expert in experts])
    weight_eb, pull, similar_e = _weights(student, experts, settings)
    from_experts_eb = taught_eb.sum(0) if settings.sum == "double" else taught_eb
    loss_eb = settings.beta * from_experts_eb + (1 - settings.beta) * home_b
    loss = (weight_eb * loss_eb).mean(1).sum()
    if settings.sum == "mean":
        loss = loss / len(experts)
    return Lesson(loss + pull, similar_e)


def soft_cross_entropy(student_bk: Tensor, expert_bk: Tensor, temperature: float) -> Tensor:
    """T² L_c(Q_S^T, Q_E^T) (B,): cross-entropy of the student against the softened expert."""
    target_bk = (expert_bk.detach() / temperature).softmax(1)
    return -(temperature**2) * (target_bk * (student_bk / temperature).log_softmax(1)).sum(1)


def _taught(
    student: FoundationOutput,
    expert: FoundationOutput,
    absent_k: Tensor,
    settings: DistillationSettings,
) -> Tensor:
    """What one expert asks of each image, (B,)."""
    if settings.scope == "features":
        alike_bn = functional.cosine_similarity(student.late_bnc, expert.late_bnc.detach(), dim=2)
        return 1 - alike_bn.mean(1)
    if settings.scope == "all":
        return soft_cross_entropy(student.logits_bk, expert.logits_bk, settings.temperature)
    if int(absent_k.sum()) < 2:  # a softmax over one kind says nothing
        return student.logits_bk.new_zeros(len(student.logits_bk))
    return soft_cross_entropy(
        student.logits_bk[:, absent_k], expert.logits_bk[:, absent_k], settings.temperature
    )


def _weights(
    student: FoundationOutput, experts: Sequence[FoundationOutput], settings: DistillationSettings
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Weights that broadcast to (E, B), the term of 'pull', and the similarities (E,)."""
    none = student.logits_bk.new_zeros(())
    if settings.weight == "none":
        return student.logits_bk.new_ones(len(experts), 1), none, None
    similar_eb = torch.stack([_similar(student, expert, settings) for expert in experts])
    if settings.weight_of == "experts":
        similar_eb = similar_eb.mean(1, keepdim=True)
    pull = settings.pull * (1 - similar_eb.mean(1)).mean() if settings.weight == "pull" else none
    weight_eb = similar_eb if settings.weight == "product" else _detached(similar_eb, settings)
    return weight_eb, pull, similar_eb.detach().mean(1)


def _detached(similar_eb: Tensor, settings: DistillationSettings) -> Tensor:
    similar_eb = similar_eb.detach()
    if settings.weight == "sharpened":
        return len(similar_eb) * (similar_eb / settings.sharpness).softmax(0)
    if settings.weight == "uniform":
        return similar_eb.mean(0, keepdim=True).expand_as(similar_eb)
    if settings.weight == "inverse":
        inverse_eb = 1 / similar_eb.clamp(min=LEAST_SIMILARITY)
        return inverse_eb / inverse_eb.sum(0) * similar_eb.sum(0)
    return similar_eb


def _similar(
    student: FoundationOutput, expert: FoundationOutput, settings: DistillationSettings
) -> Tensor:
    own, other = student.dense_map(settings.map), expert.dense_map(settings.map).detach()
    if settings.weight_of == "experts":
        own, other = own[: settings.emd_samples], other[: settings.emd_samples]
    if settings.weight not in ("product", "pull"):
        own = own.detach()
    return similarity(own, other)
