# SPDX-License-Identifier: Apache-2.0
"""NIfTI-1 and -2 images and stacks -> frames: slices along the third axis, streamed from the file.

The first axis becomes the columns (x) and the second the rows (y), as stored: the affine is not
applied and nothing is flipped. So frame.pixels[j, i] of frame k is the voxel (i, j, k).
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import nibabel as nib
import numpy as np
import numpy.typing as npt

from fedefm_core.errors import FrameError
from fedefm_core.frames.clip import Clip
from fedefm_core.frames.frame import Frame, Spacing
from fedefm_core.frames.limits import (
    DEFAULT_LIMITS,
    FrameLimits,
    check_frame_count,
    check_frame_size,
)

_KEPT = ("u1", "u2", "i2", "f4")  # types of a Frame; others are read as float32
_READ = (*_KEPT, "i1", "i4", "u4", "f8")


def read_nifti(path: Path, limits: FrameLimits = DEFAULT_LIMITS) -> Clip:
    """Open .nii or .nii.gz; scl_slope and scl_inter are applied."""
    header = _read_header(path)
    shape = [int(size) for size in header.get_data_shape()]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) not in (2, 3):
        raise FrameError(f"its array must have 2 or 3 axes (got the shape {tuple(shape)})")
    if header.get_data_offset() < header.sizeof_hdr:
        raise FrameError("its voxels would begin within its header")
    columns, rows, count = (*shape, 1)[:3]
    check_frame_size(columns, rows, limits)
    check_frame_count(count, limits)
    dtype = header.get_data_dtype()
    if dtype.newbyteorder("=").str[1:] not in _READ:
        raise FrameError(f"its values must be real numbers of 8 to 64 bits (got {dtype})")
    return Clip(lambda: _decode_frames(path, header, (count, rows, columns)), frame_count=count)


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return cast("IO[bytes]", gzip.open(path)) if zipped else path.open("rb")


def _read_header(path: Path) -> Any:
    with _open(path) as file:
        size_field = file.read(4)
        file.seek(0)
        is_second = 540 in (
            int.from_bytes(size_field, "little"),
            int.from_bytes(size_field, "big"),
        )
        kind: Any = nib.Nifti2Header if is_second else nib.Nifti1Header
        return kind.from_fileobj(file, check=False)


def _decode_frames(path: Path, header: Any, shape: tuple[int, int, int]) -> Iterator[Frame]:
    count, rows, columns = shape
    dtype = header.get_data_dtype()
    frame_bytes = rows * columns * dtype.itemsize
    spacing = _spacing(header)
    with _open(path) as file:
        file.seek(int(header.get_data_offset()))
        for index in range(count):
            data = file.read(frame_bytes)
            if len(data) < frame_bytes:
                raise FrameError(
                    f"it is truncated: it declares {count} slices and holds {index}",
                    reason="short_data",
                )
            stored = np.frombuffer(data, dtype).reshape(rows, columns)
            pixels = _values(stored, *header.get_slope_inter())
            pixels.flags.writeable = False
            yield Frame(pixels=pixels, spacing=spacing, source=str(path), index=index)


def _values(
    stored: npt.NDArray[Any], slope: float | None, intercept: float | None
) -> npt.NDArray[Any]:
    """Scaled values: of the stored type when the scale leaves it alone, else float32."""
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    if (slope, intercept) != (1.0, 0.0):
        return (stored * slope + intercept).astype(np.float32)
    native = stored.dtype.newbyteorder("=")
    if native.str[1:] == "i1":
        return stored.astype(np.int16)
    return stored.astype(native if native.str[1:] in _KEPT else np.float32, copy=False)


def _spacing(header: Any) -> Spacing:
    to_mm = {"meter": 1000.0, "micron": 0.001}.get(header.get_xyzt_units()[0], 1.0)
    column_mm, row_mm = (float(zoom) * to_mm for zoom in header.get_zooms()[:2])
    if not all(math.isfinite(size) and size > 0 for size in (row_mm, column_mm)):
        return Spacing()
    return Spacing(pixel_spacing_mm=(row_mm, column_mm))
