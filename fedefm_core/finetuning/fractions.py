# SPDX-License-Identifier: Apache-2.0
"""Few-shot training: the same small part of the labels for every run of a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def labelled_part(groups: Sequence[str], percent: int, seed: int) -> list[int]:
    """Indices, ascending, of round(percent % of len(groups)) samples, one at least.

    groups: the patient, cine or file of each sample; they are taken one after the other in an
    order that the seed decides, so that few labels come from few patients. What a smaller
    percentage takes, every larger one of the same seed takes too.
    """
    rank = {
        group: place
        for place, group in enumerate(np.random.default_rng(seed).permutation(sorted(set(groups))))
    }
    order = sorted(range(len(groups)), key=lambda index: (rank[groups[index]], index))
    count = max(1, int(len(groups) * percent / 100 + 0.5))
    return sorted(order[:count])
