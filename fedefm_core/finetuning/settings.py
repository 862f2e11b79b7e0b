# SPDX-License-Identifier: Apache-2.0
"""What may be chosen about a fine-tuning run; one YAML file, see config/finetune_wirenet.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from fedefm_core.config import Settings
from fedefm_core.networks.swinunet import SwinunetSettings
from fedefm_core.networks.transunet import TransunetSettings
from fedefm_core.networks.unet import UnetSettings
from fedefm_core.networks.vit_segmenter import VitSegmenterSettings
from fedefm_core.networks.wirenet import WirenetSettings
from fedefm_core.simulation import SimulationSettings

Architecture = Literal["wirenet", "unet", "swinunet", "transunet", "vit"]
NetworkSettings = (
    WirenetSettings | UnetSettings | SwinunetSettings | TransunetSettings | VitSegmenterSettings
)
NETWORK_SETTINGS: Mapping[str, type[NetworkSettings]] = {
    "wirenet": WirenetSettings,
    "unet": UnetSettings,
    "swinunet": SwinunetSettings,
    "transunet": TransunetSettings,
    "vit": VitSegmenterSettings,
}


class AugmentationSettings(Settings):
    """Photometric changes; each '..._probability' is the chance that the change is made."""

    gamma_probability: float = Field(0.3, ge=0, le=1)
    gamma: tuple[float, float] = (0.6, 1.6)
    intensity_probability: float = Field(0.4, ge=0, le=1)
    intensity_scale: float = Field(0.3, ge=0)
    intensity_shift: float = Field(0.12, ge=0)
    histogram_probability: float = Field(0.1, ge=0, le=1)
    smooth_probability: float = Field(0.12, ge=0, le=1)
    smooth_sigma: tuple[float, float] = (0.3, 1.0)
    noise_probability: float = Field(0.25, ge=0, le=1)
    noise_std: float = Field(0.04, ge=0)


class OptimiserSettings(Settings):
    """AdamW with linear warm-up and a cosine to zero; weights are averaged exponentially.

    restarts: steps at which the rate jumps back to learning_rate and a new cosine begins
    (Loshchilov and Hutter, 'SGDR', ICLR 2017), the last one ending with the run.
    """

    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    warmup_steps: int = Field(200, ge=0)
    restarts: tuple[int, ...] = ()
    average_decay: float = Field(0.998, ge=0, lt=1)
    max_gradient_norm: float = Field(5.0, gt=0)


class LossSettings(Settings):
    """Weights of the parts of the loss. clDice is computed every cldice_every steps, on
    cldice_frames frames at half resolution: at every step it would cost more than all the rest."""

    dice_ce: float = Field(1.0, ge=0)
    cldice: float = Field(0.3, ge=0)
    cldice_every: int = Field(4, ge=1)
    cldice_frames: int = Field(1, ge=1)
    cldice_iterations: int = Field(3, ge=1)
    tip: float = Field(0.02, ge=0)
    tip_sigma_cells: float = Field(1.2, gt=0)


class ValidationSettings(Settings):
    """Simulated frames of a seed of their own; the best checkpoint has the highest metric."""

    seed: int = 7_000_003
    frames: int = Field(64, ge=1)
    every_steps: int = Field(250, ge=1)
    metric: Literal["dice_mean", "dice_guidewire", "dice_catheter", "tip_score"] = "dice_mean"


class FinetuneSettings(Settings):
    """One run. network: settings of the architecture. init: weights to start from, random without:
    those of the same architecture must fit whole, of any others what fits is taken.
    precision: of the forward pass; bf16 halves the time on CPUs that have it, and
    takes ten times as long on others.

    pool_frames: frames drawn before training into RUN/pool, to be used again and again; 0 draws
    every sample anew. From a pool a sample is a crop of crop pixels that shows an instrument in
    instrument_share of all cases; every whole_every-th step takes whole_batch_size whole frames,
    so that the network sees borders and contexts as it will when it is used.
    """

    task: Literal["segmentation"] = "segmentation"
    architecture: Architecture = "wirenet"
    network: NetworkSettings = WirenetSettings()
    init: Path | None = None
    simulation: SimulationSettings = SimulationSettings()
    seed: int = Field(1, ge=0)
    steps: int = Field(6000, ge=1)
    batch_size: int = Field(8, ge=1)
    workers: int = Field(2, ge=0)
    precision: Literal["fp32", "bf16"] = "bf16"
    pool_frames: int = Field(0, ge=0)
    crop: int = Field(256, ge=32, multiple_of=32)
    instrument_share: float = Field(0.75, ge=0, le=1)
    whole_every: int = Field(4, ge=1)
    whole_batch_size: int = Field(4, ge=1)
    save_every_steps: int = Field(100, ge=1)
    optimiser: OptimiserSettings = OptimiserSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    loss: LossSettings = LossSettings()
    validation: ValidationSettings = ValidationSettings()

    @model_validator(mode="before")
    @classmethod
    def _network_given(cls, values: Any) -> Any:
        """Without 'network', the default one of the architecture, not that of wirenet."""
        return {"network": {}, **values} if isinstance(values, dict) else values

    @field_validator("network", mode="before")
    @classmethod
    def _of_the_architecture(cls, value: Any, info: ValidationInfo) -> NetworkSettings:
        if "architecture" not in info.data:  # which is told already
            return WirenetSettings()
        return NETWORK_SETTINGS[info.data["architecture"]].model_validate(value)

    @property
    def network_name(self) -> str:
        """The architecture as networks.ARCHITECTURES has it: there 'vit' is a foundation."""
        return "vit_segmenter" if self.architecture == "vit" else self.architecture
