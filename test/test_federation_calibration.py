# SPDX-License-Identifier: Apache-2.0
"""The calibrated head of Θ against Fisher's discriminant in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from federation_silos import CLASSES, SIDE, Linear, images_of, matrix, pixels, silos, start  # noqa: E402
from torch import nn  # noqa: E402

from fedefm_core.errors import ConfigError  # noqa: E402
from fedefm_core.evaluation.lda import SHRINKAGE  # noqa: E402
from fedefm_core.federation.calibration import UNSEEN_BIAS, calibrated  # noqa: E402
from fedefm_core.federation.state import state_of  # noqa: E402

CPU = torch.device("cpu")


class WithBias(Linear):
    """The linear model, whose features are the pixels, with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(SIDE * SIDE, CLASSES)


def fisher(parts: list[np.ndarray[Any, Any]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Weights and biases from the features of each kind."""
    means = np.stack([x.mean(0) for x in parts])
    within = sum((x - m).T @ (x - m) for x, m in zip(parts, means, strict=True))
    covariance = within / (sum(map(len, parts)) - len(parts))
    width = len(covariance)
    ridge = SHRINKAGE * np.trace(covariance) / width * np.eye(width)
    weights = np.linalg.solve((1 - SHRINKAGE) * covariance + ridge, means.T).T
    return weights, -0.5 * (weights * means).sum(1)


def test_the_head_is_fishers_of_all_silos_together() -> None:
    members = silos()
    theta = state_of(WithBias())
    found = calibrated(theta, WithBias(), [silo.data for silo in members], CPU)
    weights, bias = fisher([pixels(silo) for silo in members])
    np.testing.assert_allclose(matrix(found), weights, rtol=1e-4)
    np.testing.assert_allclose(found["head.bias"].numpy(), bias, rtol=1e-4)
    assert found.keys() == theta.keys()
    assert not torch.equal(found["head.weight"], theta["head.weight"])


def test_a_kind_that_nobody_has_is_never_named() -> None:
    held = [images_of(0, 9, 1), images_of(2, 9, 2)]
    network = WithBias()
    found = calibrated(state_of(network), network, held, CPU)
    assert found["head.bias"][1] == UNSEEN_BIAS
    network.load_state_dict(found)
    images, _ = held[0].batch(np.arange(9), CPU)
    assert 1 not in network(images).logits_bk.argmax(1)


def test_a_head_without_bias_is_refused() -> None:
    with pytest.raises(ConfigError, match="whose head has a bias"):
        calibrated(start(), Linear(), [silo.data for silo in silos()], CPU)
