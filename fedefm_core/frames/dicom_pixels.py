# SPDX-License-Identifier: Apache-2.0
"""The bytes of one DICOM frame -> stored pixel values, grey.

Decoding goes through imagecodecs alone and not through the plugins of pydicom, which would pick up
whatever decoder is installed: GDCM has an unpatched memory exhaustion, libjpeg's is GPL.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom import uid

from fedefm_core.errors import FrameError
from fedefm_core.frames.raster import jpeg_size, luma

Array: TypeAlias = npt.NDArray[Any]

NATIVE = frozenset(
    {uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian}
)
_GREY = ("MONOCHROME1", "MONOCHROME2")
_LUMA_FIRST = ("YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")


@dataclass(frozen=True)
class PixelLayout:
    """How one frame is stored: the Image Pixel module (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    planar: bool
    transfer_syntax: str

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame."""
        pixels = self.rows * self.columns
        if self.photometric == "YBR_FULL_422" and self.transfer_syntax in NATIVE:
            return pixels * 2  # two luma samples share one pair of chroma samples
        return pixels * self.samples * self.bits_allocated // 8


def check_layout(layout: PixelLayout) -> None:
    """Raise FrameError for a layout that this module cannot decode."""
    known = {1: _GREY, 3: ("RGB", *_LUMA_FIRST)}
    if layout.photometric not in known.get(layout.samples, ()):
        raise FrameError(
            f"its pixels must be grey, RGB or YBR (got {layout.samples} samples a pixel, "
            f"photometric interpretation '{layout.photometric:.20}')"
        )
    if layout.bits_allocated not in ((8, 16) if layout.samples == 1 else (8,)):
        raise FrameError(
            "its bits allocated must be 8, or 16 if grey "
            f"(got {layout.bits_allocated} with {layout.samples} samples a pixel)"
        )
    if not 1 <= layout.bits_stored <= layout.high_bit + 1 <= layout.bits_allocated:
        raise FrameError(
            f"its bits stored {layout.bits_stored} and high bit {layout.high_bit} do not fit into "
            f"the {layout.bits_allocated} bits allocated"
        )
    if layout.transfer_syntax not in NATIVE and layout.transfer_syntax not in _DECODERS:
        name = uid.UID(layout.transfer_syntax).name
        readable = ", ".join(sorted(uid.UID(known).name for known in (*NATIVE, *_DECODERS)))
        raise FrameError(f"its transfer syntax '{name}' cannot be read; these can: {readable}")


def decode_stored_values(data: bytes, layout: PixelLayout) -> Array:
    """Return (rows, columns) uint8, uint16, int8 or int16 stored values; colour becomes luma.

    Raises FrameError when data is damaged, or is an image of another size.
    """
    if layout.transfer_syntax in NATIVE:
        return _native(data, layout)
    try:
        pixels = _DECODERS[layout.transfer_syntax](data, layout)
    except FrameError:
        raise
    except Exception as error:  # each codec has its own error classes
        raise FrameError(f"its compressed data is damaged: {error}") from error
    if pixels.shape[:2] != (layout.rows, layout.columns) or pixels.dtype.itemsize > 2:
        raise FrameError(
            f"its compressed data must hold {layout.columns} x {layout.rows} pixels of 8 or 16 "
            f"bits (got an array of shape {pixels.shape}, {pixels.dtype})"
        )
    return _significant_bits(pixels, layout, shift=0)


def _native(data: bytes, layout: PixelLayout) -> Array:
    if len(data) < layout.frame_bytes:
        raise FrameError(
            f"it is truncated: a frame needs {layout.frame_bytes} bytes (got {len(data)})",
            reason="short_data",
        )
    order = ">" if layout.transfer_syntax == uid.ExplicitVRBigEndian else "<"
    flat = np.frombuffer(data, dtype=f"{order}u{layout.bits_allocated // 8}")
    if layout.samples == 1:
        pixels = flat.reshape(layout.rows, layout.columns)
    elif layout.photometric == "YBR_FULL_422":
        pixels = flat.reshape(-1, 4)[:, :2].reshape(layout.rows, layout.columns)
    else:
        pixels = _luma(_interleaved(flat, layout), layout.photometric)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return _significant_bits(pixels, layout, shift=layout.high_bit + 1 - layout.bits_stored)


def _interleaved(flat: Array, layout: PixelLayout) -> Array:
    if layout.planar:
        return np.moveaxis(flat.reshape(3, layout.rows, layout.columns), 0, -1)
    return flat.reshape(layout.rows, layout.columns, 3)


def _luma(pixels: Array, photometric: str) -> Array:
    is_ybr = pixels.ndim == 3 and photometric != "RGB"
    return np.ascontiguousarray(pixels[..., 0]) if is_ybr else luma(pixels)


def _significant_bits(pixels: Array, layout: PixelLayout, shift: int) -> Array:
    """Keep bits_stored bits: overlays may hide in the others, and the sign is the highest one."""
    unsigned = pixels.view(f"u{pixels.dtype.itemsize}")
    spare = 8 * pixels.dtype.itemsize - layout.bits_stored
    if not layout.signed:
        mask = (1 << layout.bits_stored) - 1
        return unsigned if spare <= 0 else (unsigned >> shift) & unsigned.dtype.type(mask)
    if spare <= 0:
        return unsigned.view(f"i{pixels.dtype.itemsize}")
    return ((unsigned >> shift) << spare).view(f"i{pixels.dtype.itemsize}") >> spare


def _check_codestream_size(size: tuple[int, int, int], layout: PixelLayout) -> None:
    """Refuse a codestream that would unpack to more than the header promised."""
    expected = (layout.columns, layout.rows, layout.samples)
    if size != expected:
        raise FrameError(
            "its compressed data declares {} x {} pixels of {} samples, ".format(*size)
            + "its header {} x {} of {}".format(*expected)
        )


def _decode_jpeg(data: bytes, layout: PixelLayout) -> Array:
    _check_codestream_size(jpeg_size(data), layout)
    _check_end_marker(data)
    if layout.samples == 1:
        return imagecodecs.jpeg8_decode(data)
    # Naming the same space twice leaves the components as they are: the header says what they are.
    raw = imagecodecs.jpeg8_decode(data, colorspace="RGB", outcolorspace="RGB")
    is_jfif = data[6:10] == b"JFIF"
    return _luma(raw, "YBR_FULL" if is_jfif else layout.photometric)


def _decode_jpegls(data: bytes, layout: PixelLayout) -> Array:
    _check_codestream_size(jpeg_size(data), layout)
    _check_end_marker(data)
    return _luma(imagecodecs.jpegls_decode(data), layout.photometric)


def _decode_jpeg2k(data: bytes, layout: PixelLayout) -> Array:
    start = data.find(b"\xff\x4f\xff\x51")  # SOC and SIZ; a JP2 container may stand before them
    if start < 0:
        raise FrameError("its JPEG 2000 data has no codestream header")
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    (components,) = struct.unpack_from(">H", data, start + 40)
    _check_codestream_size((right - left, bottom - top, components), layout)
    pixels = imagecodecs.jpeg2k_decode(data)
    # The codec undoes the component transform, so YBR_RCT and YBR_ICT arrive as RGB.
    is_rgb = layout.photometric in ("RGB", "YBR_RCT", "YBR_ICT")
    return _luma(pixels, "RGB" if is_rgb else layout.photometric)


def _decode_rle(data: bytes, layout: PixelLayout) -> Array:
    """Undo PS3.5 annex G: one PackBits segment for each byte of each sample, high bytes first."""
    # imagecodecs.dicomrle_decode trusts the offsets in the header and can crash the process.
    sample_bytes = layout.bits_allocated // 8
    count, *offsets = struct.unpack_from("<16I", data)
    if count != layout.samples * sample_bytes:
        raise FrameError(
            f"its RLE data must have {layout.samples * sample_bytes} segments (got {count})"
        )
    ends = [*offsets[1:count], len(data)]
    if not all(64 <= start <= end <= len(data) for start, end in zip(offsets, ends, strict=False)):
        raise FrameError("its RLE segments do not lie one behind the other in the data")
    planes = np.empty((layout.samples, layout.rows, layout.columns, sample_bytes), np.uint8)
    for index, (start, end) in enumerate(zip(offsets, ends, strict=False)):
        sample, byte = divmod(index, sample_bytes)
        planes[sample, ..., byte] = _unpack_segment(data[start:end], layout)
    pixels: Array = planes.view(f">u{sample_bytes}")[..., 0].astype(f"u{sample_bytes}", copy=False)
    return _luma(np.moveaxis(pixels, 0, -1), layout.photometric)


def _unpack_segment(segment: bytes, layout: PixelLayout) -> Array:
    pixels = layout.rows * layout.columns
    unpacked = imagecodecs.packbits_decode(segment)
    if len(unpacked) < pixels:
        raise FrameError(
            f"its RLE data is truncated: a segment must unpack to {pixels} bytes "
            f"(got {len(unpacked)})",
            reason="short_data",
        )
    plane: Array = np.frombuffer(unpacked, np.uint8, pixels)
    return plane.reshape(layout.rows, layout.columns)


def _check_end_marker(data: bytes) -> None:
    # Without it libjpeg fills up with grey, and CharLS searches for seconds before it gives up.
    if b"\xff\xd9" not in data[-64:]:
        raise FrameError("its JPEG data is truncated: the end marker is missing", "short_data")


_DECODERS: dict[str, Callable[[bytes, PixelLayout], Array]] = {
    uid.JPEGBaseline8Bit: _decode_jpeg,
    uid.JPEGExtended12Bit: _decode_jpeg,
    uid.JPEGLossless: _decode_jpeg,
    uid.JPEGLosslessSV1: _decode_jpeg,
    uid.JPEGLSLossless: _decode_jpegls,
    uid.JPEGLSNearLossless: _decode_jpegls,
    uid.JPEG2000Lossless: _decode_jpeg2k,
    uid.JPEG2000: _decode_jpeg2k,
    uid.RLELossless: _decode_rle,
}
