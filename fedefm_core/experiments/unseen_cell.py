# SPDX-License-Identifier: Apache-2.0
"""One training of the study of unseen data, and all that is measured of its Θ.

A cell trains within its budget of gradient steps, keeps Θ at some rounds on the way, and at the
last round within the budget of bytes; then every Θ that was kept is measured, always in the same
way, whatever trained it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fedefm_core.config import Settings, settings_sha256
from fedefm_core.corpora import Corpus, Manifest, Split, label_names, load_corpora, load_manifest
from fedefm_core.errors import FederationError, OutputError
from fedefm_core.evaluation.lda import class_sums, lda_head, pooled
from fedefm_core.evaluation.probes import (
    accuracy_by_kind,
    balanced_accuracy,
    knn_probe,
    linear_probe,
    outputs_of,
)
from fedefm_core.evaluation.wire_probe import WireProbeSettings, wire_precision
from fedefm_core.federation.budget import Spent, rounds_for_bytes, rounds_within
from fedefm_core.federation.log import METRICS
from fedefm_core.federation.run import (
    FOUNDATION,
    hostile_names,
    kept_weights,
    pretrain,
    starting_network,
)
from fedefm_core.federation.settings import PretrainSettings
from fedefm_core.networks import load_weights
from fedefm_core.networks.foundation import FoundationNetwork
from fedefm_core.perception.types import CLASS_NAMES

RESULT = "result.json"
RUN = "run"  # the pretraining's folder
Stack = np.ndarray[Any, np.dtype[np.uint8]]


class ProbeSettings(Settings):
    """images: of each corpus, that heads and probes are fitted on. test: of each corpus, that all
    is measured on. neighbours: of kNN. decay: of the linear probe. Wires are segmented where
    masks tell instruments, in images of the side wire_size: None is that of the corpora; another
    is for networks that take any, because at 32 px there is hardly a wire to be seen."""

    images: int = Field(120, ge=1)
    test: int = Field(200, ge=1)
    neighbours: int = Field(10, ge=1)
    decay: float = Field(1e-3, gt=0)
    wires: WireProbeSettings = WireProbeSettings()
    wire_size: int | None = Field(None, ge=8)


@dataclass(frozen=True)
class CellTask:
    """steps: budget, a silo. bytes_as: the training whose bytes are the other budget. full: all
    probes, not the heads alone. untrained: measure Θ_0."""

    pretraining: PretrainSettings
    bytes_as: PretrainSettings
    steps: int
    points: int
    probes: ProbeSettings
    full: bool
    untrained: bool = False


@dataclass(frozen=True)
class CellResult:
    """end, at_bytes: by measure, at the end and where the bytes were spent. curve: the same of the
    heads at some rounds, with steps (a silo), bytes and simulated ms until then. corpora: accuracy
    of the own head by corpus at the end. similarity: mean EMD in the last round, of experts
    trained by honest and by hostile silos. failed: a sentence, of a training that came to nothing.
    seconds: that it took. full: with all probes."""

    sha256: str
    seconds: float
    rounds: int = 0
    end: dict[str, float | None] = field(default_factory=dict)
    at_bytes: dict[str, float | None] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    corpora: dict[str, float] = field(default_factory=dict)
    similarity: dict[str, float] = field(default_factory=dict)
    failed: str = ""
    full: bool = False


@dataclass(frozen=True)
class ProbeData:
    """images (N, H, W) uint8 and labels (N,) that are fitted on, and that are tested on; parts:
    lengths of the training corpora, whose statistics are pooled. wires: images and masks of the
    simulator, alike."""

    kinds: tuple[str, ...]
    train: tuple[Stack, Tensor]
    test: tuple[Stack, Tensor]
    parts: tuple[int, ...]
    wire_train: tuple[Stack, Stack] | None
    wire_test: tuple[Stack, Stack] | None


def run_cell(task: CellTask, folder: Path) -> CellResult:
    """Train, measure, and write result.json into folder, where a begun training is resumed.

    Raises OutputError, and what pretrain raises but FederationError: a training that came to
    nothing is a result.
    """
    began = time.monotonic()
    try:
        figures = _untrained(task) if task.untrained else _trained(task, folder / RUN)
    except FederationError as error:
        figures = {"failed": str(error)}
    result = CellResult(task_sha256(task), time.monotonic() - began, full=task.full, **figures)
    partial = folder / (RESULT + ".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(asdict(result)) + "\n")
        os.replace(partial, folder / RESULT)
        _drop_intermediate(folder / RUN)
    except OSError as error:
        raise OutputError(f"Cannot write to {folder}: {error.strerror}") from error
    return result


def load_images(settings: PretrainSettings, probes: ProbeSettings) -> Manifest:
    """Have all that cells will read drawn or decoded, by one process; the manifest."""
    manifest = load_manifest(settings.corpora.manifest, settings.corpora.override)
    for size in dict.fromkeys((manifest.size, probes.wire_size or manifest.size)):
        load_corpora(manifest.model_copy(update={"size": size}))
    return manifest


def read_result(path: Path) -> CellResult:
    """A finished result. Raises OutputError when it is damaged."""
    try:
        return CellResult(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise OutputError(f"{path} is damaged; delete it to have it made again") from error


def task_sha256(task: CellTask) -> str:
    """Of all that decides the figures; which of them are measured is no part of it."""
    hashes = [settings_sha256(each) for each in (task.pretraining, task.bytes_as, task.probes)]
    plain = [task.steps, task.points, task.untrained]
    return hashlib.sha256(json.dumps([hashes, plain]).encode()).hexdigest()


def measure_features(
    network: FoundationNetwork, data: ProbeData, probes: ProbeSettings, full: bool
) -> dict[str, float | None]:
    """Own head, LDA head and, if full, the probes: balanced accuracy over kinds; for
    wires, average precision.

    The statistics of the LDA head are pooled corpus by corpus, as silos would give them.
    """
    device = next(network.parameters()).device
    kinds = len(data.kinds)
    labels_n, labels_m = data.train[1], data.test[1]
    train_nd = torch.cat([o.features_bd for o in outputs_of(network, data.train[0], device)])
    outputs = list(outputs_of(network, data.test[0], device))
    test_md = torch.cat([output.features_bd for output in outputs])
    own_m = torch.cat([output.logits_bk for output in outputs]).argmax(1)
    sums = [
        class_sums(part, labels, kinds)
        for part, labels in zip(
            train_nd.split(data.parts), labels_n.split(data.parts), strict=True
        )
    ]
    predicted = {"head": own_m, "lda": lda_head(pooled(sums)).predict(test_md)}
    if full:
        decay, near = probes.decay, probes.neighbours
        predicted["linear"] = linear_probe(train_nd, labels_n, test_md, kinds, decay)
        predicted["knn"] = knn_probe(train_nd, labels_n, test_md, kinds, near)
    found: dict[str, float | None] = {
        name: balanced_accuracy(each, labels_m) for name, each in predicted.items()
    }
    if full and data.wire_train is not None and data.wire_test is not None:
        found["wires"] = wire_precision(
            network, data.wire_train, data.wire_test, probes.wires, device
        )
    return found


def probe_data(settings: PretrainSettings, probes: ProbeSettings, full: bool) -> ProbeData:
    """Images of the union of all corpora, thinned evenly; those of wires if full."""
    manifest = load_manifest(settings.corpora.manifest, settings.corpora.override)
    corpora = load_corpora(manifest)
    split = settings.evaluation.split
    train = {name: _thinned(corpus, "train", probes.images) for name, corpus in corpora.items()}
    test = {name: _thinned(corpus, split, probes.test) for name, corpus in corpora.items()}
    labelled = _labelled(corpora, train), _labelled(corpora, test)
    if full and probes.wire_size is not None:
        corpora = load_corpora(manifest.model_copy(update={"size": probes.wire_size}))
    with_wires = [n for n, c in corpora.items() if full and c.mask_classes == tuple(CLASS_NAMES)]
    return ProbeData(
        label_names(manifest),
        *labelled,
        tuple(len(numbers) for numbers in train.values()),
        _masked(corpora, {name: train[name] for name in with_wires}),
        _masked(corpora, {name: test[name] for name in with_wires}),
    )


def grey_levels(manifest: Manifest) -> dict[str, Any]:
    """How far a linear classifier tells the kinds by mean and variance of grey level alone.

    Fitted on all training images, measured on all test images; chance is 1 / number of kinds.
    """
    corpora = load_corpora(manifest)
    parts: dict[str, tuple[Tensor, Tensor]] = {}
    for split in ("train", "test"):
        numbers = {name: corpus.indices(split) for name, corpus in corpora.items()}
        images, labels = _labelled(corpora, numbers)
        grey = images.reshape(len(images), -1).astype(np.float64)
        both = np.stack([grey.mean(1), grey.var(1)], axis=1)
        parts[split] = torch.from_numpy(both), labels
    kinds = label_names(manifest)
    test_md, labels_m = parts["test"]
    predicted = linear_probe(*parts["train"], test_md, len(kinds))
    rows = {}
    for number, accuracy in accuracy_by_kind(predicted, labels_m).items():
        of_kind = test_md[labels_m == number]
        rows[kinds[number]] = {
            "accuracy": accuracy,
            "mean": float(of_kind[:, 0].mean()),
            "deviation": float(of_kind[:, 1].sqrt().mean()),
        }
    return {"accuracy": balanced_accuracy(predicted, labels_m), "kinds": rows}


def _untrained(task: CellTask) -> dict[str, Any]:
    network = starting_network(task.pretraining).to(task.pretraining.training.torch_device())
    data = probe_data(task.pretraining, task.probes, task.full)
    found = measure_features(network, data, task.probes, task.full)
    found["silos"] = found["head"]
    return {"end": found, "at_bytes": found}


def _trained(task: CellTask, run_dir: Path) -> dict[str, Any]:
    settings, spent, at_bytes = _planned(task)
    summary = pretrain(settings, run_dir, resume=True)
    data = probe_data(settings, task.probes, task.full)
    network = starting_network(settings).to(settings.training.torch_device())
    lines = [json.loads(line) for line in (run_dir / METRICS).read_text().splitlines()]
    last = len(spent) - 1
    found: dict[int, dict[str, float | None]] = {}
    for round in settings.keep_rounds:
        load_weights(network, kept_weights(run_dir, round))
        full = task.full and round in (last, at_bytes)
        found[round] = measure_features(network, data, task.probes, full)
    hostile = hostile_names(settings, list(summary.silos))
    found[last]["silos"] = _mean(
        [own["balanced"] for name, own in summary.silos.items() if name not in hostile]
    )
    curve = [
        {
            "round": round + 1,
            "steps": spent[round].steps,
            "bytes": spent[round].bytes,
            "simulated_ms": lines[round]["total"]["simulated_ms"],
            "head": found[round]["head"],
            "lda": found[round]["lda"],
        }
        for round in settings.keep_rounds
    ]
    return {
        "rounds": len(spent),
        "end": found[last],
        "at_bytes": found[at_bytes],
        "curve": curve,
        "corpora": summary.theta["by_corpus"],
        "similarity": _similarity(lines[-1]["similarity"], hostile),
    }


def _planned(task: CellTask) -> tuple[PretrainSettings, Sequence[Spent], int]:
    """The training with its rounds, what is spent after each, and the last one within bytes."""
    rounds, spent = rounds_within(task.pretraining, task.steps)
    same = task.bytes_as == task.pretraining
    most = (spent if same else rounds_within(task.bytes_as, task.steps)[1])[-1].bytes
    at_bytes = rounds_for_bytes(spent, most) - 1
    points = np.linspace(0, rounds - 1, min(task.points, rounds)).round().astype(int)
    settings = task.pretraining.model_copy(
        update={
            "rounds": rounds,
            "keep_rounds": tuple(sorted({*points.tolist(), at_bytes, rounds - 1})),
            "evaluation": task.pretraining.evaluation.model_copy(
                update={"every_rounds": rounds, "silos": True}
            ),
        }
    )
    return settings, spent, at_bytes


def _similarity(links: Mapping[str, float], hostile: frozenset[str]) -> dict[str, float]:
    """Mean over experts by who trained them; of honest owners alone."""
    found: dict[str, list[float]] = {}
    for link, value in links.items():
        owner, _, host = link.partition("->")
        if owner not in hostile:
            found.setdefault("hostile" if host in hostile else "honest", []).append(value)
    return {who: float(np.mean(values)) for who, values in found.items()}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _thinned(corpus: Corpus, split: Split, most: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    numbers = corpus.indices(split)
    if len(numbers) > most:
        numbers = numbers[np.linspace(0, len(numbers) - 1, most).round().astype(int)]
    return numbers


def _labelled(
    corpora: Mapping[str, Corpus], numbers: Mapping[str, np.ndarray[Any, np.dtype[np.int64]]]
) -> tuple[Stack, Tensor]:
    images = np.concatenate([corpora[name].images[n] for name, n in numbers.items()])
    labels = [torch.full((len(n),), corpora[name].label) for name, n in numbers.items()]
    return images, torch.cat(labels)


def _masked(
    corpora: Mapping[str, Corpus], numbers: Mapping[str, np.ndarray[Any, np.dtype[np.int64]]]
) -> tuple[Stack, Stack] | None:
    numbers = {name: n[corpora[name].has_mask[n]] for name, n in numbers.items()}
    if not any(len(n) for n in numbers.values()):
        return None
    images = np.concatenate([corpora[name].images[n] for name, n in numbers.items()])
    masks = np.concatenate([corpora[name].masks[n] for name, n in numbers.items()])
    masks[masks > len(CLASS_NAMES) - 1] = 0  # unknown
    return images, masks


def _drop_intermediate(run_dir: Path) -> None:
    """What only a resumed training needs."""
    for path in run_dir.glob("checkpoint*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in run_dir.glob(f"{Path(FOUNDATION).stem}-*.safetensors"):
        path.unlink()
