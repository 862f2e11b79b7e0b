# SPDX-License-Identifier: Apache-2.0
"""Which tips to vouch for, over time.

Per kind, one track: a constant-velocity Kalman filter that decides which tip of a frame, if any,
continues it. It only decides: a tip that is vouched for is the measured one, unfiltered, and a
frame without one has none. While a dropout is bridged the filter's prediction can be looked at in
`Tracker.tracks`, for diagnostics; it is never given out as a tip.

    SEARCHING ──confirm_frames consistent tips──► TRACKED ◄──gated tip──► BRIDGED
                                                     ▲                       │ bridge_time_s over
                                                     └──confirm_frames────  LOST
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import cast

import numpy as np
from pydantic import Field

from fedefm_core.config import Settings
from fedefm_core.perception.types import (
    INSTRUMENT_KINDS,
    FloatArray,
    Instrument,
    TrackingState,
)


class TrackerSettings(Settings):
    """When a tip is vouched for. Pixels are those of the input image.

    min_confidence: below it an instrument is reported but never tracked. confirm_frames: frames in
    a row with a consistent tip before a track is vouched for. switch_frames: frames for which a
    tip elsewhere must persist, while the track is not seen, before the track moves over to it.
    bridge_time_s, bridge_frames: how long a track may go unseen before it is LOST, whichever ends
    first. max_speed_px_s, gate_sigma: a tip farther than these allow does not continue a track.
    acceleration_px_s2: how much the velocity is expected to change. initial_speed_px_s: standard
    deviation of the velocity of a track seen once.
    """

    min_confidence: float = Field(default=0.35, ge=0, le=1)
    confirm_frames: int = Field(default=2, ge=1)
    switch_frames: int = Field(default=5, ge=1)
    bridge_time_s: float = Field(default=0.25, ge=0)
    bridge_frames: int = Field(default=10, ge=0)
    max_speed_px_s: float = Field(default=1500.0, gt=0)
    gate_sigma: float = Field(default=4.0, gt=0)
    acceleration_px_s2: float = Field(default=1500.0, gt=0)
    initial_speed_px_s: float = Field(default=200.0, gt=0)


class TrackPhase(str, Enum):
    """SEARCHING: never confirmed. BRIDGED: unseen for a moment. LOST: unseen for too long."""

    SEARCHING = "SEARCHING"
    TRACKED = "TRACKED"
    BRIDGED = "BRIDGED"
    LOST = "LOST"


@dataclass(frozen=True)
class Track:
    """State of the filter: mean (4,) x, y in px and velocity in px/s; covariance (4, 4).

    hits: consistent tips so far. stamp_ns: of the state. seen_ns and seen_px (2,): last tip.
    missed: frames since then.
    """

    mean: FloatArray
    covariance: FloatArray
    hits: int
    stamp_ns: int
    seen_ns: int
    seen_px: FloatArray
    missed: int = 0

    @property
    def predicted_px(self) -> FloatArray:
        """(2,) where the filter puts the tip; for diagnostics only."""
        return self.mean[:2]

    @property
    def predicted_covariance_px(self) -> FloatArray:
        """(2, 2) px² of predicted_px; grows while the tip is not seen."""
        return self.covariance[:2, :2]


class Tracker:
    """Follows one tip of each kind. Deterministic: the same calls give the same answers.

    phases, tracks: by kind, the phase and the filter (confirmed or not; absent when none).
    resets: how often the tracker was reset, by reason.
    """

    def __init__(self, settings: TrackerSettings | None = None) -> None:
        self.settings = settings or TrackerSettings()
        self.resets: Counter[str] = Counter()
        self._clear()

    @property
    def state(self) -> TrackingState:
        """TRACKING when a kind is followed and none that was confirmed is lost."""
        phases = self.phases.values()
        followed = TrackPhase.TRACKED in phases or TrackPhase.BRIDGED in phases
        ok = followed and TrackPhase.LOST not in phases
        return TrackingState.TRACKING if ok else TrackingState.LOST

    @property
    def tracks(self) -> Mapping[str, Track]:
        """The followed track of each kind, else the one that waits to be confirmed."""
        return {**self._rivals, **self._followed}

    def reset(self, reason: str = "requested") -> None:
        """Forget everything; reason is counted in `resets`."""
        self.resets[reason] += 1
        self._clear()

    def _clear(self) -> None:
        self.phases = dict.fromkeys(INSTRUMENT_KINDS, TrackPhase.SEARCHING)
        self._followed: dict[str, Track] = {}
        self._rivals: dict[str, Track] = {}
        self._stamp_ns: int | None = None

    def update(self, instruments: Sequence[Instrument], stamp_ns: int) -> dict[str, Instrument]:
        """Take in one frame; by kind, the instrument vouched for in it.

        A stamp before the last one resets the tracker first (a player looped, a clock was set).
        """
        if self._stamp_ns is not None and stamp_ns < self._stamp_ns:
            self.reset("stamp went backwards")
        self._stamp_ns = stamp_ns
        tracked = {}
        for kind in INSTRUMENT_KINDS:
            usable = [one for one in instruments if one.kind == kind and self._is_usable(one)]
            instrument = self._update_kind(kind, usable, stamp_ns)
            if instrument is not None:
                tracked[kind] = instrument
        return tracked

    def _is_usable(self, instrument: Instrument) -> bool:
        return (
            instrument.tip_px is not None
            and instrument.covariance_px is not None
            and instrument.confidence >= self.settings.min_confidence
        )

    def _update_kind(
        self, kind: str, usable: Sequence[Instrument], stamp_ns: int
    ) -> Instrument | None:
        track = self._followed.get(kind)
        if track is not None:
            track = predict(track, stamp_ns, self.settings)
            match = closest(track, usable, self.settings)
            if match is not None:
                self._follow(kind, correct(track, match, stamp_ns))
                return match
            if self._is_over(track, stamp_ns):
                self.phases[kind] = TrackPhase.LOST
                del self._followed[kind]
            else:
                self.phases[kind] = TrackPhase.BRIDGED
                self._followed[kind] = track
        return self._update_rival(kind, usable, stamp_ns)

    def _is_over(self, track: Track, stamp_ns: int) -> bool:
        unseen_s = (stamp_ns - track.seen_ns) * 1e-9
        settings = self.settings
        return unseen_s > settings.bridge_time_s or track.missed > settings.bridge_frames

    def _follow(self, kind: str, track: Track) -> None:
        self._followed[kind] = track
        self._rivals.pop(kind, None)
        self.phases[kind] = TrackPhase.TRACKED

    def _update_rival(
        self, kind: str, usable: Sequence[Instrument], stamp_ns: int
    ) -> Instrument | None:
        """Build up, in frames without a gap, the track that would be followed next."""
        rival = self._rivals.pop(kind, None)
        if not usable:
            return None
        match = None
        if rival is not None:
            rival = predict(rival, stamp_ns, self.settings)
            match = closest(rival, usable, self.settings)
        if rival is None or match is None:
            match = max(usable, key=lambda one: one.confidence)
            rival = start(match, stamp_ns, self.settings)
        else:
            rival = correct(rival, match, stamp_ns)
        settings = self.settings
        needed = settings.switch_frames if kind in self._followed else settings.confirm_frames
        if rival.hits < needed:
            self._rivals[kind] = rival
            return None
        self._follow(kind, rival)
        return match


def start(instrument: Instrument, stamp_ns: int, settings: TrackerSettings) -> Track:
    """A track from its first tip."""
    tip, noise = _measurement(instrument)
    covariance = np.diag([0.0, 0.0, 1.0, 1.0]) * settings.initial_speed_px_s**2
    covariance[:2, :2] = noise
    return Track(np.concatenate((tip, np.zeros(2))), covariance, 1, stamp_ns, stamp_ns, tip)


def predict(track: Track, stamp_ns: int, settings: TrackerSettings) -> Track:
    """The track at a later stamp, counted as missed until corrected."""
    dt = (stamp_ns - track.stamp_ns) * 1e-9
    move = np.eye(4)
    move[0, 2] = move[1, 3] = dt
    push = np.vstack((np.eye(2) * 0.5 * dt**2, np.eye(2) * dt)) * settings.acceleration_px_s2
    return Track(
        move @ track.mean,
        move @ track.covariance @ move.T + push @ push.T,
        track.hits,
        stamp_ns,
        track.seen_ns,
        track.seen_px,
        track.missed + 1,
    )


def closest(
    track: Track, instruments: Sequence[Instrument], settings: TrackerSettings
) -> Instrument | None:
    """The instrument whose tip best continues a predicted track, or None when none does."""
    best, best_distance = None, settings.gate_sigma**2
    unseen_s = (track.stamp_ns - track.seen_ns) * 1e-9
    for instrument in instruments:
        tip, noise = _measurement(instrument)
        reach = settings.max_speed_px_s * unseen_s + 3 * float(np.sqrt(np.trace(noise)))
        if np.hypot(*(tip - track.seen_px)) > reach:
            continue
        gap = tip - track.mean[:2]
        distance = float(gap @ np.linalg.solve(track.covariance[:2, :2] + noise, gap))
        if distance <= best_distance:
            best, best_distance = instrument, distance
    return best


def correct(track: Track, instrument: Instrument, stamp_ns: int) -> Track:
    """A predicted track with a tip taken in."""
    tip, noise = _measurement(instrument)
    gain = track.covariance[:, :2] @ np.linalg.inv(track.covariance[:2, :2] + noise)
    mean = track.mean + gain @ (tip - track.mean[:2])
    covariance = track.covariance - gain @ track.covariance[:2]
    covariance = 0.5 * (covariance + covariance.T)
    return Track(mean, covariance, track.hits + 1, stamp_ns, stamp_ns, tip)


def _measurement(instrument: Instrument) -> tuple[FloatArray, FloatArray]:
    """Tip (2,) and covariance (2, 2) of an instrument that has both."""
    return cast(FloatArray, instrument.tip_px), cast(FloatArray, instrument.covariance_px)
