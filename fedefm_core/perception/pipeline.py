# SPDX-License-Identifier: Apache-2.0
"""Frame in, Perception out: preprocess, network, instruments, tracker."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from time import perf_counter

import numpy as np

from fedefm_core.config import Settings
from fedefm_core.frames import Frame
from fedefm_core.perception.instruments import InstrumentSettings, find_instruments
from fedefm_core.perception.preprocess import Letterbox, preprocess
from fedefm_core.perception.runtimes.base import NetworkOutput, OverlappingRuntime, Runtime
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
        started = perf_counter()
        image, box = preprocess(frame, self.runtime.metadata.input_size)
        prepared = perf_counter()
        output = self.runtime.infer(image)
        spent = _milliseconds(preprocess=prepared - started, inference=perf_counter() - prepared)
        return self._perceive(frame, box, output, spent)

    def stream(self, frames: Iterable[Frame]) -> Iterator[Perception]:
        """As process for each of frames, for those who have them all and want throughput.

        Where the runtime can, the network of a frame runs while the instruments of the frame
        before are found; then a result comes when the next frame has begun, and the stage
        'inference' is what is left to wait. Leave the stream before you call process again.
        """
        runtime = self.runtime
        if not isinstance(runtime, OverlappingRuntime):
            yield from map(self.process, frames)
            return
        under_way: deque[tuple[Frame, Letterbox, float]] = deque()
        try:
            for frame in frames:
                started = perf_counter()
                image, box = preprocess(frame, runtime.metadata.input_size)
                runtime.submit(image)
                under_way.append((frame, box, perf_counter() - started))
                if len(under_way) > 1:
                    yield self._finish(runtime, *under_way.popleft())
            while under_way:
                yield self._finish(runtime, *under_way.popleft())
        finally:
            for _ in under_way:
                runtime.result()

    def _finish(
        self, runtime: OverlappingRuntime, frame: Frame, box: Letterbox, preparing_s: float
    ) -> Perception:
        started = perf_counter()
        output = runtime.result()
        spent = _milliseconds(preprocess=preparing_s, inference=perf_counter() - started)
        return self._perceive(frame, box, output, spent)

    def _perceive(
        self, frame: Frame, box: Letterbox, output: NetworkOutput, spent: dict[str, float]
    ) -> Perception:
        """From the network's outputs; spent: milliseconds by the stages before."""
        started = perf_counter()
        label_map = box.label_map_to_input(output.label_map)
        instruments = find_instruments(output, box, self.settings.instruments)
        found = perf_counter()
        tracked = self.tracker.update(instruments, frame.stamp_ns)
        spent |= _milliseconds(instruments=found - started, tracking=perf_counter() - found)
        spent["total"] = sum(spent.values())
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


def _milliseconds(**seconds: float) -> dict[str, float]:
    return {stage: 1e3 * value for stage, value in seconds.items()}
