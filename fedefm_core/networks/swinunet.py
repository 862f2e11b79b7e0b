# SPDX-License-Identifier: Apache-2.0
"""swinunet: a U-Net of shifted-window transformer blocks.

H. Cao et al., Swin-Unet: Unet-like Pure Transformer for Medical Image Segmentation, ECCV
Workshops 2022. Blocks and patch merging are MONAI's; its SwinUNETR is another network (a
convolutional decoder) and needs einops. One thing differs from the paper: the last expansion is
the cell head of wirenet, so that tips and classes come from the map at stride 4.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from monai.networks.nets.swin_unetr import (
    PatchMergingV2,
    SwinTransformerBlock,
    compute_mask,
    get_window_size,
)
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from fedefm_core.config import Settings
from fedefm_core.networks.segmentation import STRIDE, CellNetwork, cell_head, tip_head


class SwinunetSettings(Settings):
    """width: channels at stride 4; each level has twice those of the one above it. depths, heads:
    an entry a level, at strides 4, 8, 16, 32. window: side of a window in patches; 8 divides the
    maps of images of 256 and 512 pixels without padding. mlp_ratio: width of a block's MLP."""

    width: int = Field(96, ge=4)
    depths: tuple[PositiveInt, ...] = Field((2, 2, 2, 2), min_length=1)
    heads: tuple[PositiveInt, ...] = (3, 6, 12, 24)
    window: int = Field(8, ge=2)
    mlp_ratio: float = Field(4.0, gt=0)

    @model_validator(mode="after")
    def _levels_fit(self) -> SwinunetSettings:
        if len(self.depths) != len(self.heads):
            raise ValueError(
                f"'depths' and 'heads' must have an entry for each level "
                f"(got {len(self.depths)} and {len(self.heads)})"
            )
        for level, (width, heads) in enumerate(zip(self.widths, self.heads, strict=True)):
            if width % heads:
                raise ValueError(
                    f"'heads' of level {level} must divide its {width} channels (got {heads})"
                )
        return self

    @property
    def widths(self) -> list[int]:
        """Channels of each level."""
        return [self.width * 2**level for level in range(len(self.depths))]

    @property
    def size_multiple(self) -> int:
        """What the sides of an image must be multiples of."""
        return int(STRIDE * 2 ** (len(self.depths) - 1))


class Swinunet(CellNetwork):
    """(B, 1, H, W) to (B, 3, H, W) and (B, 2, H/4, W/4)."""

    def __init__(self, settings: SwinunetSettings) -> None:
        super().__init__()
        self.size_multiple = settings.size_multiple
        widths, levels = settings.widths, range(len(settings.depths))
        self.embedding = nn.Conv2d(1, widths[0], STRIDE, stride=STRIDE)
        self.embedding_norm = nn.LayerNorm(widths[0])
        self.encoder = nn.ModuleList(_Stage(level, settings) for level in levels)
        self.down = nn.ModuleList(PatchMergingV2(w, spatial_dims=2) for w in widths[:-1])
        self.up = nn.ModuleList(_PatchExpansion(b, a) for a, b in pairwise(widths))
        self.reduce = nn.ModuleList(nn.Linear(2 * w, w) for w in widths[:-1])
        self.decoder = nn.ModuleList(_Stage(level, settings) for level in levels[:-1])
        self.norm = nn.LayerNorm(widths[0])
        self.class_head = cell_head(widths[0])
        self.tip_head = tip_head(widths[0])

    def encoder_stages(self) -> list[tuple[str, ...]]:
        levels = range(1, len(self.encoder))
        first = ("embedding", "embedding_norm", "encoder.0")
        return [first, *((f"down.{i - 1}", f"encoder.{i}") for i in levels)]

    def cells(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x_bhwc = self.embedding_norm(self.embedding(x).permute(0, 2, 3, 1))
        x_bhwc = self.encoder[0](x_bhwc)
        skips = [x_bhwc]
        for down, encoder in zip(self.down, self.encoder[1:], strict=True):
            x_bhwc = encoder(down(x_bhwc))
            skips.append(x_bhwc)
        for up, reduce, decoder, skip in reversed(
            list(zip(self.up, self.reduce, self.decoder, skips[:-1], strict=True))
        ):
            x_bhwc = decoder(reduce(torch.cat([up(x_bhwc), skip], dim=-1)))
        x = self.norm(x_bhwc).permute(0, 3, 1, 2)
        return self.class_head(x), self.tip_head(x)


class _Stage(nn.Module):
    """Blocks of one level, every second one with its windows shifted by half; (B, H, W, C)."""

    def __init__(self, level: int, settings: SwinunetSettings) -> None:
        super().__init__()
        self.window = (settings.window, settings.window)
        self.shift = (settings.window // 2, settings.window // 2)
        self.blocks = nn.ModuleList(
            SwinTransformerBlock(
                settings.widths[level],
                settings.heads[level],
                self.window,
                self.shift if number % 2 else (0, 0),
                settings.mlp_ratio,
            )
            for number in range(settings.depths[level])
        )

    def forward(self, x_bhwc: Tensor) -> Tensor:
        sides = tuple(x_bhwc.shape[1:3])
        window, shift = get_window_size(sides, self.window, self.shift)
        padded = tuple(-(-side // step) * step for side, step in zip(sides, window, strict=True))
        mask = compute_mask(padded, window, shift, x_bhwc.device) if any(shift) else None
        for block in self.blocks:
            x_bhwc = block(x_bhwc, mask)
        return x_bhwc


class _PatchExpansion(nn.Module):
    """(B, H, W, inputs) to (B, 2H, 2W, outputs): the reverse of patch merging."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.expand = nn.Linear(inputs, 4 * outputs, bias=False)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x_bhwc: Tensor) -> Tensor:
        x_bchw = functional.pixel_shuffle(self.expand(x_bhwc).permute(0, 3, 1, 2), 2)
        expanded: Tensor = self.norm(x_bchw.permute(0, 2, 3, 1))
        return expanded
