# SPDX-License-Identifier: Apache-2.0
"""PNG, JPEG and BMP -> grey frames. Colour becomes luma, alpha and EXIF rotation are ignored.

Masks and labels are drawn on the pixels as they are stored, so a rotation flag must not move them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt

from fedefm_core.errors import FrameError
from fedefm_core.frames.clip import Clip
from fedefm_core.frames.frame import Frame
from fedefm_core.frames.limits import DEFAULT_LIMITS, FrameLimits, check_frame_size
from fedefm_core.frames.opencv import quiet

_GREY = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
# Start-of-frame markers: 0xC0 to 0xCF but DHT, JPG and DAC; 0xF7 is of JPEG-LS.
_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_HEADER_BYTES = 2**20  # a JPEG's size stands behind its colour profile and thumbnail
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length


def read_raster(path: Path, limits: FrameLimits = DEFAULT_LIMITS) -> Clip:
    """Open a PNG, JPEG or BMP: one frame."""
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    check_frame_size(*declared_size(head, still_format(head) or "BMP"), limits)

    def frames() -> Iterator[Frame]:
        pixels = decode_still(path.read_bytes(), limits=limits)
        pixels.flags.writeable = False
        yield Frame(pixels=pixels, source=str(path))

    return Clip(frames, frame_count=1)


def still_format(head: bytes | memoryview) -> str | None:
    """'PNG', 'JPEG' or 'BMP' by the first bytes of a file, else None."""
    head = bytes(head[:8])
    if head == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if head[:3] == b"\xff\xd8\xff":
        return "JPEG"
    return "BMP" if head[:2] == b"BM" else None


def decode_still(
    data: bytes | memoryview,
    formats: Sequence[str] = ("PNG", "JPEG", "BMP"),
    limits: FrameLimits = DEFAULT_LIMITS,
) -> npt.NDArray[Any]:
    """Return the (H, W) uint8 or uint16 grey image in data.

    The declared size is checked before anything is decompressed. Raises FrameError.
    """
    kind = still_format(data)
    if kind is None or kind not in formats:
        raise FrameError(
            f"the image must be {' or '.join(formats)} (its first bytes are not)",
            reason="unknown_encoding" if len(data) else "zero_size",
        )
    width, height = declared_size(data, kind)
    check_frame_size(width, height, limits)
    pixels = _decode_png(data) if kind == "PNG" else _decode_with_opencv(data)
    if pixels is None or pixels.shape != (height, width):
        raise FrameError(f"the {kind} data is damaged or truncated", reason="short_data")
    return pixels


def _decode_png(data: bytes | memoryview) -> npt.NDArray[Any] | None:
    # Not with OpenCV, whose libpng writes to stderr what it thinks of a damaged file.
    try:
        return luma(imagecodecs.png_decode(bytes(data)))
    except (imagecodecs.PngError, ValueError):
        return None


def _decode_with_opencv(data: bytes | memoryview) -> npt.NDArray[Any] | None:
    try:
        with quiet():
            return cv2.imdecode(np.frombuffer(data, np.uint8), _GREY)
    except cv2.error:
        return None


def luma(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(H, W) or (H, W, C) grey, grey and alpha, RGB or RGBA -> (H, W) grey."""
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] < 3:
        return np.ascontiguousarray(pixels[..., 0])
    return cv2.cvtColor(np.ascontiguousarray(pixels[..., :3]), cv2.COLOR_RGB2GRAY)


def declared_size(data: bytes | memoryview, kind: str) -> tuple[int, int]:
    """Return (width, height) that the header of a PNG, JPEG or BMP declares."""
    try:
        if kind == "PNG":
            width, height = struct.unpack_from(">II", data, 16)
        elif kind == "JPEG":
            width, height, _ = jpeg_size(data)
        elif struct.unpack_from("<I", data, 14)[0] == 12:  # OS/2 header
            width, height = struct.unpack_from("<HH", data, 18)
        else:
            width, height = struct.unpack_from("<ii", data, 18)
    except struct.error as error:
        raise FrameError(f"the {kind} header is truncated", reason="short_data") from error
    return int(width), abs(int(height))  # a BMP stored top-down has a negative height


def jpeg_size(data: bytes | memoryview) -> tuple[int, int, int]:
    """(width, height, components) of a JPEG or JPEG-LS codestream; struct.error if cut short."""
    position = 2
    while True:
        prefix, marker = struct.unpack_from(">BB", data, position)
        if prefix != 0xFF:
            raise FrameError("the JPEG header is damaged: a marker is missing")
        if marker == 0xFF or marker in _JPEG_BARE:
            position += 1 if marker == 0xFF else 2
            continue
        if marker in _JPEG_FRAMES:
            height, width, components = struct.unpack_from(">HHB", data, position + 5)
            return width, height, components
        position += 2 + struct.unpack_from(">H", data, position + 2)[0]
