# SPDX-License-Identifier: Apache-2.0
"""What may be chosen about a fine-tuning run; one YAML file, see config/finetune_wirenet.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from fedefm_core.config import Settings
from fedefm_core.corpora.manifest import SplitSettings
from fedefm_core.networks.r50_vit import R50VitSettings
from fedefm_core.networks.small_cnn import SmallCnnSettings
from fedefm_core.networks.swinunet import SwinunetSettings
from fedefm_core.networks.transunet import TransunetSettings
from fedefm_core.networks.unet import UnetSettings
from fedefm_core.networks.vit import VitSettings
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
FOUNDATION_SETTINGS: Mapping[str, type[VitSettings | R50VitSettings | SmallCnnSettings]] = {
    "vit": VitSettings,
    "r50_vit": R50VitSettings,
    "small_cnn": SmallCnnSettings,
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
    layer_decay: each stage of the encoder learns so much slower than the next one towards the
    heads; 1 is one rate for all. accumulate: batches whose gradients one step averages.
    """

    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    warmup_steps: int = Field(200, ge=0)
    restarts: tuple[int, ...] = ()
    average_decay: float = Field(0.998, ge=0, lt=1)
    max_gradient_norm: float = Field(5.0, gt=0)
    layer_decay: float = Field(1.0, gt=0, le=1)
    accumulate: int = Field(1, ge=1)


class FreezeSettings(Settings):
    """parts: of the network, by the beginning of their weights' names ('encoder', 'body'), that
    stay as they are, with the statistics of their norms, in the first steps steps; without steps,
    in all of them."""

    parts: tuple[str, ...] = ()
    steps: int | None = Field(None, ge=1)


class LabelSettings(Settings):
    """Few-shot training: percent of the labelled frames of the pool or the data, drawn by seed
    alone, so that every run of a seed sees the same and 10 percent holds what 5 percent holds."""

    percent: Literal[1, 5, 10, 25, 100] = 100
    seed: int = Field(0, ge=0)


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
    """Simulated frames of a seed of their own, or, with 'data', the validation part of that, at
    most so many frames. The best checkpoint has the highest metric; patience: validations without
    a better one that end the run early, None runs all steps."""

    seed: int = 7_000_003
    frames: int = Field(64, ge=1)
    every_steps: int = Field(250, ge=1)
    patience: int | None = Field(None, ge=1)
    metric: Literal["dice_mean", "dice_guidewire", "dice_catheter", "tip_score"] = "dice_mean"


class DataSettings(Settings):
    """Labelled images in a folder. adapter: a layout of docs/corpora.md, or 'polylines'.

    classes: what each class of the data set is here: background, catheter, guidewire or unknown;
    classes of these names need not be named. line_width_px: of polylines, in pixels of their
    image. unknown_255: masks hold 255 where nobody knows, as 'simulate' writes it. unlabelled:
    images without a mask are refused, or skipped. every: of each group's frames, each every-th.
    splits: shares for validation and test, drawn by groups where the data set itself has none.
    """

    adapter: str
    path: Path
    classes: Mapping[str, Literal["background", "catheter", "guidewire", "unknown"]] = Field({})
    line_width_px: float | None = Field(None, gt=0, le=100)
    unknown_255: bool = False
    unlabelled: Literal["refuse", "skip"] = "refuse"
    every: int = Field(1, ge=1)
    splits: SplitSettings = SplitSettings()


class RunSettings(Settings):
    """What all trainings have. init: weights to start from, random without: those of the same
    architecture must fit whole, of any others what fits is taken. precision: of the forward pass;
    bf16 is for CPUs that have it, on others it takes ten times as long (docs/decisions.md).
    """

    init: Path | None = None
    seed: int = Field(1, ge=0)
    steps: int = Field(6000, ge=1)
    batch_size: int = Field(8, ge=1)
    workers: int = Field(2, ge=0)
    precision: Literal["fp32", "bf16"] = "bf16"
    save_every_steps: int = Field(100, ge=1)
    optimiser: OptimiserSettings = OptimiserSettings()
    freeze: FreezeSettings = FreezeSettings()
    labels: LabelSettings = LabelSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    validation: ValidationSettings = ValidationSettings()


class FinetuneSettings(RunSettings):
    """One training of a segmenter. network: settings of the architecture.

    pool_frames: simulated frames drawn before training into RUN/pool, to be used again and again;
    0 draws every sample anew, or trains on data alone where that is given. data: labelled images,
    decoded before training into RUN/data at simulation.size. From both a sample is a crop of crop
    pixels that shows an instrument in instrument_share of all cases; every whole_every-th step
    takes whole_batch_size whole frames, so that the network sees borders and contexts as it will
    when it is used.
    """

    task: Literal["segmentation"] = "segmentation"
    architecture: Architecture = "wirenet"
    network: NetworkSettings = WirenetSettings()
    simulation: SimulationSettings = SimulationSettings()
    pool_frames: int = Field(0, ge=0)
    data: tuple[DataSettings, ...] = ()
    crop: int = Field(256, ge=32, multiple_of=32)
    instrument_share: float = Field(0.75, ge=0, le=1)
    whole_every: int = Field(4, ge=1)
    whole_batch_size: int = Field(4, ge=1)
    loss: LossSettings = LossSettings()

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
    def has_frames(self) -> bool:
        """Are there frames on disk to draw crops from, not the simulator's stream?"""
        return self.pool_frames > 0 or bool(self.data)

    @property
    def network_name(self) -> str:
        """The architecture as networks.ARCHITECTURES has it: there 'vit' is a foundation."""
        return "vit_segmenter" if self.architecture == "vit" else self.architecture


class DistillSettings(FinetuneSettings):
    """Teachers into a student, which is the architecture here, wirenet unless another is named.

    teachers: weights files of segmenters, or folders of their runs. unlabelled: files or folders
    of frames without labels, anything a reader takes, every unlabelled_every-th frame; of all
    samples unlabelled_share come from there. Loss: soft times the divergence from the mean of the
    teachers' softened classes, soft_tip times that from the mean of their tip heat maps, and,
    where there are labels, hard times what 'finetune' minimises.
    """

    teachers: tuple[Path, ...] = Field(min_length=1)
    unlabelled: tuple[Path, ...] = ()
    unlabelled_every: int = Field(1, ge=1)
    unlabelled_share: float = Field(0.5, ge=0, le=1)
    temperature: float = Field(2.0, gt=0, le=100)
    soft: float = Field(1.0, ge=0)
    soft_tip: float = Field(0.02, ge=0)
    hard: float = Field(1.0, ge=0)


class LabelTableSettings(Settings):
    """Images and a CSV table with a row an image, in RANZCR CLiP's layout unless told otherwise.

    images: folder of ID + suffix. name_column: of the ID. group_column: of the patient, whose
    images are never divided; without one each image is a group. label_columns: names of columns
    of 0 and 1; without, all but the two above. splits: shares of the groups.
    """

    table: Path
    images: Path
    suffix: str = ".jpg"
    name_column: str = "StudyInstanceUID"
    group_column: str | None = "PatientID"
    label_columns: tuple[str, ...] = ()
    splits: SplitSettings = SplitSettings()


class ClassificationValidation(ValidationSettings):
    """frames: at most so many images of the validation part of the table."""

    metric: Literal["auroc_mean", "accuracy"] = "auroc_mean"  # type: ignore[assignment]


class ClassificationSettings(RunSettings):
    """One training of a multi-label classifier. network: settings of the architecture, a
    foundation network; its classes are the table's labels, so they are not named. Images are
    fitted into a square of network.image_size."""

    task: Literal["classification"]
    architecture: Literal["vit", "r50_vit", "small_cnn"] = "vit"
    network: Mapping[str, Any] = Field({})
    data: LabelTableSettings
    validation: ClassificationValidation = ClassificationValidation()

    @field_validator("network")
    @classmethod
    def _no_classes(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        if "classes" in value:
            raise ValueError("'classes' follows from the labels of the table")
        return value
