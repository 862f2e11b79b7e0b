# SPDX-License-Identifier: Apache-2.0
"""What a corpus holds, before any pixel is read: its samples, their groups and splits."""

from __future__ import annotations

import logging
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedefm_core.corpora.adapters import ADAPTERS
from fedefm_core.corpora.manifest import CorpusSettings, Manifest, label_names, label_of
from fedefm_core.corpora.reading import frame_count
from fedefm_core.corpora.records import SPLITS, Record, Split
from fedefm_core.corpora.simulated import SIMULATED
from fedefm_core.corpora.splits import assign_splits
from fedefm_core.errors import ManifestError

logger = logging.getLogger(__name__)
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """One image. record: its file, None of a simulated one. frame: its number in the file, or
    the index that is drawn."""

    record: Record | None
    frame: int
    group: str
    split: Split

    @property
    def name(self) -> str:
        """File and, where it matters, frame; for messages."""
        if self.record is None:
            return f"{self.group}"
        return f"{self.record.path}#{self.frame}" if self.frame else str(self.record.path)


@dataclass(frozen=True)
class Listing:
    """The samples of a corpus in a fixed order.

    label: number of its kind of image. drawn_by: the simulated corpus that it is, None of files.
    mask_classes: names of the values of its masks.
    """

    name: str
    label: int
    label_name: str
    mask_classes: tuple[str, ...]
    samples: Sequence[Sample]
    drawn_by: str | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def indices(self, split: Split) -> Indices:
        """Numbers of the samples of a split, ascending."""
        return np.array([i for i, s in enumerate(self.samples) if s.split == split], np.int64)

    def counts(self) -> dict[str, int]:
        """Samples by split."""
        return {split: len(self.indices(split)) for split in SPLITS}


def list_corpora(manifest: Manifest) -> dict[str, Listing]:
    """Samples of every corpus by its name. Raises ManifestError: missing path, no images."""
    return {name: list_corpus(manifest, name) for name in manifest.corpora}


def list_corpus(manifest: Manifest, name: str) -> Listing:
    """Samples of one corpus; only names and headers of files are read."""
    settings = manifest.corpora[name]
    drawn_by = _drawn_by(manifest, name)
    if drawn_by is not None:
        samples = _simulated_samples(name, settings, manifest.seed)
        classes = SIMULATED[drawn_by][1]
    else:
        path = manifest.path_of(name)
        assert path is not None  # check_names refuses an adapter without one
        data_set = ADAPTERS[settings.adapter](path)
        samples = _file_samples(name, settings, manifest.seed, data_set.records)
        classes = data_set.mask_classes
    label_name = label_of(manifest, name)
    label = label_names(manifest).index(label_name)
    limited = _spread(samples, settings.limit)
    return Listing(name, label, label_name, classes, limited, drawn_by)


def _drawn_by(manifest: Manifest, name: str) -> str | None:
    settings = manifest.corpora[name]
    if settings.adapter in SIMULATED:
        return settings.adapter
    path = manifest.path_of(name)
    if path is not None and path.is_dir():
        return None
    if settings.fallback is not None:
        logger.warning("%s: there is no folder %s; %s stands in", name, path, settings.fallback)
        return settings.fallback
    what = "is no folder" if path is not None and path.exists() else "does not exist"
    raise ManifestError(f"The path of the corpus '{name}' {what}: {path}")


def _simulated_samples(name: str, settings: CorpusSettings, seed: int) -> list[Sample]:
    groups = [f"{name}:{index:06d}" for index in range(settings.count)]
    splits = assign_splits(groups, [None] * len(groups), settings.splits, _seed(seed, name), name)
    drawn = [Sample(None, i, g, s) for i, (g, s) in enumerate(zip(groups, splits, strict=True))]
    return list(_every(drawn, settings.every))


def _file_samples(
    name: str, settings: CorpusSettings, seed: int, records: Sequence[Record]
) -> list[Sample]:
    groups = [record.group for record in records]
    native = [record.split for record in records]
    splits = assign_splits(groups, native, settings.splits, _seed(seed, name), name)
    frames = (
        Sample(record, frame, record.group, split)
        for record, split in zip(records, splits, strict=True)
        for frame in range(frame_count(record.path))
    )
    return list(_every(frames, settings.every))


def _every(samples: Iterator[Sample] | Sequence[Sample], step: int) -> Iterator[Sample]:
    """The first sample of each group and every step-th after it."""
    seen: dict[str, int] = defaultdict(int)
    for sample in samples:
        if seen[sample.group] % step == 0:
            yield sample
        seen[sample.group] += 1


def _spread(samples: Sequence[Sample], limit: int | None) -> Sequence[Sample]:
    """At most limit samples, evenly spaced in each split, so that all keep their proportion."""
    if limit is None or limit >= len(samples):
        return samples
    by_split = [i for part in SPLITS for i, s in enumerate(samples) if s.split == part]
    at = np.linspace(0, len(samples) - 1, limit).round().astype(int)
    return [samples[i] for i in sorted(by_split[position] for position in at)]


def _seed(seed: int, name: str) -> int:
    """A stream of its own for each corpus, whatever else the manifest holds."""
    return zlib.crc32(f"{seed} {name}".encode())


def by_label(listings: Mapping[str, Listing]) -> dict[str, list[Listing]]:
    """Corpora by their kind of image, both in the order of the manifest."""
    kinds: dict[str, list[Listing]] = defaultdict(list)
    for listing in listings.values():
        kinds[listing.label_name].append(listing)
    return kinds
