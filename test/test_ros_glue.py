# SPDX-License-Identifier: Apache-2.0
"""The plain helpers beside segmentation_node: parameters, health, mailbox, pipeline, cv_bridge."""

from __future__ import annotations

import math
import re
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2: pip install the extra 'ros'")

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from model_fixture import write_threshold_model
from rclpy.context import Context
from rclpy.node import Node
from segmentation_bench import IMAGE
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from fedefm_core.errors import FrameError
from fedefm_core.frames.encoding import REASONS
from fedefm_core.perception import (
    Instrument,
    Perception,
    Segmenter,
    TrackingState,
    TrackPhase,
    open_runtime,
)
from fedefm_ros import cv_bridge_fallback, frame_pipeline, interface, status
from fedefm_ros.frame_pipeline import FramePipeline, check_age
from fedefm_ros.health import SUPERSEDED, Health, State
from fedefm_ros.mailbox import Mailbox
from fedefm_ros.messages import array_to_image, ns_to_stamp
from fedefm_ros.parameters import Parameters, ParameterSpec, describe, refusal, slips
from fedefm_ros.playback_node import PARAMETERS
from fedefm_ros.segmentation_parameters import SPECS, perception_settings, runtime_threads

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = REPOSITORY / "config" / "segment.yaml"
DOCUMENT = REPOSITORY / "docs" / "ros.md"

# --- parameters -------------------------------------------------------------------------------

AGE = ParameterSpec("max_age", 0.2, "Oldest frame.", "s", 0.0, 60.0, live=True)
COUNT = ParameterSpec("count", 3, "Frames.", minimum=1, maximum=9)
MODE = ParameterSpec("mode", "raw", "Transport.", choices=("raw", "compressed"))
FLAG = ParameterSpec("flag", True, "Switch.")


@pytest.mark.parametrize(
    ("spec", "value"),
    [(AGE, 0.0), (AGE, 60), (COUNT, 9), (MODE, "compressed"), (FLAG, False)],
)
def test_right_values_are_accepted(spec: ParameterSpec, value: object) -> None:
    assert refusal(spec, value) is None


@pytest.mark.parametrize(
    ("spec", "value", "sentence"),
    [
        (
            AGE,
            -0.1,
            "parameter 'max_age' must be a double from 0.0 to 60.0 s (got -0.1, a double)",
        ),
        (AGE, "1", "parameter 'max_age' must be a double from 0.0 to 60.0 s (got '1', a string)"),
        (AGE, True, "parameter 'max_age' must be a double from 0.0 to 60.0 s (got True, a bool)"),
        (COUNT, 10, "parameter 'count' must be an integer from 1 to 9 (got 10, an integer)"),
        (COUNT, 2.0, "parameter 'count' must be an integer from 1 to 9 (got 2.0, a double)"),
        (MODE, "RAW", "parameter 'mode' must be one of raw, compressed (got 'RAW', a string)"),
        (FLAG, 1, "parameter 'flag' must be a bool (got 1, an integer)"),
        (FLAG, None, "parameter 'flag' must be a bool (got None, a NoneType)"),
    ],
)
def test_wrong_values_are_refused_by_name_type_and_range(
    spec: ParameterSpec, value: object, sentence: str
) -> None:
    assert refusal(spec, value) == sentence


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_double_is_infinite(value: float) -> None:
    assert refusal(AGE, value)


def test_a_misspelt_parameter_is_told_and_others_are_passed_over() -> None:
    names = [spec.name for spec in SPECS]
    given = ["max_aeg", "max_age", "overlays", "loop", "source", "rate", "qos_overrides./a.b"]
    assert [sentence[:60] for sentence in slips(given, names)] == [
        "There is no parameter 'max_aeg', its value is not used; did ",
        "There is no parameter 'overlays', its value is not used; did",
    ]
    playback = [spec.name for spec in PARAMETERS]  # one file may well hold those of both nodes
    assert slips([*names, *playback], names) == slips([*names, *playback], playback) == []


def test_a_node_tells_of_the_misspelt_parameter_that_it_was_given() -> None:
    context = Context()
    rclpy.init(args=["--ros-args", "-p", "max_aeg:=0.5"], context=context)
    try:
        node = Node("slip", context=context)
        said: list[str] = []
        node.get_logger = lambda: SimpleNamespace(warning=said.append)  # type: ignore[assignment]
        Parameters(node, SPECS, fixed=lambda spec: "")
        node.destroy_node()
    finally:
        context.try_shutdown()
    (sentence,) = said
    assert sentence.endswith("did you mean 'max_age'?")


def test_ranges_are_told_to_ros() -> None:
    (span,) = describe(AGE).floating_point_range
    assert (span.from_value, span.to_value) == (0.0, 60.0)
    (span,) = describe(COUNT).integer_range
    assert (span.from_value, span.to_value) == (1, 9)


def test_every_default_is_right() -> None:
    assert [refusal(spec, spec.default) for spec in SPECS] == [None] * len(SPECS)
    assert len({spec.name for spec in SPECS}) == len(SPECS)


def flat(tree: dict, prefix: str = "") -> dict:
    """{'a': {'b': 1}} as {'a.b': 1}."""
    values: dict = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        values |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return values


def test_the_configuration_file_holds_every_parameter_at_its_default() -> None:
    tree = yaml.safe_load(CONFIG.read_text())
    assert list(tree) == [f"/**/{interface.NODE_NAME}"]
    values = flat(tree[f"/**/{interface.NODE_NAME}"]["ros__parameters"])
    assert values == {spec.name: spec.default for spec in SPECS}
    assert all(type(values[spec.name]) is type(spec.default) for spec in SPECS)


def test_the_configuration_file_documents_every_parameter() -> None:
    """The comment above each parameter says what it is, its type, range and unit."""
    documented = {}
    comment: list[str] = []
    for line in CONFIG.read_text().splitlines():
        if line.strip().startswith("#"):
            comment.append(line.strip("# "))
        elif match := re.match(r"\s+(\w+): \S", line):
            documented[match[1]] = " ".join(comment)
            comment = []
        else:
            comment = []
    for spec in SPECS:
        live = "; live" if spec.live else ""
        expected = f"{spec.description} Expects {spec.expectation}{live}."
        assert documented[spec.name.split(".")[-1]] == expected


def test_topics_are_documented_with_their_types() -> None:
    documented = {}
    for line in DOCUMENT.read_text().partition("## Topics")[2].partition("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 3 and "/" in cells[2]:
            for name in re.findall(r"`([^`]+)`", cells[1]):
                documented[name] = cells[2]
    ends = {**interface.INPUTS, **interface.OUTPUTS, **interface.STATUS_OUTPUTS}
    assert documented == {name: type_name(kind) for name, kind in ends.items()}


def type_name(message_type: type) -> str:
    """Such as sensor_msgs/Image."""
    return f"{message_type.__module__.partition('.')[0]}/{message_type.__name__}"


def test_drop_reasons_are_documented() -> None:
    section = DOCUMENT.read_text().partition("## Frames that are not processed")[2]
    documented = re.findall(r"^\| ([a-z_, ]+) \|", section.partition("\n## ")[0], re.MULTILINE)
    reasons = {reason for cell in documented[1:] for reason in cell.split(", ")}
    ours = {name for name in dir(frame_pipeline) if name.startswith(("TOO_", "FROM_", "OUT_"))}
    assert reasons == {*REASONS, SUPERSEDED, *(getattr(frame_pipeline, name) for name in ours)}


def test_tracker_parameters_reach_the_tracker() -> None:
    values = {spec.name: spec.default for spec in SPECS}
    values |= {"tracker.min_confidence": 0.77, "tracker.confirm_frames": 9}
    tracker = perception_settings(values).tracker
    assert (tracker.min_confidence, tracker.confirm_frames) == (0.77, 9)


def test_threads_are_as_asked_or_by_the_cores() -> None:
    assert runtime_threads(3) == 3
    assert 1 <= runtime_threads(0) <= 4


# --- health -----------------------------------------------------------------------------------

TIMEOUT = 0.5
TRACKED = {"guidewire": TrackPhase.TRACKED, "catheter": TrackPhase.SEARCHING}


def perception(state: TrackingState) -> Perception:
    return Perception(7, np.zeros((2, 2), np.uint8), (), {}, state)


def test_stale_until_the_first_frame_then_what_the_tracker_says() -> None:
    health = Health()
    assert health.verdict(0.0, TIMEOUT, active=True).state is State.STALE
    health.processed(perception(TrackingState.LOST), {}, 5.0, now=1.0)
    assert health.verdict(1.1, TIMEOUT, active=True).state is State.LOST
    health.processed(perception(TrackingState.TRACKING), TRACKED, 5.0, now=1.2)
    verdict = health.verdict(1.3, TIMEOUT, active=True)
    assert verdict.state is State.TRACKING
    assert "guidewire tracked" in verdict.text
    assert health.verdict(1.3, TIMEOUT, active=False).state is State.STALE


def test_stale_after_the_timeout_unless_it_is_off() -> None:
    health = Health()
    health.received(1.0)
    health.processed(perception(TrackingState.TRACKING), TRACKED, 5.0, now=1.0)
    assert health.verdict(1.5, TIMEOUT, active=True).state is State.TRACKING
    assert health.verdict(1.6, TIMEOUT, active=True).state is State.STALE
    assert "No image for 0.6 s" in health.verdict(1.6, TIMEOUT, active=True).text
    assert health.verdict(99.0, 0.0, active=True).state is State.TRACKING


def test_stale_says_why_when_images_come_but_none_can_be_used() -> None:
    health = Health()
    health.received(1.0)
    health.dropped("wrong_step", "step is too short")
    assert "step is too short" in health.verdict(1.1, TIMEOUT, active=True).text


def test_a_fault_stands_above_all_until_a_success_or_a_reset() -> None:
    health = Health()
    for cure in (
        lambda: health.processed(perception(TrackingState.LOST), {}, 5.0, now=2.0),
        health.tracking_was_reset,
    ):
        health.processed(perception(TrackingState.TRACKING), TRACKED, 5.0, now=2.0)
        health.failed("ValueError('x')")
        for active in (True, False):
            assert health.verdict(2.0, TIMEOUT, active).state is State.FAULT
        assert not health.last_result().phases
        cure()
        assert health.verdict(2.0, TIMEOUT, active=True).state is State.LOST
    assert health.statistics(2.0).faults == 2


def test_statistics_count_by_reason_and_measure() -> None:
    health = Health()
    for index in range(101):
        health.received(index / 30)
        health.processed(
            perception(TrackingState.LOST), {}, latency_ms=float(index), now=index / 30
        )
    health.dropped("superseded")
    health.dropped("wrong_step", "why")
    health.dropped("wrong_step", "why again")
    health.lost_by_middleware(4)
    found = health.statistics(100 / 30)
    assert found.dropped == {"superseded": 1, "wrong_step": 2}
    assert (found.last_drop, found.lost_by_middleware) == ("why again", 4)
    assert found.rate_hz == pytest.approx(30.0)
    assert found.latency_ms == {"p50": 50.0, "p95": 95.0, "max": 100.0}


def test_state_message_names_no_tip_unless_frames_are_processed() -> None:
    health = Health()
    health.processed(perception(TrackingState.TRACKING), TRACKED, 5.0, now=1.0)
    for now, level, track in ((1.1, DiagnosticStatus.OK, "TRACKED"), (9.0, b"\x03", "")):
        verdict = health.verdict(now, TIMEOUT, active=True)
        message = status.state_message(verdict, ns_to_stamp(7), health.last_result(), {})
        values = {pair.key: pair.value for pair in message.status[0].values}
        assert message.status[0].level == level
        assert values["state"] == verdict.state.value
        assert values["guidewire_track"] == track
        assert values["guidewire_tip"] == "none"
        assert message.status[0].message.startswith(verdict.state.value)


def test_state_message_tells_length_and_uncertainty_of_each_tip() -> None:
    """Covariance [[5, 3], [3, 5]] has the eigenvalues 2 and 8."""
    wire = Instrument(
        kind="guidewire",
        centerline_px=np.zeros((2, 2)),
        tip_px=np.zeros(2),
        heading_rad=0.0,
        covariance_px=np.array([[5.0, 3.0], [3.0, 5.0]]),
        confidence=0.9,
        length_px=123.25,
    )
    frame = Perception(
        7, np.zeros((2, 2), np.uint8), (wire,), {"guidewire": wire}, TrackingState.TRACKING
    )
    health = Health()
    health.processed(frame, TRACKED, 5.0, now=1.0)
    verdict = health.verdict(1.1, TIMEOUT, active=True)
    message = status.state_message(verdict, ns_to_stamp(7), health.last_result(), {})
    values = {pair.key: pair.value for pair in message.status[0].values}
    assert (values["guidewire_length_px"], values["guidewire_sigma_px"]) == ("123.250", "2.828")
    assert (values["catheter_length_px"], values["catheter_sigma_px"]) == ("", "")


def test_diagnostics_advise_when_the_middleware_loses_images() -> None:
    health = Health()
    health.processed(perception(TrackingState.TRACKING), TRACKED, 5.0, now=1.0)
    health.lost_by_middleware(12)
    verdict = health.verdict(1.0, TIMEOUT, active=True)

    def told(lost_before: int) -> DiagnosticStatus:
        statistics = health.statistics(1.0)
        return status.diagnostics_message(
            verdict, ns_to_stamp(7), statistics, lost_before, {"model": "m"}, "/ns/node"
        ).status[0]

    assert told(2).level == DiagnosticStatus.WARN
    assert "lost 10 images" in told(2).message
    assert "LARGE_DATA" in told(2).message
    assert told(12).level == DiagnosticStatus.OK


def test_diagnostics_warn_of_a_runtime_that_was_meant() -> None:
    health = Health()
    health.processed(perception(TrackingState.TRACKING), TRACKED, 5.0, now=1.0)
    about = {"model": "m", "warning": "TensorRT needs an NVIDIA GPU."}
    told = status.diagnostics_message(
        health.verdict(1.0, TIMEOUT, active=True),
        ns_to_stamp(7),
        health.statistics(1.0),
        0,
        about,
        "/ns/node",
    ).status[0]
    assert told.level == DiagnosticStatus.WARN
    assert told.message.endswith("Not on the runtime meant: TensorRT needs an NVIDIA GPU.")


# --- mailbox ----------------------------------------------------------------------------------


def test_a_mailbox_holds_the_newest() -> None:
    mailbox: Mailbox[int] = Mailbox()
    assert [mailbox.put(item) for item in (1, 2, 3)] == [False, True, True]
    assert mailbox.take() == 3


def test_closing_a_mailbox_wakes_who_waits() -> None:
    mailbox: Mailbox[int] = Mailbox()
    taken: list[int | None] = []
    waiter = threading.Thread(target=lambda: taken.append(mailbox.take()))
    waiter.start()
    mailbox.close()
    waiter.join(30)
    assert taken == [None]
    mailbox.put(1)
    assert mailbox.take() is None


# --- pipeline ---------------------------------------------------------------------------------


def reason_of(age_s: float, max_age_s: float) -> str:
    try:
        check_age(age_s, max_age_s)
    except FrameError as error:
        return error.reason
    return ""


@pytest.mark.parametrize(
    ("age_s", "max_age_s", "reason"),
    [
        (0.1, 0.2, ""),
        (0.2, 0.2, ""),
        (0.3, 0.2, "too_old"),
        (-0.1, 0.2, ""),
        (-0.3, 0.2, "from_future"),
        (1e9, 0.0, ""),
        (-1e9, 0.0, ""),
    ],
)
def test_age_limits(age_s: float, max_age_s: float, reason: str) -> None:
    assert reason_of(age_s, max_age_s) == reason


def test_a_frame_that_is_a_little_too_old_may_mean_a_slow_machine() -> None:
    with pytest.raises(FrameError, match="too slow or too busy"):
        check_age(0.3, 0.2)
    with pytest.raises(FrameError, match=r"12.000 s old, .*: is 'use_sim_time' the same"):
        check_age(12.0, 0.2)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    model = write_threshold_model(tmp_path_factory.mktemp("model") / "threshold.onnx")
    return Segmenter(open_runtime(model, "onnxruntime", threads=1))


def message(stamp_ns: int, pixels: np.ndarray = IMAGE) -> Image:
    return array_to_image(pixels, Header(stamp=ns_to_stamp(stamp_ns)))


def test_a_change_of_size_forgets_the_tracks(segmenter: Segmenter) -> None:
    pipeline = FramePipeline(segmenter, 4096)
    pipeline.reset()
    for stamp_ns in (1, 2, 3):
        _, seen = pipeline.process(message(stamp_ns), 0, 0.0)
    assert seen.state is TrackingState.TRACKING
    _, seen = pipeline.process(message(4, np.pad(IMAGE, 8, mode="edge")), 0, 0.0)
    assert not seen.tracked


@pytest.mark.parametrize(("side", "reason"), [(31, "too_small"), (129, "too_large")])
def test_size_limits(segmenter: Segmenter, side: int, reason: str) -> None:
    pipeline = FramePipeline(segmenter, max_image_size=128)
    with pytest.raises(FrameError) as caught:
        pipeline.process(message(1, np.zeros((side, side), np.uint8)), 0, 0.0)
    assert caught.value.reason == reason


def test_other_encodings_go_through_the_converter_but_not_beyond_the_limits(
    segmenter: Segmenter,
) -> None:
    asked: list[str] = []

    def convert(image: Image) -> np.ndarray:
        asked.append(image.encoding)
        return IMAGE

    pipeline = FramePipeline(segmenter, 128, convert)
    odd = message(1)
    odd.encoding = "bayer_rggb8"
    frame, _ = pipeline.process(odd, 0, 0.0)
    assert asked == ["bayer_rggb8"]
    assert frame.pixels is IMAGE
    odd.width = 2**31
    with pytest.raises(FrameError) as caught:
        pipeline.process(odd, 0, 0.0)
    assert caught.value.reason == "too_large"
    assert asked == ["bayer_rggb8"]


# --- cv_bridge --------------------------------------------------------------------------------

WORKING = """
import numpy as np
class CvBridge:
    def imgmsg_to_cv2(self, message, encoding):
        if message.encoding == "yuv422":
            raise RuntimeError("no conversion")
        return np.full((message.height, message.width), 7, np.uint8)
"""
DEADLY = """
import os, signal
class CvBridge:
    def imgmsg_to_cv2(self, message, encoding):
        os.kill(os.getpid(), signal.SIGSEGV)
"""
BROKEN = "raise ImportError('numpy.core.multiarray failed to import')\n"


def install(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a cv_bridge of our own first on the path, here and in child processes."""
    (folder / "cv_bridge.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    paths = [str(folder), *filter(None, sys.path)]
    monkeypatch.setenv("PYTHONPATH", ":".join(paths))
    monkeypatch.delitem(sys.modules, "cv_bridge", raising=False)


def test_a_cv_bridge_that_works_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(WORKING, tmp_path, monkeypatch)
    convert = cv_bridge_fallback.find_cv_bridge(pytest.fail)
    assert convert is not None
    assert convert(Image(height=4, width=5)).shape == (4, 5)
    with pytest.raises(FrameError, match="no conversion"):
        convert(Image(height=4, width=5, encoding="yuv422"))
    assert isinstance(sys.modules.pop("cv_bridge"), ModuleType)


@pytest.mark.parametrize(("code", "words"), [(DEADLY, "exit code -11"), (BROKEN, "multiarray")])
def test_a_cv_bridge_that_fails_is_not_let_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    install(code, tmp_path, monkeypatch)
    warnings: list[str] = []
    assert cv_bridge_fallback.find_cv_bridge(warnings.append) is None
    assert words in warnings[0]


def test_without_cv_bridge_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv_bridge_fallback, "find_spec", lambda name: None)
    assert cv_bridge_fallback.find_cv_bridge(pytest.fail) is None
