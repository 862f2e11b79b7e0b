# SPDX-License-Identifier: Apache-2.0
"""What a foundation network gives: logits over the kinds of image, and the maps that EMD compares.

Legend: B images in a batch, K kinds of image, N positions of a dense map, C channels, D width of
the pooled features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

from torch import Tensor, nn

MapName = Literal["late", "mid"]


class FoundationOutput(NamedTuple):
    """logits_bk: (B, K). features_bd: (B, D), what the head sees. late_bnc: (B, N, C), the last
    dense map. mid_bnc: one from the middle of the network, with N and C of its own."""

    logits_bk: Tensor
    features_bd: Tensor
    late_bnc: Tensor
    mid_bnc: Tensor

    def dense_map(self, name: MapName) -> Tensor:
        """The map called 'late' or 'mid'."""
        return self.late_bnc if name == "late" else self.mid_bnc


class FoundationNetwork(nn.Module, ABC):
    """Base of the networks that a federation pretrains.

    forward takes (B, 1, H, W) float grey images as wirenet.normalise gives them and returns a
    FoundationOutput with logits_bk = head(features_bd). No layer keeps statistics of batches:
    those of one silo would mean nothing in the average of many.
    """

    head: nn.Linear

    @abstractmethod
    def encoder_stages(self) -> list[tuple[str, ...]]:
        """Prefixes of the encoder's weights, stage by stage from the image on."""
