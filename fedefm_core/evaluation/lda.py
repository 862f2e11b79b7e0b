# SPDX-License-Identifier: Apache-2.0
"""A head in closed form from pooled class statistics, for the features of any network.

Fisher's linear discriminant: of kinds with means μ_k and one covariance Σ the most probable one is
argmax_k x·Σ⁻¹μ_k − ½ μ_k·Σ⁻¹μ_k. All it needs are sums over images, so that silos can each give
theirs and the head is exactly that of the union of their images (G. Legate et al., Guiding the
Last Layer in Federated Learning with Pre-trained Models, NeurIPS 2023, do so with means alone).

**It costs privacy.** A silo tells, for each kind of image that it holds, how many there are and
the sum of their features, and the sum of outer products over all: more than weights.

Legend: N images, K kinds of image, D width of the features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedefm_core.errors import ConfigError

SHRINKAGE = 0.01  # of Σ towards a multiple of the identity: features that are always 0 occur


@dataclass(frozen=True)
class ClassSums:
    """Of some images, float64: counts_k (K,), sums_kd (K, D) of features, and products_dd (D, D),
    the sum of x xᵀ."""

    counts_k: Tensor
    sums_kd: Tensor
    products_dd: Tensor

    def bytes(self) -> int:
        """Size as float32: the rows of kinds that are there, and half of a symmetric matrix."""
        width = self.sums_kd.shape[1]
        rows = int((self.counts_k > 0).sum())
        return 4 * (rows * (width + 1) + width * (width + 1) // 2)


@dataclass(frozen=True)
class LinearHead:
    """logits = x weight_kdᵀ + bias_k; bias_k is −∞ for kinds that nobody has seen."""

    weight_kd: Tensor
    bias_k: Tensor

    def predict(self, features_nd: Tensor) -> Tensor:
        """(N, D) features to (N,) kinds."""
        return (features_nd.double() @ self.weight_kd.T + self.bias_k).argmax(1)


def class_sums(features_nd: Tensor, labels_n: Tensor, kinds: int) -> ClassSums:
    """What one silo gives: statistics of its (N, D) features by their (N,) labels."""
    x_nd = features_nd.double()
    member_kn = (labels_n == torch.arange(kinds)[:, None]).double()
    return ClassSums(member_kn.sum(1), member_kn @ x_nd, x_nd.T @ x_nd)


def pooled(parts: Iterable[ClassSums]) -> ClassSums:
    """Those of all silos together; the order does not matter but for rounding."""
    first, *others = parts
    total = first
    for part in others:
        total = ClassSums(
            total.counts_k + part.counts_k,
            total.sums_kd + part.sums_kd,
            total.products_dd + part.products_dd,
        )
    return total


def lda_head(sums: ClassSums, shrinkage: float = SHRINKAGE) -> LinearHead:
    """The head, kinds being equally probable a priori.

    Σ is the pooled covariance within kinds, shrunk to (1 − s) Σ + s tr(Σ) / D · 1 (J. Friedman,
    Regularized Discriminant Analysis, JASA 1989). Raises ConfigError without any image.
    """
    counts_k, total = sums.counts_k, float(sums.counts_k.sum())
    if total == 0:
        raise ConfigError("A discriminant head needs the features of one image at least")
    mean_kd = sums.sums_kd / counts_k.clamp(min=1)[:, None]
    within_dd = sums.products_dd - mean_kd.T @ (counts_k[:, None] * mean_kd)
    seen = int((counts_k > 0).sum())
    covariance_dd = within_dd / max(total - seen, 1.0)
    width = len(covariance_dd)
    level = covariance_dd.trace() / width
    floor = torch.finfo(torch.float64).tiny ** 0.5  # all images of a kind alike: any head serves
    ridge_dd = (shrinkage * level).clamp(min=floor) * torch.eye(width, dtype=torch.float64)
    factor_dd = torch.linalg.cholesky((1 - shrinkage) * covariance_dd + ridge_dd)
    weight_kd = torch.cholesky_solve(mean_kd.T, factor_dd).T
    bias_k = -0.5 * (weight_kd * mean_kd).sum(1)
    return LinearHead(weight_kd, bias_k.masked_fill(counts_k == 0, -torch.inf))
