# SPDX-License-Identifier: Apache-2.0
"""A calibrated head for Θ: closed form, from class statistics that the silos tell.

A silo with one kind of image drives its head to that kind in the first gradient steps of a round,
and the average of such heads names the kind that was driven furthest. What the features tell
apart is not lost with that. So the head of Θ can be replaced by Fisher's discriminant
(evaluation/lda.py), whose sums each silo computes from the features of Θ on its own images.
Nothing is fed back into training. **It costs privacy**: counts, sums of features by kind and the
sum of their products are more than weights.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from fedefm_core.errors import ConfigError
from fedefm_core.evaluation.lda import ClassSums, class_sums, lda_head, pooled
from fedefm_core.evaluation.probes import outputs_of
from fedefm_core.federation.data import LabelledImages
from fedefm_core.federation.state import State
from fedefm_core.networks.foundation import FoundationNetwork

IMAGES = 200  # of each silo, evenly thinned, that its statistics are of
BATCH = 64
UNSEEN_BIAS = -1e4  # of a kind that nobody has: finite, as weights must be


def calibrated(
    theta: State,
    network: FoundationNetwork,
    silos: Iterable[LabelledImages],
    device: torch.device,
) -> State:
    """theta with the closed-form head of the pooled statistics of silos.

    network is working memory. Raises ConfigError when its head has no bias.
    """
    weight = theta["head.weight"]
    if "head.bias" not in theta:
        raise ConfigError("'head: calibrated' needs a network whose head has a bias")
    network.to(device).load_state_dict(theta)
    head = lda_head(pooled(_sums(network, held, len(weight), device) for held in silos))
    bias_k = head.bias_k.clamp(min=UNSEEN_BIAS)
    return {
        **theta,
        "head.weight": head.weight_kd.to(weight.dtype),
        "head.bias": bias_k.to(weight.dtype),
    }


def _sums(
    network: FoundationNetwork, held: LabelledImages, kinds: int, device: torch.device
) -> ClassSums:
    """What one silo tells of the features of Θ."""
    most = min(IMAGES, len(held))
    numbers = np.linspace(0, len(held) - 1, most).round().astype(np.int64)
    outputs = outputs_of(network, held.images[numbers], device, BATCH)
    features_nd = torch.cat([output.features_bd for output in outputs])
    return class_sums(features_nd, torch.from_numpy(held.labels[numbers]), kinds)
