# SPDX-License-Identifier: Apache-2.0
"""Who holds what: corpora dealt out to silos, at a proportion of kinds that only one silo knows.

Of C kinds of image, floor(p C + 0.5) belong each to one silo alone; the rest are spread over all
silos. With one order of kinds for each seed, the kinds that are exclusive at a small p are so at
every larger one, so that a curve over p changes one thing at a time.
"""

from __future__ import annotations

import logging
import math
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedefm_core.corpora.listing import Indices, Listing, by_label
from fedefm_core.corpora.manifest import Manifest, PartitionSettings
from fedefm_core.corpora.records import Split
from fedefm_core.errors import ManifestError

logger = logging.getLogger(__name__)
Owners = Mapping[str, Sequence[int]]  # corpus: numbers of the silos that hold it


@dataclass(frozen=True)
class SiloData:
    """What one silo holds: parts, each the name of a corpus and the numbers of its samples."""

    name: str
    parts: tuple[tuple[str, Indices], ...]

    def __len__(self) -> int:
        return sum(len(indices) for _, indices in self.parts)


def silos_of(
    manifest: Manifest, listings: Mapping[str, Listing], split: Split = "train"
) -> list[SiloData]:
    """The silos as the manifest has them: by its 'silos', else by its 'partition'.

    Raises ManifestError for an empty silo and for p = 100 % with more silos than kinds of image.
    """
    if manifest.silos is None:
        return partition(listings, manifest.partition, split)
    names = list(manifest.silos)
    held = {
        corpus: [i for i, name in enumerate(names) if corpus in manifest.silos[name]]
        for corpus in listings
    }
    for corpus in (name for name, owners in held.items() if not owners):
        logger.warning("No silo holds the corpus '%s': it trains nobody", corpus)
    return _dealt(listings, held, names, manifest.partition.seed, split)


def partition(
    listings: Mapping[str, Listing], settings: PartitionSettings, split: Split = "train"
) -> list[SiloData]:
    """The samples of a split in settings.silos silos at unseen proportion p; deterministic.

    The unit of p is the kind of image: corpora of one label stay together. A spread corpus is
    dealt out by groups. Of validation and test, a silo may have none.
    """
    kinds = by_label(listings)
    count = settings.silos or len(kinds)
    exclusive = math.floor(settings.unseen * len(kinds) + 0.5)
    if exclusive == len(kinds) and count > len(kinds):
        raise ManifestError(
            f"At an unseen proportion of {settings.unseen:g} each of the {len(kinds)} kinds of "
            f"image belongs to one silo alone, which leaves {count - len(kinds)} of {count} silos "
            f"empty: take at most {len(kinds)} silos, or a smaller proportion"
        )
    rng = np.random.default_rng([settings.seed, 1])
    order = [list(kinds)[i] for i in rng.permutation(len(kinds))]
    seats = rng.permutation(count)
    owners: dict[str, Sequence[int]] = {}
    for place, kind in enumerate(order):
        alone = place < exclusive
        for listing in kinds[kind]:
            owners[listing.name] = [int(seats[place % count])] if alone else range(count)
    names = [f"silo{number:0{len(str(count - 1))}d}" for number in range(count)]
    silos = _dealt(listings, owners, names, settings.seed, split)
    if split == "train":
        logger.info(
            "%d of %d kinds of image belong to one silo alone (p = %g, seed %d)",
            *(exclusive, len(kinds), settings.unseen, settings.seed),
        )
    return silos


def describe_silos(silos: Sequence[SiloData]) -> list[str]:
    """A line a silo: what it holds, for the log."""
    return [
        f"{silo.name}: {len(silo)} samples ("
        + ", ".join(f"{name} {len(indices)}" for name, indices in silo.parts)
        + ")"
        for silo in silos
    ]


def _dealt(
    listings: Mapping[str, Listing],
    owners: Owners,
    names: Sequence[str],
    seed: int,
    split: Split,
) -> list[SiloData]:
    parts: dict[int, list[tuple[str, Indices]]] = defaultdict(list)
    for corpus, listing in listings.items():
        for silo, indices in _deal(listing, owners[corpus], seed, split).items():
            parts[silo].append((corpus, indices))
    silos = [SiloData(name, tuple(parts[number])) for number, name in enumerate(names)]
    if split == "train":
        _refuse_empty(silos)
        for line in describe_silos(silos):
            logger.info(line)
    return silos


def _deal(listing: Listing, owners: Sequence[int], seed: int, split: Split) -> dict[int, Indices]:
    """Groups in random order to the owner with the fewest samples so far."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index in listing.indices(split):
        groups[listing.samples[index].group].append(int(index))
    rng = np.random.default_rng([seed, zlib.crc32(listing.name.encode())])
    turns = [owners[i] for i in rng.permutation(len(owners))]
    dealt: dict[int, list[int]] = {owner: [] for owner in turns}
    names = list(groups)
    for i in rng.permutation(len(names)) if turns else ():
        poorest = min(turns, key=lambda owner: len(dealt[owner]))
        dealt[poorest] += groups[names[i]]
    return {
        owner: np.array(sorted(dealt[owner]), np.int64) for owner in sorted(turns) if dealt[owner]
    }


def _refuse_empty(silos: Sequence[SiloData]) -> None:
    empty = [silo.name for silo in silos if len(silo) == 0]
    if empty:
        raise ManifestError(
            f"The silo '{empty[0]}' is empty: its corpora leave it nothing to train on; take "
            "fewer silos, or give them more groups of images (patients, cines or volumes)"
        )
