# SPDX-License-Identifier: Apache-2.0
"""Kinds of image that only one silo has: what each way of training together is worth.

Every algorithm gets the same learning rates to choose from, on seeds that no table shows and
images that no table is measured on; then the tables, from other seeds. Two budgets: equal gradient
steps a silo, and the bytes that one chosen variant sends with them.

    OUT/cells/VARIANT/p1_E5_rate0.05_seed1_test/   one training; result.json when it is measured
    OUT/report.json, report.md, *.png

An interrupted study goes on where it was: finished cells are read, a begun one resumes.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from fedefm_core.config import Settings, merge_values, parse_settings
from fedefm_core.corpora import Split, list_corpora, load_manifest, silos_of
from fedefm_core.errors import ConfigError, OutputError
from fedefm_core.experiments.names import one_of
from fedefm_core.experiments.unseen_cell import (
    RESULT,
    CellResult,
    CellTask,
    ProbeSettings,
    grey_levels,
    load_images,
    read_result,
    run_cell,
    task_sha256,
)
from fedefm_core.federation.settings import PretrainSettings
from fedefm_core.workers import end_with_parent

Measure = Literal["head", "silos", "lda", "linear", "knn", "wires"]
Budget = Literal["steps", "bytes"]
Tell = Callable[[str], None]
FROZEN: tuple[Measure, ...] = ("lda", "linear", "knn", "wires")  # measures of the features alone
TITLES: dict[Measure, str] = {
    "head": "own head",
    "silos": "own head, mean of the silos",
    "lda": "LDA head",
    "linear": "linear probe",
    "knn": "kNN probe",
    "wires": "wires, precision",
}


class VariantSettings(Settings):
    """title: in tables. set: what it adds to the base. tuned_as: the variant whose learning rate
    it takes; without, it chooses its own. untrained: Θ_0 is measured, nothing trains."""

    title: str
    set: dict[str, Any] = Field(default_factory=dict)
    tuned_as: str | None = None
    untrained: bool = False


class TuningSettings(Settings):
    """rates: learning rates that all choose from. seeds: of the trainings that choose, on the
    validation images. unseen: the proportions at which is chosen; others take the rate of the
    nearest of them."""

    rates: tuple[float, ...] = Field((0.02, 0.06, 0.18), min_length=1)
    seeds: tuple[int, ...] = Field((101,), min_length=1)
    unseen: tuple[float, ...] = Field((0.0, 1.0), min_length=1)


class GroupSettings(Settings):
    """One table: rows are variants, columns proportions p (unseen), steps at home (E) and
    measures. split: images that it is measured on; what chooses a default may see validation
    alone. against: a variant that paired differences are given to. curves: plots against rounds
    and bytes too."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    variants: tuple[str, ...] = Field(min_length=1)
    unseen: tuple[float, ...] = Field((1.0,), min_length=1)
    local_steps: tuple[int, ...] = Field((5,), min_length=1)
    seeds: tuple[int, ...] = Field((1, 2, 3), min_length=1)
    split: Split = "test"
    measures: tuple[Measure, ...] = ("head", "lda")
    budgets: tuple[Budget, ...] = ("steps",)
    against: str | None = None
    curves: bool = False


class ClaimSettings(Settings):
    """A margin that was hoped for, in points: of variant over the best of rivals."""

    text: str
    group: str
    variant: str
    rivals: tuple[str, ...] = Field(min_length=1)
    measure: Measure = "head"
    unseen: float = 1.0
    local_steps: int = 5
    budget: Budget = "steps"
    at_least: float = 0.0


class UnseenSettings(Settings):
    """base: of every pretraining, as config/pretrain.yaml has it; rounds, local steps, seed,
    partition and learning rate are the study's. steps: gradient steps a silo, of all phases.
    bytes_of: the variant whose bytes are the other budget. points: of each curve. workers:
    trainings at a time, each on one core; 1 trains in this process with all cores."""

    study: Literal["unseen"] = "unseen"
    base: dict[str, Any]
    steps: int = Field(380, ge=1)
    bytes_of: str
    variants: dict[str, VariantSettings] = Field(min_length=1)
    tuning: TuningSettings = TuningSettings()
    groups: tuple[GroupSettings, ...] = Field(min_length=1)
    claims: tuple[ClaimSettings, ...] = ()
    probes: ProbeSettings = ProbeSettings()
    points: int = Field(6, ge=1)
    workers: int = Field(1, ge=1)


@dataclass(frozen=True, order=True)
class Key:
    """What one cell is: variant at unseen proportion p, E steps at home, learning rate, seed."""

    variant: str
    unseen: float
    local_steps: int
    rate: float
    seed: int
    split: Split

    @property
    def folder(self) -> Path:
        """Below the study's folder."""
        return (
            Path("cells")
            / self.variant
            / (
                f"p{self.unseen:.3g}_E{self.local_steps}_rate{self.rate:g}_seed{self.seed}_{self.split}"
            )
        )

    def __str__(self) -> str:
        return (
            f"{self.variant}, p = {self.unseen:.3g}, E = {self.local_steps}, rate {self.rate:g}, "
            f"seed {self.seed}, {self.split}"
        )


Results = dict[Key, CellResult]
Place = tuple[str, float, int]  # variant, p, E
Rates = dict[tuple[Place, Measure], float]


@dataclass(frozen=True)
class Outcome:
    """All that was trained. rates: chosen, for the head and for the features. grey: what grey
    levels alone tell, see unseen_cell.grey_levels."""

    results: Results
    rates: Rates
    grey: dict[str, Any]


def run_unseen(settings: UnseenSettings, out: Path, tell: Tell) -> Outcome:
    """Train and measure what is missing; tell gets a line a cell, with the time that is left.

    Raises ConfigError when settings are wrong, before anything is drawn or written; OutputError
    when out holds cells of another study.
    """
    check(settings)
    tuning = tuning_keys(settings)
    # Before a rate is chosen, any stands for it: what counts here is the number of cells.
    expected = sum(1 for _ in _test_keys(settings, defaultdict(lambda: settings.tuning.rates[0])))
    any_cell = pretrain_settings(settings, Key(settings.bytes_of, 1.0, 1, 0.1, 0, "test"))
    manifest = load_images(any_cell, settings.probes)
    results: Results = {}
    _run_all(settings, tuning, out, tell, results, expected)
    rates = choose_rates(settings, results)
    _run_all(settings, list(_test_keys(settings, rates)), out, tell, results, 0)
    return Outcome(results, rates, grey_levels(manifest))


def check(settings: UnseenSettings) -> None:
    """Raise ConfigError for a name that nothing bears, for a variant whose settings are wrong,
    naming it, or for silos that a proportion leaves empty; nothing is drawn or written."""
    _check_names(settings)
    for name in settings.variants:
        try:
            pretrain_settings(settings, Key(name, 1.0, 1, 0.1, 0, "test"))
        except ConfigError as error:
            raise ConfigError(f"The variant '{name}': {error}") from error
    path, overrides = _manifest(settings)
    for p in sorted({p for group in settings.groups for p in group.unseen}):
        manifest = load_manifest(path, (*overrides, f"partition.unseen={p}"))
        silos_of(manifest, list_corpora(manifest))


def _check_names(settings: UnseenSettings) -> None:
    """Raise ConfigError for a name that nothing bears, or that says what cannot be."""
    groups = {group.name: group for group in settings.groups}
    if len(groups) < len(settings.groups):
        raise ConfigError("Each of the 'groups' needs a name of its own")
    asked = [("bytes_of", settings.bytes_of)]
    for name, variant in settings.variants.items():
        if variant.tuned_as is not None:
            asked.append((f"variants.{name}.tuned_as", variant.tuned_as))
    for name, group in groups.items():
        against = [group.against] if group.against is not None else []
        asked += [(f"groups.{name}", each) for each in (*group.variants, *against)]
    for where, name in asked:
        one_of(name, settings.variants, where)
    for name, variant in settings.variants.items():
        if variant.tuned_as and settings.variants[variant.tuned_as].tuned_as:
            raise ConfigError(f"'variants.{name}.tuned_as' names one that does not choose itself")
    for claim in settings.claims:
        one_of(claim.group, groups, "claims.group")
        for name in (claim.variant, *claim.rivals):
            one_of(name, groups[claim.group].variants, f"claims of {claim.group}")
        _check_place(claim, groups[claim.group])


def _check_place(claim: ClaimSettings, group: GroupSettings) -> None:
    """Raise ConfigError for a claim about what its table does not hold."""
    there = (
        claim.unseen in group.unseen
        and claim.local_steps in group.local_steps
        and claim.measure in group.measures
    )
    if not there:
        raise ConfigError(
            f"'claims': the table '{group.name}' has no {claim.measure} at p = "
            f"{claim.unseen:g}, E = {claim.local_steps}"
        )


def pretrain_settings(settings: UnseenSettings, key: Key) -> PretrainSettings:
    """Of one training; its rounds follow from the budget, see unseen_cell."""
    values = merge_values(settings.base, settings.variants[key.variant].set)
    given = values.get("corpora", {})
    overrides = [
        *given.get("override", ()),
        f"partition.unseen={key.unseen}",
        f"partition.seed={key.seed}",
    ]
    ours = {
        "corpora": {**given, "override": overrides},
        "seed": key.seed,
        "local_steps": key.local_steps,
        "training": {"optimiser": {"learning_rate": key.rate}},
        "evaluation": {"split": key.split},
        "tensorboard": False,
    }
    return parse_settings(PretrainSettings, merge_values(values, ours), "the study")


def tuning_keys(settings: UnseenSettings) -> list[Key]:
    """Trainings that choose learning rates; one rate alone needs no choosing."""
    tuning = settings.tuning
    if len(tuning.rates) == 1:
        return []
    places = {_tuned_place(settings, place) for place in _places(settings)}
    places = {p for p in places if not settings.variants[p[0]].untrained}
    return [
        Key(*place, rate, seed, "validation")
        for place in sorted(places, key=lambda p: (-p[1], list(settings.variants).index(p[0]), p))
        for seed in tuning.seeds
        for rate in tuning.rates
    ]


def choose_rates(settings: UnseenSettings, results: Results) -> Rates:
    """The rate of the best mean on the tuning seeds, for the head and for features (by the LDA
    head) each; where two are equal, that of the better features, then the smaller."""
    rates: Rates = {}
    by: tuple[tuple[Measure, tuple[Measure, ...]], ...] = (
        ("head", ("head", "silos")),
        ("lda", FROZEN),
    )
    for place in _places(settings):
        tuned = _tuned_place(settings, place)
        for decides, measures in by:
            rate = settings.tuning.rates[0]
            if len(settings.tuning.rates) > 1 and not settings.variants[place[0]].untrained:
                scores = {
                    candidate: (
                        _tuning_score(settings, results, tuned, candidate, decides),
                        _tuning_score(settings, results, tuned, candidate, "lda"),
                        -candidate,
                    )
                    for candidate in settings.tuning.rates
                }
                rate = max(scores, key=lambda candidate: scores[candidate])
            rates |= {(place, measure): rate for measure in measures}
    return rates


def group_keys(
    settings: UnseenSettings, group: GroupSettings, rates: Mapping[tuple[Place, Measure], float]
) -> Iterator[Key]:
    """The cells of one table, each once."""
    keys = (
        Key(variant, p, steps, rates[(variant, p, steps), measure], seed, group.split)
        for seed in group.seeds
        for p in group.unseen
        for steps in group.local_steps
        for variant in group.variants
        for measure in group.measures
    )
    yield from dict.fromkeys(keys)


def cell_task(settings: UnseenSettings, key: Key) -> CellTask:
    """All that decides the figures of a cell."""
    reference = Key(settings.bytes_of, key.unseen, key.local_steps, key.rate, key.seed, key.split)
    return CellTask(
        pretraining=pretrain_settings(settings, key),
        bytes_as=pretrain_settings(settings, reference),
        steps=settings.steps,
        points=settings.points,
        probes=settings.probes,
        full=any(_needs_probes(group, key) for group in settings.groups),
        untrained=settings.variants[key.variant].untrained,
    )


def _needs_probes(group: GroupSettings, key: Key) -> bool:
    return (
        bool(set(group.measures) & {"linear", "knn", "wires"})
        and key.variant in group.variants
        and key.unseen in group.unseen
        and key.local_steps in group.local_steps
        and key.seed in group.seeds
        and key.split == group.split
    )


def _test_keys(
    settings: UnseenSettings, rates: Mapping[tuple[Place, Measure], float]
) -> Iterator[Key]:
    keys = (key for group in settings.groups for key in group_keys(settings, group, rates))
    yield from dict.fromkeys(keys)


def _places(settings: UnseenSettings) -> list[Place]:
    places = (
        (variant, p, steps)
        for group in settings.groups
        for variant in group.variants
        for p in group.unseen
        for steps in group.local_steps
    )
    return list(dict.fromkeys(places))


def _tuned_place(settings: UnseenSettings, place: Place) -> Place:
    """Where the learning rate of a place is chosen."""
    variant, p, steps = place
    nearest = min(settings.tuning.unseen, key=lambda tuned: (abs(tuned - p), -tuned))
    return settings.variants[variant].tuned_as or variant, nearest, steps


def _tuning_score(
    settings: UnseenSettings, results: Results, place: Place, rate: float, measure: Measure
) -> float:
    found = [
        results[Key(*place, rate, seed, "validation")].end.get(measure)
        for seed in settings.tuning.seeds
    ]
    scores = [-math.inf if score is None else score for score in found]  # a training that failed
    return float(np.mean(scores))


def _manifest(settings: UnseenSettings) -> tuple[Path | None, tuple[str, ...]]:
    """Path and overrides of the manifest, as every variant has them."""
    first = next(iter(settings.variants))
    corpora = pretrain_settings(settings, Key(first, 1.0, 1, 1.0, 0, "test")).corpora
    return corpora.manifest, corpora.override


def _run_all(
    settings: UnseenSettings,
    keys: Sequence[Key],
    out: Path,
    tell: Tell,
    results: Results,
    later: int,
) -> None:
    """Fill results; later: cells that are to follow, for the estimate of time."""
    tasks = {key: cell_task(settings, key) for key in keys if key not in results}
    held = {key: _held(task, out / key.folder) for key, task in tasks.items()}
    results |= {key: result for key, result in held.items() if result is not None}
    missing = [key for key, result in held.items() if result is None]
    began = time.monotonic()
    work = _parallel if settings.workers > 1 else _in_turn
    jobs = {key: (tasks[key], out / key.folder) for key in missing}
    for number, (key, result) in enumerate(work(jobs, settings.workers), start=1):
        results[key] = result
        each = (time.monotonic() - began) / number
        tell(_progress(key, result, number, len(missing), later, each))


def _held(task: CellTask, folder: Path) -> CellResult | None:
    """The finished result, or None. Raises OutputError for one of other settings."""
    path = folder / RESULT
    if not path.is_file():
        return None
    result = read_result(path)
    if result.sha256 != task_sha256(task):
        raise OutputError(
            f"{path} is the result of other settings. Name another folder, or delete {folder} to "
            "have it made again"
        )
    return result if result.full or not task.full else None


Jobs = Mapping[Key, tuple[CellTask, Path]]


def _in_turn(jobs: Jobs, workers: int) -> Iterator[tuple[Key, CellResult]]:
    for key, (task, folder) in jobs.items():
        yield key, run_cell(task, folder)


def _parallel(jobs: Jobs, workers: int) -> Iterator[tuple[Key, CellResult]]:
    """Each cell on one core: a network this small gains nothing from two."""
    if not jobs:
        return
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)),
        multiprocessing.get_context("spawn"),
        initializer=_start_worker,
    )
    try:
        futures = {pool.submit(run_cell, *job): key for key, job in jobs.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    torch.set_num_threads(1)
    end_with_parent()


def _progress(
    key: Key, result: CellResult, number: int, total: int, later: int, each: float
) -> str:
    left = (total - number + later) * each
    hours, minutes = divmod(round(left / 60), 60)
    score = "failed" if result.failed else f"head {100 * (result.end['head'] or 0):.1f}"
    return (
        f"{number} of {total} ({key}): {score}, {result.seconds:.0f} s; "
        f"about {hours} h {minutes:02d} min left"
    )
