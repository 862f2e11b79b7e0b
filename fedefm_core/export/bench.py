# SPDX-License-Identifier: Apache-2.0
"""How long does perception take, stage by stage, from an array in memory to a Perception?"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from fedefm_core.config import Settings
from fedefm_core.frames import Frame
from fedefm_core.perception import Perception, Segmenter, open_runtime, resolve_model
from fedefm_core.provenance import provenance
from fedefm_core.simulation import simulate_sequence

WALL = "wall"  # measured around Segmenter.process, so it also holds what no stage counts
QUANTILES = {"p50": 50, "p95": 95, "p99": 99, "max": 100}


class BenchSettings(Settings):
    """model: path, shipped name or None for the default. threads: of the runtime, 0 for its own
    choice. frames: timed, of one simulated insertion. warm_up: run before and not timed."""

    model: str | None = None
    runtime: str = "auto"
    threads: int = Field(0, ge=0)
    frames: int = Field(300, ge=1)
    warm_up: int = Field(30, ge=0)
    seed: int = Field(8_000_009, ge=0)


def bench(settings: BenchSettings) -> dict[str, Any]:
    """Run perception over a simulated insertion, all frames in memory beforehand; plain JSON.

    Key 'timings_ms' maps each stage to its p50, p95, p99 and max. Raises what open_runtime does.
    """
    path = resolve_model(settings.model)
    runtime = open_runtime(path, settings.runtime, settings.threads)
    segmenter = Segmenter(runtime)
    frames = [s.frame for s in simulate_sequence(settings.seed, settings.frames)]
    warm_up(segmenter, frames, settings.warm_up)
    timings = time_frames(segmenter, frames)
    return {
        "model": runtime.metadata.name,
        "precision": runtime.metadata.precision,
        "weights_sha256": runtime.metadata.weights_sha256,
        "runtime": runtime.name,
        "input_size": list(runtime.metadata.input_size),
        "frame_size": list(frames[0].pixels.shape),
        "timings_ms": {stage: quantiles(values) for stage, values in timings.items()},
        "provenance": provenance(settings, seed=settings.seed),
    }


def warm_up(segmenter: Segmenter, frames: Sequence[Frame], count: int) -> None:
    """Run count frames, from the first again when they run out, and forget them."""
    for index in range(count):
        segmenter.process(frames[index % len(frames)])
    segmenter.reset()


def time_frames(segmenter: Segmenter, frames: Sequence[Frame]) -> dict[str, list[float]]:
    """Milliseconds of each frame by stage, as perception counts them, and around it all."""
    timings: dict[str, list[float]] = {}
    for frame in frames:
        begin = time.perf_counter()
        perception: Perception = segmenter.process(frame)
        wall_ms = 1e3 * (time.perf_counter() - begin)
        for stage, value in (*perception.timings_ms.items(), (WALL, wall_ms)):
            timings.setdefault(stage, []).append(value)
    return timings


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and max of values, interpolated linearly."""
    return {name: float(np.percentile(values, q)) for name, q in QUANTILES.items()}


def table(timings_ms: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Rows for printing: the header, then one stage a row."""
    header = ["stage (ms)", *QUANTILES]
    rows = [[s, *(f"{row[q]:.2f}" for q in QUANTILES)] for s, row in timings_ms.items()]
    return [header, *rows]
