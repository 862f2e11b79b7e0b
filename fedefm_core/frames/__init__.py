# SPDX-License-Identifier: Apache-2.0
"""Bytes -> Frame: one reader a format."""

from fedefm_core.frames.frame import Frame, Spacing, Window
from fedefm_core.frames.limits import FrameLimits

__all__ = ["Frame", "FrameLimits", "Spacing", "Window"]
