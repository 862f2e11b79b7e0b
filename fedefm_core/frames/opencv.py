# SPDX-License-Identifier: Apache-2.0
"""OpenCV without its chatter: a damaged file is told by an exception, not on stderr."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet; read when FFmpeg is first used

import cv2

_SILENT = 0  # LOG_LEVEL_SILENT


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence OpenCV's own log for the calls inside."""
    get, set_level = _log_level_functions()
    level = get()
    set_level(_SILENT)
    try:
        yield
    finally:
        set_level(level)


def _log_level_functions() -> tuple[Callable[[], int], Callable[[int], object]]:
    """OpenCV 5 moved both functions from cv2 to cv2.utils.logging."""
    home: Any = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
    return home.getLogLevel, home.setLogLevel
