# SPDX-License-Identifier: Apache-2.0
"""small_cnn: a residual network of a quarter million parameters, for 32 to 64 px and two cores."""

from __future__ import annotations

from itertools import pairwise

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fedefm_core.config import Settings
from fedefm_core.networks.foundation import FoundationNetwork, FoundationOutput

_GROUPS = 4


class SmallCnnSettings(Settings):
    """classes: kinds of image. image_size: side in pixels. channels: of the stages at strides 2, 4
    and 8; the dense map 'late' is that of the last stage, 'mid' that of the one before, pooled to
    the same positions."""

    classes: int = Field(6, ge=1)
    image_size: int = Field(64, ge=8, multiple_of=8)
    channels: tuple[int, int, int] = (24, 48, 96)


class SmallCnn(FoundationNetwork):
    """(B, 1, S, S) to FoundationOutput with N = (S / 8)²; S is image_size."""

    def __init__(self, settings: SmallCnnSettings) -> None:
        super().__init__()
        first, middle, last = settings.channels
        self.stem = _Stage(1, first)
        self.middle = nn.Sequential(_Stage(first, middle), _Residual(middle))
        self.last = nn.Sequential(_Stage(middle, last), _Residual(last))
        self.head = nn.Linear(last, settings.classes)

    def encoder_stages(self) -> list[tuple[str, ...]]:
        return [("stem",), ("middle",), ("last",)]

    def forward(self, image: Tensor) -> FoundationOutput:
        middle = self.middle(self.stem(image))
        late = self.last(middle)
        features_bd = late.mean(dim=(2, 3))
        return FoundationOutput(
            self.head(features_bd),
            features_bd,
            late.flatten(2).mT,
            functional.avg_pool2d(middle, 2).flatten(2).mT,
        )


class _Stage(nn.Sequential):
    """Half the size, other channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
            nn.GroupNorm(_GROUPS, outputs),
            nn.ReLU(),
        )


class _Residual(nn.Module):
    """Two 3x3 convolutions; the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairwise([channels] * 3)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(_GROUPS, channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norms[0](self.convolutions[0](x)))
        return functional.relu(x + self.norms[1](self.convolutions[1](y)))
