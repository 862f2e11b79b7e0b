# SPDX-License-Identifier: Apache-2.0
"""Execution, on a fake of CUDA that does nothing before somebody waits for it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda, FakeEngine, FakeTrt

from fedefm_core.errors import EngineError
from fedefm_core.frames import Frame
from fedefm_core.perception import ModelMetadata, Segmenter
from fedefm_core.perception.contract import expected_inputs, expected_outputs
from fedefm_core.perception.runtimes.tensorrt import TensorRtRuntime
from fedefm_core.perception.runtimes.tensorrt.execution import SLOTS, EngineExecution

SIZE = (64, 64)
METADATA = ModelMetadata("fake", "fake", "fp16", SIZE, "")
PORTS = {**expected_inputs(METADATA), **expected_outputs(METADATA)}


def compute(image: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "label_map": (image > 100).astype(np.uint8),
        "probability": 255 - image,
        "tip_heatmap": np.full((2, 16, 16), image[0, 0] / 255, np.float32),
    }


def image(value: int) -> np.ndarray:
    return np.full(SIZE, value, np.uint8)


def execution(cuda: FakeCuda, **changes: Any) -> EngineExecution:
    return EngineExecution(cuda, FakeTrt, FakeEngine(cuda, PORTS, compute, **changes), METADATA)


def runtime(cuda: FakeCuda) -> TensorRtRuntime:
    return TensorRtRuntime(execution(cuda), None, METADATA)


def test_outputs_are_those_of_the_image() -> None:
    engine = runtime(FakeCuda())
    for value in (0, 200, 90, 255):
        output = engine.infer(image(value))
        expected = compute(image(value))
        np.testing.assert_array_equal(output.label_map, expected["label_map"])
        np.testing.assert_array_equal(output.probability, expected["probability"])
        np.testing.assert_array_equal(output.tip_heatmap, expected["tip_heatmap"])
        assert output.label_map.dtype == output.probability.dtype == np.uint8


def test_a_frame_costs_one_launch_and_no_allocation() -> None:
    cuda = FakeCuda()
    engine = runtime(cuda)
    cuda.calls.clear()
    engine.infer(image(1))
    assert cuda.calls == ["cudaGraphLaunch", "cudaEventRecord", "cudaEventSynchronize"]


def test_the_network_runs_once_before_it_is_captured() -> None:
    cuda = FakeCuda()
    execution(cuda)
    first = cuda.calls.index("cudaStreamBeginCapture")
    before, after = cuda.calls[:first], cuda.calls[first:]
    assert before.count("execute") == 1
    assert before[-1] == "cudaStreamSynchronize"
    assert after[: after.index("cudaStreamEndCapture")].count("execute") == 1
    assert Counter(cuda.calls)["cudaStreamCreateWithFlags"] == 1


def test_two_frames_under_way_do_not_touch_each_other() -> None:
    engine = runtime(FakeCuda())
    engine.submit(image(10))
    engine.submit(image(20))
    first = engine.result()
    assert first.probability[0, 0] == 245
    engine.submit(image(30))
    assert engine.result().probability[0, 0] == 235
    assert engine.result().probability[0, 0] == 225


def test_results_stay_while_the_next_frame_runs() -> None:
    engine = runtime(FakeCuda())
    engine.submit(image(10))
    first = engine.result()
    engine.infer(image(20))
    assert first.probability[0, 0] == 245


def test_everything_is_given_back_in_turn() -> None:
    cuda = FakeCuda()
    engine = execution(cuda)
    made = Counter(cuda.owned.values())
    assert made == {
        "stream": 1, "host": 4 * SLOTS, "device": 4 * SLOTS, "event": SLOTS, "graph": SLOTS,
        "executable": SLOTS,
    }  # fmt: skip
    engine.close()
    assert cuda.owned == {}
    assert cuda.calls[-1] == "cudaStreamDestroy"
    engine.close()


def test_a_runtime_that_is_dropped_gives_back_too() -> None:
    cuda = FakeCuda()
    engine = runtime(cuda)
    assert cuda.owned
    del engine
    assert cuda.owned == {}


@pytest.mark.parametrize(
    "fails", ["cudaMalloc", "cudaMallocHost", "cudaStreamEndCapture", "cudaGraphInstantiate"]
)
def test_what_cuda_refuses_is_told_and_leaves_nothing(fails: str) -> None:
    cuda = FakeCuda(fails)
    with pytest.raises(EngineError, match=f"{fails} failed on this GPU: 2"):
        execution(cuda)
    assert cuda.owned == {}


def test_an_engine_that_does_not_start_is_told() -> None:
    cuda = FakeCuda()
    with pytest.raises(EngineError, match="could not start"):
        execution(cuda, starts=False)
    assert cuda.owned == {}


def test_an_engine_of_another_contract_is_refused() -> None:
    cuda = FakeCuda()
    wrong = {**PORTS, "label_map": ("int32", (1, *SIZE))}
    with pytest.raises(EngineError, match="must have the tensors"):
        EngineExecution(cuda, FakeTrt, FakeEngine(cuda, wrong, compute), METADATA)


def test_a_stream_of_frames_is_overlapped_and_gives_what_process_gives() -> None:
    frames = [Frame(image(value), stamp_ns=value) for value in (10, 200, 30)]
    cuda = FakeCuda()
    overlapped = Segmenter(runtime(cuda))
    cuda.calls.clear()
    streamed = list(overlapped.stream(frames))
    waits = [c for c in cuda.calls if c in ("cudaGraphLaunch", "cudaEventSynchronize")]
    assert [c == "cudaGraphLaunch" for c in waits] == [True, True, False, True, False, False]
    one_by_one = Segmenter(runtime(FakeCuda()))
    for frame, found in zip(frames, streamed, strict=True):
        expected = one_by_one.process(frame)
        assert found.stamp_ns == frame.stamp_ns
        np.testing.assert_array_equal(found.label_map, expected.label_map)
        assert found.timings_ms.keys() == expected.timings_ms.keys()


def test_a_stream_that_is_left_early_leaves_no_frame_behind() -> None:
    segmenter = Segmenter(runtime(FakeCuda()))
    frames = [Frame(image(value)) for value in (10, 20, 30)]
    stream = segmenter.stream(frames)
    next(stream)
    stream.close()
    assert segmenter.process(Frame(image(200))).label_map.all()
