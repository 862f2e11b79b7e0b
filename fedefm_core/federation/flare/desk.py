# SPDX-License-Identifier: Apache-2.0
"""What a site does in a federation: one silo, its weights, and what came to it in this round.

A desk is a Carrier in process with one silo (carrier.InProcess), so a site computes what one
process with all silos would. Weights enter and leave it as parcels; between rounds they lie in
the site's own folder, of two rounds, since the server may have to go back to the earlier one.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedefm_core.config import parse_settings
from fedefm_core.corpora import label_names, list_corpora, load_manifest, silos_of
from fedefm_core.corpora.corpus import load_corpus
from fedefm_core.corpora.partition import SiloData
from fedefm_core.errors import ConfigError, FederationError
from fedefm_core.federation.carrier import InProcess, Phase, bring_home
from fedefm_core.federation.checkpoint import load_checkpoint, save_checkpoint
from fedefm_core.federation.data import LabelledImages, silo_images
from fedefm_core.federation.distillation import DistillationSettings
from fedefm_core.federation.flare.site_settings import LimitSettings, SiteSettings
from fedefm_core.federation.parcels import Transfer, pack, unpack
from fedefm_core.federation.shelf import MemoryShelf
from fedefm_core.federation.silo import Silo, Task, TrainingSettings
from fedefm_core.federation.state import State, state_of
from fedefm_core.networks import build_network
from fedefm_core.networks.foundation import FoundationNetwork


@dataclass(frozen=True)
class Report:
    """What a training says of itself: no weights, no images."""

    loss: float
    steps: int
    similarity: dict[str, float]


class Desk:
    """One silo at its site. start: θ_0, which all know and from which differences are taken.

    Raises FederationError, naming silo and round, for what fails or does not fit; OutputError
    when folder cannot be written.
    """

    def __init__(self, silo: Silo, start: State, folder: Path, transfer: Transfer) -> None:
        self.name = silo.name
        self.round = -1
        self._silo = silo
        self._start = start
        self._folder = folder
        self._transfer: Transfer = transfer
        self._carrier = InProcess([silo], start, MemoryShelf(), "stop")
        self._commit()

    @property
    def images(self) -> int:
        """How many images the silo holds."""
        return self._carrier.images(self.name)

    def resume(self, first: int) -> int | None:
        """Restore the newest state of a round before first; its round, None without one."""
        found = load_checkpoint(self._folder, self._carrier, before=first)
        self._commit()
        return None if found is None else found[0]

    def begin(self, round: int) -> None:
        """Open a round, from the weights with which the last one was closed here."""
        self._carrier.end()
        weights, previous, self._silo.optimiser_state = self._committed
        self._carrier.restore(self.name, weights, previous)
        self._carrier.begin(round, {})
        self.round = round

    def end(self) -> None:
        """Close the round: throw away what came, and keep the weights on disk."""
        self._carrier.end()
        save_checkpoint(self._folder, self.round, self._carrier, {}, keep=2)
        self._commit()

    def train_local(self, task: Mapping[str, Any], contrast: bool) -> Report:
        """Train at home. task: the fields of a Task."""
        before = self._steps("local")
        self._carrier.train_local(self._task(task), contrast=contrast)
        return self._report("local", self.name, before)

    def distil(self, steps: int, settings: Mapping[str, Any], rate: float) -> Report:
        """Learn from the experts that came home. settings: as DistillationSettings."""
        before = self._steps("distillation")
        how = parse_settings(DistillationSettings, settings, "the settings of distillation")
        self._carrier.distil(steps, how, rate)
        return self._report("distillation", self.name, before)

    def mix(self, parts: Sequence[tuple[str, float]]) -> None:
        """Own weights become the sum of share · slot; what the shares lack of 1 is their own."""
        try:
            self._carrier.mix(lambda silo, slots: dict(parts))
        except KeyError as error:
            raise FederationError(
                f"The site '{self.name}' has no {error} to mix in round {self.round}"
            ) from None

    def own(self) -> bytes:
        """Own weights, to travel."""
        return pack(self._carrier.weights(self.name), self._start, self._transfer)

    def take(self, parcel: object, slot: str, whose: str) -> None:
        """Put weights that came into a slot."""
        self._carrier.hold(self.name, slot, unpack(parcel, self._start, whose))

    def compare(self, prefixes: Sequence[str], settings: Mapping[str, Any]) -> dict[str, float]:
        """EMD similarity of what came to own weights, by slot; see Carrier."""
        how = parse_settings(DistillationSettings, settings, "the settings of distillation")
        return self._carrier.compare(prefixes, how)[self.name]

    def train_guest(
        self, owner: str, parcel: object, task: Mapping[str, Any], host_share: float
    ) -> tuple[bytes, Report]:
        """Train the weights of owner here; they stay as guest, and travel home, with host_share of
        what is here, as a difference from what came."""
        came = unpack(parcel, self._start, f"The weights of '{owner}' in round {self.round}")
        before = self._steps("overseas")
        trained = self._carrier.train_guest(self.name, owner, came, self._task(task))
        assert trained is not None  # the desk's policy is to raise
        self._carrier.hold(self.name, f"guest/{owner}", trained.weights)
        report = self._report("overseas", f"{owner}->{self.name}", before)
        home = trained.weights
        if host_share:
            home = bring_home(home, self._carrier.weights(self.name), came, host_share)
        return pack(home, came, self._transfer), report

    def welcome(self, host: str, sent: bytes, parcel: object) -> None:
        """Own weights, sent as a parcel and trained at host, are home."""
        out = unpack(sent, self._start, f"The weights of '{self.name}'")
        whose = f"The weights of '{self.name}' that '{host}' trained in round {self.round}"
        self._carrier.hold(self.name, f"expert/{host}", unpack(parcel, out, whose))

    def _task(self, values: Mapping[str, Any]) -> Task:
        try:
            return Task(**values)
        except TypeError as error:
            raise FederationError(f"The site '{self.name}' cannot do this task: {error}") from None

    def _commit(self) -> None:
        carrier = self._carrier
        self._committed = (
            carrier.weights(self.name),
            carrier.previous(self.name),
            self._silo.optimiser_state,
        )

    def _steps(self, phase: Phase) -> int:
        return self._carrier.record.steps[phase]

    def _report(self, phase: Phase, key: str, before: int) -> Report:
        record = self._carrier.record
        loss = record.losses.get(phase, {}).get(key, 0.0)
        similarity = {host: value for (_, host), value in record.similarity.items()}
        return Report(loss, record.steps[phase] - before, similarity)


def open_desk(
    name: str, settings: SiteSettings, project: Mapping[str, Any], start: bytes, folder: Path
) -> Desk:
    """The desk of a site, by its own settings and what the project says to all sites.

    start: θ_0 as a parcel. folder: where its weights lie between rounds. Raises ManifestError and
    ConfigError for images, FederationError for the site's policy or weights that do not fit.
    """
    _apply(settings.limits)
    network = build_network(project["architecture"], project["model"])
    if not isinstance(network, FoundationNetwork):
        raise ConfigError(f"'{project['architecture']}' is no foundation network")
    kinds = list(project["kinds"])
    images = site_images(settings, name, kinds, int(project["image_size"]))
    least = settings.privacy.minimum_images
    if len(images) < least:
        raise FederationError(
            f"The site '{name}' holds {len(images)} images, and by its policy takes part with "
            f"{least} or more"
        )
    training = parse_settings(
        TrainingSettings, {**project["training"], "device": settings.limits.device}
    )
    theta = unpack(start, state_of(network), "The weights that the federation starts from")
    silo = Silo(name, images, network, training, len(kinds), int(project["seed"]))
    return Desk(silo, theta, folder, project["transfer"])


def site_images(
    settings: SiteSettings, site: str, kinds: Sequence[str], size: int
) -> LabelledImages:
    """The images of a site, in the size and by the numbers that the project gives the kinds.

    Raises ManifestError for the manifest, ConfigError for a part or a kind that nothing bears.
    """
    manifest = load_manifest(settings.manifest, (*settings.override, f"size={size}"))
    listings = list_corpora(manifest)
    if settings.silo is None:
        parts = [(name, each.indices("train")) for name, each in listings.items()]
        held = SiloData(site, tuple(parts))
    else:
        silos = {silo.name: silo for silo in silos_of(manifest, listings)}
        if settings.silo not in silos:
            raise ConfigError(
                f"The settings of the site '{site}': 'silo' must be one of {', '.join(silos)} "
                f"(got '{settings.silo}')"
            )
        held = silos[settings.silo]
    corpora = {name: load_corpus(manifest, listings[name]) for name, _ in held.parts}
    images = silo_images(corpora, held)
    own = label_names(manifest)
    present = [own[number] for number in np.unique(images.labels)]
    unknown = [kind for kind in present if kind not in kinds]
    if unknown:
        raise ConfigError(
            f"The site '{site}' holds images of the kind '{unknown[0]}', which the project does "
            f"not have (it has {', '.join(kinds)}); give the corpus a 'label' of these"
        )
    numbers = np.array([kinds.index(k) if k in kinds else -1 for k in own], np.int64)
    return LabelledImages(images.images, numbers[images.labels])


def _apply(limits: LimitSettings) -> None:
    if limits.cpu_threads is not None:
        torch.set_num_threads(limits.cpu_threads)
    if limits.memory_gib is not None:
        size = int(limits.memory_gib * 2**30)
        resource.setrlimit(
            resource.RLIMIT_DATA, (size, resource.getrlimit(resource.RLIMIT_DATA)[1])
        )
