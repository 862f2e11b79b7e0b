# SPDX-License-Identifier: Apache-2.0
"""Frame in, Perception out: preprocess, network, instruments, tracker."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from fedefm_core.config import Settings
from fedefm_core.frames import Frame
from fedefm_core.perception.instruments import InstrumentSettings, find_instruments
from fedefm_core.perception.preprocess import preprocess
from fedefm_core.perception.runtimes.base import Runtime
from fedefm_core.perception.tracking import Tracker, TrackerSettings
from fedefm_core.perception.types import Perception


class PerceptionSettings(Settings):
    """How network outputs become instruments, and which of them are vouched for."""

    instruments: InstrumentSettings = InstrumentSettings()
    tracker: TrackerSettings = TrackerSettings()


class Segmenter:
    """One stream of frames through one runtime. To be used by one thread at a time."""

    def __init__(self, runtime: Runtime, settings: PerceptionSettings | None = None) -> None:
        self.runtime = runtime
        self.settings = settings or PerceptionSettings()
        self.tracker = Tracker(self.settings.tracker)

    def process(self, frame: Frame) -> Perception:
        """What is to be seen in frame, in its own pixels.

        Raises FrameError for a frame that is not an image; whatever the network makes of an image
        is answered with a Perception. timings_ms: preprocess, inference, instruments, tracking,
        total.
        """
        times = [perf_counter()]
        image, box = preprocess(frame, self.runtime.metadata.input_size)
        times.append(perf_counter())
        output = self.runtime.infer(image)
        times.append(perf_counter())
        label_map = box.label_map_to_input(output.label_map)
        instruments = find_instruments(output, box, self.settings.instruments)
        times.append(perf_counter())
        tracked = self.tracker.update(instruments, frame.stamp_ns)
        times.append(perf_counter())
        stages = ("preprocess", "inference", "instruments", "tracking")
        spent = {
            name: 1e3 * (stop - start)
            for name, start, stop in zip(stages, times, times[1:], strict=False)
        }
        spent["total"] = 1e3 * (times[-1] - times[0])
        return Perception(
            frame.stamp_ns, label_map, instruments, tracked, self.tracker.state, spent
        )

    def warm_up(self, frames: int = 3) -> None:
        """Pay the costs of the first inferences now; leaves no trace in the tracker."""
        height, width = self.runtime.metadata.input_size
        ramp = np.linspace(0, 255, height * width).reshape(height, width).astype(np.uint8)
        for _ in range(frames):
            self.process(Frame(ramp))
        self.tracker = Tracker(self.settings.tracker)

    def reset(self) -> None:
        """Forget what was tracked."""
        self.tracker.reset()
