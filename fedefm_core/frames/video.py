# SPDX-License-Identifier: Apache-2.0
"""Video files -> grey 8-bit frames, stamped by the frame rate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from fedefm_core.errors import FrameError
from fedefm_core.frames.clip import Clip
from fedefm_core.frames.frame import Frame
from fedefm_core.frames.limits import (
    DEFAULT_LIMITS,
    FrameLimits,
    check_frame_count,
    check_frame_size,
)
from fedefm_core.frames.opencv import quiet


def read_video(path: Path, limits: FrameLimits = DEFAULT_LIMITS) -> Clip:
    """Open a video; a rate that the container does not name leaves all stamps at 0."""
    capture = _open_capture(path)
    width, height = (capture.get(key) for key in (cv2.CAP_PROP_FRAME_WIDTH, _HEIGHT))
    rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    capture.release()
    check_frame_size(int(width), int(height), limits)
    frame_rate_hz = rate if math.isfinite(rate) and 1e-3 <= rate <= 1e5 else None
    frame_count = int(count) if math.isfinite(count) and count > 0 else None
    if frame_count is not None:
        check_frame_count(frame_count, limits)
    return Clip(
        frames=lambda: _decode_frames(path, limits, frame_rate_hz, frame_count),
        frame_rate_hz=frame_rate_hz,
        frame_count=frame_count,
    )


_HEIGHT = cv2.CAP_PROP_FRAME_HEIGHT


def _open_capture(path: Path) -> cv2.VideoCapture:
    # Only FFmpeg: other backends would read a '%' in the name as a pattern of image files.
    with quiet():
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise FrameError("the video cannot be opened: it is damaged, truncated or of a rare codec")
    return capture


def _decode_frames(
    path: Path, limits: FrameLimits, frame_rate_hz: float | None, declared: int | None
) -> Iterator[Frame]:
    capture = _open_capture(path)
    period_ns = 1e9 / frame_rate_hz if frame_rate_hz else 0.0
    index = 0
    try:
        while (pixels := _next_grey(capture)) is not None:
            check_frame_size(pixels.shape[1], pixels.shape[0], limits)
            check_frame_count(index + 1, limits)
            yield Frame(
                pixels=pixels, stamp_ns=round(index * period_ns), source=str(path), index=index
            )
            index += 1
    finally:
        capture.release()
    _check_complete(index, declared)


def _next_grey(capture: cv2.VideoCapture) -> np.ndarray | None:
    with quiet():
        found, image = capture.read()
    if not found:
        return None
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    grey.flags.writeable = False
    return grey


def _check_complete(decoded: int, declared: int | None) -> None:
    # Some containers only estimate their length, so a few frames fewer are no damage.
    missing = 0 if declared is None else declared - decoded
    if decoded == 0 or missing > max(2, (declared or 0) // 50):
        raise FrameError(
            f"the video is truncated or damaged: {decoded} of {declared or 'its'} frames decoded",
            reason="short_data",
        )
