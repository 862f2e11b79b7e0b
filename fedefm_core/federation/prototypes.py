# SPDX-License-Identifier: Apache-2.0
"""Shared class prototypes: virtual features of kinds of image that a silo does not hold.

A softmax over the one kind that a silo holds teaches its head nothing of the others. So each
silo measures mean and variance of its pooled features, kind by kind, and tells its neighbours;
while it trains, its head also sees features drawn from the kinds that it lacks (M. Luo et al.,
No Fear of Heterogeneity: Classifier Calibration for Federated Learning with Non-IID Data,
NeurIPS 2021, do so at a server, after training). This shares more than weights: class statistics
are a cost in privacy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fedefm_core.config import Settings


class PrototypeSettings(Settings):
    """weight: of the loss on virtual features, 0 turns prototypes off. samples: virtual features a
    step. images: of each silo, that are measured a round."""

    weight: float = Field(0.0, ge=0)
    samples: int = Field(16, ge=1)
    images: int = Field(64, ge=1)


@dataclass(frozen=True)
class ClassStatistics:
    """Of one silo: counts_k (K,), mean_kd and variance_kd (K, D) of its pooled features, float32;
    round: when they were measured."""

    round: int
    counts_k: Tensor
    mean_kd: Tensor
    variance_kd: Tensor

    def bytes(self) -> int:
        """Size as it travels: the rows of kinds that the silo holds."""
        rows = int((self.counts_k > 0).sum())
        return rows * (2 * self.mean_kd.shape[1] + 1) * 4


Table = Mapping[str, ClassStatistics]  # by the silo that measured


def measure_classes(
    features_bd: Tensor, labels_b: Tensor, classes: int, round: int
) -> ClassStatistics:
    """Statistics of (B, D) features by their (B,) labels."""
    member_kb = (labels_b == torch.arange(classes, device=labels_b.device)[:, None]).float()
    counts_k = member_kb.sum(1)
    share_kb = member_kb / counts_k.clamp(min=1)[:, None]
    mean_kd = share_kb @ features_bd
    variance_kd = (share_kb @ features_bd.square() - mean_kd.square()).clamp(min=0)
    return ClassStatistics(round, counts_k.cpu(), mean_kd.cpu(), variance_kd.cpu())


def merge_tables(own: Table, heard: Table) -> dict[str, ClassStatistics]:
    """Of each silo the newer statistics; in the order of names."""
    merged = dict(own)
    for name, statistics in heard.items():
        if name not in merged or merged[name].round < statistics.round:
            merged[name] = statistics
    return dict(sorted(merged.items()))


def virtual_features(
    table: Table, absent_k: Tensor, samples: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor] | None:
    """(S, D) features and (S,) labels from the kinds that are absent here, where they are known.

    absent_k: (K,) bool. Each kind is as likely as the others; of a kind, each silo that holds it
    as likely as it has images of it. None when no absent kind is known.
    """
    if not table:
        return None
    counts_nk = torch.stack([entry.counts_k for entry in table.values()]).numpy()
    known = np.flatnonzero(absent_k.cpu().numpy() & (counts_nk.sum(0) > 0))
    if len(known) == 0:
        return None
    entries = list(table.values())
    labels = rng.choice(known, samples)
    features = []
    for label in labels:
        weights = counts_nk[:, label].astype(np.float64)
        entry = entries[rng.choice(len(entries), p=weights / weights.sum())]
        mean_d, variance_d = entry.mean_kd[label], entry.variance_kd[label]
        noise_d = torch.from_numpy(rng.standard_normal(len(mean_d)).astype(np.float32))
        features.append(mean_d + variance_d.sqrt() * noise_d)
    return torch.stack(features), torch.from_numpy(labels)
