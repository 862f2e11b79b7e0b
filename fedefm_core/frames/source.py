# SPDX-License-Identifier: Apache-2.0
"""open_source: any file, folder or recording -> frames, and the errors that name the file."""

from __future__ import annotations

import importlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from fedefm_core.errors import FrameError, FrameLimitError
from fedefm_core.frames.clip import Clip
from fedefm_core.frames.file_errors import named_errors
from fedefm_core.frames.frame import Frame
from fedefm_core.frames.limits import DEFAULT_LIMITS, FrameLimits
from fedefm_core.frames.sniff import looks_like_image, sniff_format

_READERS = {  # imported when first needed: a robot that reads topics needs none of them
    "DICOM": ("dicom", "read_dicom"),
    "raster": ("raster", "read_raster"),
    "TIFF": ("tiff", "read_tiff"),
    "video": ("video", "read_video"),
    "NIfTI": ("nifti", "read_nifti"),
    "bag": ("bag", "read_bag"),
}
Reader = Callable[[Path, FrameLimits], Clip]


class FrameSource:
    """Frames of one path, decoded while it is iterated; each iteration starts again.

    name: what was opened. frame_rate_hz, frame_count: None where the source does not say.
    skipped: files of a folder that were set aside so far, each with the reason.
    """

    def __init__(self, path: Path, limits: FrameLimits = DEFAULT_LIMITS, topic: str | None = None):
        self.path = path
        self.limits = limits
        self.topic = topic
        self.skipped: list[tuple[Path, str]] = []
        self.frame_rate_hz: float | None = None
        self.frame_count: int | None = None
        self._clip: Clip | None = None
        if not _is_plain_folder(path):
            self._clip = _open(path, limits, topic)
            self.frame_rate_hz = self._clip.frame_rate_hz
            self.frame_count = self._clip.frame_count
        elif not image_files(path):
            raise FrameError(f"The folder {path} holds no image files")

    @property
    def name(self) -> str:
        """The path, with the topic where one was named."""
        return str(self.path) if self.topic is None else f"{self.path}#{self.topic}"

    def __iter__(self) -> Iterator[Frame]:
        """Decode frame by frame. Raises FrameError, naming the file; a folder skips bad files."""
        if self._clip is not None:
            return _decode(self.path, self._clip)
        return self._iterate_folder()

    def _iterate_folder(self) -> Iterator[Frame]:
        self.skipped.clear()
        found_any = False
        for path in image_files(self.path):
            try:
                for frame in _decode(path, _open(path, self.limits, None)):
                    found_any = True
                    yield frame
            except FrameError as error:
                self.skipped.append((path, str(error).removeprefix(f"{path}: ")))
        if not found_any:
            raise FrameError(
                f"None of the {len(self.skipped)} image files in {self.path} can be read; "
                "the first, {}: {}".format(*self.skipped[0])
            )


def open_source(path: str | Path, limits: FrameLimits = DEFAULT_LIMITS) -> FrameSource:
    """Open an image, cine, video, volume, recording ('path#topic' names its topic) or folder.

    The format is told by the content, not by the name. Raises FrameError, naming file and reason.
    """
    whole = Path(path)
    if str(path) and _exists(whole):  # an empty path is no name for the current folder
        return FrameSource(whole, limits)
    bare, _, topic = str(path).rpartition("#")
    if bare and topic and _exists(Path(bare)):
        return FrameSource(Path(bare), limits, topic)
    raise FrameError(f"There is no file or folder '{path}'")


def _exists(path: Path) -> bool:
    with named_errors(path):  # no permission to look, a name too long
        return path.exists()


def _is_plain_folder(path: Path) -> bool:
    return path.is_dir() and not (path / "metadata.yaml").is_file()  # a rosbag2 folder has one


def image_files(folder: Path) -> list[Path]:
    """Files that are images, or look it, in natural order: 2 before 10; hidden files left out.

    Links to nowhere are among them when they are called as images are: somebody expects them.
    """
    with named_errors(folder):
        visible = [path for path in folder.iterdir() if path.name[0] != "."]
        files = [p for p in visible if os.path.isfile(p) or not os.path.exists(p)]
    return sorted((path for path in files if looks_like_image(path)), key=_natural_key)


def _natural_key(path: Path) -> list[tuple[bool, int, str]]:
    parts = re.split(r"([0-9]+)", path.name.casefold())
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _open(path: Path, limits: FrameLimits, topic: str | None) -> Clip:
    with named_errors(path):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # reading a pipe may never end
            raise FrameError("it must be a file or a folder (it is a pipe or a device)")
        kind = sniff_format(path)
        if path.is_file() and path.stat().st_size > limits.max_file_bytes:
            raise FrameLimitError(
                f"the file has {path.stat().st_size} bytes; the limit is {limits.max_file_bytes}",
                reason="too_large",
            )
        if topic is not None and kind != "bag":
            raise FrameError(f"only recordings have topics (got '{topic}' of a {kind} file)")
        module, function = _READERS[kind]
        reader = getattr(importlib.import_module(f"fedefm_core.frames.{module}"), function)
        clip: Clip = reader(path, limits, topic) if kind == "bag" else reader(path, limits)
        return clip


def _decode(path: Path, clip: Clip) -> Iterator[Frame]:
    with named_errors(path):
        yield from clip.frames()
