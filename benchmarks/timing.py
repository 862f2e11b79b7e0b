# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks beside it measure with."""

from __future__ import annotations

import time
from collections.abc import Callable


def milliseconds(work: Callable[[], object]) -> float:
    """How long the work took."""
    begin = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - begin)
