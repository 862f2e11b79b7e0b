# SPDX-License-Identifier: Apache-2.0
"""OpenCV without its chatter: a damaged file is told by an exception, not on stderr."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet; read when FFmpeg is first used

import cv2


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence OpenCV's own log for the calls inside."""
    logging = cv2.utils.logging
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)
