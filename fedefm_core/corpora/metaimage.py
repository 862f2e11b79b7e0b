# SPDX-License-Identifier: Apache-2.0
"""MetaImage (.mhd with .raw or .zraw, .mha) -> grey frames: slices along the third axis.

Source of the format: the MetaIO documentation of ITK. As with NIfTI, the first axis becomes the
columns and the second the rows, nothing is flipped.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedefm_core.errors import FrameError
from fedefm_core.frames import Frame, FrameLimits, Spacing
from fedefm_core.frames.clip import Clip
from fedefm_core.frames.limits import DEFAULT_LIMITS, check_frame_count, check_frame_size

_DTYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_KEPT = ("u1", "u2", "i2", "f4")  # types of a Frame; others are read as float32
_HEADER_LINES = 200
_HEADER_BYTES = 2**16


def read_metaimage(path: Path, limits: FrameLimits = DEFAULT_LIMITS) -> Clip:
    """Open a MetaImage of 2 or 3 axes. Raises FrameError; its message does not name the file."""
    header, header_bytes = _read_header(path)
    sizes = [int(size) for size in _value(header, "DimSize").split()]
    if len(sizes) not in (2, 3) or _value(header, "NDims") != str(len(sizes)):
        raise FrameError(f"its array must have 2 or 3 axes (got DimSize = {sizes})")
    columns, rows, count = (*sizes, 1)[:3]
    check_frame_size(columns, rows, limits)
    check_frame_count(count, limits)
    if header.get("ElementNumberOfChannels", "1") != "1":
        raise FrameError("its voxels must have one channel")
    kind = _value(header, "ElementType")
    if kind not in _DTYPES:
        raise FrameError(f"its ElementType must be one of {', '.join(_DTYPES)} (got {kind})")
    big = header.get("BinaryDataByteOrderMSB", header.get("ElementByteOrderMSB", "False"))
    dtype = np.dtype(_DTYPES[kind]).newbyteorder(">" if big.lower() == "true" else "<")
    data = _data_file(path, header)
    skip = header_bytes if data == path else max(int(header.get("HeaderSize", "0")), 0)
    packed = header.get("CompressedData", "False").lower() == "true"
    spacing = _spacing(header)

    def frames() -> Iterator[Frame]:
        slices = _slices(data, skip, packed, dtype, (count, rows, columns))
        for index, stored in enumerate(slices):
            pixels = _native(stored)
            pixels.flags.writeable = False
            yield Frame(pixels=pixels, spacing=spacing, source=str(path), index=index)

    return Clip(frames, frame_count=count)


def _read_header(path: Path) -> tuple[dict[str, str], int]:
    """Values by key, and how many bytes the header has; ElementDataFile is its last line."""
    header: dict[str, str] = {}
    with path.open("rb") as file:
        for _ in range(_HEADER_LINES):
            line = file.readline(_HEADER_BYTES)
            key, separator, value = line.decode("latin-1").partition("=")
            if not separator:
                break
            header[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":
                return header, file.tell()
    raise FrameError("it is no MetaImage header: it has no line 'ElementDataFile = ...'")


def _value(header: dict[str, str], key: str) -> str:
    if key not in header:
        raise FrameError(f"its header has no '{key}'")
    return header[key]


def _data_file(path: Path, header: dict[str, str]) -> Path:
    name = header["ElementDataFile"]
    if name == "LOCAL":
        return path
    if name.startswith("LIST") or "%" in name:
        raise FrameError("its voxels must lie in one file (it names a list of files)")
    data = path.parent / Path(name).name  # a header must not reach into other folders
    if not data.is_file():
        raise FrameError(f"the file {data.name} with its voxels is missing")
    return data


def _slices(
    data: Path, skip: int, packed: bool, dtype: np.dtype[Any], shape: tuple[int, int, int]
) -> Iterator[npt.NDArray[Any]]:
    count, rows, columns = shape
    slice_bytes = rows * columns * dtype.itemsize
    with data.open("rb") as file:
        file.seek(skip)
        if packed:
            unpacker = zlib.decompressobj()
            whole = unpacker.decompress(file.read(), count * slice_bytes)
            chunks = (whole[i * slice_bytes : (i + 1) * slice_bytes] for i in range(count))
        else:
            chunks = (file.read(slice_bytes) for _ in range(count))
        for index, chunk in enumerate(chunks):
            if len(chunk) < slice_bytes:
                raise FrameError(
                    f"it is truncated: it declares {count} slices and holds {index}",
                    reason="short_data",
                )
            yield np.frombuffer(chunk, dtype).reshape(rows, columns)


def _native(stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    native = stored.dtype.newbyteorder("=")
    if native.str[1:] == "i1":
        return stored.astype(np.int16)
    return stored.astype(native if native.str[1:] in _KEPT else np.float32)


def _spacing(header: dict[str, str]) -> Spacing:
    sizes = [float(size) for size in header.get("ElementSpacing", "").split()]
    if len(sizes) < 2 or not all(np.isfinite(s) and s > 0 for s in sizes[:2]):
        return Spacing()
    return Spacing(pixel_spacing_mm=(sizes[1], sizes[0]))
