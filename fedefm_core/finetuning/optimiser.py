# SPDX-License-Identifier: Apache-2.0
"""Which weights learn, and how fast: schedule, layer-wise decay, freezing."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from fedefm_core.errors import ConfigError
from fedefm_core.finetuning.settings import FreezeSettings, RunSettings
from fedefm_core.networks.foundation import FoundationNetwork
from fedefm_core.networks.segmentation import SegmentationNetwork

SCALE = "scale"  # key of a parameter group: what its rate is multiplied by


def learning_rate(settings: RunSettings, step: int) -> float:
    """Of 0-based step: linear warm-up, then half cosines to zero at each restart and the end."""
    o = settings.optimiser
    if step < o.warmup_steps:
        return o.learning_rate * (step + 1) / o.warmup_steps
    begin = max([o.warmup_steps, *(restart for restart in o.restarts if restart <= step)])
    end = min([settings.steps, *(restart for restart in o.restarts if restart > step)])
    fraction = (step - begin) / max(end - begin, 1)
    return o.learning_rate * 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))


def build_optimiser(network: nn.Module, settings: RunSettings) -> torch.optim.AdamW:
    """AdamW with a group of parameters for each rate; one group without layer_decay."""
    chosen = settings.optimiser
    groups: dict[float, list[nn.Parameter]] = {}
    scales = layer_scales(network, chosen.layer_decay)
    for name, parameter in network.named_parameters():
        groups.setdefault(scales[name], []).append(parameter)
    return torch.optim.AdamW(
        [{"params": members, SCALE: scale} for scale, members in groups.items()],
        lr=chosen.learning_rate,
        weight_decay=chosen.weight_decay,
    )


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give each group its share of the rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group[SCALE]


def layer_scales(network: nn.Module, decay: float) -> dict[str, float]:
    """By name of parameter, what its learning rate is multiplied by.

    With S stages in the encoder, stage s (0 sees the image) has decay ** (S - s), all else 1
    (Howard and Ruder, 'ULMFiT', ACL 2018; Bao et al., 'BEiT', ICLR 2022).
    """
    names = [name for name, _ in network.named_parameters()]
    if decay == 1:
        return dict.fromkeys(names, 1.0)
    assert isinstance(network, SegmentationNetwork | FoundationNetwork)
    stages = network.encoder_stages()
    stage_of = {prefix: stage for stage, prefixes in enumerate(stages) for prefix in prefixes}
    return {name: _scale(name, stage_of, decay, len(stages)) for name in names}


def _scale(name: str, stage_of: Mapping[str, int], decay: float, stages: int) -> float:
    found = [prefix for prefix in stage_of if is_inside(name, prefix)]
    if not found:
        return 1.0
    return float(decay ** (stages - stage_of[max(found, key=len)]))


def check_freeze(network: nn.Module, settings: FreezeSettings) -> None:
    """Raise ConfigError for a part that the network has not, or when nothing is left to train."""
    names = [name for name, _ in network.named_parameters()]
    for part in settings.parts:
        if not any(is_inside(name, part) for name in names):
            known = [name for name, _ in network.named_modules() if name] + names
            nearest = difflib.get_close_matches(part, known, n=1)
            tops = ", ".join(name for name, _ in network.named_children())
            hint = f"did you mean '{nearest[0]}'?" if nearest else f"its parts are {tops}"
            raise ConfigError(f"'freeze.parts': the network has no part '{part}'; {hint}")
    left = [name for name in names if not _is_frozen(name, settings.parts)]
    if not left and settings.steps is None:
        raise ConfigError(
            "'freeze.parts' leaves nothing to train; name fewer, or set freeze.steps"
        )


def freeze(network: nn.Module, settings: FreezeSettings, step: int) -> None:
    """Before a step, after network.train(): still parts take no gradient and keep statistics."""
    if not settings.parts:
        return
    on = settings.steps is None or step < settings.steps
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not (on and _is_frozen(name, settings.parts)))
    for name, module in network.named_modules():
        if on and _is_frozen(name, settings.parts):
            module.eval()


def is_inside(name: str, part: str) -> bool:
    """Is name that of the part, or of something in it?"""
    return name == part or name.startswith(f"{part}.")


def _is_frozen(name: str, parts: Iterable[str]) -> bool:
    return any(is_inside(name, part) for part in parts)
