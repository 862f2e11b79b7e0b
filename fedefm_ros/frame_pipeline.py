# SPDX-License-Identifier: Apache-2.0
"""From an image message to a Perception: may this frame be processed, and if so, what is on it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import CompressedImage, Image

from fedefm_core.errors import FrameError
from fedefm_core.frames import Frame
from fedefm_core.frames.limits import FrameLimits, check_frame_size
from fedefm_core.perception import Perception, Segmenter, TrackPhase
from fedefm_ros.messages import image_to_array, stamp_to_ns

MIN_SIDE_PX = 32  # nothing can be seen on less
SLOW_S = 2.0  # a frame no older than this may have waited here; an older one has another clock
RESTART_NS = 1_000_000_000  # a stamp that jumps back this far is a source that starts again

# Reasons why a frame is refused, beside fedefm_core.frames.encoding.REASONS.
TOO_SMALL = "too_small"
TOO_OLD = "too_old"
FROM_FUTURE = "from_future"
OUT_OF_ORDER = "out_of_order"

Convert = Callable[[Image], "npt.NDArray[np.generic]"]


class FramePipeline:
    """Holds the segmenter and what it must know of the frame before; safe between threads."""

    def __init__(
        self, segmenter: Segmenter, max_image_size: int, convert: Convert | None = None
    ) -> None:
        """max_image_size: pixels of the longer side. convert: for encodings not known here."""
        self._segmenter = segmenter
        self._limits = FrameLimits(
            max_width=max_image_size,
            max_height=max_image_size,
            max_pixels_per_frame=max_image_size**2,
        )
        self._convert = convert
        self._lock = threading.Lock()
        self._last_stamp_ns: int | None = None
        self._last_shape: tuple[int, ...] | None = None

    def process(
        self, message: Image | CompressedImage, now_ns: int, max_age_s: float
    ) -> tuple[Frame, Perception]:
        """Process the frame of a message.

        Raises FrameError, whose `reason` counts it, when the frame may not be processed. Any
        other exception is a fault; it resets the tracker, which may have seen half of the frame.
        """
        stamp_ns = stamp_to_ns(message.header.stamp)
        check_age((now_ns - stamp_ns) / 1e9, max_age_s)
        pixels = self._decode(message)
        frame = Frame(pixels, stamp_ns)
        with self._lock:
            self._check_sequence(frame)
            try:
                perception = self._segmenter.process(frame)
            except Exception:
                self._forget()
                raise
        return frame, perception

    def reset(self) -> None:
        """Forget the tracks, and the frame before."""
        with self._lock:
            self._forget()

    def phases(self) -> dict[str, TrackPhase]:
        """The tracker's phase of each kind."""
        return dict(self._segmenter.tracker.phases)

    def _decode(self, message: Image | CompressedImage) -> npt.NDArray[np.generic]:
        try:
            pixels = image_to_array(message, self._limits)
        except FrameError as error:
            if error.reason != "unknown_encoding" or self._convert is None:
                raise
            check_frame_size(message.width, message.height, self._limits)
            pixels = self._convert(message)
        if min(pixels.shape) < MIN_SIDE_PX:
            raise FrameError(
                f"the image is {pixels.shape[1]} x {pixels.shape[0]} pixels; "
                f"each side must have at least {MIN_SIDE_PX}",
                reason=TOO_SMALL,
            )
        return pixels

    def _check_sequence(self, frame: Frame) -> None:
        """Refuse a late frame; forget the tracks when the source starts again or changes size."""
        back_ns = (self._last_stamp_ns or frame.stamp_ns) - frame.stamp_ns
        if 0 < back_ns < RESTART_NS:
            raise FrameError(
                f"the frame's stamp is {back_ns / 1e6:.1f} ms before that of the frame before it",
                reason=OUT_OF_ORDER,
            )
        if back_ns >= RESTART_NS or self._last_shape not in (None, frame.pixels.shape):
            self._forget()
        self._last_stamp_ns, self._last_shape = frame.stamp_ns, frame.pixels.shape

    def _forget(self) -> None:
        self._segmenter.reset()
        self._last_stamp_ns = self._last_shape = None


def check_age(age_s: float, max_age_s: float) -> None:
    """Raise FrameError for a frame that is older than max_age_s, or as far in the future; 0 = off.

    The sentence says by how much, and names the usual causes.
    """
    if max_age_s <= 0 or -max_age_s <= age_s <= max_age_s:
        return
    causes = "is 'use_sim_time' the same here and at the publisher, and are their clocks in step?"
    if 0 < age_s < SLOW_S:
        causes = f"is this machine too slow or too busy for the frames that come? Else, {causes}"
    if age_s > 0:
        raise FrameError(
            f"the frame is {age_s:.3f} s old, more than max_age = {max_age_s:g} s: {causes}",
            reason=TOO_OLD,
        )
    raise FrameError(
        f"the frame's stamp is {-age_s:.3f} s in the future: {causes}", reason=FROM_FUTURE
    )
