# SPDX-License-Identifier: Apache-2.0
"""Networks by name, and the way from a weights file back to the network that it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fedefm_core.config import parse_settings
from fedefm_core.errors import ConfigError, WeightsError
from fedefm_core.networks.segmentation import SegmentationNetwork
from fedefm_core.networks.small_cnn import SmallCnn, SmallCnnSettings
from fedefm_core.networks.vit import Vit, VitSettings
from fedefm_core.networks.weights import load_weights, read_weights_header, save_weights
from fedefm_core.networks.wirenet import Wirenet, WirenetSettings

__all__ = [
    "ARCHITECTURES",
    "build_network",
    "load_network",
    "load_segmenter",
    "load_weights",
    "read_weights_header",
    "save_weights",
]


def _wirenet(settings: Mapping[str, Any]) -> nn.Module:
    return Wirenet(parse_settings(WirenetSettings, settings, where="the settings of wirenet"))


def _small_cnn(settings: Mapping[str, Any]) -> nn.Module:
    return SmallCnn(parse_settings(SmallCnnSettings, settings, where="the settings of small_cnn"))


def _vit(settings: Mapping[str, Any]) -> nn.Module:
    return Vit(parse_settings(VitSettings, settings, where="the settings of vit"))


def _r50_vit(settings: Mapping[str, Any]) -> nn.Module:
    # MONAI takes seconds to import, and the other networks need none of it.
    from fedefm_core.networks.r50_vit import R50Vit, R50VitSettings

    return R50Vit(parse_settings(R50VitSettings, settings, where="the settings of r50_vit"))


def _unet(settings: Mapping[str, Any]) -> nn.Module:
    from fedefm_core.networks.unet import Unet, UnetSettings

    return Unet(parse_settings(UnetSettings, settings, where="the settings of unet"))


def _swinunet(settings: Mapping[str, Any]) -> nn.Module:
    from fedefm_core.networks.swinunet import Swinunet, SwinunetSettings

    return Swinunet(parse_settings(SwinunetSettings, settings, where="the settings of swinunet"))


def _transunet(settings: Mapping[str, Any]) -> nn.Module:
    from fedefm_core.networks.transunet import Transunet, TransunetSettings

    return Transunet(
        parse_settings(TransunetSettings, settings, where="the settings of transunet")
    )


def _vit_segmenter(settings: Mapping[str, Any]) -> nn.Module:
    from fedefm_core.networks.vit_segmenter import VitSegmenter, VitSegmenterSettings

    return VitSegmenter(
        parse_settings(VitSegmenterSettings, settings, where="the settings of vit_segmenter")
    )


ARCHITECTURES: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "wirenet": _wirenet,
    "small_cnn": _small_cnn,
    "vit": _vit,
    "r50_vit": _r50_vit,
    "unet": _unet,
    "swinunet": _swinunet,
    "transunet": _transunet,
    "vit_segmenter": _vit_segmenter,
}


def build_network(architecture: str, settings: Mapping[str, Any]) -> nn.Module:
    """Build a network with fresh weights. Raises ConfigError for an unknown name or setting."""
    if architecture not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ConfigError(f"'{architecture}' is no known architecture; there is: {known}")
    return ARCHITECTURES[architecture](settings)


def load_network(path: Path) -> nn.Module:
    """Rebuild the network that the weights file at path belongs to, in evaluation mode.

    Raises WeightsError or ConfigError when the file is damaged or names an unknown network.
    """
    header = read_weights_header(path)
    network = build_network(header["architecture"], header["settings"])
    load_weights(network, path)
    return network.eval()


def load_segmenter(path: Path) -> SegmentationNetwork:
    """load_network for a segmenter. Raises WeightsError for a network of another task."""
    header = read_weights_header(path)
    network = load_network(path)
    if not isinstance(network, SegmentationNetwork):
        task = f"another task, {header.get('task', 'pretraining')}"
        raise WeightsError(
            f"{path} must be a segmenter (it is a {header['architecture']} of {task})"
        )
    return network
