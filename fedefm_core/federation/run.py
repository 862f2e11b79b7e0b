# SPDX-License-Identifier: Apache-2.0
"""Pretrain a foundation model over silos: the schedule of rounds, and what is kept of each."""

from __future__ import annotations

import itertools
import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fedefm_core.config import load_settings, save_settings, settings_sha256
from fedefm_core.corpora import (
    Manifest,
    describe_silos,
    label_names,
    list_corpora,
    load_manifest,
    silos_of,
)
from fedefm_core.corpora.corpus import load_corpus
from fedefm_core.errors import ConfigError, FederationError, OutputError
from fedefm_core.federation.algorithms import ALGORITHMS
from fedefm_core.federation.calibration import calibrated
from fedefm_core.federation.carrier import InProcess, RunCarrier
from fedefm_core.federation.checkpoint import load_checkpoint, save_checkpoint
from fedefm_core.federation.cycle_time import RoundSettings
from fedefm_core.federation.data import (
    LabelledImages,
    silo_images,
    split_images,
    stream,
    union,
)
from fedefm_core.federation.hostility import HostileSilo, hostile_silos
from fedefm_core.federation.log import Log, Totals, round_line
from fedefm_core.federation.measure import measure
from fedefm_core.federation.schedule import Roads, Schedule
from fedefm_core.federation.settings import PretrainSettings
from fedefm_core.federation.shelf import DiskShelf, MemoryShelf, Shelf
from fedefm_core.federation.silo import Silo
from fedefm_core.federation.state import State, distance, state_bytes, state_of, weighted_sum
from fedefm_core.federation.topology_overlays import build_topology
from fedefm_core.federation.underlays import Network, alike, connect, load_underlay
from fedefm_core.networks import build_network, save_weights
from fedefm_core.networks.foundation import FoundationNetwork
from fedefm_core.provenance import provenance

logger = logging.getLogger(__name__)
Track = Callable[[Iterable[int], str, int], Iterable[int]]  # (items, title, total) -> items
FOUNDATION = "foundation.safetensors"
PAGES = "weights"  # folder of weights that are not in memory


@dataclass(frozen=True)
class Summary:
    """What a run came to. theta: measure() of Θ after the last round. silos: of each silo's own
    weights, where they were measured. totals: what was spent."""

    foundation: Path
    rounds: int
    theta: dict[str, Any]
    silos: dict[str, dict[str, Any]]
    totals: Totals


@dataclass(frozen=True)
class Federation:
    """All that stays as it is while rounds go by. silos: what each holds; of 'central', one holds
    all. described: a line a silo, as the partition has them. measured: images by corpus."""

    settings: PretrainSettings
    network: FoundationNetwork
    header: dict[str, Any]
    start: State
    silos: dict[str, LabelledImages]
    described: list[str]
    measured: dict[str, LabelledImages]
    hostile: frozenset[str]
    schedule: Schedule
    roads: Roads | None


def pretrain(
    settings: PretrainSettings, run_dir: Path, resume: bool = False, track: Track | None = None
) -> Summary:
    """Train into run_dir. Equal settings give equal weights on one machine.

    Writes config.yaml, provenance.json, metrics.jsonl, tensorboard/, a checkpoint after every
    round, foundation.safetensors (Θ, the average of the silos that took part) and summary.json.
    With resume, an interrupted run goes on from its checkpoint, bit for bit.

    Raises, before anything is written: ConfigError for settings, ManifestError for corpora or
    silos, and ConfigError when the run to be resumed began with other settings, OutputError when
    run_dir holds a run and resume was not asked for. Later: FederationError when a silo fails and
    the policy is to stop, or when all fail; WeightsError for a damaged checkpoint.
    """
    check_run(settings, run_dir, resume)
    federation = assemble(settings, track)
    open_run(federation, run_dir)
    shelf: Shelf = DiskShelf(run_dir / PAGES) if settings.page_weights else MemoryShelf()
    carrier = InProcess(members_of(federation), federation.start, shelf, settings.on_failure)
    found = load_checkpoint(run_dir, carrier) if resume else None
    first, totals = (found[0] + 1, Totals(**found[1])) if found else (0, Totals())
    rounds: Iterable[int] = range(first, settings.rounds)
    if track is not None:
        rounds = track(rounds, "Pretraining", settings.rounds - first)
    with Log(run_dir, first, settings.tensorboard) as log:
        for round in rounds:
            run_round(federation, carrier, round, totals, log, run_dir)
            if checkpoint_due(settings, round):
                save_checkpoint(run_dir, round, carrier, asdict(totals))
    if settings.page_weights:
        shutil.rmtree(run_dir / PAGES, ignore_errors=True)
    return summarise(federation, run_dir, totals)


def run_round(
    federation: Federation,
    carrier: RunCarrier,
    round: int,
    totals: Totals,
    log: Log,
    run_dir: Path,
) -> None:
    """One round: train, form Θ, measure it, log it; the state of the silos is not saved."""
    settings, began = federation.settings, time.monotonic()
    last = round + 1 == settings.rounds
    algorithm = ALGORITHMS[settings.algorithm.name]
    carrier.begin(round, cut_off(settings, carrier.silos, round))
    algorithm.train_round(settings.algorithm, carrier, federation.schedule, round)
    carrier.end()
    for sentence in carrier.record.failures.values():
        logger.warning(sentence)
    theta = _aggregate(carrier, federation.hostile)
    measured: dict[str, Any] = {"consensus_distance": _consensus_distance(carrier, theta)}
    looked_at = last or (round + 1) % settings.evaluation.every_rounds == 0
    due = checkpoint_due(settings, round)
    if settings.head == "calibrated" and (looked_at or due or round in settings.keep_rounds):
        members = _members_of_theta(carrier, federation.hostile)
        held = (federation.silos[name] for name in members)
        device = settings.training.torch_device()
        theta = calibrated(theta, federation.network, held, device)
    if looked_at:
        measured |= _measure(federation, carrier, theta)
    if due:
        _save_foundation(federation, theta, round, measured, run_dir / FOUNDATION)
    if round in settings.keep_rounds:
        _save_foundation(federation, theta, round, measured, kept_weights(run_dir, round))
    simulated_ms = 0.0
    if federation.roads is not None:
        simulated_ms = algorithm.round_ms(
            settings.algorithm, federation.schedule, federation.roads, round
        )
    totals.add(carrier.record, simulated_ms, time.monotonic() - began)
    log.write(round_line(carrier.record, totals, simulated_ms, measured))


def checkpoint_due(settings: PretrainSettings, round: int) -> bool:
    """Whether the state after a round is to be kept."""
    return round + 1 == settings.rounds or (round + 1) % settings.checkpoint_every == 0


def kept_weights(run_dir: Path, round: int) -> Path:
    """Where Θ of one of the rounds 'keep_rounds' is."""
    return run_dir / f"foundation-{round:05d}.safetensors"


def _aggregate(carrier: RunCarrier, hostile: frozenset[str]) -> State:
    """Θ = Σ ϑ_i θ_i / Σ ϑ_i, ϑ_i: did silo i take part to the end of the round.

    Hostile silos are left out: what is measured is the harm that they did to the others.
    """
    present = _members_of_theta(carrier, hostile)
    if not present:
        raise FederationError(
            f"In round {carrier.record.number} every silo failed: "
            f"{next(iter(carrier.record.failures.values()), 'all are hostile')}"
        )
    return weighted_sum((1 / len(present), carrier.weights(name)) for name in present)


def _members_of_theta(carrier: RunCarrier, hostile: frozenset[str]) -> list[str]:
    """Silos with ϑ_i = 1."""
    return [name for name in carrier.present if name not in hostile]


def _consensus_distance(carrier: RunCarrier, theta: State) -> float:
    """Root mean square distance of the silos from their average."""
    distances = [distance(carrier.weights(name), theta) for name in carrier.present]
    return math.sqrt(sum(d * d for d in distances) / len(distances))


def _measure(federation: Federation, carrier: RunCarrier, theta: State) -> dict[str, Any]:
    evaluation = federation.settings.evaluation
    device = federation.settings.training.torch_device()

    def score(weights: State) -> dict[str, Any]:
        size, corpora = evaluation.batch_size, federation.measured
        return measure(federation.network, weights, corpora, size, device)

    asked = carrier.silos if evaluation.silos else ()
    return {
        "theta": score(theta),
        "silos": {name: score(carrier.weights(name)) for name in asked},
    }


def _save_foundation(
    federation: Federation, theta: State, round: int, measured: Mapping[str, Any], path: Path
) -> None:
    federation.network.cpu().load_state_dict(theta)
    header = {**federation.header, "round": round, "measured": measured.get("theta", {})}
    save_weights(federation.network, path, header)


def summarise(federation: Federation, run_dir: Path, totals: Totals) -> Summary:
    """What the log says of the last round: a run that was resumed at its end says the same."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    summary = Summary(
        run_dir / FOUNDATION, federation.settings.rounds, last["theta"], last["silos"], totals
    )
    plain = {**asdict(summary), "foundation": FOUNDATION}
    _write_json(run_dir / "summary.json", plain)
    return summary


def assemble(settings: PretrainSettings, track: Track | None = None) -> Federation:
    """All that a run needs, nothing written; errors as pretrain's."""
    manifest = load_manifest(settings.corpora.manifest, settings.corpora.override)
    listings = list_corpora(manifest)
    held = silos_of(manifest, listings)
    network = _build_network(settings, manifest)
    corpora = {name: load_corpus(manifest, each, track) for name, each in listings.items()}
    silos = {silo.name: silo_images(corpora, silo) for silo in held}
    start = state_of(network)
    central = settings.algorithm.name == "central"
    steps = settings.local_steps * (len(silos) if central else 1)
    roads = _roads(settings, tuple(silos), state_bytes(start))
    return Federation(
        settings,
        network,
        _header(settings, manifest),
        start,
        {"central": union(silos)} if central else silos,
        describe_silos(held),
        split_images(corpora, settings.evaluation.split, settings.evaluation.limit),
        hostile_silos(settings.hostile, ("central",) if central else tuple(silos), settings.seed),
        _schedule(settings, roads, steps),
        roads,
    )


def assemble_remote(
    settings: PretrainSettings, silos: Sequence[str], model_bytes: Callable[[State], int]
) -> Federation:
    """All that a run needs whose silos are elsewhere: images to measure on, and of the silos only
    their names. model_bytes: what the weights come to on the road. Errors as pretrain's."""
    for unfit, why in (
        (settings.algorithm.name == "central", "'central' needs all images in one place"),
        (settings.algorithm.name == "consensus", "'consensus' needs all silos in one process"),
        (settings.hostile.attack != "none", "'hostile' is for silos of one process"),
        (settings.prototypes.weight > 0, "'prototypes' are shared between silos of one process"),
        (settings.head == "calibrated", "'head: calibrated' asks silos for more than weights"),
    ):
        if unfit:
            raise ConfigError(f"{why}; choose another for a federation of sites")
    manifest = load_manifest(settings.corpora.manifest, settings.corpora.override)
    network = _build_network(settings, manifest)
    corpora = {name: load_corpus(manifest, each) for name, each in list_corpora(manifest).items()}
    start = state_of(network)
    roads = _roads(settings, tuple(silos), model_bytes(start))
    return Federation(
        settings,
        network,
        _header(settings, manifest),
        start,
        {},
        [f"{name}: at its site" for name in silos],
        split_images(corpora, settings.evaluation.split, settings.evaluation.limit),
        frozenset(),
        _schedule(settings, roads, settings.local_steps),
        roads,
    )


def members_of(federation: Federation) -> list[Silo]:
    """The silos, ready to train."""
    settings = federation.settings
    members = []
    for name, data in federation.silos.items():
        parts = (
            name,
            data,
            federation.network,
            settings.training,
            len(federation.header["labels"]),
            settings.seed,
            settings.prototypes,
        )
        hostile = name in federation.hostile
        members.append(
            HostileSilo(*parts, hostility=settings.hostile) if hostile else Silo(*parts)
        )
    return members


def starting_network(settings: PretrainSettings) -> FoundationNetwork:
    """Θ_0 of a run, as its seed draws it."""
    corpora = settings.corpora
    return _build_network(settings, load_manifest(corpora.manifest, corpora.override))


def hostile_names(settings: PretrainSettings, silos: Sequence[str]) -> frozenset[str]:
    """Which of a run's silos are hostile."""
    return hostile_silos(settings.hostile, silos, settings.seed)


def _header(settings: PretrainSettings, manifest: Manifest) -> dict[str, Any]:
    """What the file of Θ says of itself."""
    return {
        "architecture": settings.architecture,
        "settings": _model_settings(settings, manifest),
        "labels": list(label_names(manifest)),
        "training_config_sha256": settings_sha256(settings),
    }


def _build_network(settings: PretrainSettings, manifest: Manifest) -> FoundationNetwork:
    """θ_0, the same for all silos."""
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        network = build_network(settings.architecture, _model_settings(settings, manifest))
    if not isinstance(network, FoundationNetwork):
        raise ConfigError(f"'{settings.architecture}' is no foundation network")
    return network


def _model_settings(settings: PretrainSettings, manifest: Manifest) -> dict[str, Any]:
    from_corpora = {"classes": len(label_names(manifest)), "image_size": manifest.size}
    given = sorted(settings.model.keys() & from_corpora.keys())
    if given:
        raise ConfigError(f"'model.{given[0]}' comes from the corpora; leave it out")
    return {**settings.model, **from_corpora}


def _roads(settings: PretrainSettings, silos: tuple[str, ...], model_bytes: int) -> Roads | None:
    """None when there is nobody to send anything to."""
    if len(silos) < 2 and ALGORITHMS[settings.algorithm.name].topology == "":
        return None
    chosen = settings.topology
    network: Network = alike(silos)
    if chosen.underlay is not None:
        underlay = load_underlay(chosen.underlay)
        nodes = itertools.cycle(underlay.places)
        network = connect(underlay, dict(zip(silos, nodes, strict=False)))
    carries = RoundSettings(model_mbit=model_bytes * 8 / 1e6, access_mbit_s=chosen.access_mbit_s)
    return Roads(network, carries, chosen.step_ms)


def _schedule(settings: PretrainSettings, roads: Roads | None, steps: int) -> Schedule:
    made_for = ALGORITHMS[settings.algorithm.name].topology
    name = settings.topology.name if made_for is None else made_for
    topology = None
    if name and roads is not None:
        topology = build_topology(name, roads.network, roads.carries, settings.seed)
    return Schedule(
        topology,
        steps,
        settings.rounds,
        settings.seed,
        settings.prototypes.weight > 0,
        settings.training.optimiser.schedule == "cosine",
    )


def cut_off(settings: PretrainSettings, silos: tuple[str, ...], round: int) -> dict[str, str]:
    """Silos that drop out of a round, drawn by its number; never all of them."""
    if settings.dropout == 0 or len(silos) == 1:
        return {}
    rng = stream(settings.seed, "dropout", round)
    gone = rng.random(len(silos)) < settings.dropout
    while gone.all():
        gone = rng.random(len(silos)) < settings.dropout
    return {
        name: f"The silo '{name}' dropped out of round {round}"
        for name, out in zip(silos, gone, strict=True)
        if out
    }


def check_run(settings: PretrainSettings, run_dir: Path, resume: bool) -> None:
    """Raise OutputError when run_dir holds a run that is not to be resumed, ConfigError when that
    run began with other settings."""
    config = run_dir / "config.yaml"
    if not config.exists():
        return
    if not resume:
        raise OutputError(f"{run_dir} holds a run already. Resume it or name another folder.")
    earlier = load_settings(PretrainSettings, config)
    before, now = earlier.model_dump(), settings.model_dump()
    different = [name for name in before if before[name] != now[name]]
    if different:
        raise ConfigError(
            f"The settings differ from those that the run in {run_dir} began with: "
            f"{', '.join(different)}"
        )


def open_run(federation: Federation, run_dir: Path) -> None:
    """Write what a run begins with; from then on it can be resumed. Raises OutputError."""
    settings, config = federation.settings, run_dir / "config.yaml"
    if config.exists():
        return
    record = {
        **provenance(settings, settings.seed),
        "silos": federation.described,
        "hostile": sorted(federation.hostile),
    }
    partial = config.with_name(config.name + ".partial")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        _write_json(run_dir / "provenance.json", record)
        save_settings(settings, partial)
        partial.replace(config)  # from here on, the run can be resumed
    except OSError as error:
        raise OutputError(f"Cannot write to {run_dir}: {error.strerror}") from error


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(values, indent=2) + "\n")
    partial.replace(path)
