# SPDX-License-Identifier: Apache-2.0
"""What segmentation_node says of itself: counts, latencies and the state that a robot goes by.

Plain values and a lock, no ROS messages. Times 'now' are seconds of a steady clock.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import numpy.typing as npt

from fedefm_core.perception import Perception, TrackingState, TrackPhase

LATENCIES_KEPT = 1000  # of the last frames, for the percentiles
RATE_WINDOW_S = 5.0

SUPERSEDED = "superseded"  # reason: a newer frame came before the worker was free


class State(Enum):
    """What the tips are worth; the names are those on the topic `state`."""

    TRACKING = "TRACKING"  # all that was found is followed; see the tracker
    LOST = "LOST"  # frames are processed, but nothing was found yet, or a track was lost
    STALE = "STALE"  # no frame is processed: none came, or none could be used, or not active
    FAULT = "FAULT"  # processing failed; over with the next frame that succeeds, or a reset


@dataclass(frozen=True)
class Verdict:
    """The state and the sentence that explains it."""

    state: State
    text: str


@dataclass(frozen=True)
class Statistics:
    """Counts since the node was configured; rate and latencies of the last frames."""

    received: int
    processed: int
    faults: int
    lost_by_middleware: int
    dropped: dict[str, int]
    last_drop: str
    last_fault: str
    rate_hz: float
    latency_ms: dict[str, float]  # p50, p95, max; empty before the first frame


@dataclass(frozen=True)
class LastResult:
    """The newest frame that was processed; empty before it.

    confidence, length_px, sigma_px: of each kind that has a valid tip; sigma is the standard
    deviation of the tip where it is largest. phases: the tracker's phase of each kind.
    """

    stamp_ns: int | None = None
    confidence: Mapping[str, float] = field(default_factory=dict)
    length_px: Mapping[str, float] = field(default_factory=dict)
    sigma_px: Mapping[str, float] = field(default_factory=dict)
    phases: Mapping[str, TrackPhase] = field(default_factory=dict)


@dataclass
class _Counts:
    received: int = 0
    processed: int = 0
    faults: int = 0
    lost_by_middleware: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


class Health:
    """Told of every event by the node; may be asked and told from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = _Counts()
        self._latencies_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._processed_at: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._received_at: float | None = None
        self._tracking: TrackingState = TrackingState.LOST
        self._last = LastResult()
        self._fault = self._last_fault = self._last_drop = ""

    def received(self, now: float) -> None:
        """An image message came."""
        with self._lock:
            self._counts.received += 1
            self._received_at = now

    def dropped(self, reason: str, text: str = "") -> None:
        """A frame was not processed; reason counts it, text explains it."""
        with self._lock:
            self._counts.dropped[reason] += 1
            if text:
                self._last_drop = text

    def lost_by_middleware(self, count: int) -> None:
        """The middleware says that messages never arrived."""
        with self._lock:
            self._counts.lost_by_middleware += count

    def processed(
        self,
        perception: Perception,
        phases: Mapping[str, TrackPhase],
        latency_ms: float,
        now: float,
    ) -> None:
        """A frame was processed; latency: from its stamp to its tip."""
        tracked = dict(sorted(perception.tracked.items()))
        with self._lock:
            self._counts.processed += 1
            self._processed_at.append(now)
            self._latencies_ms.append(latency_ms)
            self._tracking = perception.state
            self._last = LastResult(
                perception.stamp_ns,
                {kind: found.confidence for kind, found in tracked.items()},
                {kind: found.length_px for kind, found in tracked.items()},
                {kind: largest_sigma(found.covariance_px) for kind, found in tracked.items()},
                phases,
            )
            self._fault = ""

    def failed(self, error: str) -> None:
        """Processing raised an exception."""
        with self._lock:
            self._counts.faults += 1
            self._fault = self._last_fault = error
            self._forget_tracks()

    def activated(self) -> None:
        """Frames are awaited from now on; what was seen before counts no more."""
        self.tracking_was_reset()
        with self._lock:
            self._received_at = None
            self._processed_at.clear()
            self._latencies_ms.clear()

    def tracking_was_reset(self) -> None:
        """Tracks and faults are forgotten; counts are kept."""
        with self._lock:
            self._forget_tracks()
            self._fault = ""

    def last_result(self) -> LastResult:
        """What the newest processed frame showed; empty after a reset or a fault."""
        with self._lock:
            return self._last

    def verdict(self, now: float, image_timeout: float, active: bool) -> Verdict:
        """Judge: FAULT before STALE before what the tracker says. image_timeout in s; 0 = off."""
        with self._lock:
            if self._fault:
                return Verdict(State.FAULT, f"Processing failed: {self._fault}")
            if not active:
                return Verdict(State.STALE, "The node is not active: no frame is processed")
            silence = _since(self._processed_at[-1] if self._processed_at else None, now)
            if silence is None or 0 < image_timeout < silence:
                return Verdict(State.STALE, self._why_stale(now, image_timeout))
            state = State[self._tracking.value]
            return Verdict(state, _tracking_text(self._last.phases))

    def statistics(self, now: float) -> Statistics:
        """Counts so far, the rate of the last RATE_WINDOW_S, latencies of the last frames."""
        with self._lock:
            counts = self._counts
            recent = [at for at in self._processed_at if now - at <= RATE_WINDOW_S]
            return Statistics(
                received=counts.received,
                processed=counts.processed,
                faults=counts.faults,
                lost_by_middleware=counts.lost_by_middleware,
                dropped=dict(sorted(counts.dropped.items())),
                last_drop=self._last_drop,
                last_fault=self._last_fault,
                rate_hz=_rate(recent),
                latency_ms=_percentiles(list(self._latencies_ms)),
            )

    def _forget_tracks(self) -> None:
        self._tracking, self._last = TrackingState.LOST, LastResult()

    def _why_stale(self, now: float, image_timeout: float) -> str:
        silence = _since(self._received_at, now)
        if silence is None:
            return "No image has come yet: is the publisher running, on this topic and QoS?"
        if 0 < image_timeout < silence:
            return f"No image for {silence:.1f} s"
        return f"Images come, but none can be used: {self._last_drop or 'none is processed yet'}"


def largest_sigma(covariance: npt.NDArray[np.float64]) -> float:
    """Square root of the largest eigenvalue of a covariance (2, 2)."""
    return float(np.sqrt(np.linalg.eigvalsh(covariance)[-1]))


def _tracking_text(phases: Mapping[str, TrackPhase]) -> str:
    if not any(phase is not TrackPhase.SEARCHING for phase in phases.values()):
        return "No instrument has been found yet"
    return ", ".join(f"{kind} {phase.value.lower()}" for kind, phase in sorted(phases.items()))


def _since(then: float | None, now: float) -> float | None:
    return None if then is None else now - then


def _rate(times: list[float]) -> float:
    span = times[-1] - times[0] if times else 0.0
    return (len(times) - 1) / span if span > 0 else 0.0


def _percentiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    p50, p95, highest = np.percentile(values, [50, 95, 100])
    return {"p50": float(p50), "p95": float(p95), "max": float(highest)}
