# SPDX-License-Identifier: Apache-2.0
"""unet: MONAI's U-Net with residual units and strided convolutions, at full resolution.

O. Ronneberger et al., U-Net, MICCAI 2015; residual units as in E. Kerfoot et al., Left-Ventricle
Quantification Using Residual U-Net, STACOM 2018, which MONAI implements.
"""

from __future__ import annotations

from monai.networks.nets.unet import UNet
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from fedefm_core.config import Settings
from fedefm_core.networks.segmentation import STRIDE, SegmentationNetwork, tip_head


class UnetSettings(Settings):
    """channels: one entry a level, at strides 1, 2, 4, ... of MONAI's net. residual_units: in a
    level. features: channels of its full-resolution output, which both heads see."""

    channels: tuple[PositiveInt, ...] = Field((16, 32, 64, 128, 256), min_length=2)
    residual_units: int = Field(2, ge=1)
    features: int = Field(16, ge=1)

    @property
    def size_multiple(self) -> int:
        """What the sides of an image must be multiples of."""
        return int(max(2 ** (len(self.channels) - 1), STRIDE))


class Unet(SegmentationNetwork):
    """(B, 1, H, W) to (B, 3, H, W) and (B, 2, H/4, W/4)."""

    def __init__(self, settings: UnetSettings) -> None:
        super().__init__()
        self.size_multiple = settings.size_multiple
        self.levels = len(settings.channels)
        features, cell = settings.features, settings.channels[1]
        self.net = UNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=features,
            channels=settings.channels,
            strides=(2,) * (len(settings.channels) - 1),
            num_res_units=settings.residual_units,
            norm="batch",
        )
        self.class_head = nn.Sequential(
            nn.BatchNorm2d(features), nn.ReLU(), nn.Conv2d(features, 3, 1)
        )
        self.tip_head = nn.Sequential(
            nn.Conv2d(features, cell, STRIDE, stride=STRIDE, bias=False),
            nn.BatchNorm2d(cell),
            nn.ReLU(),
            tip_head(cell),
        )

    def encoder_stages(self) -> list[tuple[str, ...]]:
        # MONAI nests its levels: each is the 'submodule' of the one above it.
        levels = ["net.model" + ".1.submodule" * i for i in range(self.levels)]
        return [*((f"{level}.0",) for level in levels[:-1]), (levels[-1],)]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.net(x)
        return self.class_head(features), self.tip_head(features)
