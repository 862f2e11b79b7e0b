# SPDX-License-Identifier: Apache-2.0
"""vit: MONAI's vision transformer as a foundation network.

A. Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021; the defaults are ViT-S/16. The
head sees the mean of all tokens, so that the map that EMD compares is what decides.
"""

from __future__ import annotations

from monai.networks.nets import ViT
from pydantic import Field, model_validator
from torch import Tensor, nn

from fedefm_core.config import Settings
from fedefm_core.networks.foundation import FoundationNetwork, FoundationOutput


class VitSettings(Settings):
    """classes: kinds of image. image_size, patch_size: sides in pixels. width: of the tokens.
    mlp_width: inside a layer's feedforward part."""

    classes: int = Field(6, ge=1)
    image_size: int = Field(256, ge=8)
    patch_size: int = Field(16, ge=2)
    width: int = Field(384, ge=8)
    layers: int = Field(12, ge=1)
    heads: int = Field(6, ge=1)
    mlp_width: int = Field(1536, ge=8)
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _divisible(self) -> VitSettings:
        check_divisible("image_size", self.image_size, "patch_size", self.patch_size)
        check_divisible("width", self.width, "heads", self.heads)
        return self


class Vit(FoundationNetwork):
    """(B, 1, S, S) to FoundationOutput with N = (S / patch_size)² and C = D = width; 'mid' is the
    map after half of the layers."""

    def __init__(self, settings: VitSettings) -> None:
        super().__init__()
        self.body = ViT(
            in_channels=1,
            img_size=settings.image_size,
            patch_size=settings.patch_size,
            hidden_size=settings.width,
            mlp_dim=settings.mlp_width,
            num_layers=settings.layers,
            num_heads=settings.heads,
            dropout_rate=settings.dropout,
            spatial_dims=2,
        )
        self.head = nn.Linear(settings.width, settings.classes)
        self._middle = middle_layer(settings.layers)

    def forward(self, image: Tensor) -> FoundationOutput:
        late_bnc, maps = self.body(image)
        features_bd = late_bnc.mean(1)
        return FoundationOutput(self.head(features_bd), features_bd, late_bnc, maps[self._middle])


def middle_layer(layers: int) -> int:
    """Number of the layer, from 0, after which half of layers are done."""
    return max(layers // 2 - 1, 0)


def check_divisible(name: str, value: int, by: str, divisor: int) -> None:
    """Raise ValueError unless divisor divides value."""
    if value % divisor:
        raise ValueError(f"'{name}' must be a multiple of '{by}' (got {value} and {divisor})")
