# SPDX-License-Identifier: Apache-2.0
"""vit_segmenter: the foundation's vision transformer with UNETR's decoder.

A. Hatamizadeh et al., UNETR: Transformers for 3D Medical Image Segmentation, WACV 2022; the
decoder's blocks are MONAI's. embedding and body have the names and shapes of the foundation
network vit, so that its weights fit.
"""

from __future__ import annotations

from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrPrUpBlock, UnetrUpBlock
from pydantic import Field, model_validator
from torch import Tensor, nn

from fedefm_core.networks.segmentation import SegmentationNetwork, tip_head
from fedefm_core.networks.vit import (
    Transformer,
    TransformerSettings,
    check_divisible,
    transformer_stages,
)

_NORM = "batch"


class VitSegmenterSettings(TransformerSettings):
    """image_size: side in pixels for which positions are learnt; other sizes resize them.
    patch_size: a power of two. decoder: channels at full resolution, twice as many at each
    level below it."""

    image_size: int = Field(256, ge=8)
    patch_size: int = Field(16, ge=8)
    decoder: int = Field(16, ge=1)

    @model_validator(mode="after")
    def _patches_fit(self) -> VitSegmenterSettings:
        check_divisible("image_size", self.image_size, "patch_size", self.patch_size)
        if self.patch_size & (self.patch_size - 1):
            raise ValueError(f"'patch_size' must be a power of two (got {self.patch_size})")
        if self.layers < self.levels:
            raise ValueError(
                f"'layers' must be at least {self.levels}, one for each level of the decoder "
                f"(got {self.layers})"
            )
        return self

    @property
    def levels(self) -> int:
        """How often the decoder doubles the size of its map."""
        return self.patch_size.bit_length() - 1

    @property
    def size_multiple(self) -> int:
        """What the sides of an image must be multiples of."""
        return self.patch_size


class VitSegmenter(SegmentationNetwork):
    """(B, 1, H, W) to (B, 3, H, W) and (B, 2, H/4, W/4).

    With 12 layers and patches of 16 pixels, the decoder sees the maps after layers 3, 6, 9 and
    12, brought to strides 2, 4, 8 and 16, and the image itself.
    """

    def __init__(self, settings: VitSegmenterSettings) -> None:
        super().__init__()
        self.size_multiple = settings.size_multiple
        side, levels = settings.patch_size, settings.levels
        self.embedding = nn.Conv2d(1, settings.width, side, stride=side)
        self.body = Transformer((settings.image_size // side) ** 2, settings)
        self.after = [settings.layers * level // levels for level in range(1, levels)]
        channels = [settings.decoder * 2**level for level in range(levels)]
        inputs = [*channels[1:], settings.width]
        self.image = UnetrBasicBlock(2, 1, channels[0], 3, 1, _NORM, res_block=True)
        self.skips = nn.ModuleList(
            UnetrPrUpBlock(
                2, settings.width, channels[level], levels - level - 1, 3, 1, 2, _NORM, True, True
            )
            for level in range(1, levels)
        )
        self.up = nn.ModuleList(
            UnetrUpBlock(2, inputs[level], channels[level], 3, 2, _NORM, res_block=True)
            for level in range(levels)
        )
        self.class_head = nn.Conv2d(channels[0], 3, 1)
        self.tip_head = tip_head(channels[2])

    def encoder_stages(self) -> list[tuple[str, ...]]:
        return transformer_stages(len(self.body.layers))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        *hidden, top = self.body.maps(self.embedding(x), self.after)
        skips = [
            self.image(x),
            *(skip(map_) for skip, map_ in zip(self.skips, hidden, strict=True)),
        ]
        y, tips = top, None
        for level in reversed(range(len(self.up))):
            y = self.up[level](y, skips[level])
            if level == 2:
                tips = self.tip_head(y)
        assert tips is not None  # patches of 8 pixels or more have a level at stride 4
        return self.class_head(y), tips
