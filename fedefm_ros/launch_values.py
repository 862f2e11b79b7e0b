# SPDX-License-Identifier: Apache-2.0
"""Values of launch arguments, which come as text; needs no ROS."""

from __future__ import annotations

import math


def number(name: str, value: str, minimum: float, maximum: float) -> float:
    """The value of a launch argument as a float between minimum and maximum, both included.

    Raises RuntimeError, which launch tells in one sentence.
    """
    try:
        parsed = float(value)
    except ValueError:
        parsed = math.nan
    if not minimum <= parsed <= maximum:
        raise RuntimeError(
            f"Launch argument '{name}' must be a number from {minimum:g} to {maximum:g} "
            f"(got '{value}')."
        )
    return parsed
