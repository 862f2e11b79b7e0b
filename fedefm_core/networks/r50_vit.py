# SPDX-License-Identifier: Apache-2.0
"""r50_vit: a transformer on the features of a residual network, the hybrid of the FedEFM paper.

A. Dosovitskiy et al., ICLR 2021, section 3.1 (hybrid architecture). The residual part ends at
stride 16 after stages of 3, 4 and 9 bottlenecks, as in J. Chen et al., TransUNet, 2021, and has
group norm: statistics of batches would mean nothing in an average of silos. The defaults have
44.4 M parameters, as the paper's reference code has. Bottlenecks are MONAI's.
"""

from __future__ import annotations

from monai.networks.nets.resnet import ResNetBottleneck
from pydantic import Field
from torch import Tensor, nn

from fedefm_core.networks.foundation import FoundationNetwork, FoundationOutput
from fedefm_core.networks.vit import Transformer, TransformerSettings, transformer_stages

STRIDE = 16  # of the residual part
_GROUPS = 32
_EXPANSION = ResNetBottleneck.expansion


class R50BodySettings(TransformerSettings):
    """image_size: side in pixels. stages: bottlenecks at strides 4, 8 and 16. stem: channels of
    the first convolution. The transformer's width, layers, heads and mlp_width are those of the
    reference."""

    image_size: int = Field(256, ge=STRIDE, multiple_of=STRIDE)
    stem: int = Field(64, ge=_GROUPS, multiple_of=_GROUPS)
    stages: tuple[int, int, int] = (3, 4, 9)
    width: int = Field(768, ge=8)
    layers: int = Field(8, ge=1)
    heads: int = Field(12, ge=1)
    mlp_width: int = Field(1024, ge=8)


class R50VitSettings(R50BodySettings):
    """classes: kinds of image."""

    classes: int = Field(6, ge=1)


class R50Vit(FoundationNetwork):
    """(B, 1, S, S) to FoundationOutput with N = (S / 16)² and C = D = width; 'mid' is the map
    after half of the transformer's layers."""

    def __init__(self, settings: R50VitSettings) -> None:
        super().__init__()
        self.stem, self.stages = residual_part(settings.stem, settings.stages)
        self.embedding = nn.Conv2d(stage_channels(settings.stem)[-1], settings.width, 1)
        positions = (settings.image_size // STRIDE) ** 2
        self.body = Transformer(positions, settings)
        self.head = nn.Linear(settings.width, settings.classes)

    def encoder_stages(self) -> list[tuple[str, ...]]:
        return hybrid_stages(len(self.body.layers))

    def forward(self, image: Tensor) -> FoundationOutput:
        map_bchw = self.embedding(self.stages(self.stem(image)))
        late_bnc, mid_bnc = self.body(map_bchw.flatten(2).mT)
        features_bd = late_bnc.mean(1)
        return FoundationOutput(self.head(features_bd), features_bd, late_bnc, mid_bnc)


def hybrid_stages(layers: int) -> list[tuple[str, ...]]:
    """encoder_stages of a network with residual_part's stem and stages before the transformer."""
    residual = [("stem",), *((f"stages.{i}",) for i in range(3))]
    return [*residual, *transformer_stages(layers)]


def stage_channels(stem: int) -> list[int]:
    """Channels of the maps that the three stages give, at strides 4, 8 and 16."""
    return [stem * 2**level * _EXPANSION for level in range(3)]


def residual_part(stem: int, stages: tuple[int, int, int]) -> tuple[nn.Sequential, nn.Sequential]:
    """The stem, a convolution to stride 2 and a pooling to stride 4, and the stages after it."""
    first = nn.Sequential(
        nn.Conv2d(1, stem, 7, stride=2, padding=3, bias=False),
        nn.GroupNorm(_GROUPS, stem),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
    )
    inputs = [stem, *stage_channels(stem)[:-1]]
    rest = nn.Sequential(
        *(
            _stage(came, stem * 2**level, blocks, stride=1 if level == 0 else 2)
            for level, (came, blocks) in enumerate(zip(inputs, stages, strict=True))
        )
    )
    return first, rest


def _stage(inputs: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    outputs = planes * _EXPANSION
    norm = ("group", {"num_groups": _GROUPS})
    shortcut = nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False),
        nn.GroupNorm(_GROUPS, outputs),
    )
    first = ResNetBottleneck(inputs, planes, 2, stride, shortcut, norm=norm)
    rest = [ResNetBottleneck(outputs, planes, 2, norm=norm) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)
