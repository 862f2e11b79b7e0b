# SPDX-License-Identifier: Apache-2.0
"""How far a build is and how long it may still take, from the phases that TensorRT reports."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Progress:
    """fraction: 0 to 1. eta_s: None while nothing can be said. phase: TensorRT's own words."""

    fraction: float
    elapsed_s: float
    eta_s: float | None
    phase: str

    def __str__(self) -> str:
        left = "" if self.eta_s is None else f", about {_duration(self.eta_s)} left"
        return f"{100 * self.fraction:.0f} % after {_duration(self.elapsed_s)}{left}: {self.phase}"


@dataclass
class _Phase:
    name: str
    parent: str | None
    steps: int
    done: int = 0


class ProgressTracker:
    """Told of each phase and step, from whatever threads TensorRT has; never goes back.

    A phase's share of its parent is one of the parent's steps. Steps differ in length, so the
    time left is a rough guess that gets better.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._started = clock, clock()
        self._lock = threading.Lock()
        self._phases: dict[str, _Phase] = {}
        self._fraction = 0.0

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase begins, inside of a parent or None."""
        with self._lock:
            self._phases[phase] = _Phase(phase, parent or None, max(steps, 1))

    def step(self, phase: str, step: int) -> None:
        """A step, counted from 0, of a phase is done."""
        with self._lock:
            if phase in self._phases:
                self._phases[phase].done = step + 1

    def finish(self, phase: str) -> None:
        """A phase is done, with whatever steps it had left."""
        with self._lock:
            ended = self._phases.pop(phase, None)
            if ended is not None and ended.parent is None:
                self._fraction = 1.0

    def now(self) -> Progress:
        """Where the build stands."""
        with self._lock:
            self._fraction = max(self._fraction, min(1.0, self._inside(None)))
            names = list(self._phases)
            fraction = self._fraction
        elapsed = self._clock() - self._started
        eta = elapsed * (1 - fraction) / fraction if fraction > 0 else None
        return Progress(fraction, elapsed, eta, names[-1] if names else "starting")

    def _inside(self, parent: str | None) -> float:
        """Share of one step of parent that its phases have done; the furthest of them counts."""
        return max(
            (
                min(1.0, (phase.done + self._inside(phase.name)) / phase.steps)
                for phase in self._phases.values()
                if phase.parent == parent
            ),
            default=0.0,
        )


def monitor(trt: Any, tracker: ProgressTracker, tell: Callable[[Progress], bool]) -> Any:
    """TensorRT's IProgressMonitor that feeds tracker. tell: False ends the build."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # a class of the module at hand
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            tracker.start(phase_name, parent_phase, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            tracker.finish(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            tracker.step(phase_name, step)
            return tell(tracker.now())

    return Monitor()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
