# SPDX-License-Identifier: Apache-2.0
"""Each architecture of 'finetune' at a size that trains and exports in seconds."""

from __future__ import annotations

from typing import Any

import torch

from fedefm_core.networks import build_network
from fedefm_core.networks.segmentation import SegmentationNetwork

TRANSFORMER = {"width": 12, "heads": 3, "layers": 3, "mlp_width": 16}
NETWORKS: dict[str, dict[str, Any]] = {
    "wirenet": {"channels": [4, 8, 8, 8], "blocks": [1, 1, 1, 1]},
    "unet": {"channels": [4, 8, 8], "residual_units": 1, "features": 4},
    "swinunet": {"width": 8, "depths": [2, 1], "heads": [2, 2], "window": 4},
    "transunet": {
        **TRANSFORMER, "image_size": 64, "stem": 32, "stages": [1, 1, 1], "bottleneck": 8,
        "decoder": [8, 8, 4, 4],
    },
    "vit": {**TRANSFORMER, "image_size": 32, "patch_size": 8, "decoder": 4},
}  # fmt: skip


def registered(architecture: str) -> str:
    """The name of networks.ARCHITECTURES for an architecture of 'finetune'."""
    return "vit_segmenter" if architecture == "vit" else architecture


def build(architecture: str, **changes: Any) -> SegmentationNetwork:
    """The tiny network with weights of seed 0."""
    torch.manual_seed(0)
    network = build_network(registered(architecture), {**NETWORKS[architecture], **changes})
    assert isinstance(network, SegmentationNetwork)
    return network
