# SPDX-License-Identifier: Apache-2.0
"""The payload of an image message -> grey array. Takes plain values, so it needs no ROS.

Every failure is a FrameError; its `reason` is one of REASONS and fits as the key of a counter.
"""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.errors import FrameError
from fedefm_core.frames.limits import DEFAULT_LIMITS, FrameLimits, check_frame_size

BytesLike: TypeAlias = "bytes | bytearray | memoryview | array[int] | npt.NDArray[np.uint8]"
GreyArray: TypeAlias = npt.NDArray[Any]

REASONS = (
    "zero_size",
    "unknown_encoding",
    "too_large",
    "wrong_step",
    "short_data",
    "not_finite",
    "unreadable",
)


@dataclass(frozen=True)
class _Layout:
    dtype: str
    channels: int = 1
    to_grey: int = -1  # OpenCV's conversion code, for colour


ENCODINGS = {
    "mono8": _Layout("u1"),
    "8UC1": _Layout("u1"),
    "mono16": _Layout("u2"),
    "16UC1": _Layout("u2"),
    "16SC1": _Layout("i2"),
    "32FC1": _Layout("f4"),
    "bgr8": _Layout("u1", 3, cv2.COLOR_BGR2GRAY),
    "8UC3": _Layout("u1", 3, cv2.COLOR_BGR2GRAY),
    "rgb8": _Layout("u1", 3, cv2.COLOR_RGB2GRAY),
    "bgra8": _Layout("u1", 4, cv2.COLOR_BGRA2GRAY),
    "8UC4": _Layout("u1", 4, cv2.COLOR_BGRA2GRAY),
    "rgba8": _Layout("u1", 4, cv2.COLOR_RGBA2GRAY),
}


def decode_image(
    data: BytesLike,
    height: int,
    width: int,
    encoding: str,
    step: int,
    is_bigendian: bool | int = False,
    limits: FrameLimits = DEFAULT_LIMITS,
) -> GreyArray:
    """Return (height, width) uint8, uint16, int16 or float32, read-only, in native byte order.

    The result is a view of data unless colour, byte order or alignment ask for a copy. step: bytes
    a row, padding included. Raises FrameError (see REASONS) for anything that is no such image.
    """
    layout = ENCODINGS.get(encoding)
    if layout is None:
        raise FrameError(
            f"the encoding must be one of {', '.join(ENCODINGS)} (got '{encoding!s:.40}')",
            reason="unknown_encoding",
        )
    check_frame_size(width, height, limits)
    rows = _rows(data, height, width * layout.channels * np.dtype(layout.dtype).itemsize, step)
    if layout.channels > 1:
        pixels = cv2.cvtColor(rows.reshape(height, width, layout.channels), layout.to_grey)
    else:
        pixels = _samples(rows, layout.dtype, bool(is_bigendian))
    if pixels.dtype.kind == "f":
        _check_finite(pixels)
    pixels.flags.writeable = False
    return pixels


def _rows(data: BytesLike, height: int, row_bytes: int, step: int) -> npt.NDArray[np.uint8]:
    """(height, row_bytes) view of data without the padding at the end of each row."""
    if step < row_bytes:
        raise FrameError(
            f"step must be at least {row_bytes} bytes, one row of pixels (got {step})",
            reason="wrong_step",
        )
    try:
        flat = np.frombuffer(data, dtype=np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise FrameError(f"the image data cannot be read as bytes: {error}") from error
    if flat.size < step * height:
        raise FrameError(
            f"the image data must hold step x height = {step * height} bytes (got {flat.size})",
            reason="short_data",
        )
    if flat.size > step * height:
        raise FrameError(
            f"the image data holds {flat.size} bytes, more than step x height = {step * height}",
            reason="wrong_step",
        )
    return flat.reshape(height, step)[:, :row_bytes]


def _samples(rows: npt.NDArray[np.uint8], dtype: str, is_bigendian: bool) -> GreyArray:
    pixels: GreyArray = rows.view(np.dtype(dtype).newbyteorder(">" if is_bigendian else "<"))
    swapped = pixels.dtype.itemsize > 1 and is_bigendian != (sys.byteorder == "big")
    if swapped or not pixels.flags.aligned:
        return pixels.astype(np.dtype(dtype))
    return pixels


def _check_finite(pixels: GreyArray) -> None:
    # min and max carry NaN and infinity through, and need no temporary array.
    if not (np.isfinite(pixels.min()) and np.isfinite(pixels.max())):
        raise FrameError("the image has pixels that are NaN or infinite", reason="not_finite")


def decode_compressed_image(
    data: BytesLike, format: str = "", limits: FrameLimits = DEFAULT_LIMITS
) -> GreyArray:
    """Return the (H, W) grey image of a JPEG or PNG payload, read-only.

    format: as in sensor_msgs/CompressedImage; the payload's own first bytes decide, and format
    only serves to refuse transports that are not still images. Raises FrameError as decode_image.
    """
    from fedefm_core.frames.raster import decode_still

    if "compressedDepth" in format:
        raise FrameError(
            f"compressed images must be jpeg or png (got '{format:.40}')",
            reason="unknown_encoding",
        )
    try:
        payload = np.frombuffer(data, dtype=np.uint8).data
    except (TypeError, ValueError, BufferError) as error:
        raise FrameError(f"the image data cannot be read as bytes: {error}") from error
    pixels = decode_still(payload, ("PNG", "JPEG"), limits)
    pixels.flags.writeable = False
    return pixels
