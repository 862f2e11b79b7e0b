# SPDX-License-Identifier: Apache-2.0
"""What a silo trains on and what all are measured on: images in memory, as uint8."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedefm_core.corpora import Corpus, SiloData, Split, gather
from fedefm_core.errors import FederationError
from fedefm_core.networks.segmentation import normalise


@dataclass(frozen=True)
class LabelledImages:
    """images: (N, H, W) uint8 grey. labels: (N,) int64, the kind of each image."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def draw(self, rng: np.random.Generator, size: int) -> npt.NDArray[np.int64]:
        """Numbers of a random batch: size different images, or all where there are fewer."""
        return rng.choice(len(self), size=min(size, len(self)), replace=False)

    def batch(self, numbers: npt.NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
        """(B, 1, H, W) float32 normalised images and (B,) int64 labels."""
        images = torch.from_numpy(self.images[numbers])[:, None].to(device)
        return normalise(images), torch.from_numpy(self.labels[numbers]).to(device)


def silo_images(corpora: Mapping[str, Corpus], silo: SiloData) -> LabelledImages:
    """All that a silo holds. Raises FederationError when that is nothing."""
    if len(silo) == 0:
        raise FederationError(f"The silo '{silo.name}' holds no image; give it a corpus")
    return LabelledImages(*gather(corpora, silo.parts))


def split_images(
    corpora: Mapping[str, Corpus], split: Split, limit: int | None
) -> dict[str, LabelledImages]:
    """By corpus, the images of a split, evenly thinned to limit; corpora without any are left out.

    Raises FederationError when none has any.
    """
    found: dict[str, LabelledImages] = {}
    for name, corpus in corpora.items():
        numbers = corpus.indices(split)
        if limit is not None and len(numbers) > limit:
            numbers = numbers[np.linspace(0, len(numbers) - 1, limit).round().astype(int)]
        if len(numbers):
            found[name] = LabelledImages(*gather(corpora, [(name, numbers)]))
    if not found:
        raise FederationError(f"No corpus has images in the split '{split}' to measure on")
    return found


def union(parts: Mapping[str, LabelledImages]) -> LabelledImages:
    """All parts as one."""
    return LabelledImages(
        np.concatenate([part.images for part in parts.values()]),
        np.concatenate([part.labels for part in parts.values()]),
    )


def stream(seed: int, *keys: str | int) -> np.random.Generator:
    """The random numbers of one task: silo, round, what is done, for whom.

    A stream depends on its keys alone, not on what was drawn before. So it needs no state in a
    checkpoint, and silos on many machines, that finish in any order, draw what they draw here.
    """
    numbers = [key if isinstance(key, int) else zlib.crc32(key.encode()) for key in keys]
    return np.random.default_rng([seed, *numbers])
