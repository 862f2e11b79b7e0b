# SPDX-License-Identifier: Apache-2.0
"""Which format a file is, told by its first bytes."""

from __future__ import annotations

import zlib
from pathlib import Path

from fedefm_core.errors import FrameError, UnsupportedFormatError

_HEAD_BYTES = 4096
_IMAGE_SUFFIXES = (
    *(".dcm", ".dicom", ".ima", ".nii", ".nii.gz", ".mcap", ".db3"),
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2"),
    *(".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mpg", ".mpeg"),
)
_SIGNATURES = (  # (offset, bytes, format)
    (128, b"DICM", "DICOM"),
    (0, b"\x89PNG\r\n\x1a\n", "raster"),
    (0, b"\xff\xd8\xff", "raster"),
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (0, b"II+\x00", "TIFF"),
    (0, b"MM\x00+", "TIFF"),
    (344, b"n+1\x00", "NIfTI"),
    (4, b"n+2\x00", "NIfTI"),
    (0, b"\x89MCAP0\r\n", "bag"),
    (0, b"SQLite format 3\x00", "bag"),
    (8, b"AVI ", "video"),
    (4, b"ftyp", "video"),
    (4, b"moov", "video"),
    (0, b"\x1aE\xdf\xa3", "video"),
    (0, b"\x00\x00\x01\xba", "video"),
    (0, b"\x00\x00\x01\xb3", "video"),
)
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # sizes of the header behind the file's
_REFUSED = (  # known, so that the person is told what it is
    (0, b"GIF8", "a GIF"),
    (8, b"WEBP", "a WebP image"),
    (344, b"ni1\x00", "the header half of a NIfTI pair"),
    (0, b"#ROSBAG V2.0", "a ROS 1 bag"),
    (0, b"%PDF", "a PDF"),
    (0, b"PK\x03\x04", "a ZIP archive"),
)
_CMS_ENVELOPE = bytes.fromhex("06092a864886f70d010703")  # object identifier of enveloped data
READABLE = "DICOM, PNG, JPEG, BMP, TIFF, AVI, MP4, MOV, MKV, NIfTI, MCAP and rosbag2"


def sniff_format(path: Path) -> str:
    """Return 'DICOM', 'raster', 'TIFF', 'video', 'NIfTI' or 'bag'. Raises FrameError."""
    if path.is_dir():
        return "bag"
    head = _read_head(path)
    known = _known_format(head, path)
    if known is not None:
        return known
    if not head:
        raise FrameError("the file is empty", reason="zero_size")
    for offset, magic, name in _REFUSED:
        if head[offset : offset + len(magic)] == magic:
            raise UnsupportedFormatError(f"it is {name}; these can be read: {READABLE}")
    if _CMS_ENVELOPE in head[:64]:
        raise UnsupportedFormatError("it is encrypted: a CMS envelope, as of secure DICOM media")
    raise UnsupportedFormatError(
        f"its content is of no known format, it may be truncated or encrypted; these can be "
        f"read: {READABLE}"
    )


def looks_like_image(path: Path) -> bool:
    """True for what a folder should yield or else report: by name, or by content."""
    if path.name.lower().endswith(_IMAGE_SUFFIXES):
        return True
    try:
        return _known_format(_read_head(path), path) is not None
    except OSError:
        return False


def _read_head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _known_format(head: bytes, path: Path) -> str | None:
    for offset, magic, name in _SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return name
    if head[:2] == b"\x1f\x8b":
        return _format_in_gzip(head)
    # Two letters alone would take a table that begins with 'BMI' for a BMP.
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "raster"
    # DICOM without its preamble starts with group 2 or 8; such a short mark also needs the name.
    if path.suffix.lower() in (".dcm", ".ima") and head[:2] in (b"\x02\x00", b"\x08\x00"):
        return "DICOM"
    return None


def _format_in_gzip(head: bytes) -> str | None:
    try:
        inner = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(head, 512)
    except zlib.error:
        return None
    return "NIfTI" if inner[344:348] == b"n+1\x00" or inner[4:8] == b"n+2\x00" else None
