# SPDX-License-Identifier: Apache-2.0
"""A demo run put together again, frame by frame: what was sent, what is true, what came back."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from fedefm_core.errors import FrameError
from fedefm_core.frames import Spacing
from fedefm_core.perception.types import INSTRUMENT_KINDS, Instrument, Perception, TrackingState
from fedefm_ros.demo_report import FrameRecord, Point, SentFrame
from fedefm_ros.playback import PlaybackSource, PlayedFrame, repeated, sent_pixels
from fedefm_ros.recorder import Recording

NS_PER_MS = 1e6
MM_PER_M = 1000.0


def read_again(
    source: PlaybackSource, sent: Sequence[SentFrame]
) -> Iterator[tuple[SentFrame, PlayedFrame]]:
    """Read the sent frames again, in order. Raises FrameError when they are no longer the same."""
    for line, played in zip(sent, repeated(source.frames, loop=True), strict=False):
        pixels = sent_pixels(played.frame)
        if (line.number, line.crc32) != (played.number, zlib.crc32(pixels.tobytes())):
            raise FrameError(f"{source.name} changed while it was played: nothing can be drawn.")
        yield line, played


def frame_record(sent: SentFrame, played: PlayedFrame, recording: Recording) -> FrameRecord:
    """All figures of one frame."""
    stamp = sent.stamp_ns
    arrivals = {kind: recording.tips_received_ns[kind].get(stamp) for kind in INSTRUMENT_KINDS}
    return FrameRecord(
        stamp_ns=stamp,
        mask_ms=_since(stamp, recording.masks_received_ns.get(stamp)),
        tip_ms={k: (ns - stamp) / NS_PER_MS for k, ns in arrivals.items() if ns is not None},
        tips_px={k: tips[stamp] for k, tips in recording.tips_px.items() if stamp in tips},
        true_tips_px=_true_tips(played),
        state=recording.states.get(stamp),
    )


def perceived(sent: SentFrame, played: PlayedFrame, recording: Recording) -> Perception:
    """What the node told of one frame, as far as its topics carry it."""
    stamp = sent.stamp_ns
    spacing_m = _spacing_m(played.frame.spacing)
    found = {
        kind: _instrument(kind, stamp, spacing_m, recording)
        for kind in INSTRUMENT_KINDS
        if stamp in recording.tips_px[kind]
    }
    mask = recording.masks.get(stamp)
    return Perception(
        stamp_ns=stamp,
        label_map=np.zeros(played.frame.pixels.shape, np.uint8) if mask is None else mask.dense(),
        instruments=tuple(found.values()),
        tracked=found,
        state=TrackingState.TRACKING if found else TrackingState.LOST,
    )


def _instrument(
    kind: str, stamp: int, spacing_m: npt.NDArray[np.float64] | None, recording: Recording
) -> Instrument:
    line_m = recording.centerlines_m[kind].get(stamp)
    pose = recording.poses[kind].get(stamp)
    line = np.zeros((0, 2))
    heading = covariance = None
    if spacing_m is not None and line_m is not None:
        line = line_m / spacing_m
    if spacing_m is not None and pose is not None:
        cos, sin = np.array([np.cos(pose.heading_rad), np.sin(pose.heading_rad)]) / spacing_m
        heading = float(np.arctan2(sin, cos))
        covariance = pose.covariance_m / np.outer(spacing_m, spacing_m)
    return Instrument(
        kind=kind,
        centerline_px=line,
        tip_px=np.array(recording.tips_px[kind][stamp]),
        heading_rad=heading,
        covariance_px=covariance,
        confidence=recording.confidences[kind].get(stamp, float("nan")),
        length_px=float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum()),
    )


def _spacing_m(spacing: Spacing) -> npt.NDArray[np.float64] | None:
    """Metres a pixel as (x, y), in the plane that playback_node tells in camera_info."""
    if spacing.imager_pixel_spacing_mm is None:
        return None
    return np.array(spacing.imager_pixel_spacing_mm[::-1]) / MM_PER_M


def _true_tips(played: PlayedFrame) -> dict[str, list[Point]] | None:
    if played.truth is None:
        return None
    tips = [(t.kind, t.tip_px) for t in played.truth if t.tip_px is not None]
    return {
        kind: [(float(tip[0]), float(tip[1])) for k, tip in tips if k == kind]
        for kind in INSTRUMENT_KINDS
    }


def _since(stamp_ns: int, received_ns: int | None) -> float | None:
    return None if received_ns is None else (received_ns - stamp_ns) / NS_PER_MS
