# SPDX-License-Identifier: Apache-2.0
"""Every file of a manifest read before anything trains: what is there, and what is wrong."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from fedefm_core.corpora.corpus import Track, window_of
from fedefm_core.corpora.listing import Listing, Sample, by_label, list_corpora
from fedefm_core.corpora.manifest import CorpusSettings, Manifest, label_names
from fedefm_core.corpora.partition import SiloData, silos_of
from fedefm_core.corpora.reading import Decoded, decode
from fedefm_core.corpora.records import SPLITS, Record
from fedefm_core.errors import FrameError, TruthError
from fedefm_core.perception.types import UNKNOWN
from fedefm_core.provenance import provenance

_NAMED = 20  # broken files and duplicates that a sentence or table names; the report has all


@dataclass
class Findings:
    """What reading a corpus told. sizes: samples by (width, height). mask_pixels: by value.
    broken: (file, reason). digests: samples by the hash of their pixels, blank ones left out."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    read: int = 0
    blank: int = 0
    masks: int = 0
    mask_pixels: Counter[int] = field(default_factory=Counter)
    grey_sum: float = 0.0
    spread_sum: float = 0.0
    broken: list[tuple[str, str]] = field(default_factory=list)
    digests: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))


def check_corpora(manifest: Manifest, track: Track | None = None) -> dict[str, Any]:
    """Read all files and report, as plain JSON; docs/corpora.md describes the report.

    'faults' is empty when everything is fit for training. Simulated corpora are not drawn: they
    have no files. Raises ManifestError for what the manifest itself gets wrong.
    """
    listings = list_corpora(manifest)
    silos = silos_of(manifest, listings)
    findings = {
        name: _read_all(listing, manifest.corpora[name], track)
        for name, listing in listings.items()
    }
    corpora = {
        name: _corpus_report(manifest, listing, findings[name])
        for name, listing in listings.items()
    }
    duplicates = _duplicates(listings, findings, silos)
    return {
        "faults": _faults(corpora, duplicates),
        "size": manifest.size,
        "labels": list(label_names(manifest)),
        "corpora": corpora,
        "balance": _balance(listings),
        "silos": {silo.name: _silo_report(silo, listings) for silo in silos},
        "duplicates": duplicates,
        "provenance": provenance(manifest, manifest.seed),
    }


def _read_all(listing: Listing, settings: CorpusSettings, track: Track | None) -> Findings:
    findings = Findings()
    if listing.drawn_by is not None:
        return findings
    files = [
        (record, list(samples))
        for record, samples in groupby(listing.samples, key=lambda sample: sample.record)
        if record is not None
    ]
    numbers: Iterable[int] = range(len(files))
    if track is not None:
        numbers = track(numbers, f"Reading {listing.name}", len(files))
    for number in numbers:
        record, samples = files[number]
        _read_file(record, samples, settings, listing.mask_classes, findings)
    return findings


def _read_file(
    record: Record,
    samples: Sequence[Sample],
    settings: CorpusSettings,
    classes: Sequence[str],
    findings: Findings,
) -> None:
    by_frame = {sample.frame: sample for sample in samples}
    strange: set[int] = set()
    try:
        for decoded in decode(record, by_frame, window_of(settings)):
            strange |= _count(decoded, by_frame[decoded.frame], len(classes), findings)
    except (FrameError, TruthError) as error:
        findings.broken.append((str(record.path), str(error).removeprefix(f"{record.path}: ")))
    if strange:
        reason = (
            f"its mask has the values {', '.join(map(str, sorted(strange)))}; expected 0 to "
            f"{len(classes) - 1} ({', '.join(classes)})"
        )
        findings.broken.append((str(record.path), reason))


def _count(decoded: Decoded, sample: Sample, classes: int, findings: Findings) -> set[int]:
    """Enter one image; return the mask values that mean nothing."""
    grey = decoded.grey
    findings.read += 1
    findings.sizes[grey.shape[1], grey.shape[0]] += 1
    findings.grey_sum += float(grey.mean())
    findings.spread_sum += float(grey.std())
    if grey.min() == grey.max():
        findings.blank += 1  # empty slices are all alike, and no sign of a leak
    else:
        digest = hashlib.blake2b(repr(grey.shape).encode(), digest_size=16)
        digest.update(grey.tobytes())
        findings.digests[digest.hexdigest()].append(sample)
    if decoded.mask is None:
        return set()
    findings.masks += 1
    counts = np.bincount(decoded.mask.ravel(), minlength=256)
    present = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    findings.mask_pixels.update(present)
    return {value for value in present if value >= classes and value != UNKNOWN}


def _corpus_report(manifest: Manifest, listing: Listing, findings: Findings) -> dict[str, Any]:
    path = manifest.path_of(listing.name)
    records = {str(sample.record.path) for sample in listing.samples if sample.record is not None}
    pixels = sum(findings.mask_pixels.values())
    return {
        "label": listing.label_name,
        "adapter": manifest.corpora[listing.name].adapter,
        "path": None if path is None else str(path),
        "drawn_by": listing.drawn_by,
        "samples": len(listing),
        "splits": listing.counts(),
        "files": len(records),
        "groups": len({sample.group for sample in listing.samples}),
        "read": findings.read,
        "sizes": {f"{w}x{h}": n for (w, h), n in sorted(findings.sizes.items())},
        "grey_mean": _mean(findings.grey_sum, findings.read),
        "grey_std": _mean(findings.spread_sum, findings.read),
        "blank": findings.blank,
        "masks": findings.masks,
        "mask_classes": list(listing.mask_classes),
        "mask_shares": {
            _class_name(value, listing.mask_classes): round(count / pixels, 6)
            for value, count in sorted(findings.mask_pixels.items())
        },
        "broken": [{"file": file, "reason": reason} for file, reason in findings.broken],
    }


def _class_name(value: int, classes: Sequence[str]) -> str:
    return classes[value] if value < len(classes) else str(value)


def _mean(total: float, count: int) -> float | None:
    return round(total / count, 2) if count else None


def _duplicates(
    listings: Mapping[str, Listing],
    findings: Mapping[str, Findings],
    silos: Sequence[SiloData],
) -> list[dict[str, Any]]:
    """Images of equal pixels, those that lie in several splits, silos or kinds first."""
    silo_of = {
        id(listings[name].samples[index]): silo.name
        for silo in silos
        for name, indices in silo.parts
        for index in indices
    }
    alike: dict[str, list[tuple[str, Sample]]] = defaultdict(list)
    for name, found in findings.items():
        for digest, samples in found.digests.items():
            alike[digest] += ((name, sample) for sample in samples)
    groups = [_duplicate(same, listings, silo_of) for same in alike.values() if len(same) > 1]
    return sorted(groups, key=lambda group: (-len(group["across"]), group["images"]))


def _duplicate(
    same: Sequence[tuple[str, Sample]],
    listings: Mapping[str, Listing],
    silo_of: Mapping[int, str],
) -> dict[str, Any]:
    splits = {sample.split for _, sample in same}
    held_by = {silo_of[id(sample)] for _, sample in same if id(sample) in silo_of}
    labels = {listings[name].label_name for name, _ in same}
    across: dict[str, Collection[str]] = {"splits": splits, "silos": held_by, "labels": labels}
    return {
        "images": [sample.name for _, sample in same],
        "across": [what for what, where in across.items() if len(where) > 1],
        "splits": [split for split in SPLITS if split in splits],
        "silos": sorted(held_by),
        "labels": sorted(labels),
    }


def _faults(corpora: Mapping[str, Any], duplicates: Sequence[Mapping[str, Any]]) -> list[str]:
    faults = []
    for name, corpus in corpora.items():
        broken = len({entry["file"] for entry in corpus["broken"]})
        if broken:
            faults.append(f"{name}: {broken} of {corpus['files']} files are broken")
    for what in ("splits", "silos", "labels"):
        groups = [group for group in duplicates if what in group["across"]]
        if groups:
            first, second, *_ = groups[0]["images"]
            faults.append(
                f"{len(groups)} image(s) lie in several {what}; the first is {first} and {second}"
            )
    return faults


def _balance(listings: Mapping[str, Listing]) -> dict[str, dict[str, int]]:
    """Samples by kind of image and split."""
    return {
        label: {split: sum(len(of.indices(split)) for of in corpora) for split in SPLITS}
        for label, corpora in by_label(listings).items()
    }


def _silo_report(silo: SiloData, listings: Mapping[str, Listing]) -> dict[str, Any]:
    labels: Counter[str] = Counter()
    for name, indices in silo.parts:
        labels[listings[name].label_name] += len(indices)
    return {
        "samples": len(silo),
        "corpora": {name: len(indices) for name, indices in silo.parts},
        "labels": dict(labels),
    }


def corpus_table(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A table for people, header first: a row a corpus."""
    rows: list[tuple[str, ...]] = [
        ("corpus", "label", "train", "val", "test", "sizes", "grey", "masks", "broken")
    ]
    for name, corpus in report["corpora"].items():
        drawn = corpus["drawn_by"]
        grey = f"{corpus['grey_mean']:.0f}±{corpus['grey_std']:.0f}" if corpus["read"] else "-"
        rows.append(
            (
                name,
                corpus["label"],
                *(str(corpus["splits"][split]) for split in SPLITS),
                "drawn" if drawn else _sizes(corpus["sizes"]),
                grey,
                str(corpus["samples"] if drawn else corpus["masks"]),
                str(len({entry["file"] for entry in corpus["broken"]})),
            )
        )
    return rows


def silo_table(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A table for people, header first: training samples by silo and kind of image."""
    rows: list[tuple[str, ...]] = [("silo", *report["labels"], "all")]
    for name, silo in report["silos"].items():
        counts = (str(silo["labels"].get(label, "-")) for label in report["labels"])
        rows.append((name, *counts, str(silo["samples"])))
    return rows


def details(report: Mapping[str, Any]) -> Iterator[str]:
    """Broken files and duplicates, a line each, the first of them only."""
    broken = [
        f"{Path(entry['file'])}: {entry['reason']}"
        for corpus in report["corpora"].values()
        for entry in corpus["broken"]
    ]
    yield from _first(broken, "broken files")
    alike = [
        f"Same pixels, across {' and '.join(group['across']) or 'nothing'}: "
        + " = ".join(group["images"])
        for group in report["duplicates"]
    ]
    yield from _first(alike, "duplicates")


def _first(lines: Sequence[str], what: str) -> Iterator[str]:
    yield from lines[:_NAMED]
    if len(lines) > _NAMED:
        yield f"... and {len(lines) - _NAMED} more {what}: see the report (--json)"


def _sizes(sizes: Mapping[str, int]) -> str:
    if len(sizes) <= 1:
        return next(iter(sizes), "-")
    smallest, largest = (
        pick(sizes, key=lambda size: int(size.split("x")[0]) * int(size.split("x")[1]))
        for pick in (min, max)
    )
    return f"{smallest} to {largest}"
