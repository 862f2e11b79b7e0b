# SPDX-License-Identifier: Apache-2.0
"""Who trains, who validates, who tests: whole groups, by the data set's own division or a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedefm_core.corpora.manifest import SplitSettings
from fedefm_core.corpora.records import Split
from fedefm_core.errors import ManifestError


def assign_splits(
    groups: Sequence[str],
    native: Sequence[Split | None],
    settings: SplitSettings,
    seed: int,
    name: str = "the corpus",
) -> list[Split]:
    """The split of each sample or file; those of one group share theirs.

    native: the data set's own division. It is followed where it has a training part; what it
    lacks of validation and test is drawn from that part, by groups. Raises ManifestError when
    there are too few groups, naming the corpus.
    """
    followed = settings.native and "train" in native
    splits: list[Split] = [(given or "train") if followed else "train" for given in native]
    wanted: list[tuple[Split, float]] = [
        ("test", settings.test),
        ("validation", settings.validation),
    ]
    to_draw = {part: share for part, share in wanted if share > 0 and part not in splits}
    free = sorted({group for group, split in zip(groups, splits, strict=True) if split == "train"})
    drawn = _draw_groups(free, to_draw, seed, name)
    return [
        drawn.get(group, split) if split == "train" else split
        for group, split in zip(groups, splits, strict=True)
    ]


def _draw_groups(
    groups: Sequence[str], shares: dict[Split, float], seed: int, name: str
) -> dict[str, Split]:
    """Split by group for those that are drawn, at least one for each share."""
    if len(groups) <= len(shares):
        raise ManifestError(
            f"The training part of '{name}' has {len(groups)} group(s) of images (patients, cines "
            f"or volumes), too few to set aside some for {' and '.join(shares)}; give it more, or "
            f"set {' or '.join(f'splits.{part}' for part in shares)} to 0"
        )
    order = np.random.default_rng(seed).permutation(len(groups))
    drawn: dict[str, Split] = {}
    start = 0
    left = len(groups) - 1  # one at least goes on training
    for waiting, (part, share) in zip(range(len(shares) - 1, -1, -1), shares.items(), strict=True):
        count = min(max(1, int(share * len(groups) + 0.5)), left - waiting)
        drawn |= {groups[i]: part for i in order[start : start + count]}
        start += count
        left -= count
    return drawn
