# SPDX-License-Identifier: Apache-2.0
"""One name per frame, after its file: STEM, or STEM_0001, STEM_0002, … where it holds several."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedefm_core.errors import FrameError
from fedefm_core.frames import Frame

# Not Path.stem: DICOM files are often named by a UID, whose last number is no suffix.
_SUFFIX = re.compile(r"(?<=.)(\.nii)?\.[a-z][a-z0-9]*$", re.IGNORECASE)


@dataclass(frozen=True)
class NamedFrame:
    """first: this is the first frame of its file, so it continues nothing that came before."""

    name: str
    frame: Frame
    first: bool


def file_stem(path: str | Path) -> str:
    """Name of a file without folder and suffix: 'a/b.nii.gz' to 'b', '1.2.840.5' stays."""
    return _SUFFIX.sub("", Path(path).name)


def named_frames(frames: Iterable[Frame]) -> Iterator[NamedFrame]:
    """Name each frame; reads one frame ahead to learn whether a file holds several.

    An error of the source is raised after the frame before it was given out.
    """
    previous: str | None = None
    for frame, following in _with_following(frames):
        first = frame.source != previous
        several = not first or (following is not None and following.source == frame.source)
        yield NamedFrame(_name(frame, several), frame, first)
        previous = frame.source


def _with_following(frames: Iterable[Frame]) -> Iterator[tuple[Frame, Frame | None]]:
    source = iter(frames)
    current = next(source, None)
    while current is not None:
        try:
            following = next(source, None)
        except FrameError:
            yield current, current  # the file holds more, though it cannot be read
            raise
        yield current, following
        current = following


def find_clash(paths: Iterable[Path]) -> tuple[Path, Path] | None:
    """Two files of one stem, else None. Case is ignored, as some file systems ignore it."""
    seen: dict[str, Path] = {}
    for path in paths:
        earlier = seen.setdefault(file_stem(path).casefold(), path)
        if earlier != path:
            return earlier, path
    return None


def _name(frame: Frame, several: bool) -> str:
    stem = file_stem(_file_of(frame.source))
    return f"{stem}_{frame.index + 1:04d}" if several else stem


def _file_of(source: str) -> str:
    """The file of a frame's source, which for a recording is 'FILE#/topic'."""
    path, _, topic = source.rpartition("#/")
    return path if path and topic and not Path(source).exists() else source
