# SPDX-License-Identifier: Apache-2.0
"""How well weights tell the kinds of image, corpus by corpus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from fedefm_core.federation.data import LabelledImages
from fedefm_core.federation.state import State
from fedefm_core.networks.foundation import FoundationNetwork


def measure(
    network: FoundationNetwork,
    weights: State,
    corpora: Mapping[str, LabelledImages],
    batch_size: int,
    device: torch.device,
) -> dict[str, Any]:
    """accuracy and loss over all images, balanced: mean accuracy of the corpora, by_corpus: each.

    network is working memory; all values are plain numbers.
    """
    network.to(device).load_state_dict(weights)
    network.eval()
    right: dict[str, list[bool]] = {}
    losses: list[float] = []
    for name, images in corpora.items():
        right[name] = []
        for at in range(0, len(images), batch_size):
            numbers = np.arange(at, min(at + batch_size, len(images)))
            x, labels = images.batch(numbers, device)
            with torch.inference_mode():
                logits_bk = network(x).logits_bk.float()
                each = functional.cross_entropy(logits_bk, labels, reduction="none")
            right[name] += (logits_bk.argmax(1) == labels).tolist()
            losses += each.tolist()
    by_corpus = {name: float(np.mean(hits)) for name, hits in right.items()}
    return {
        "accuracy": float(np.mean(np.concatenate(list(right.values())))),
        "balanced": float(np.mean(list(by_corpus.values()))),
        "loss": float(np.mean(losses)),
        "by_corpus": by_corpus,
    }
