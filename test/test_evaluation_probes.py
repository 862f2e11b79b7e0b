# SPDX-License-Identifier: Apache-2.0
"""Heads and probes on features whose answer is known: Gaussians, neighbours, maps of wires."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'train'")

from torch import Tensor, nn  # noqa: E402

from fedefm_core.errors import ConfigError  # noqa: E402
from fedefm_core.evaluation.lda import class_sums, lda_head, pooled  # noqa: E402
from fedefm_core.evaluation.probes import (  # noqa: E402
    accuracy_by_kind,
    balanced_accuracy,
    knn_probe,
    linear_probe,
)
from fedefm_core.evaluation.wire_probe import (  # noqa: E402
    WireProbeSettings,
    average_precision,
    wire_precision,
)
from fedefm_core.networks.foundation import FoundationNetwork, FoundationOutput  # noqa: E402

KINDS = 3


def gaussians(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features (N, 2) of three kinds with one covariance, labels, means (K, 2), covariance."""
    rng = np.random.default_rng(seed)
    means = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    root = np.array([[1.0, 0.0], [0.8, 0.5]])
    labels = np.arange(count) % KINDS
    x = means[labels] + rng.standard_normal((count, 2)) @ root.T
    covariance = root @ root.T
    return tuple(torch.from_numpy(part) for part in (x, labels, means, covariance))  # type: ignore[return-value]


def test_the_head_is_fishers_of_gaussians() -> None:
    x, labels, means, covariance = gaussians(60_000)
    head = lda_head(class_sums(x, labels, KINDS), shrinkage=0.0)
    expected = torch.linalg.solve(covariance, means.T).T
    torch.testing.assert_close(head.weight_kd, expected, atol=0.06, rtol=0)
    torch.testing.assert_close(head.bias_k, -0.5 * (expected * means).sum(1), atol=0.06, rtol=0)


def test_two_gaussians_are_told_as_often_as_theory_says() -> None:
    rng = np.random.default_rng(1)
    labels = torch.arange(40_000) % 2
    x = torch.from_numpy(rng.standard_normal((40_000, 1))) + 2.0 * labels[:, None]
    predicted = lda_head(class_sums(x, labels, 2)).predict(x)
    theory = 0.5 * (1 + math.erf(1 / math.sqrt(2)))  # Φ(1): half of the distance is 1
    assert balanced_accuracy(predicted, labels) == pytest.approx(theory, abs=0.006)


def test_silos_together_give_the_head_of_the_union() -> None:
    x, labels, _, _ = gaussians(300)
    union = class_sums(x, labels, KINDS)
    silos = pooled(class_sums(x[labels == k], labels[labels == k], KINDS) for k in range(KINDS))
    torch.testing.assert_close(silos.products_dd, union.products_dd)
    torch.testing.assert_close(lda_head(silos).weight_kd, lda_head(union).weight_kd)
    assert union.bytes() == 4 * (3 * 3 + 3)
    one = class_sums(x[labels == 0], labels[labels == 0], KINDS)
    assert one.bytes() == 4 * (1 * 3 + 3)


def test_a_kind_that_nobody_has_is_never_said_and_dead_features_do_no_harm() -> None:
    x, labels, _, _ = gaussians(300)
    padded = torch.cat([x, torch.zeros(300, 1)], 1)
    kept = labels != 1
    head = lda_head(class_sums(padded[kept], labels[kept], KINDS))
    assert set(head.predict(padded).tolist()) == {0, 2}
    plain = lda_head(class_sums(x[kept], labels[kept], KINDS))
    agree = (plain.predict(x) == head.predict(padded)).double().mean()
    assert agree > 0.98
    alike = class_sums(torch.ones(4, 2), torch.tensor([0, 0, 1, 1]), KINDS)
    assert torch.isfinite(lda_head(alike).weight_kd).all()
    with pytest.raises(ConfigError, match="one image at least"):
        lda_head(class_sums(x[:0], labels[:0], KINDS))


def test_accuracy_is_balanced_over_kinds() -> None:
    predicted, labels = torch.tensor([0, 0, 0, 1, 0]), torch.tensor([0, 0, 0, 2, 2])
    assert accuracy_by_kind(predicted, labels) == {0: 1.0, 2: 0.0}
    assert balanced_accuracy(predicted, labels) == 0.5


def test_nearest_neighbours_vote() -> None:
    train = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [-1.0, 0.1], [0.0, 9.0]])
    labels = torch.tensor([0, 0, 1, 1, 2])
    test = torch.tensor([[0.9, 0.0], [-0.9, 0.0], [0.0, 8.0]])
    assert knn_probe(train, labels, test, KINDS, neighbours=1).tolist() == [0, 1, 2]
    # With all of them asked, the votes are equal between 0 and 1, and nearness decides.
    assert knn_probe(train, labels, test[:2], KINDS, neighbours=9).tolist() == [0, 1]


def test_the_linear_probe_finds_a_plane_and_ignores_scale_and_numbers() -> None:
    x, labels, _, _ = gaussians(900)
    told = balanced_accuracy(linear_probe(x, labels, x, KINDS), labels)
    bayes = balanced_accuracy(lda_head(class_sums(x, labels, KINDS)).predict(x), labels)
    assert told == pytest.approx(bayes, abs=0.02)
    stretched = x * torch.tensor([1000.0, 0.001])
    again = balanced_accuracy(linear_probe(stretched, labels, stretched, KINDS), labels)
    assert again == pytest.approx(told, abs=1e-9)
    rare = (labels != 2) | (torch.arange(900) % 20 == 0)
    few = balanced_accuracy(linear_probe(x[rare], labels[rare], x, KINDS), labels)
    assert few > told - 0.06


class Seeing(FoundationNetwork):
    """Maps that hold the pixels of each patch (or nothing), without any weight."""

    def __init__(self, blind: bool) -> None:
        super().__init__()
        self.head, self.blind = nn.Linear(16, 2), blind

    def encoder_stages(self) -> list[tuple[str, ...]]:
        return []

    def forward(self, image: Tensor) -> FoundationOutput:
        patches = nn.functional.unfold(image, 4, stride=4).mT
        if self.blind:
            patches = torch.zeros_like(patches)
        features = patches.mean(1)
        return FoundationOutput(self.head(features), features, patches, patches)


def test_a_decoder_draws_what_the_maps_hold_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    masks = np.zeros((40, 16, 16), np.uint8)
    for mask in masks:
        mask[:, rng.integers(16)] = 1 + rng.integers(2)
    images = np.where(masks > 0, 40, rng.integers(120, 180, masks.shape)).astype(np.uint8)
    halves = ((images[:30], masks[:30]), (images[30:], masks[30:]))
    settings = WireProbeSettings(hidden=24, steps=150, batch_size=15)
    cpu = torch.device("cpu")
    seen = wire_precision(Seeing(blind=False), *halves, settings, cpu)
    unseen = wire_precision(Seeing(blind=True), *halves, settings, cpu)
    assert seen > 0.9
    assert unseen < 0.1 + 1 / 16  # chance: one column of sixteen
    assert wire_precision(Seeing(blind=False), *halves, settings, cpu) == seen


def test_average_precision_in_closed_form() -> None:
    truth = torch.tensor([True, False, True, False])
    assert average_precision(torch.tensor([4.0, 3.0, 2.0, 1.0]), truth) == pytest.approx(5 / 6)
    assert average_precision(torch.zeros(4), truth) == 0.5  # of equal scores, all count: chance
    assert average_precision(torch.arange(4.0), torch.zeros(4, dtype=torch.bool)) == 0
