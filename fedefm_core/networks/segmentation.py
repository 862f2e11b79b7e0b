# SPDX-License-Identifier: Apache-2.0
"""What every segmentation network takes and gives, and the parts that several of them share.

Legend: B images in a batch; H, W their sides; a cell is a block of 4x4 pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDE = 4  # pixels a cell of the tip heat map


class SegmentationNetwork(nn.Module, ABC):
    """Base of the networks that are fine-tuned, exported and run on a robot.

    forward takes (B, 1, H, W) grey images as normalise gives them, H and W multiples of
    size_multiple, and returns (class_logits, tip_logits): (B, 3, H, W) for background, catheter
    and guidewire, and (B, 2, H/4, W/4) for the tips of catheter and guidewire.
    """

    size_multiple: int

    @abstractmethod
    def encoder_stages(self) -> list[tuple[str, ...]]:
        """Prefixes of the encoder's weights, stage by stage from the image on."""


class CellNetwork(SegmentationNetwork):
    """A segmentation network whose class logits come in cells."""

    @abstractmethod
    def cells(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As forward, with the class logits still in their cells: (B, 3 * 16, H/4, W/4).

        An exported graph decides on the label here, where that is cheap.
        """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        cells, tip_logits = self.cells(x)
        return functional.pixel_shuffle(cells, STRIDE), tip_logits


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


def conv_norm(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def cell_head(channels: int) -> nn.Conv2d:
    """(B, channels, H/4, W/4) to class logits in cells."""
    return nn.Conv2d(channels, 3 * STRIDE**2, 3, padding=1)


def tip_head(channels: int) -> nn.Sequential:
    """(B, channels, H/4, W/4) to tip logits."""
    block, tips = ResidualBlock(channels), nn.Conv2d(channels, 2, 3, padding=1)
    assert tips.bias is not None
    nn.init.constant_(tips.bias, -7.0)  # tips are rare: start at 0.1 % everywhere
    return nn.Sequential(block, tips)


def normalise(image: Tensor) -> Tensor:
    """Per-image zero mean and unit variance; (B, 1, H, W), any dtype, to float32."""
    x = image.float()
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    variance = (x - mean).square().mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * torch.rsqrt(variance + 1.0)  # + 1 grey level²: a blank image stays blank


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
