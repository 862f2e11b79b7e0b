# SPDX-License-Identifier: Apache-2.0
"""transunet: a residual network, a transformer on its features, and a cascade of upsamplings.

J. Chen et al., TransUNet: Transformers Make Strong Encoders for Medical Image Segmentation,
2021 (arXiv:2102.04306). stem, stages, embedding and body have the names and shapes of the
foundation network r50_vit, so that its weights fit.
"""

from __future__ import annotations

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from fedefm_core.networks.r50_vit import (
    STRIDE,
    R50BodySettings,
    hybrid_stages,
    residual_part,
    stage_channels,
)
from fedefm_core.networks.segmentation import SegmentationNetwork, conv_norm, tip_head
from fedefm_core.networks.vit import Transformer


class TransunetSettings(R50BodySettings):
    """image_size: side in pixels for which positions are learnt; other sizes resize them.
    bottleneck: channels before the cascade. decoder: channels of its maps at strides 8, 4, 2, 1.
    """

    bottleneck: int = Field(512, ge=1)
    decoder: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (256, 128, 64, 16)

    @property
    def size_multiple(self) -> int:
        """What the sides of an image must be multiples of."""
        return STRIDE


class Transunet(SegmentationNetwork):
    """(B, 1, H, W) to (B, 3, H, W) and (B, 2, H/4, W/4).

    The cascade sees the maps of the residual part at strides 8, 4 and 2, and none at 1.
    """

    def __init__(self, settings: TransunetSettings) -> None:
        super().__init__()
        self.size_multiple = settings.size_multiple
        quarter, eighth, sixteenth = stage_channels(settings.stem)
        self.stem, self.stages = residual_part(settings.stem, settings.stages)
        self.embedding = nn.Conv2d(sixteenth, settings.width, 1)
        self.body = Transformer((settings.image_size // STRIDE) ** 2, settings)
        self.bottleneck = conv_norm(settings.width, settings.bottleneck)
        inputs = [settings.bottleneck, *settings.decoder[:-1]]
        skips = [eighth, quarter, settings.stem, 0]
        self.cascade = nn.ModuleList(
            nn.Sequential(conv_norm(came + skip, out), conv_norm(out, out))
            for came, skip, out in zip(inputs, skips, settings.decoder, strict=True)
        )
        self.class_head = nn.Conv2d(settings.decoder[3], 3, 3, padding=1)
        self.tip_head = tip_head(settings.decoder[1])

    def encoder_stages(self) -> list[tuple[str, ...]]:
        return hybrid_stages(len(self.body.layers))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        half = self.stem[:-1](x)
        quarter = self.stages[0](self.stem[-1](half))
        eighth = self.stages[1](quarter)
        (top,) = self.body.maps(self.embedding(self.stages[2](eighth)))
        y = self.cascade[0](torch.cat([_doubled(self.bottleneck(top)), eighth], dim=1))
        fourth = self.cascade[1](torch.cat([_doubled(y), quarter], dim=1))
        y = self.cascade[2](torch.cat([_doubled(fourth), half], dim=1))
        y = self.cascade[3](_doubled(y))
        return self.class_head(y), self.tip_head(fourth)


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
