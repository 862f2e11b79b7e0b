# SPDX-License-Identifier: Apache-2.0
"""What every reader returns: a checked header, and the frames still to be decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fedefm_core.frames.frame import Frame


@dataclass(frozen=True)
class Clip:
    """One opened file or topic.

    frames: call it to decode the frames one by one; each call starts again at the first.
    frame_rate_hz: None where the source names none. frame_count: None where only reading tells.
    """

    frames: Callable[[], Iterator[Frame]]
    frame_rate_hz: float | None = None
    frame_count: int | None = None
