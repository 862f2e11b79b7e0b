# SPDX-License-Identifier: Apache-2.0
"""What playback_node plays and when, without ROS: sources, timetable, reading ahead."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from fedefm_core.errors import FrameError
from fedefm_core.frames import Frame, open_source, to_grey8
from fedefm_core.simulation import InstrumentTruth, simulate_sequence

SIMULATOR = "sim"
DEFAULT_RATE_HZ = 30.0
SIMULATED_LENGTH = 300  # frames of one simulated insertion when no length is given

ItemT = TypeVar("ItemT")
SentPixels: TypeAlias = "npt.NDArray[np.uint8] | npt.NDArray[np.uint16]"


@dataclass(frozen=True)
class PlayedFrame:
    """A frame, its place in the source from 0, and, from the simulator only, its exact truth."""

    frame: Frame
    number: int
    truth: tuple[InstrumentTruth, ...] | None = None


@dataclass(frozen=True)
class PlaybackSource:
    """Frames that can be read again from the start by calling frames(), once through each time.

    rate_hz: the rate that was asked for, else the source's own, else DEFAULT_RATE_HZ.
    skipped: files that the reader has set aside so far, with the reason.
    """

    name: str
    rate_hz: float
    frames: Callable[[], Iterator[PlayedFrame]]
    skipped: Callable[[], list[tuple[Path, str]]]


def open_playback(
    source: str, rate_hz: float = 0.0, length: int = 0, seed: int = 0, kind: str | None = None
) -> PlaybackSource:
    """Open 'sim' or a path that any reader takes; length: frames of an insertion, else unused.

    The same arguments give the same frames. length 0: SIMULATED_LENGTH.
    Raises FrameError when there is nothing to play at the path.
    """
    if source == SIMULATOR:
        return _open_simulator(rate_hz or DEFAULT_RATE_HZ, length or SIMULATED_LENGTH, seed, kind)
    if not source:
        raise FrameError("The source to play must be 'sim' or a path (got an empty text).")
    reader = open_source(Path(source).expanduser())

    def frames() -> Iterator[PlayedFrame]:
        return (PlayedFrame(frame, number) for number, frame in enumerate(reader))

    rate = rate_hz or reader.frame_rate_hz or DEFAULT_RATE_HZ
    return PlaybackSource(reader.name, rate, frames, lambda: reader.skipped)


def _open_simulator(rate_hz: float, length: int, seed: int, kind: str | None) -> PlaybackSource:
    def frames() -> Iterator[PlayedFrame]:
        drawn = simulate_sequence(seed, length, kind=kind, frame_rate_hz=rate_hz)
        return (PlayedFrame(d.frame, number, d.instruments) for number, d in enumerate(drawn))

    return PlaybackSource(f"simulator, seed {seed}", rate_hz, frames, list)


def sent_pixels(frame: Frame) -> SentPixels:
    """The pixels to put in a message: (H, W) uint8, or uint16 unchanged.

    A message cannot carry a display window or an inversion, so a frame that has one is shown
    through it first, as fedefm_core shows it; likewise signed and floating-point pixels.
    """
    if frame.pixels.dtype == np.uint16 and frame.window is None and not frame.inverted:
        return np.ascontiguousarray(frame.pixels, dtype=np.uint16)
    return np.ascontiguousarray(to_grey8(frame))


@dataclass(frozen=True)
class Disturbances:
    """What playback does to the stream on purpose.

    drop_probability: of each frame, not to be sent. drop_from, drop_count: frames in
    [drop_from, drop_from + drop_count) are not sent. delay_s, jitter_s: a frame is sent delay_s
    plus a uniform draw from [0, jitter_s) after it is due; its stamp stays the due time.
    """

    drop_probability: float = 0.0
    drop_from: int = 0
    drop_count: int = 0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Slot:
    """When frame number index is due and sent, in seconds from the start of playback."""

    index: int
    due_s: float
    send_s: float
    dropped: bool


def timetable(rate_hz: float, disturbances: Disturbances) -> Iterator[Slot]:
    """The endless timetable of a playback: same arguments, same slots; order is kept.

    >>> slots = timetable(10.0, Disturbances(drop_from=1, drop_count=1, delay_s=0.5))
    >>> [(s.due_s, s.send_s, s.dropped) for s in itertools.islice(slots, 3)]
    [(0.0, 0.5, False), (0.1, 0.6, True), (0.2, 0.7, False)]
    """
    rng = np.random.default_rng(disturbances.seed)
    first, last = disturbances.drop_from, disturbances.drop_from + disturbances.drop_count
    earliest = 0.0
    for index in itertools.count():
        # Both numbers are drawn for every frame, so one setting does not shift the other's draws.
        drop_draw, jitter_draw = rng.random(2)
        due = index / rate_hz
        late = disturbances.delay_s + disturbances.jitter_s * float(jitter_draw)
        earliest = max(earliest, due + late)
        dropped = first <= index < last or drop_draw < disturbances.drop_probability
        yield Slot(index, due, earliest, bool(dropped))


def repeated(
    items: Callable[[], Iterable[ItemT]],
    loop: bool,
    limit: int = 0,
    keep_at_most: int = 0,
    size: Callable[[ItemT], int] = lambda item: 1,
) -> Iterator[ItemT]:
    """The items once, or again and again; limit: how many in all, 0 = all or endless.

    Items of no more than keep_at_most in sum, by size, are kept and not made again.

    >>> list(repeated(lambda: "abc", loop=True, limit=5))
    ['a', 'b', 'c', 'a', 'b']
    """
    return itertools.islice(_cycle(items, loop, keep_at_most, size), limit or None)


def _cycle(
    items: Callable[[], Iterable[ItemT]],
    loop: bool,
    keep_at_most: int,
    size: Callable[[ItemT], int],
) -> Iterator[ItemT]:
    kept: list[ItemT] = []
    empty, total = True, 0
    for item in items():
        yield item
        empty = False
        total += size(item)
        if loop and total <= keep_at_most:
            kept.append(item)
    if total > keep_at_most:
        kept.clear()
    while loop and not empty:
        yield from kept or items()


class ReadAhead(Generic[ItemT]):
    """Iterates over items that a thread makes up to size items ahead of the reader.

    An error in making an item is raised to the reader in that item's place.
    """

    def __init__(self, items: Iterator[ItemT], size: int) -> None:
        self._items = items
        self._size = max(1, size)
        self._made: deque[ItemT] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._make, name="read-ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[ItemT]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._made or self._ended)
                if not self._made:
                    break
                item = self._made.popleft()
                self._changed.notify_all()
            yield item
        if self._error is not None:
            raise self._error

    def wait_filled(self, timeout_s: float) -> bool:
        """True when size items are ready, or all that there are; waits up to timeout_s."""
        with self._changed:
            return self._changed.wait_for(self._filled, timeout_s)

    def close(self) -> None:
        """Stop making items, and wait until that has stopped; those already made stay readable.

        A thread that is still at it when Python ends takes the process down with it.
        """
        self._end()
        self._thread.join()

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _filled(self) -> bool:
        return self._ended or len(self._made) >= self._size

    def _make(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    self._made.append(item)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._ended or len(self._made) < self._size)
                    if self._ended:
                        return
        except Exception as error:  # handed to the reader, whoever it is
            self._error = error
        self._end()
