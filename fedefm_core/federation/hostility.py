# SPDX-License-Identifier: Apache-2.0
"""Hostile silos: what they hand back is corrupt, so that one can see who turns it down.

Whatever a hostile silo trains, its own weights or an expert that visits it, leaves it corrupt; so
it harms every algorithm by the way that this algorithm has of trusting others. Attacks after
C. Xie et al., Fall of Empires (UAI 2019: flipped signs), P. Blanchard et al., Machine Learning
with Adversaries (NeurIPS 2017: noise), B. Biggio et al., Poisoning Attacks (ICML 2012: labels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from fedefm_core.config import Settings
from fedefm_core.errors import ConfigError
from fedefm_core.federation.data import LabelledImages, stream
from fedefm_core.federation.silo import Silo, Task, Trained
from fedefm_core.federation.state import State


class HostilitySettings(Settings):
    """attack: none; noise: + scale · r · N(0, 1), r being the root mean square of each tensor;
    sign_flip: the step that training took, times −scale; label_poison: every image is called by
    the name of the next kind, and scale says nothing. silos: how many, drawn by the run's seed.
    """

    attack: Literal["none", "noise", "sign_flip", "label_poison"] = "none"
    silos: int = Field(1, ge=1)
    scale: float = Field(1.0, gt=0)


@dataclass
class HostileSilo(Silo):
    """A silo whose training is corrupt; it distils and measures as others do."""

    hostility: HostilitySettings = field(default_factory=HostilitySettings)

    def __post_init__(self) -> None:
        if self.hostility.attack == "label_poison":
            poisoned = (self.data.labels + 1) % self.classes
            self.data = LabelledImages(self.data.images, poisoned)
        super().__post_init__()

    def train_local(
        self, weights: State, round: int, task: Task, previous: State | None = None
    ) -> Trained:
        """As Silo's, corrupt."""
        trained = super().train_local(weights, round, task, previous)
        return self._corrupt(weights, trained, round, self.name)

    def train_overseas(self, expert: State, round: int, owner: str, task: Task) -> Trained:
        """As Silo's, corrupt."""
        trained = super().train_overseas(expert, round, owner, task)
        return self._corrupt(expert, trained, round, owner)

    def _corrupt(self, start: State, trained: Trained, round: int, owner: str) -> Trained:
        attack, scale = self.hostility.attack, self.hostility.scale
        if attack == "sign_flip":
            weights = {
                name: start[name] - scale * (tensor - start[name])
                for name, tensor in trained.weights.items()
            }
        elif attack == "noise":
            rng = stream(self.seed, self.name, round, "noise", owner)
            weights = {}
            for name, tensor in trained.weights.items():
                noise = torch.from_numpy(rng.standard_normal(tuple(tensor.shape)))
                size = scale * tensor.double().square().mean().sqrt()
                weights[name] = tensor + (size * noise).to(tensor.dtype)
        else:
            return trained
        return replace(trained, weights=weights)


def hostile_silos(settings: HostilitySettings, silos: Sequence[str], seed: int) -> frozenset[str]:
    """Names of the silos that are hostile.

    Raises ConfigError when no honest silo would be left.
    """
    if settings.attack == "none":
        return frozenset()
    if settings.silos >= len(silos):
        raise ConfigError(
            f"'hostile.silos' must leave one honest silo at least (got {settings.silos} of "
            f"{len(silos)})"
        )
    drawn = stream(seed, "hostile").choice(len(silos), settings.silos, replace=False)
    return frozenset(np.array(silos)[drawn].tolist())
