# SPDX-License-Identifier: Apache-2.0
"""vit: a vision transformer as a foundation network, of torch's own encoder layers.

A. Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021; the defaults are ViT-S/16. The
head sees the mean of all tokens, so that the map that EMD compares is what decides.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from fedefm_core.config import Settings
from fedefm_core.networks.foundation import FoundationNetwork, FoundationOutput


class TransformerSettings(Settings):
    """width: of the tokens. mlp_width: inside a layer's feedforward part."""

    width: int = Field(384, ge=8)
    layers: int = Field(12, ge=1)
    heads: int = Field(6, ge=1)
    mlp_width: int = Field(1536, ge=8)
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _whole_heads(self) -> TransformerSettings:
        check_divisible("width", self.width, "heads", self.heads)
        return self


class VitSettings(TransformerSettings):
    """classes: kinds of image. image_size, patch_size: sides in pixels."""

    classes: int = Field(6, ge=1)
    image_size: int = Field(256, ge=8)
    patch_size: int = Field(16, ge=2)

    @model_validator(mode="after")
    def _whole_patches(self) -> VitSettings:
        check_divisible("image_size", self.image_size, "patch_size", self.patch_size)
        return self


def transformer_stages(layers: int) -> list[tuple[str, ...]]:
    """encoder_stages of a network with 'embedding' and a Transformer called 'body'."""
    stages = [("embedding", "body.position"), *((f"body.layers.{i}",) for i in range(layers))]
    return [*stages[:-1], (*stages[-1], "body.norm")]


class Vit(FoundationNetwork):
    """(B, 1, S, S) to FoundationOutput with N = (S / patch_size)² and C = D = width; 'mid' is the
    map after half of the layers."""

    def __init__(self, settings: VitSettings) -> None:
        super().__init__()
        side = settings.patch_size
        self.embedding = nn.Conv2d(1, settings.width, side, stride=side)
        positions = (settings.image_size // side) ** 2
        self.body = Transformer(positions, settings)
        self.head = nn.Linear(settings.width, settings.classes)

    def encoder_stages(self) -> list[tuple[str, ...]]:
        return transformer_stages(len(self.body.layers))

    def forward(self, image: Tensor) -> FoundationOutput:
        late_bnc, mid_bnc = self.body(self.embedding(image).flatten(2).mT)
        features_bd = late_bnc.mean(1)
        return FoundationOutput(self.head(features_bd), features_bd, late_bnc, mid_bnc)


class Transformer(nn.Module):
    """Learnt positions and pre-norm encoder layers; (B, N, C) to the map after all layers,
    normalised, and that after half of them."""

    def __init__(self, positions: int, settings: TransformerSettings) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.empty(1, positions, settings.width))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                settings.width,
                settings.heads,
                settings.mlp_width,
                settings.dropout,
                "gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(settings.layers)
        )
        self.norm = nn.LayerNorm(settings.width)
        self._middle = max(settings.layers // 2, 1)

    def forward(self, tokens_bnc: Tensor) -> tuple[Tensor, Tensor]:
        x_bnc = mid_bnc = tokens_bnc + self.position
        for number, layer in enumerate(self.layers, start=1):
            x_bnc = layer(x_bnc)
            if number == self._middle:
                mid_bnc = x_bnc
        return self.norm(x_bnc), mid_bnc

    def maps(self, map_bchw: Tensor, after: Collection[int] = ()) -> list[Tensor]:
        """Maps (B, C, h, w) after the layers counted from 1 in after, and last that after all of
        them, normalised. Positions are resized to h x w, so any size of image will do."""
        grid = (map_bchw.shape[2], map_bchw.shape[3])
        x_bnc = map_bchw.flatten(2).mT + resize_positions(self.position, grid)
        found = []
        for number, layer in enumerate(self.layers, start=1):
            x_bnc = layer(x_bnc)
            if number in after:
                found.append(x_bnc)
        return [tokens.mT.unflatten(2, grid) for tokens in (*found, self.norm(x_bnc))]


def resize_positions(position_1nc: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embeddings of a square grid for a grid of (h, w) patches: (1, N, C) to (1, h*w, C).

    Linear between the centres of the old patches, as in section 3.2 of the ViT paper (its code has
    order 1); outside of the outermost centres their value stays. A grid that fits comes back as it
    is, bit for bit.
    """
    side = math.isqrt(position_1nc.shape[1])
    if grid == (side, side):
        return position_1nc
    old_1chw = position_1nc.mT.unflatten(2, (side, side))
    new_1chw = functional.interpolate(old_1chw, grid, mode="bilinear", align_corners=False)
    return new_1chw.flatten(2).mT


def check_divisible(name: str, value: int, by: str, divisor: int) -> None:
    """Raise ValueError unless divisor divides value."""
    if value % divisor:
        raise ValueError(f"'{name}' must be a multiple of '{by}' (got {value} and {divisor})")
