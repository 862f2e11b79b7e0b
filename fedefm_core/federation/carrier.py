# SPDX-License-Identifier: Apache-2.0
"""Carriers: they have silos do things, each where it is, and move weights between them.

An algorithm is a sequence of calls to a Carrier, so one schedule drives silos in one process and
silos on many machines. Weights lie with the silo that they were sent to, in slots:

    weights      its own
    expert/j     its own, trained at silo j and come home
    guest/i      those of silo i, trained here
    inbox/i      those that silo i sent
    previous     its own after home training of an earlier round

No image, and no label of an image, passes through a carrier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol

from fedefm_core.errors import FedefmError, FederationError
from fedefm_core.federation.distillation import DistillationSettings
from fedefm_core.federation.prototypes import Table, merge_tables
from fedefm_core.federation.shelf import Shelf
from fedefm_core.federation.silo import Silo, Task, Trained
from fedefm_core.federation.state import State, check_state, state_bytes, weighted_sum
from fedefm_core.federation.topology import Link, both_ways

OnFailure = Literal["skip", "stop"]
Phase = Literal["local", "overseas", "distillation"]
PHASES: tuple[Phase, ...] = ("local", "overseas", "distillation")
SERVER = "server"


@dataclass
class RoundRecord:
    """What one round did. losses: by phase and silo, overseas by
    'owner->host'. steps: gradient steps by phase. similarity:
    by link, of the expert to its owner. traffic: bytes by link, statistics included. failures:
    a sentence by silo; such a silo had no part in the rest of its round."""

    number: int
    losses: dict[Phase, dict[str, float]] = field(default_factory=dict)
    steps: dict[Phase, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    similarity: dict[Link, float] = field(default_factory=dict)
    traffic: dict[Link, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def carried(self, link: Link, size: int) -> None:
        """Count size bytes on a link."""
        self.traffic[link] = self.traffic.get(link, 0) + size

    def compared(self, silo: str, by_slot: Mapping[str, float]) -> None:
        """Keep the similarities of a silo's experts, of those of all its slots."""
        for slot, similarity in by_slot.items():
            kind, _, host = slot.partition("/")
            if kind == "expert":
                self.similarity[(silo, host)] = similarity


class Carrier(Protocol):
    """What an algorithm may ask for; every call is over when it returns.

    silos: all of them. present: those that still take part in the round, in the order of silos.
    record: of the round that runs. A silo that fails leaves present (or, by the policy, ends the
    run); its weights stay what they were before it failed.
    """

    silos: tuple[str, ...]
    record: RoundRecord

    @property
    def present(self) -> list[str]: ...

    def begin(self, round: int, cut_off: Mapping[str, str]) -> None:
        """Open a round. cut_off: silos that drop out in the middle of it, and why: they train at
        home and reach nobody."""

    def train_local(self, task: Task, *, contrast: bool = False) -> None:
        """Every silo trains its own weights at home. contrast: MOON's, against 'previous'."""

    def visit(self, links: Sequence[Link], task: Task, *, host_share: float = 0.0) -> None:
        """Own weights of i go to j, are trained there, and come home: expert/j of i, guest/i of j.

        All start from the weights that the silos hold when the call begins. host_share: h; the
        expert brings that share of the host home: it is θ̂_{i→j} + h (θ_j − θ_i).
        """

    def distil(self, steps: int, settings: DistillationSettings, rate: float) -> None:
        """Every silo that has experts learns from them on its own images."""

    def compare(
        self, prefixes: Sequence[str], settings: DistillationSettings
    ) -> dict[str, dict[str, float]]:
        """By silo, the EMD similarity to its own weights of each slot that begins with one of
        prefixes, on images of its own."""

    def send(self, links: Sequence[Link]) -> None:
        """Own weights of i go to inbox/i of j."""

    def mix(self, shares: Callable[[str, Sequence[str]], Mapping[str, float]]) -> None:
        """Every silo's weights become Σ share · slot; what the shares lack of 1 is its own.

        shares: given the silo's name and the slots it has, the share of each but 'weights'.
        """

    def pool(self, counted: Callable[[str], float], *, server: bool) -> None:
        """Every silo's weights become the average, weighted by counted: through a server, or by
        an exact all-reduce around a ring."""

    def share_prototypes(self, links: Sequence[Link]) -> None:
        """Silos measure their kinds of image and tell them along links, both ways."""

    def images(self, silo: str) -> int:
        """How many images a silo holds."""


class RunCarrier(Carrier, Protocol):
    """What a run asks for beside its algorithm."""

    def weights(self, silo: str) -> State:
        """What a silo holds now; for measurements, not counted as traffic."""

    def end(self) -> None:
        """Close a round; what was sent in it is thrown away."""


def bring_home(trained: State, host: State, came: State, share: float) -> State:
    """θ̂ + h (θ_host − θ_came): what a guest learned, and a share of its host; made at the host."""
    return weighted_sum(((1.0, trained), (share, host), (-share, came)))


class InProcess:
    """A Carrier for silos in this process: one network in memory, and their weights on a shelf."""

    def __init__(
        self,
        silos: Sequence[Silo],
        start: State,
        shelf: Shelf,
        on_failure: OnFailure = "skip",
        model_bytes: int | None = None,
    ) -> None:
        """Give every silo the same weights to start from. model_bytes: what is counted for them
        on the road; None: their size."""
        self.members = {silo.name: silo for silo in silos}
        self.silos = tuple(self.members)
        self.record = RoundRecord(0)
        self._shelf = shelf
        self._on_failure = on_failure
        self._cut_off: frozenset[str] = frozenset()
        self._like = {name: tensor.to("meta") for name, tensor in start.items()}
        self._bytes = state_bytes(start) if model_bytes is None else model_bytes
        for name in self.silos:
            shelf[f"{name}/weights"] = start

    @property
    def present(self) -> list[str]:
        """Silos that still take part in the round."""
        return [name for name in self.silos if name not in self.record.failures]

    def weights(self, silo: str) -> State:
        """What a silo holds now; for measurements, not counted as traffic."""
        return self._shelf[f"{silo}/weights"]

    def previous(self, silo: str) -> State | None:
        """A silo's weights after home training of an earlier round, where an algorithm keeps
        them."""
        slot = f"{silo}/previous"
        return self._shelf.get(slot)

    def restore(self, silo: str, weights: State, previous: State | None) -> None:
        """Put back what a checkpoint holds."""
        self._shelf[f"{silo}/weights"] = weights
        if previous is not None:
            self._shelf[f"{silo}/previous"] = previous

    def hold(self, silo: str, slot: str, weights: State) -> None:
        """Put weights that came from elsewhere into a slot of a silo."""
        self._shelf[f"{silo}/{slot}"] = weights

    def images(self, silo: str) -> int:
        """How many images a silo holds."""
        return len(self.members[silo].data)

    def begin(self, round: int, cut_off: Mapping[str, str]) -> None:
        """Open a round; see Carrier."""
        self.record = RoundRecord(round, failures=dict(cut_off))
        self._cut_off = frozenset(cut_off)

    def train_local(self, task: Task, *, contrast: bool = False) -> None:
        """See Carrier."""
        for name, silo in self.members.items():
            if name in self.record.failures and name not in self._cut_off:
                continue
            previous = self.previous(name) if contrast else None
            train = partial(
                silo.train_local, self.weights(name), self.record.number, task, previous
            )
            trained = self._try(name, "local", train, key=name)
            if trained is None:
                continue
            self._shelf[f"{name}/weights"] = trained.weights
            if contrast:
                self._shelf.alias(f"{name}/weights", f"{name}/previous")

    def visit(self, links: Sequence[Link], task: Task, *, host_share: float = 0.0) -> None:
        """See Carrier."""
        for owner, host in self._open(links):
            self.record.carried((owner, host), self._bytes)
            trained = self.train_guest(host, owner, self.weights(owner), task)
            if trained is None:
                continue
            self.record.carried((host, owner), self._bytes)
            self._shelf[f"{host}/guest/{owner}"] = trained.weights
            if host_share:
                brought = bring_home(
                    trained.weights, self.weights(host), self.weights(owner), host_share
                )
                self._shelf[f"{owner}/expert/{host}"] = brought
            else:
                self._shelf.alias(f"{host}/guest/{owner}", f"{owner}/expert/{host}")

    def train_guest(self, host: str, owner: str, weights: State, task: Task) -> Trained | None:
        """Weights of owner, trained at host; None when that failed."""
        silo, number = self.members[host], self.record.number
        train = partial(silo.train_overseas, weights, number, owner, task)
        return self._try(host, "overseas", train, key=f"{owner}->{host}")

    def distil(self, steps: int, settings: DistillationSettings, rate: float) -> None:
        """See Carrier."""
        for name, silo in self._present():
            slots = self._slots(name, "expert/")
            if not slots:
                continue
            hosts = [slot.partition("/")[2] for slot in slots]
            experts = _Lazy(self._shelf, {host: f"{name}/expert/{host}" for host in hosts})
            number = self.record.number
            train = partial(
                silo.distil, self.weights(name), experts, number, steps, settings, rate
            )
            trained = self._try(name, "distillation", train, key=name)
            if trained is None:
                continue
            self._shelf[f"{name}/weights"] = trained.weights
            for host, similarity in trained.similarity.items():
                self.record.similarity[(name, host)] = similarity

    def compare(
        self, prefixes: Sequence[str], settings: DistillationSettings
    ) -> dict[str, dict[str, float]]:
        """See Carrier."""
        found = {}
        for name, silo in self._present():
            slots = [slot for prefix in prefixes for slot in self._slots(name, prefix)]
            others = _Lazy(self._shelf, {slot: f"{name}/{slot}" for slot in slots})
            try:
                seen = silo.compare(self.weights(name), others, self.record.number, settings)
            except FedefmError as error:
                self._fail(name, error)
                continue
            found[name] = seen
            self.record.compared(name, seen)
        return found

    def send(self, links: Sequence[Link]) -> None:
        """See Carrier."""
        for source, target in self._open(links):
            self._shelf.alias(f"{source}/weights", f"{target}/inbox/{source}")
            self.record.carried((source, target), self._bytes)

    def mix(self, shares: Callable[[str, Sequence[str]], Mapping[str, float]]) -> None:
        """See Carrier."""
        for name in self.present:
            given = shares(name, self._slots(name, ""))
            parts = {"weights": 1 - sum(given.values()), **given}
            mixed = weighted_sum(
                (share, self._shelf[f"{name}/{slot}"]) for slot, share in parts.items() if share
            )
            self._shelf[f"{name}/weights"] = mixed

    def pool(self, counted: Callable[[str], float], *, server: bool) -> None:
        """See Carrier."""
        members = self.present
        if not members:
            return
        total = sum(counted(name) for name in members)
        mean = weighted_sum((counted(name) / total, self.weights(name)) for name in members)
        # A server has all it needs to bring back those that dropped out; they fetch it late.
        for name in self.silos if server else members:
            self._shelf[f"{name}/weights"] = mean
        if server:
            for name in members:
                self.record.carried((name, SERVER), self._bytes)
            for name in self.silos:
                self.record.carried((SERVER, name), self._bytes)
            return
        for number, name in enumerate(members):
            if len(members) > 1:  # reduce-scatter and all-gather, each N - 1 pieces of 1 / N
                after = members[(number + 1) % len(members)]
                sent = 2 * (len(members) - 1) * self._bytes // len(members)
                self.record.carried((name, after), sent)

    def share_prototypes(self, links: Sequence[Link]) -> None:
        """See Carrier."""
        tables: dict[str, Table] = {}
        for name, silo in self._present():
            own = {name: silo.measure(self.weights(name), self.record.number)}
            tables[name] = merge_tables(silo.table, own)
        for source, target in dict.fromkeys(both_ways(self._open(links))):
            member = self.members[target]
            known = merge_tables(member.table, tables[target])
            member.table = merge_tables(known, tables[source])
            size = sum(entry.bytes() for entry in tables[source].values())
            self.record.carried((source, target), size)

    def end(self) -> None:
        """Throw away what was sent in this round."""
        kept = {"weights", "previous"}
        for slot in list(self._shelf):
            if slot.partition("/")[2] not in kept:
                del self._shelf[slot]

    def _present(self) -> Iterator[tuple[str, Silo]]:
        return ((name, self.members[name]) for name in self.present)

    def _open(self, links: Sequence[Link]) -> Iterator[Link]:
        """Links whose ends both still take part."""
        return (link for link in links if not self.record.failures.keys() & set(link))

    def _slots(self, silo: str, prefix: str) -> list[str]:
        slots = (slot.partition("/") for slot in self._shelf)
        return [slot for name, _, slot in slots if name == silo and slot.startswith(prefix)]

    def _try(
        self, name: str, phase: Phase, train: Callable[[], Trained], key: str
    ) -> Trained | None:
        """Weights that are fit for use, or None when the silo failed and the round goes on."""
        number = self.record.number
        try:
            trained = train()
            check_state(
                trained.weights, self._like, f"The weights of the silo '{name}' in round {number}"
            )
        except FedefmError as error:
            self._fail(name, error)
            return None
        self.record.steps[phase] += trained.steps
        self.record.losses.setdefault(phase, {})[key] = trained.loss
        return trained

    def _fail(self, name: str, error: FedefmError) -> None:
        """A silo failed: name it with its round; end the run, or go on without it."""
        sentence = str(error)
        if f"'{name}'" not in sentence:
            sentence = f"The silo '{name}' failed in round {self.record.number}: {sentence}"
        if self._on_failure == "stop":
            raise FederationError(sentence) from error
        self.record.failures[name] = sentence


class _Lazy(Mapping[str, State]):
    """States that leave the shelf one at a time, as they are asked for."""

    def __init__(self, shelf: Shelf, slots: Mapping[str, str]) -> None:
        self._shelf = shelf
        self._slots = slots

    def __getitem__(self, name: str) -> State:
        return self._shelf[self._slots[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._slots)

    def __len__(self) -> int:
        return len(self._slots)
