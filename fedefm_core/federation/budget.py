# SPDX-License-Identifier: Apache-2.0
"""What rounds will cost, found by a rehearsal: the rounds of an algorithm, without training.

The same code that drives a run asks silos that only count, so that gradient steps and bytes are
exactly those of the run, whatever the algorithm, its parts and its topology.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from fedefm_core.federation.algorithms import ALGORITHMS
from fedefm_core.federation.carrier import InProcess
from fedefm_core.federation.data import stream
from fedefm_core.federation.distillation import DistillationSettings
from fedefm_core.federation.prototypes import ClassStatistics
from fedefm_core.federation.run import assemble, cut_off, members_of
from fedefm_core.federation.settings import PretrainSettings
from fedefm_core.federation.shelf import MemoryShelf
from fedefm_core.federation.silo import Silo, Task, Trained
from fedefm_core.federation.state import State, state_bytes

MOST_ROUNDS = 100_000


@dataclass(frozen=True)
class Spent:
    """After a round: gradient steps a silo (all of all silos, divided by their number), bytes."""

    steps: float
    bytes: int


def rounds_within(settings: PretrainSettings, steps: float) -> tuple[int, list[Spent]]:
    """The most rounds that take no more gradient steps a silo, one at least, and what is spent
    after each of them. settings.rounds does not matter."""
    spent: list[Spent] = []
    for now in rehearse(settings):
        if spent and now.steps > steps:
            break
        spent.append(now)
    return len(spent), spent


def rounds_for_bytes(spent: list[Spent], most: int) -> int:
    """How many of these rounds send no more than so many bytes, one at least."""
    return max(1, sum(now.bytes <= most for now in spent))


def rehearse(settings: PretrainSettings) -> Iterator[Spent]:
    """What is spent after each round; endless, but for MOST_ROUNDS."""
    federation = assemble(settings.model_copy(update={"rounds": MOST_ROUNDS}))
    number = len(federation.described)  # 'central' has one silo instead
    tiny = {"w": torch.zeros(1)}
    counters = [_counter(member) for member in members_of(federation)]
    carrier = InProcess(counters, tiny, MemoryShelf(), model_bytes=state_bytes(federation.start))
    algorithm = ALGORITHMS[settings.algorithm.name]
    steps = sent = 0
    for round in range(MOST_ROUNDS):
        carrier.begin(round, cut_off(settings, carrier.silos, round))
        algorithm.train_round(settings.algorithm, carrier, federation.schedule, round)
        carrier.end()
        steps += sum(carrier.record.steps.values())
        sent += sum(carrier.record.traffic.values())
        yield Spent(steps / number, sent)


class _Counter(Silo):
    """Counts the steps that it is asked for, and leaves weights as they are."""

    def train_local(
        self, weights: State, round: int, task: Task, previous: State | None = None
    ) -> Trained:
        return Trained(weights, 0.0, task.steps)

    def train_overseas(self, expert: State, round: int, owner: str, task: Task) -> Trained:
        return Trained(expert, 0.0, task.steps)

    def distil(
        self,
        weights: State,
        experts: Mapping[str, State],
        round: int,
        steps: int,
        settings: DistillationSettings,
        rate: float = 1.0,
    ) -> Trained:
        return Trained(weights, 0.0, steps)

    def compare(
        self,
        weights: State,
        others: Mapping[str, State],
        round: int,
        settings: DistillationSettings,
    ) -> dict[str, float]:
        return dict.fromkeys(others, 1.0)

    def measure(self, weights: State, round: int) -> ClassStatistics:
        """Statistics of the right size: kinds that the silo would draw."""
        rng = stream(self.seed, self.name, round, "measure")
        labels = self.data.labels[self.data.draw(rng, self.prototypes.images)]
        counts_k = torch.from_numpy(np.bincount(labels, minlength=self.classes)).float()
        nothing = torch.zeros(self.classes, self.network.head.in_features)
        return ClassStatistics(round, counts_k, nothing, nothing)


def _counter(member: Silo) -> _Counter:
    return _Counter(
        member.name,
        member.data,
        member.network,
        member.settings,
        member.classes,
        member.seed,
        member.prototypes,
    )
