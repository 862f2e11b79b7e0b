# SPDX-License-Identifier: Apache-2.0
"""How large a source may be. Checked against what a header declares, before memory is taken."""

from __future__ import annotations

from pydantic import PositiveInt

from fedefm_core.config import Settings
from fedefm_core.errors import FrameError, FrameLimitError


class FrameLimits(Settings):
    """Largest source that the readers open; the defaults hold any real X-ray acquisition."""

    max_width: PositiveInt = 16384
    max_height: PositiveInt = 16384
    max_pixels_per_frame: PositiveInt = 8192 * 8192
    max_frames: PositiveInt = 100_000
    max_file_bytes: PositiveInt = 16 * 2**30


DEFAULT_LIMITS = FrameLimits()


def check_frame_size(width: int, height: int, limits: FrameLimits) -> None:
    """Raise FrameError for an empty image, FrameLimitError for one that is too large."""
    if width <= 0 or height <= 0:
        raise FrameError(f"the image is empty: {width} x {height} pixels", reason="zero_size")
    if width > limits.max_width or height > limits.max_height:
        raise FrameLimitError(
            f"the image is {width} x {height} pixels; the limit is "
            f"{limits.max_width} x {limits.max_height}",
            reason="too_large",
        )
    if width * height > limits.max_pixels_per_frame:
        raise FrameLimitError(
            f"the image has {width * height} pixels ({width} x {height}); the limit is "
            f"{limits.max_pixels_per_frame}",
            reason="too_large",
        )


def check_frame_count(count: int, limits: FrameLimits) -> None:
    """Raise FrameError for no frame at all, FrameLimitError for too many."""
    if count <= 0:
        raise FrameError("it declares no frames", reason="zero_size")
    if count > limits.max_frames:
        raise FrameLimitError(
            f"it declares {count} frames; the limit is {limits.max_frames}", reason="too_large"
        )
