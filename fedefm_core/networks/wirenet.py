# SPDX-License-Identifier: Apache-2.0
"""wirenet: our real-time network. Pixel-unshuffle stem, dense 3x3 residual blocks, sum skips.

Built from what every inference engine runs fast in int8: 3x3 convolutions with batch norm and
ReLU, nearest upsampling, sums. Nothing runs at full resolution but the reshaping of the head.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from fedefm_core.config import Settings

STRIDE = 4  # of the stem and the head


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


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm; (B, C, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(x + self.second_norm(self.second(y)))


class Wirenet(nn.Module):
    """(B, 1, H, W) normalised grey image, H and W multiples of 32, to class and tip logits.

    Returns (class_logits, tip_logits): (B, 3, H, W) and (B, 2, H/4, W/4).
    """

    def __init__(self, settings: WirenetSettings | None = None) -> None:
        super().__init__()
        settings = settings or WirenetSettings()
        channels = settings.channels
        self.stem = nn.Sequential(nn.PixelUnshuffle(STRIDE), _conv_norm(STRIDE**2, channels[0]))
        self.down = nn.ModuleList(_conv_norm(a, b, stride=2) for a, b in pairwise(channels))
        self.encoder = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(c) for _ in range(count)))
            for c, count in zip(channels, settings.blocks, strict=True)
        )
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(channels))
        self.decoder = nn.ModuleList(ResidualBlock(c) for c in channels[:-1])
        self.class_head = nn.Conv2d(channels[0], 3 * STRIDE**2, 3, padding=1)
        block, tips = ResidualBlock(channels[0]), nn.Conv2d(channels[0], 2, 3, padding=1)
        assert tips.bias is not None
        nn.init.constant_(tips.bias, -7.0)  # tips are rare: start at 0.1 % everywhere
        self.tip_head = nn.Sequential(block, tips)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        cells, tip_logits = self.cells(x)
        return functional.pixel_shuffle(cells, STRIDE), tip_logits

    def cells(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As forward, with the class logits still in their cells: (B, 3 * 16, H/4, W/4).

        An exported graph decides on the label here, where that is cheap.
        """
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


def decide(background: Tensor, catheter: Tensor, guidewire: Tensor) -> tuple[Tensor, Tensor]:
    """Label and its probability of logits, all of one shape; the label as float 0, 1 or 2.

    First whether there is an instrument, then which: one that could be either is still seen.
    The probability is that of 'an instrument' or 'none', as the label says.
    """
    largest = torch.maximum(torch.maximum(background, catheter), guidewire)
    none = torch.exp(background - largest)
    instrument = torch.exp(catheter - largest) + torch.exp(guidewire - largest)
    label = (instrument > none).float() * (1.0 + (guidewire > catheter).float())
    return label, torch.maximum(instrument, none) / (instrument + none)


def _conv_norm(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def normalise(image: Tensor) -> Tensor:
    """Per-image zero mean and unit variance; (B, 1, H, W), any dtype, to float32."""
    x = image.float()
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    variance = (x - mean).square().mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * torch.rsqrt(variance + 1.0)  # + 1 grey level²: a blank image stays blank
