# SPDX-License-Identifier: Apache-2.0
"""Corpora in memory: images and label maps of one size, decoded once and kept as one .npy each."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.corpora.listing import Indices, Listing, Sample, list_corpora
from fedefm_core.corpora.manifest import CorpusSettings, Manifest
from fedefm_core.corpora.reading import decode
from fedefm_core.corpora.records import Mask, Split
from fedefm_core.corpora.simulated import draw_simulated, drawing_version
from fedefm_core.errors import OutputError
from fedefm_core.frames import Window
from fedefm_core.provenance import package_versions

logger = logging.getLogger(__name__)
Grey = npt.NDArray[np.uint8]
Stack = npt.NDArray[np.uint8]
Track = Callable[[Iterable[int], str, int], Iterable[int]]  # (items, title, total) -> items
MIN_COVERAGE = 1 / 8  # of a pixel, that a class must cover to be its label
_LAYOUT = 1  # of the cache; counts up when the same settings give other pixels
_DRAWN_SIDE = 256  # simulated images are drawn at least so large, then shrunk as real ones are
_DECODED_WITH = ("numpy", "opencv-python", "opencv-python-headless", "imagecodecs")


@dataclass(frozen=True)
class CorpusSample:
    """image: (H, W) uint8 grey. label: number of the kind of image. mask: (H, W) uint8 or None."""

    image: Grey
    label: int
    mask: Mask | None


@dataclass(frozen=True)
class Corpus:
    """A sequence of samples of one kind and size.

    images: (N, H, W) uint8. masks: (N, H, W) uint8, values as listing.mask_classes; all 0 where
    has_mask, (N,) bool, is False. Both may lie in a file on disk and are read-only.
    """

    listing: Listing
    images: Stack
    masks: Stack
    has_mask: npt.NDArray[np.bool_]

    @property
    def name(self) -> str:
        return self.listing.name

    @property
    def label(self) -> int:
        return self.listing.label

    @property
    def mask_classes(self) -> tuple[str, ...]:
        return self.listing.mask_classes

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, index: int) -> CorpusSample:
        mask = np.asarray(self.masks[index]) if self.has_mask[index] else None
        return CorpusSample(np.asarray(self.images[index]), self.label, mask)

    def __iter__(self) -> Iterator[CorpusSample]:
        return (self[index] for index in range(len(self)))

    def indices(self, split: Split) -> Indices:
        """Numbers of the samples of a split, ascending."""
        return self.listing.indices(split)


def load_corpora(manifest: Manifest, track: Track | None = None) -> dict[str, Corpus]:
    """All corpora of a manifest by name, decoded or taken from the cache.

    track: shows progress over (items, title, total). Raises ManifestError for a path or a split,
    FrameError or TruthError for a file that cannot be read, OutputError for the cache.
    """
    listings = list_corpora(manifest)
    return {name: load_corpus(manifest, listing, track) for name, listing in listings.items()}


def load_corpus(manifest: Manifest, listing: Listing, track: Track | None = None) -> Corpus:
    """One corpus, decoded or taken from the cache; errors as load_corpora."""
    settings = manifest.corpora[listing.name]
    file = cache_file(manifest, listing)
    if not file.is_file():
        logger.info("%s: decoding %d samples into %s", listing.name, len(listing), file)
        _write(file, manifest, settings, listing, track)
    planes = np.load(file, mmap_mode="r", allow_pickle=False)
    records = [sample.record for sample in listing.samples]
    has_mask = np.array([r is None or r.masks is not None for r in records], bool)
    return Corpus(listing, planes[:, 0], planes[:, 1], has_mask)


def cache_file(manifest: Manifest, listing: Listing) -> Path:
    """Where a corpus is kept: (N, 2, H, W) uint8, images and masks. The name holds a hash of all
    that decides its pixels: settings, files with their sizes and times, versions."""
    folder = manifest.cache or default_cache()
    settings = manifest.corpora[listing.name]
    versions = package_versions()
    decided_by = {
        "layout": _LAYOUT,
        "size": manifest.size,
        "seed": manifest.seed if listing.drawn_by else None,
        "drawn_by": listing.drawn_by,
        "drawing": drawing_version() if listing.drawn_by else None,
        "window": settings.window and settings.window.model_dump(),
        "adapter": settings.adapter,
        "samples": [(_stamp(s), s.frame) for s in listing.samples],
        "versions": {name: versions[name] for name in _DECODED_WITH if name in versions},
    }
    digest = hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode()).hexdigest()
    return folder / f"{listing.name}-{digest[:16]}.npy"


def default_cache() -> Path:
    """The user's cache folder, as the XDG base directory specification has it."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fedefm_core" / "corpora"


def shrink_image(grey: Grey, size: int) -> Grey:
    """(size, size) uint8 by area; other proportions are squeezed, since a border would betray
    the corpus."""
    if grey.shape == (size, size):
        return grey
    smaller = grey.shape[0] >= size and grey.shape[1] >= size
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(grey, (size, size), interpolation=how), np.uint8)


def shrink_mask(mask: Mask, size: int) -> Mask:
    """(size, size) uint8: of the classes but 0, the one that covers most of a pixel, if it covers
    MIN_COVERAGE; so thin wires neither break nor vanish."""
    if mask.shape == (size, size):
        return mask
    label = np.zeros((size, size), np.uint8)
    most = np.full((size, size), MIN_COVERAGE, np.float32)
    for value in np.unique(mask[mask > 0]):
        inside = (mask == value).astype(np.float32)
        cover = cv2.resize(inside, (size, size), interpolation=cv2.INTER_AREA)
        label[cover >= most] = value
        most = np.maximum(most, cover)
    return label


def _write(
    file: Path,
    manifest: Manifest,
    settings: CorpusSettings,
    listing: Listing,
    track: Track | None,
) -> None:
    """Decode into a file beside it, then rename: what bears the name is whole."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.part")
    shape = (len(listing), 2, manifest.size, manifest.size)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            planes = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
            _fill(planes, manifest, settings, listing, track)
            planes.flush()
            del planes
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot write the cache {file}: {error.strerror or error}") from error


def _fill(
    planes: Stack,
    manifest: Manifest,
    settings: CorpusSettings,
    listing: Listing,
    track: Track | None,
) -> None:
    if listing.drawn_by is not None:
        samples = _drawn(manifest, listing, listing.drawn_by)
    else:
        samples = _decoded(listing.samples, settings)
    numbers: Iterable[int] = range(len(listing))
    if track is not None:
        numbers = track(numbers, f"Preparing {listing.name}", len(listing))
    for number in numbers:
        grey, mask = next(samples)
        planes[number, 0] = shrink_image(grey, manifest.size)
        planes[number, 1] = 0 if mask is None else shrink_mask(mask, manifest.size)


def _drawn(manifest: Manifest, listing: Listing, name: str) -> Iterator[tuple[Grey, Mask | None]]:
    side = max(_DRAWN_SIDE, manifest.size)
    for sample in listing.samples:
        yield draw_simulated(name, manifest.seed, sample.frame, side)


def _decoded(
    samples: Iterable[Sample], settings: CorpusSettings
) -> Iterator[tuple[Grey, Mask | None]]:
    window = window_of(settings)
    for record, of_record in groupby(samples, key=lambda sample: sample.record):
        assert record is not None
        wanted = {sample.frame for sample in of_record}
        for found in decode(record, wanted, window):
            yield found.grey, found.mask


def window_of(settings: CorpusSettings) -> Window | None:
    """The window that the manifest gives a corpus, if any."""
    given = settings.window
    return None if given is None else Window(given.center, given.width)


def _stamp(sample: Sample) -> list[list[str | int]]:
    """Names, sizes and times of the files of a sample; a missing one is told when it is read."""
    if sample.record is None:
        return []
    stamps: list[list[str | int]] = []
    for path in (sample.record.path, *sample.record.mask_files):
        try:
            status = path.stat()
            stamps.append([str(path), status.st_size, status.st_mtime_ns])
        except OSError:
            stamps.append([str(path), -1, -1])
    return stamps


def gather(
    corpora: Mapping[str, Corpus], parts: Iterable[tuple[str, Indices]]
) -> tuple[Stack, npt.NDArray[np.int64]]:
    """(N, H, W) uint8 images and (N,) int64 labels of the samples named, in memory."""
    chosen = list(parts)
    images = np.concatenate([corpora[name].images[indices] for name, indices in chosen])
    labels = [np.full(len(indices), corpora[name].label, np.int64) for name, indices in chosen]
    return images, np.concatenate(labels)
