# SPDX-License-Identifier: Apache-2.0
"""Bytes -> Frame: one reader a format, behind open_source."""

from fedefm_core.frames.frame import Frame, Spacing, Window
from fedefm_core.frames.limits import FrameLimits
from fedefm_core.frames.source import FrameSource, open_source
from fedefm_core.frames.windowing import to_grey8

__all__ = ["Frame", "FrameLimits", "FrameSource", "Spacing", "Window", "open_source", "to_grey8"]
