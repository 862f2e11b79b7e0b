# SPDX-License-Identifier: Apache-2.0
"""Records -> grey images and label maps at their own size, streamed file by file."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from fedefm_core.corpora.metaimage import read_metaimage
from fedefm_core.corpora.records import Mask, Record
from fedefm_core.errors import FrameError, TruthError
from fedefm_core.frames import Frame, Window, open_source, to_grey8
from fedefm_core.frames.file_errors import named_errors
from fedefm_core.frames.limits import DEFAULT_LIMITS, check_frame_size

_METAIMAGE = (".mhd", ".mha")
ToLabels = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


@dataclass(frozen=True)
class Decoded:
    """frame: its number in the file. grey: (H, W) uint8. mask: (H, W) uint8 label map or None."""

    frame: int
    grey: npt.NDArray[np.uint8]
    mask: Mask | None


def decode(
    record: Record, wanted: Collection[int], window: Window | None = None
) -> Iterator[Decoded]:
    """The wanted frames of a record, in order. Raises FrameError or TruthError, naming the file.

    window: how values become grey levels; None leaves it to the file, or to percentiles.
    """
    last = max(wanted, default=-1)
    masks: Iterator[Mask] | None = None
    count = 0
    for frame in read_frames(record.path):
        if frame.index > last:
            return
        count = frame.index + 1
        shape = (int(frame.pixels.shape[0]), int(frame.pixels.shape[1]))
        if record.masks is not None and masks is None:
            masks = record.masks(shape)
        mask = None if masks is None else _next_mask(record, masks, shape)
        if frame.index in wanted:
            shown = frame if window is None else replace(frame, window=window)
            yield Decoded(frame.index, to_grey8(shown), mask)
    if count <= last:
        raise FrameError(f"{record.path}: it holds {count} frames, {last + 1} were expected")


def frame_count(path: Path) -> int:
    """Frames that the file's header declares; 1 for a file that reading will find to be broken."""
    try:
        if path.suffix.lower() in _METAIMAGE:
            with named_errors(path):
                return read_metaimage(path).frame_count or 1
        return open_source(path).frame_count or 1
    except FrameError:
        return 1


def read_frames(path: Path) -> Iterator[Frame]:
    """All frames of an image, stack or volume. Raises FrameError, naming the file."""
    if path.suffix.lower() not in _METAIMAGE:
        yield from open_source(path)
        return
    with named_errors(path):
        yield from read_metaimage(path).frames()


def mask_frames(path: Path, to_labels: ToLabels, shape: tuple[int, int]) -> Iterator[Mask]:
    """Label maps of a mask file, .npy, GIF or anything that a reader takes, one a frame.

    to_labels: stored values to labels, e.g. foreground. Raises TruthError, naming the file.
    """
    try:
        for values in _mask_values(path):
            if values.shape != shape:
                raise TruthError(
                    f"{path}: the mask is {values.shape[1]} x {values.shape[0]} pixels, its "
                    f"image {shape[1]} x {shape[0]}"
                )
            labels = to_labels(values)
            if labels.size and (labels.min() < 0 or labels.max() > 255):
                raise TruthError(f"{path}: the mask has values outside of 0 to 255")
            yield labels.astype(np.uint8)
    except FrameError as error:
        raise TruthError(f"The mask cannot be read. {error}") from error


def foreground(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """1 where a stored value is positive."""
    return np.asarray(values > 0)


def bright(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """1 where an 8-bit value is over 127: a smoothed mask has values between 0 and 255."""
    return np.asarray(values > 127)


def class_values(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The stored whole numbers themselves."""
    return values


def _mask_values(path: Path) -> Iterator[npt.NDArray[Any]]:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        yield _read_npy(path)
    elif suffix == ".gif":
        with named_errors(path):
            yield _read_gif(path.read_bytes())
    else:
        for frame in read_frames(path):
            yield frame.pixels


def _read_npy(path: Path) -> npt.NDArray[Any]:
    with named_errors(path):
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
            values = values.squeeze(axis=0 if values.shape[0] == 1 else 2)
        if values.ndim != 2 or values.dtype.kind not in "buif":
            raise FrameError(
                f"it must hold an (H, W) array of numbers (got {values.dtype} {values.shape})"
            )
        check_frame_size(values.shape[1], values.shape[0], DEFAULT_LIMITS)
        whole = np.asarray(values)
        if whole.dtype.kind == "f" and not np.array_equal(whole, np.rint(whole)):
            raise FrameError("its labels must be whole numbers")
        return whole


def _read_gif(data: bytes) -> npt.NDArray[np.uint8]:
    """Red plane of the first frame of a GIF; masks are grey."""
    width, height = struct.unpack_from("<HH", data, 6)
    check_frame_size(width, height, DEFAULT_LIMITS)
    pixels = np.asarray(imagecodecs.gif_decode(data, index=0), np.uint8)
    return pixels[..., 0] if pixels.ndim == 3 else pixels


def _next_mask(record: Record, masks: Iterator[Mask], shape: tuple[int, int]) -> Mask:
    mask = next(masks, None)
    if mask is None:
        raise TruthError(f"The masks of {record.path} have fewer frames than the image")
    if mask.shape != shape:
        raise TruthError(
            f"The mask of {record.path} is {mask.shape[1]} x {mask.shape[0]} pixels, the image "
            f"{shape[1]} x {shape[0]}"
        )
    return mask
