# SPDX-License-Identifier: Apache-2.0
"""TIFF pages -> grey frames. Directories are walked first: sizes are known before decoding."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import numpy.typing as npt

from fedefm_core.errors import FrameError
from fedefm_core.frames.clip import Clip
from fedefm_core.frames.frame import Frame
from fedefm_core.frames.limits import (
    DEFAULT_LIMITS,
    FrameLimits,
    check_frame_count,
    check_frame_size,
)
from fedefm_core.frames.raster import luma

_WIDTH, _HEIGHT, _PHOTOMETRIC, _SAMPLES, _DEPTH = 256, 257, 262, 277, 32997
_MIN_IS_WHITE, _RGB = 0, 2
_INTEGER_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}


@dataclass(frozen=True)
class _Page:
    width: int
    height: int
    photometric: int
    samples: int
    depth: int


def read_tiff(path: Path, limits: FrameLimits = DEFAULT_LIMITS) -> Clip:
    """Open a TIFF or BigTIFF; each page is a frame and may have a size of its own."""
    with path.open("rb") as file:
        pages = []
        for page in _walk_pages(file):
            check_frame_size(page.width, page.height, limits)
            _check_samples(page)
            pages.append(page)
            check_frame_count(len(pages), limits)
    check_frame_count(len(pages), limits)
    return Clip(lambda: _decode_frames(path, pages), frame_count=len(pages))


def _check_samples(page: _Page) -> None:
    if not (1 <= page.samples <= 4 and page.depth == 1):
        raise FrameError(
            "a page must be one plane of 1 to 4 samples a pixel "
            f"(got {page.depth} planes, {page.samples} samples)"
        )


def _walk_pages(file: BinaryIO) -> Iterator[_Page]:
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", head, 2)[0] == 43
    offset = struct.unpack_from(f"{order}Q" if big else f"{order}I", head, 8 if big else 4)[0]
    visited = set()
    while offset:
        if offset in visited:
            raise FrameError("its list of pages runs in a circle")
        visited.add(offset)
        file.seek(offset)
        tags, offset = _read_directory(file, order, big)
        yield _Page(
            width=tags.get(_WIDTH, 0),
            height=tags.get(_HEIGHT, 0),
            photometric=tags.get(_PHOTOMETRIC, 1),
            samples=tags.get(_SAMPLES, 1),
            depth=tags.get(_DEPTH, 1),
        )


def _read_directory(file: BinaryIO, order: str, big: bool) -> tuple[dict[int, int], int]:
    """(first value of each short integer tag, offset of the next directory)."""
    count_format, entry_bytes, value_at, next_format = (
        ("Q", 20, 12, "Q") if big else ("H", 12, 8, "I")
    )
    count = _unpack(file, order + count_format)
    tags = {}
    for _ in range(count):
        entry = file.read(entry_bytes)
        if len(entry) < entry_bytes:
            raise FrameError("it is truncated within a page's directory", reason="short_data")
        tag, kind = struct.unpack_from(f"{order}HH", entry)
        if (
            kind in _INTEGER_TYPES
            and struct.calcsize(_INTEGER_TYPES[kind]) <= entry_bytes - value_at
        ):
            tags[tag] = struct.unpack_from(order + _INTEGER_TYPES[kind], entry, value_at)[0]
    return tags, _unpack(file, order + next_format)


def _unpack(file: BinaryIO, format: str) -> int:
    value: int = struct.unpack(format, file.read(struct.calcsize(format)))[0]
    return value


def _decode_frames(path: Path, pages: list[_Page]) -> Iterator[Frame]:
    data = path.read_bytes()
    for index, page in enumerate(pages):
        as_rgb = page.photometric > _RGB  # palette, CMYK, YCbCr: libtiff knows how
        decoded = imagecodecs.tiff_decode(data, index=index, asrgb=as_rgb)
        pixels = _grey(decoded, page)
        pixels.flags.writeable = False
        inverted = page.photometric == _MIN_IS_WHITE
        yield Frame(pixels=pixels, inverted=inverted, source=str(path), index=index)


def _grey(decoded: npt.NDArray[Any], page: _Page) -> npt.NDArray[Any]:
    if decoded.ndim == 3 and decoded.shape[:2] != (page.height, page.width):
        decoded = np.moveaxis(decoded, 0, -1)  # planes one after the other
    if decoded.shape[:2] != (page.height, page.width) or decoded.ndim > 3:
        raise FrameError(
            f"a page must hold {page.width} x {page.height} pixels (got shape {decoded.shape})"
        )
    if decoded.dtype == np.bool_:
        decoded = decoded.astype(np.uint8) * np.uint8(255)
    elif decoded.dtype not in (np.uint8, np.uint16, np.int16, np.float32):
        decoded = decoded.astype(np.float32)
    return luma(decoded)
