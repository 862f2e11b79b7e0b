# SPDX-License-Identifier: Apache-2.0
"""DICOM X-ray images and cines -> frames, decoded one by one from the open file."""

from __future__ import annotations

import contextlib
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import dcmread, uid
from pydicom.dataset import FileDataset
from pydicom.encaps import generate_frames
from pydicom.filereader import read_file_meta_info

from fedefm_core.errors import FrameError
from fedefm_core.frames.clip import Clip
from fedefm_core.frames.dicom_pixels import (
    NATIVE,
    PixelLayout,
    check_layout,
    decode_stored_values,
)
from fedefm_core.frames.dicom_values import read_spacing, read_stamps_ns, read_value_map
from fedefm_core.frames.frame import Frame
from fedefm_core.frames.limits import (
    DEFAULT_LIMITS,
    FrameLimits,
    check_frame_count,
    check_frame_size,
)

MODALITIES = ("XA", "RF", "DX", "CR", "RG", "OT", "SC")
_UNDEFINED_LENGTH = 0xFFFFFFFF
_LARGE_ELEMENT_BYTES = 2**20  # header elements beyond this stay on disk until asked for


@dataclass(frozen=True)
class _Cine:
    """A checked header, and where its pixels begin."""

    path: Path
    header: FileDataset
    layout: PixelLayout
    pixel_offset: int
    stamps_ns: list[int]


def read_dicom(path: Path, limits: FrameLimits = DEFAULT_LIMITS) -> Clip:
    """Open a DICOM file: everything that the header can tell is checked before a pixel is read."""
    with path.open("rb") as file, _no_warnings():
        header = _read_header(file, path)
        _check_kind(header)
        layout = _read_layout(header)
        check_frame_size(layout.columns, layout.rows, limits)
        frame_count = _read_frame_count(header)
        check_frame_count(frame_count, limits)
        check_layout(layout)
        _check_pixel_data(file, header, layout, frame_count, path.stat().st_size)
        stamps_ns, frame_rate_hz = read_stamps_ns(header, frame_count)
        cine = _Cine(path, header, layout, file.tell(), stamps_ns)
    return Clip(lambda: _decode_frames(cine), frame_rate_hz, frame_count)


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Silence pydicom on values that break a rule: it converts late, and we check what we use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read_header(file: BinaryIO, path: Path) -> FileDataset:
    """Everything before the pixels; file is left at the pixel data element."""
    if _has_preamble(file):
        meta = read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian:
            raise FrameError("its header is deflated, a transfer syntax that is not supported")
    return dcmread(file, stop_before_pixels=True, force=True, defer_size=_LARGE_ELEMENT_BYTES)


def _has_preamble(file: BinaryIO) -> bool:
    found = file.read(132)[128:] == b"DICM"
    file.seek(0)
    return found


def _check_kind(header: FileDataset) -> None:
    """Refuse what is DICOM, but no X-ray image."""
    if header.file_meta.get("MediaStorageSOPClassUID") == uid.MediaStorageDirectoryStorage:
        raise FrameError("it is a DICOMDIR, an index of images without pixels")
    modality = header.get("Modality")
    has_image = "Rows" in header and "Columns" in header
    if modality not in MODALITIES and (modality or has_image):
        raise FrameError(
            f"its modality must be X-ray, one of {', '.join(MODALITIES)} "
            f"(got '{modality or 'none'!s:.16}')"
        )
    if has_image:
        return
    if "EncryptedAttributesSequence" in header:
        raise FrameError("it is encrypted: its image attributes are in an encrypted sequence")
    raise FrameError("it has no image: Rows and Columns are missing, it may be truncated")


def _read_layout(header: FileDataset) -> PixelLayout:
    bits_allocated = int(header.BitsAllocated)
    bits_stored = int(header.get("BitsStored", bits_allocated))
    return PixelLayout(
        rows=int(header.Rows),
        columns=int(header.Columns),
        samples=int(header.get("SamplesPerPixel", 1)),
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=int(header.get("HighBit", bits_stored - 1)),
        signed=int(header.get("PixelRepresentation", 0)) == 1,
        photometric=str(header.PhotometricInterpretation),
        planar=int(header.get("PlanarConfiguration", 0)) == 1,
        transfer_syntax=_transfer_syntax(header),
    )


def _transfer_syntax(header: FileDataset) -> str:
    declared = header.file_meta.get("TransferSyntaxUID")
    if declared:
        return str(declared)
    implicit, _ = header.original_encoding
    return str(uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian)


def _read_frame_count(header: FileDataset) -> int:
    value = header.get("NumberOfFrames")
    return 1 if value is None or value == "" else int(value)


def _check_pixel_data(
    file: BinaryIO, header: FileDataset, layout: PixelLayout, frame_count: int, file_bytes: int
) -> None:
    """Refuse missing pixels, and uncompressed ones that are fewer than declared."""
    length = _enter_pixel_data(file, header)
    if layout.transfer_syntax not in NATIVE:
        if length != _UNDEFINED_LENGTH:
            raise FrameError("its pixel data is not encapsulated, as its transfer syntax demands")
        return
    needed = layout.frame_bytes * frame_count
    there = min(length, file_bytes - file.tell())
    if there < needed:
        raise FrameError(
            f"it is truncated: {frame_count} frames need {needed} bytes of pixel data "
            f"(got {there})",
            reason="short_data",
        )


def _enter_pixel_data(file: BinaryIO, header: FileDataset) -> int:
    """Move file from the pixel data element to its value; return the declared length."""
    implicit, little = header.original_encoding
    order = "<" if little else ">"
    head = file.read(8 if implicit else 12)
    if len(head) < (8 if implicit else 12):
        if "EncryptedAttributesSequence" in header:
            raise FrameError("it is encrypted: it has no pixel data outside the encrypted part")
        raise FrameError("it is truncated: its pixel data is missing", reason="short_data")
    tag = struct.unpack_from(f"{order}HH", head)
    if tag != (0x7FE0, 0x0010):
        raise FrameError(f"its pixels must be integers (got element {tag[0]:04X},{tag[1]:04X})")
    length: int = struct.unpack_from(f"{order}I", head, len(head) - 4)[0]
    return length


def _decode_frames(cine: _Cine) -> Iterator[Frame]:
    header, layout = cine.header, cine.layout
    varies = "PerFrameFunctionalGroupsSequence" in header
    for index, data in enumerate(_encoded_frames(cine)):
        if index == 0 or varies:
            with _no_warnings():
                value_map = read_value_map(header, index, layout.bits_stored, layout.signed)
                spacing = read_spacing(header, index)
        pixels = value_map.apply(decode_stored_values(data, layout))
        pixels.flags.writeable = False
        yield Frame(
            pixels=pixels,
            stamp_ns=cine.stamps_ns[index],
            spacing=spacing,
            window=value_map.window,
            inverted=_is_inverted(header, layout),
            source=str(cine.path),
            index=index,
        )


def _is_inverted(header: FileDataset, layout: PixelLayout) -> bool:
    # PresentationLUTShape INVERSE goes with MONOCHROME1 and says the same; it must not undo it.
    shape = header.get("PresentationLUTShape")
    return layout.photometric == "MONOCHROME1" or shape == "INVERSE"


def _encoded_frames(cine: _Cine) -> Iterator[bytes]:
    with cine.path.open("rb") as file:
        file.seek(cine.pixel_offset)
        frames = _split_frames(file, cine)
        for index in range(len(cine.stamps_ns)):
            data = next(frames, None)
            if data is None:
                raise FrameError(
                    f"it is truncated: it declares {len(cine.stamps_ns)} frames and holds {index}",
                    reason="short_data",
                )
            yield data


def _split_frames(file: BinaryIO, cine: _Cine) -> Iterator[bytes]:
    if cine.layout.transfer_syntax in NATIVE:
        return (file.read(cine.layout.frame_bytes) for _ in cine.stamps_ns)
    offsets: Any = None
    table = cine.header.get("ExtendedOffsetTable")
    lengths = cine.header.get("ExtendedOffsetTableLengths")
    if table and lengths:
        offsets = (table, lengths)
    return generate_frames(file, number_of_frames=len(cine.stamps_ns), extended_offsets=offsets)
