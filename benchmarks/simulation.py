# SPDX-License-Identifier: Apache-2.0
"""Frames a second of one core at 512 x 512, beside two peers that do strictly less.

    python benchmarks/simulation.py [--frames 60]

Peers, on the very same frames and in turn with them, so that a busy machine slows all alike:
drawing a picture of Gaussian noise with numpy (noise is one step of many here), and encoding
the finished picture as PNG. Times are processor times of this process, on one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np

from fedefm_core.simulation import KINDS, SimulatedFrame, simulate_frame

SEED = 1


def cpu_ms(work: Callable[[], object]) -> float:
    """Processor time of one call, in milliseconds."""
    begin = time.process_time_ns()
    work()
    return (time.process_time_ns() - begin) / 1e6


def numpy_noise(shape: tuple[int, ...]) -> None:
    """A noisy picture as numpy alone makes it."""
    rng = np.random.default_rng(SEED)
    np.clip(rng.normal(128.0, 20.0, shape), 0, 255).astype(np.uint8)


def time_frame(kind: str, index: int) -> tuple[float, float, float]:
    """Milliseconds of simulating a frame, of a noise picture, and of encoding the frame."""
    drawn: list[SimulatedFrame] = []
    simulated = cpu_ms(lambda: drawn.append(simulate_frame(SEED, index, kind=kind)))
    pixels = np.asarray(drawn[0].frame.pixels, np.uint8)
    noise = cpu_ms(lambda: numpy_noise(pixels.shape))
    return simulated, noise, cpu_ms(lambda: cv2.imencode(".png", pixels))


def main() -> None:
    """Print a table, one row a kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=60, help="frames of each kind")
    frames = parser.parse_args().frames
    cv2.setNumThreads(1)
    time_frame("human", 0)  # the first call pays for imports and caches
    print(f"{'kind':<12}{'frames/s':>9}{'p50 ms':>9}{'numpy noise ms':>16}{'PNG ms':>9}")
    for kind in KINDS:
        times = np.array([time_frame(kind, index) for index in range(frames)])
        simulated, noise, png = np.median(times, axis=0)
        rate = 1000 / times[:, 0].mean()
        print(f"{kind:<12}{rate:>9.1f}{simulated:>9.1f}{noise:>16.1f}{png:>9.1f}")


if __name__ == "__main__":
    main()
