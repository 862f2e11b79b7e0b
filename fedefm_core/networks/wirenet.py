# SPDX-License-Identifier: Apache-2.0
"""wirenet: our real-time network. Pixel-unshuffle stem, dense 3x3 residual blocks, sum skips.

Built from what every inference engine runs fast in int8: 3x3 convolutions with batch norm and
ReLU, nearest upsampling, sums. Nothing runs at full resolution but the reshaping of the head.
"""

from __future__ import annotations

from itertools import pairwise

from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from fedefm_core.config import Settings
from fedefm_core.networks.segmentation import (
    STRIDE,
    CellNetwork,
    ResidualBlock,
    cell_head,
    conv_norm,
    tip_head,
)


class WirenetSettings(Settings):
    """channels, blocks: one entry a level, at strides 4, 8, 16, 32; blocks are residual ones.

    Deep levels are cheap, and see what tells a wire from the edge of a bone: its whole course.
    """

    channels: tuple[PositiveInt, ...] = Field((32, 64, 96, 160), min_length=1)
    blocks: tuple[PositiveInt, ...] = (1, 2, 3, 4)

    @model_validator(mode="after")
    def _same_levels(self) -> WirenetSettings:
        if len(self.channels) != len(self.blocks):
            raise ValueError(
                f"'channels' and 'blocks' must have an entry for each level "
                f"(got {len(self.channels)} and {len(self.blocks)})"
            )
        return self

    @property
    def size_multiple(self) -> int:
        """What the sides of an image must be multiples of."""
        return int(STRIDE * 2 ** (len(self.channels) - 1))


class Wirenet(CellNetwork):
    """(B, 1, H, W) normalised grey image, H and W multiples of 32, to class and tip logits.

    Returns (class_logits, tip_logits): (B, 3, H, W) and (B, 2, H/4, W/4).
    """

    def __init__(self, settings: WirenetSettings | None = None) -> None:
        super().__init__()
        settings = settings or WirenetSettings()
        self.size_multiple = settings.size_multiple
        channels = settings.channels
        self.stem = nn.Sequential(nn.PixelUnshuffle(STRIDE), conv_norm(STRIDE**2, channels[0]))
        self.down = nn.ModuleList(conv_norm(a, b, stride=2) for a, b in pairwise(channels))
        self.encoder = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(c) for _ in range(count)))
            for c, count in zip(channels, settings.blocks, strict=True)
        )
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(channels))
        self.decoder = nn.ModuleList(ResidualBlock(c) for c in channels[:-1])
        self.class_head = cell_head(channels[0])
        self.tip_head = tip_head(channels[0])

    def encoder_stages(self) -> list[tuple[str, ...]]:
        levels = range(1, len(self.encoder))
        return [("stem", "encoder.0"), *((f"down.{i - 1}", f"encoder.{i}") for i in levels)]

    def cells(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.encoder[0](self.stem(x))
        skips = [x]
        for down, encoder in zip(self.down, self.encoder[1:], strict=True):
            x = encoder(down(x))
            skips.append(x)
        for up, decoder, skip in reversed(
            list(zip(self.up, self.decoder, skips[:-1], strict=True))
        ):
            x = decoder(skip + functional.interpolate(up(x), scale_factor=2.0))
        return self.class_head(x), self.tip_head(x)
