# SPDX-License-Identifier: Apache-2.0
"""How a robot goes by `motion_permitted`: a yes lasts a moment, anything else ends it at once."""

from __future__ import annotations

LASTS_S = 0.1  # without another yes; the guard says it eighty times a second


class Permission:
    """Told of what the guard says and of what the middleware says of the guard.

    Times are seconds of a steady clock.
    """

    def __init__(self, lasts_s: float = LASTS_S) -> None:
        self._lasts_s = lasts_s
        self._until_s = -float("inf")

    def heard(self, permitted: bool, now_s: float) -> None:
        """A message on `motion_permitted` came."""
        self._until_s = now_s + self._lasts_s if permitted else -float("inf")

    def ended(self) -> None:
        """The guard is silent or gone: a deadline was missed, or its liveliness lost."""
        self._until_s = -float("inf")

    def holds(self, now_s: float) -> bool:
        """May the robot move?"""
        return now_s < self._until_s
