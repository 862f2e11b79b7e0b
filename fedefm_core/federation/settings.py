# SPDX-License-Identifier: Apache-2.0
"""What may be chosen about a pretraining; one YAML file, see config/pretrain.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fedefm_core.config import Settings
from fedefm_core.corpora import Split
from fedefm_core.federation.algorithms import AlgorithmSettings
from fedefm_core.federation.algorithms.mfd import MfdSettings
from fedefm_core.federation.carrier import OnFailure
from fedefm_core.federation.hostility import HostilitySettings
from fedefm_core.federation.prototypes import PrototypeSettings
from fedefm_core.federation.silo import TrainingSettings


class CorporaSettings(Settings):
    """manifest: YAML file of corpora and silos; None: the embedded simulated ones. override: as
    --set has it, on the manifest: 'partition.unseen=0.5'."""

    manifest: Path | None = None
    override: tuple[str, ...] = ()


class NetworkSettings(Settings):
    """name: of a topology; those algorithms that are made for one ignore it. underlay: None: all
    roads alike; or a shipped network or a file, on whose nodes the silos sit in their order.
    step_ms: of a gradient step, access_mbit_s: of a silo's own link; both for the simulated time.
    """

    name: str = "ring"
    underlay: str | None = None
    step_ms: float = Field(50.0, ge=0)
    access_mbit_s: float = Field(10_000.0, gt=0)


class EvaluationSettings(Settings):
    """split: that accuracy is measured on. every_rounds: how often; always after the last round.
    limit: images of a corpus. silos: measure the weights of every silo too, not their average
    alone. batch_size: of the measurement."""

    split: Split = "validation"
    every_rounds: int = Field(1, ge=1)
    limit: int | None = Field(100, ge=1)
    silos: bool = True
    batch_size: int = Field(64, ge=1)


class PretrainSettings(Settings):
    """One run. local_steps: E, gradient steps at home a round. model: settings of the
    architecture; kinds of image and image size come from the corpora. dropout: probability that a
    silo is cut off in the middle of a round. on_failure: of a silo: skip its round, or stop.
    hostile: silos that return corrupt weights. page_weights: weights lie on disk, so that memory
    holds few of many large ones. checkpoint_every: rounds; always after the last one. keep_rounds:
    rounds, counted from 0, after which Θ is kept as foundation-NNNNN.safetensors. head: of Θ:
    trained, the average of the silos', or calibrated, in closed form from class statistics that
    the silos tell (calibration.py); training does not depend on it.
    """

    task: Literal["pretraining"] = "pretraining"
    architecture: str = "small_cnn"
    model: dict[str, Any] = Field(default_factory=dict)
    corpora: CorporaSettings = CorporaSettings()
    algorithm: AlgorithmSettings = Field(default_factory=MfdSettings)
    topology: NetworkSettings = NetworkSettings()
    seed: int = Field(0, ge=0)
    rounds: int = Field(40, ge=1)
    local_steps: int = Field(5, ge=1)
    training: TrainingSettings = TrainingSettings()
    prototypes: PrototypeSettings = PrototypeSettings()
    head: Literal["trained", "calibrated"] = "trained"
    evaluation: EvaluationSettings = EvaluationSettings()
    dropout: float = Field(0.0, ge=0, lt=1)
    on_failure: OnFailure = "skip"
    hostile: HostilitySettings = HostilitySettings()
    page_weights: bool = False
    checkpoint_every: int = Field(1, ge=1)
    keep_rounds: tuple[int, ...] = ()
    tensorboard: bool = True
