# SPDX-License-Identifier: Apache-2.0
"""A silo: images that never leave it, and what it does with weights that come and go."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fedefm_core.config import Settings
from fedefm_core.emd import similarity
from fedefm_core.errors import FederationError
from fedefm_core.federation.data import LabelledImages, stream
from fedefm_core.federation.distillation import (
    DistillationSettings,
    distillation_loss,
    soft_cross_entropy,
)
from fedefm_core.federation.prototypes import (
    ClassStatistics,
    PrototypeSettings,
    Table,
    measure_classes,
    virtual_features,
)
from fedefm_core.federation.state import State, state_of
from fedefm_core.networks.foundation import FoundationNetwork, FoundationOutput

GUARD_TEMPERATURE = 2.0  # of the forgetting guard, as in Learning without Forgetting


class OptimiserSettings(Settings):
    """name: sgd or adamw. momentum: of sgd. max_gradient_norm: None does not clip. schedule: of
    the learning rate over the rounds. keep_state: momentum of home training survives the exchange
    of weights; else each round begins with a fresh optimiser, as FedAvg does."""

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = Field(0.05, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    max_gradient_norm: float | None = Field(5.0, gt=0)
    schedule: Literal["constant", "cosine"] = "constant"
    keep_state: bool = False


class TrainingSettings(Settings):
    """How every silo trains. precision: bf16 is autocast, worth it on CUDA. device: auto takes
    CUDA where it is there."""

    batch_size: int = Field(16, ge=1)
    optimiser: OptimiserSettings = OptimiserSettings()
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "cpu"

    def torch_device(self) -> torch.device:
        """The device that training runs on."""
        cuda = self.device == "cuda" or (self.device == "auto" and torch.cuda.is_available())
        return torch.device("cuda" if cuda else "cpu")


@dataclass(frozen=True)
class Task:
    """What to train, beyond cross-entropy on the labels.

    proximal: μ of μ/2 ‖θ − θ_start‖². contrast: μ of MOON, against the features of the weights at
    the start and of previous. guard: weight of the distillation from the weights at the start,
    which keeps a guest from forgetting. rate: factor on the learning rate.
    """

    steps: int
    proximal: float = 0.0
    contrast: float = 0.0
    contrast_temperature: float = 0.5
    guard: float = 0.0
    rate: float = 1.0


@dataclass(frozen=True)
class Trained:
    """Weights, and what was seen while they were trained: mean loss, gradient steps, and of
    distillation the mean similarity of each expert."""

    weights: State
    loss: float
    steps: int
    similarity: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Silo:
    """Trains weights on its own images: state dicts in and out, nothing else.

    network: working memory, which silos of one process share; its weights mean nothing between
    calls. classes: kinds of image that there are. optimiser_state, table (of prototypes): what the
    silo keeps between rounds. Raises FederationError, naming silo and round, when a loss is not
    finite; FedefmError from what it calls.
    """

    name: str
    data: LabelledImages
    network: FoundationNetwork
    settings: TrainingSettings
    classes: int
    seed: int
    prototypes: PrototypeSettings = field(default_factory=PrototypeSettings)
    optimiser_state: State = field(default_factory=dict)
    table: Table = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise FederationError when there is nothing to train on, or labels are out of range."""
        if len(self.data) == 0:
            raise FederationError(f"The silo '{self.name}' holds no image")
        if not 0 <= int(self.data.labels.min()) <= int(self.data.labels.max()) < self.classes:
            raise FederationError(
                f"The labels of the silo '{self.name}' must be 0 to {self.classes - 1}"
            )
        held = np.bincount(self.data.labels, minlength=self.classes) > 0
        self.absent_k = torch.from_numpy(~held)
        self.device = self.settings.torch_device()

    def train_local(
        self, weights: State, round: int, task: Task, previous: State | None = None
    ) -> Trained:
        """Own weights, trained at home. previous: those of the last round, for MOON."""
        keep = self.settings.optimiser.keep_state
        optimiser = self._begin(weights, task.rate, self.optimiser_state if keep else {})
        rng = stream(self.seed, self.name, round, "local")
        trained = self._train(weights, optimiser, rng, round, task, previous)
        if keep:
            self.optimiser_state = _flat_state(optimiser)
        return trained

    def train_overseas(self, expert: State, round: int, owner: str, task: Task) -> Trained:
        """The weights of owner, trained here: equation (1) of FedEFM."""
        optimiser = self._begin(expert, task.rate, {})
        rng = stream(self.seed, self.name, round, "overseas", owner)
        return self._train(expert, optimiser, rng, round, task)

    def distil(
        self,
        weights: State,
        experts: Mapping[str, State],
        round: int,
        steps: int,
        settings: DistillationSettings,
        rate: float = 1.0,
    ) -> Trained:
        """Own weights, taught by the experts that came home: equation (2)."""
        rng = stream(self.seed, self.name, round, "distil")
        batches = [self.data.draw(rng, self.settings.batch_size) for _ in range(steps)]
        taught = [self._outputs(expert, batches) for expert in experts.values()]
        optimiser = self._begin(weights, rate, {})
        absent_k = self.absent_k.to(self.device)
        losses, similarities = [], []
        for step, numbers in enumerate(batches):
            images, labels = self.data.batch(numbers, self.device)
            with _reproducible(rng):
                output = self._forward(images)
            of_experts = [outputs[step] for outputs in taught]
            lesson = distillation_loss(output, labels, of_experts, absent_k, settings)
            loss = lesson.loss + self._virtual_loss(rng)
            self._step(optimiser, loss, round)
            losses.append(float(loss.detach()))
            if lesson.similarity_e is not None:
                similarities.append(lesson.similarity_e)
        seen = torch.stack(similarities).mean(0).tolist() if similarities else []
        return Trained(
            state_of(self.network),
            float(np.mean(losses)),
            steps,
            dict(zip(experts, seen, strict=bool(seen))),
        )

    def compare(
        self,
        weights: State,
        others: Mapping[str, State],
        round: int,
        settings: DistillationSettings,
    ) -> dict[str, float]:
        """EMD similarity of others to own weights, on settings.emd_samples images; no training.
        Weights whose map is not finite are at 0."""
        rng = stream(self.seed, self.name, round, "compare")
        batch = [self.data.draw(rng, settings.emd_samples)]
        own = self._outputs(weights, batch)[0].dense_map(settings.map)
        seen = {}
        for name, other in others.items():
            theirs = self._outputs(other, batch)[0].dense_map(settings.map)
            finite = bool(torch.isfinite(theirs).all())
            seen[name] = float(similarity(own, theirs).mean()) if finite else 0.0
        return seen

    def measure(self, weights: State, round: int) -> ClassStatistics:
        """Statistics of features by kind, for prototypes."""
        rng = stream(self.seed, self.name, round, "measure")
        numbers = self.data.draw(rng, self.prototypes.images)
        size = self.settings.batch_size
        batches = [numbers[at : at + size] for at in range(0, len(numbers), size)]
        outputs = self._outputs(weights, batches)
        features_bd = torch.cat([output.features_bd for output in outputs]).float()
        labels_b = torch.from_numpy(self.data.labels[numbers]).to(self.device)
        return measure_classes(features_bd, labels_b, self.classes, round)

    def _train(
        self,
        start: State,
        optimiser: torch.optim.Optimizer,
        rng: np.random.Generator,
        round: int,
        task: Task,
        previous: State | None = None,
    ) -> Trained:
        batches = [self.data.draw(rng, self.settings.batch_size) for _ in range(task.steps)]
        at_start: Sequence[FoundationOutput] = []
        before: Sequence[FoundationOutput] = []
        if task.guard or (task.contrast and previous):
            at_start = self._outputs(start, batches)
        if task.contrast and previous:
            before = self._outputs(previous, batches)
        self.network.load_state_dict(start)
        losses = []
        for step, numbers in enumerate(batches):
            images, labels = self.data.batch(numbers, self.device)
            with _reproducible(rng):
                output = self._forward(images)
            loss = functional.cross_entropy(output.logits_bk, labels) + self._virtual_loss(rng)
            if task.proximal:
                loss = loss + task.proximal / 2 * self._squared_distance(start)
            if task.guard:
                kept = at_start[step].logits_bk
                taught = soft_cross_entropy(output.logits_bk, kept, GUARD_TEMPERATURE)
                loss = loss + task.guard * taught.mean()
            if before:
                loss = loss + task.contrast * _model_contrast(
                    output, at_start[step], before[step], task.contrast_temperature
                )
            self._step(optimiser, loss, round)
            losses.append(float(loss.detach()))
        mean_loss = float(np.mean(losses)) if losses else 0.0
        return Trained(state_of(self.network), mean_loss, task.steps)

    def _begin(self, weights: State, rate: float, state: State) -> torch.optim.Optimizer:
        """Load weights and make an optimiser for them; its state as _flat_state gave it."""
        self.network.to(self.device).load_state_dict(weights)
        optimiser = _optimiser(self.network, self.settings.optimiser, rate)
        if state:
            optimiser.load_state_dict({**optimiser.state_dict(), "state": _nested_state(state)})
        return optimiser

    def _step(self, optimiser: torch.optim.Optimizer, loss: Tensor, round: int) -> None:
        if not math.isfinite(value := float(loss.detach())):
            raise FederationError(
                f"The loss of the silo '{self.name}' became {value} in round {round}"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        limit = self.settings.optimiser.max_gradient_norm
        if limit is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), limit)
        optimiser.step()

    def _forward(self, images: Tensor) -> FoundationOutput:
        self.network.train()
        enabled = self.settings.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
            output: FoundationOutput = self.network(images)
        return FoundationOutput(*(part.float() for part in output))

    def _outputs(
        self, weights: State, batches: Sequence[np.ndarray[Any, np.dtype[np.int64]]]
    ) -> list[FoundationOutput]:
        """What these weights say of the batches. One network serves all: what an expert says does
        not depend on the student, so it is asked before, and for all steps at once."""
        self.network.to(self.device).load_state_dict(weights)
        self.network.eval()
        enabled = self.settings.precision == "bf16"
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
            outputs = [self.network(self.data.batch(b, self.device)[0]) for b in batches]
        return [FoundationOutput(*(part.float() for part in output)) for output in outputs]

    def _virtual_loss(self, rng: np.random.Generator) -> Tensor:
        """Cross-entropy of the head on features of kinds that are absent here."""
        chosen = self.prototypes
        drawn = (
            virtual_features(self.table, self.absent_k, chosen.samples, rng)
            if chosen.weight
            else None
        )
        if drawn is None:
            return torch.zeros((), device=self.device)
        features_bd, labels_b = (part.to(self.device) for part in drawn)
        logits_bk = self.network.head(features_bd)
        return chosen.weight * functional.cross_entropy(logits_bk, labels_b)

    def _squared_distance(self, start: State) -> Tensor:
        return torch.stack(
            [
                (parameter - start[name].to(self.device)).square().sum()
                for name, parameter in self.network.named_parameters()
            ]
        ).sum()


def _model_contrast(
    output: FoundationOutput,
    at_start: FoundationOutput,
    before: FoundationOutput,
    temperature: float,
) -> Tensor:
    """MOON's loss: like the model that came, unlike the one that this silo had before."""
    alike_b2 = torch.stack(
        [
            functional.cosine_similarity(output.features_bd, other.features_bd.detach())
            for other in (at_start, before)
        ],
        dim=1,
    )
    first = torch.zeros(len(alike_b2), dtype=torch.int64, device=alike_b2.device)
    return functional.cross_entropy(alike_b2 / temperature, first)


@contextmanager
def _reproducible(rng: np.random.Generator) -> Iterator[None]:
    """Dropout draws from the stream of the task, and leaves torch's own generator as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**63)))
        yield


def _optimiser(
    network: nn.Module, settings: OptimiserSettings, rate: float
) -> torch.optim.Optimizer:
    learning_rate = settings.learning_rate * rate
    if settings.name == "adamw":
        return torch.optim.AdamW(
            network.parameters(), lr=learning_rate, weight_decay=settings.weight_decay
        )
    return torch.optim.SGD(
        network.parameters(),
        lr=learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )


def _flat_state(optimiser: torch.optim.Optimizer) -> State:
    return {
        f"{number}.{key}": torch.as_tensor(value).detach().to("cpu", copy=True)
        for number, values in optimiser.state_dict()["state"].items()
        for key, value in values.items()
        if value is not None
    }


def _nested_state(flat: State) -> dict[int, dict[str, Tensor]]:
    nested: dict[int, dict[str, Tensor]] = {}
    for name, tensor in flat.items():
        number, _, key = name.partition(".")
        nested.setdefault(int(number), {})[key] = tensor.clone()
    return nested
