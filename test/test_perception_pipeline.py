# SPDX-License-Identifier: Apache-2.0
"""From a frame to a Perception, whatever the network says."""

from __future__ import annotations

from time import thread_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_fixture import draw_instruments, write_threshold_model
from perception_scenes import SIZE, network_output

from fedefm_core.frames import Frame
from fedefm_core.perception import (
    ModelMetadata,
    NetworkOutput,
    PerceptionSettings,
    Segmenter,
    TrackingState,
    draw_overlay,
    open_runtime,
)

STAGES = {"preprocess", "inference", "instruments", "tracking", "total"}


class FakeRuntime:
    """Says whatever it was given to say."""

    name = "fake"
    skipped_runtimes: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, output: NetworkOutput) -> None:
        height, width = output.label_map.shape
        self.metadata = ModelMetadata("fake", "none", "fp32", (height, width), "")
        self.output = output

    def infer(self, image: np.ndarray) -> NetworkOutput:
        assert image.shape == self.metadata.input_size
        return self.output


def garbage() -> dict[str, np.ndarray]:
    """Label maps that no network should give and any network may."""
    y, x = np.mgrid[:SIZE, :SIZE]
    radius = np.hypot(x - 256, y - 256)
    noise = np.random.default_rng(0)
    turn = np.arctan2(y - 256, x - 256) / (2 * np.pi)
    maps = {
        "empty": np.zeros((SIZE, SIZE)),
        "all catheter": np.ones((SIZE, SIZE)),
        "checkerboard": (x + y) % 2 + 1,
        "salt and pepper": noise.random((SIZE, SIZE)) < 0.05,
        "half": noise.random((SIZE, SIZE)) < 0.5,
        "random": noise.integers(0, 3, (SIZE, SIZE)),
        "rings": radius // 6 % 3,
        "grid": np.where((x % 20 < 3) | (y % 20 < 3), 2, 0),
        "stripes": x % 8 < 4,
        "disk": radius < 140,
        "spiral": (radius / 12 - turn) % 1 < 0.3,
    }
    return {name: labels.astype(np.uint8) for name, labels in maps.items()}


@pytest.mark.parametrize("name", garbage())
def test_garbage_is_answered_in_bounded_time(name: str) -> None:
    heat = np.random.default_rng(1).random((2, SIZE // 4, SIZE // 4)).astype(np.float32)
    segmenter = Segmenter(FakeRuntime(network_output(garbage()[name], heat)))
    frame = Frame(np.zeros((SIZE, SIZE), np.uint8))
    started = thread_time()
    perception = segmenter.process(frame)
    assert thread_time() - started < 2  # seconds: a guard against explosion, not a benchmark
    assert len(perception.instruments) <= 16
    assert perception.label_map.shape == (SIZE, SIZE)
    draw_overlay(frame.pixels, perception)


@st.composite
def outputs(draw: st.DrawFn) -> NetworkOutput:
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    cell = draw(st.sampled_from([1, 2, 4, 8, 16]))
    share = draw(st.floats(0, 1))
    small = generator.random((64 // cell, 64 // cell))
    labels = np.where(small < share, generator.integers(1, 3, small.shape), 0).astype(np.uint8)
    heat = generator.random((2, 16, 16)).astype(np.float32)
    special = draw(st.sampled_from([None, np.nan, np.inf, -np.inf, -1.0, 1e30]))
    if special is not None:
        heat[generator.random(heat.shape) < 0.3] = special
    return network_output(np.kron(labels, np.ones((cell, cell), np.uint8)), heat)


@settings(max_examples=150, deadline=None)
@given(
    output=outputs(),
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    dtype=st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]),
    stamps=st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=3),
)
def test_any_output_is_answered(
    output: NetworkOutput, size: tuple[int, int], dtype: type, stamps: list[int]
) -> None:
    segmenter = Segmenter(FakeRuntime(output))
    for stamp in stamps:
        frame = Frame(np.ones(size, dtype), stamp_ns=stamp)
        perception = segmenter.process(frame)
        assert perception.stamp_ns == stamp
        assert perception.label_map.shape == size
        for one in perception.instruments:
            assert 0 <= one.confidence <= 1
            assert np.isfinite(one.centerline_px).all()
            assert np.isfinite(one.length_px)
            known = [v is not None for v in (one.tip_px, one.heading_rad, one.covariance_px)]
            assert all(known) or not any(known)
            if one.tip_px is not None:
                assert np.isfinite(one.tip_px).all()
                assert np.linalg.eigvalsh(one.covariance_px).min() > 0
        assert draw_overlay(np.zeros(size, np.uint8), perception).shape == (*size, 3)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    path = write_threshold_model(tmp_path_factory.mktemp("model") / "threshold.onnx", (256, 256))
    return Segmenter(open_runtime(path, "openvino"))


def test_a_real_runtime_end_to_end(segmenter: Segmenter) -> None:
    segmenter.warm_up()
    assert segmenter.tracker.state is TrackingState.LOST
    for index in range(3):
        tip = (150.0 + index, 120.0)
        image = draw_instruments((256, 256), guidewire=[(0, 60), (80, 70), tip])
        perception = segmenter.process(Frame(image, stamp_ns=index * 33_000_000))
    assert set(perception.timings_ms) == STAGES
    assert perception.timings_ms["total"] == pytest.approx(
        sum(v for k, v in perception.timings_ms.items() if k != "total")
    )
    assert perception.state is TrackingState.TRACKING
    assert np.hypot(*(perception.tracked["guidewire"].tip_px - tip)) < 3
    overlay = draw_overlay(image, perception)
    assert (overlay != image[..., None]).any()
    segmenter.reset()
    assert segmenter.process(Frame(image)).tracked == {}


def test_the_same_scene_at_another_size_gives_the_same_tip(segmenter: Segmenter) -> None:
    image = draw_instruments((256, 256), guidewire=[(0, 60), (80, 70), (150, 120)])
    (small,) = segmenter.process(Frame(image)).instruments
    twice = np.kron(image, np.ones((2, 2), np.uint8))
    (large,) = segmenter.process(Frame(twice)).instruments
    np.testing.assert_allclose((large.tip_px + 0.5) / 2 - 0.5, small.tip_px, atol=0.5)
    np.testing.assert_allclose(large.covariance_px, 4 * small.covariance_px, rtol=0.2)
    assert large.length_px == pytest.approx(2 * small.length_px, rel=0.02)


def test_settings_are_typed_and_nested() -> None:
    tuned = PerceptionSettings.model_validate({"tracker": {"confirm_frames": 4}})
    assert tuned.tracker.confirm_frames == 4
