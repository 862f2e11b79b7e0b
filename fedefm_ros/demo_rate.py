# SPDX-License-Identifier: Apache-2.0
"""How many frames a second this machine segments, from how it answered a rehearsal."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

MIN_ANSWERS = 10
MISSED_SHARE = 0.02  # of the frames that a rehearsal may miss, and the rate still counts as held
MARGIN = 0.7  # of the rate that was answered: frames differ, and so does what else is running
STEPS_HZ = (25.0, 20.0, 15.0, 12.0, 10.0, 8.0, 6.0, 5.0, 4.0, 3.0, 2.0)


def answered_hz(stamps_ns: Iterable[int]) -> float:
    """Answers a second, over all between the first and the last; stamps in any order."""
    stamps = np.sort(np.fromiter(stamps_ns, np.int64))
    return float((len(stamps) - 1) / ((stamps[-1] - stamps[0]) / 1e9))


def rate_held(stamps_ns: Iterable[int], rate_hz: float) -> float:
    """rate_hz if a rehearsal at that rate was answered, else a lower one that should be held.

    stamps_ns: of the answered frames, at least two, in any order. A frame that was sent and not
    answered is a gap between them; gaps are counted in periods, so a sender that is a little slow
    is no miss.

    >>> rate_held(range(0, 1_000_000_000, 100_000_000), rate_hz=10.0)
    10.0
    >>> rate_held(range(0, 1_000_000_000, 100_000_000), rate_hz=30.0)
    6.0
    """
    stamps = np.sort(np.fromiter(stamps_ns, np.int64))
    periods = np.rint(np.diff(stamps) / 1e9 * rate_hz)
    missed = float(np.maximum(periods - 1, 0).sum())
    if missed <= MISSED_SHARE * (len(stamps) + missed):
        return rate_hz
    wanted = MARGIN * answered_hz(stamps)
    return min(rate_hz, next((step for step in STEPS_HZ if step <= wanted), STEPS_HZ[-1]))
