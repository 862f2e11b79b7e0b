# SPDX-License-Identifier: Apache-2.0
"""segmentation_node at work, over DDS: topics, stamps, metres, states, parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install the extra 'ros'")

from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseWithCovarianceStamped
from model_fixture import write_threshold_model
from rclpy.qos import QoSDurabilityPolicy, QoSReliabilityPolicy
from ros_peer import wait_until
from segmentation_bench import (
    CATHETER_TIP,
    EMPTY,
    FRAME_ID,
    IMAGE,
    NODE,
    WIRE_TIP,
    Bench,
    segmentation_bench,
    stamps_of,
)
from std_srvs.srv import Trigger

from fedefm_core.perception import CATHETER, GUIDEWIRE
from fedefm_ros import interface
from fedefm_ros.messages import image_to_array

pytestmark = pytest.mark.ros

METRIC = [*map(interface.tip, interface.KINDS), *map(interface.centerline, interface.KINDS)]
PIXELS = [interface.tip_pixel(kind) for kind in interface.KINDS]


@pytest.fixture(scope="module")
def running_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("segmentation_node")
    model = write_threshold_model(folder / "threshold.onnx")
    with segmentation_bench(model, folder / "log.txt") as made:
        made.start()
        yield made


@pytest.fixture
def bench(running_bench: Bench) -> Bench:
    """Return the active node, with default settings, no spacing, and no track."""
    bench = running_bench
    defaults = {"source_detector_distance": 0.0, "magnification": 1.0, "image_plane_frame": ""}
    assert bench.peer.set_parameters(NODE, **defaults, max_age=0.2, image_timeout=0.5) == ""
    assert reset(bench).success
    bench.camera_info = None
    bench.forget()
    return bench


def reset(bench: Bench) -> Trigger.Response:
    service = interface.RESET_TRACKING.replace("~", NODE)
    return bench.peer.call(service, Trigger, Trigger.Request())


def test_tips_come_out_at_the_pixels_where_they_are(bench: Bench) -> None:
    bench.send_until_state("TRACKING")
    wire = bench.heard[interface.tip_pixel("guidewire")][-1].point
    catheter = bench.heard[interface.tip_pixel("catheter")][-1].point
    assert math.hypot(wire.x - WIRE_TIP[0], wire.y - WIRE_TIP[1]) < 2.0
    assert math.hypot(catheter.x - CATHETER_TIP[0], catheter.y - CATHETER_TIP[1]) < 4.0


def test_every_output_carries_the_stamp_of_its_image(bench: Bench) -> None:
    bench.peer.set_parameters(NODE, source_detector_distance=1.0)
    bench.calibrate(1000.0)
    stamped = [interface.MASK, interface.OVERLAY, *PIXELS, *METRIC]
    bench.clear(*stamped)
    sent = bench.send_until(lambda: all(bench.heard[name] for name in stamped), "all outputs")
    for name in stamped:
        assert set(stamps_of(bench.heard[name])) <= set(sent), name
    # `state` also beats between frames, with the present time; it names the frame it speaks of.
    assert int(bench.values()["frame_stamp_ns"]) in sent


def test_quality_of_service(bench: Bench) -> None:
    robot = bench.peer.node
    (images,) = robot.get_subscriptions_info_by_topic("/image")
    assert images.qos_profile.reliability is QoSReliabilityPolicy.BEST_EFFORT
    for name in (*interface.OUTPUTS, *interface.STATUS_OUTPUTS):
        topic = "/" + name.replace("~", NODE).lstrip("/")
        (output,) = robot.get_publishers_info_by_topic(topic)
        assert output.qos_profile.reliability is QoSReliabilityPolicy.RELIABLE, name
        assert output.qos_profile.durability is QoSDurabilityPolicy.VOLATILE, name


def test_mask_is_the_label_map_in_the_size_and_frame_of_the_input(bench: Bench) -> None:
    bench.clear(interface.MASK, interface.OVERLAY)
    bench.send_until(
        lambda: bench.heard[interface.MASK] and bench.heard[interface.OVERLAY], "mask, overlay"
    )
    mask, overlay = (bench.heard[name][-1] for name in (interface.MASK, interface.OVERLAY))
    assert (mask.encoding, overlay.encoding) == ("mono8", "bgr8")
    assert mask.header.frame_id == overlay.header.frame_id == FRAME_ID
    labels = image_to_array(mask)
    assert labels.shape == IMAGE.shape == (overlay.height, overlay.width)
    np.testing.assert_array_equal(labels == GUIDEWIRE, IMAGE < 40)
    np.testing.assert_array_equal(labels == CATHETER, (IMAGE >= 40) & (IMAGE < 80))


def test_without_spacing_there_are_pixels_but_no_metres(bench: Bench) -> None:
    bench.clear(*METRIC, *PIXELS)
    bench.calibrate(1000.0)
    bench.send_until(lambda: min(len(bench.heard[name]) for name in PIXELS) >= 5, "five tips")
    assert not any(bench.heard[name] for name in METRIC)


def test_metres_follow_from_camera_info_and_source_detector_distance(bench: Bench) -> None:
    """Spacing 1.2 m / 3000 px = 0.4 mm at the detector; 0.25 mm at magnification 1.6."""
    bench.peer.set_parameters(NODE, source_detector_distance=1.2)
    bench.calibrate(3000.0)
    detector = tip_after(bench)
    pixel = bench.heard[interface.tip_pixel("guidewire")][-1].point
    assert detector.header.frame_id == f"{FRAME_ID}_image_plane"
    position = detector.pose.pose.position
    assert position.x == pytest.approx(pixel.x * 0.4e-3, abs=1e-5)
    assert position.y == pytest.approx(pixel.y * 0.4e-3, abs=1e-5)
    assert position.z == 0.0

    bench.peer.set_parameters(NODE, magnification=1.6, image_plane_frame="patient")
    patient = tip_after(bench)
    assert patient.header.frame_id == "patient"
    assert patient.pose.pose.position.x == pytest.approx(pixel.x * 0.25e-3, abs=1e-5)


def tip_after(bench: Bench) -> PoseWithCovarianceStamped:
    topic = interface.tip("guidewire")
    bench.clear(topic)
    bench.send_until(lambda: bench.heard[topic], "a tip in metres")
    return bench.heard[topic][-1]


def test_what_one_view_cannot_see_is_not_claimed(bench: Bench) -> None:
    bench.peer.set_parameters(NODE, source_detector_distance=1.0)
    bench.calibrate(1000.0)
    pose = tip_after(bench).pose
    covariance = np.reshape(pose.covariance, (6, 6))
    assert np.diag(covariance)[2:5] == pytest.approx([1e6] * 3)
    assert np.linalg.eigvalsh(covariance[:2, :2]).min() > 0
    assert 0 < covariance[5, 5] < 0.1
    heading = 2 * math.atan2(pose.pose.orientation.z, pose.pose.orientation.w)
    assert heading == pytest.approx(math.atan2(40, 30), abs=0.2)


def test_centerline_ends_at_the_tip(bench: Bench) -> None:
    bench.peer.set_parameters(NODE, source_detector_distance=1.0)
    bench.calibrate(1000.0)
    bench.clear(interface.centerline("guidewire"))
    bench.send_until(lambda: bench.heard[interface.centerline("guidewire")], "a centerline")
    path = bench.heard[interface.centerline("guidewire")][-1]
    last = path.poses[-1].pose.position
    assert 2 <= len(path.poses) <= 100
    assert math.hypot(last.x - WIRE_TIP[0] * 1e-3, last.y - WIRE_TIP[1] * 1e-3) < 4e-3
    assert path.poses[0].pose.position.x < 3e-3  # it enters at the left border
    assert path.header.frame_id == path.poses[0].header.frame_id == f"{FRAME_ID}_image_plane"


def test_camera_info_of_another_image_size_gives_no_metres(bench: Bench) -> None:
    bench.peer.set_parameters(NODE, source_detector_distance=1.0)
    bench.calibrate(1000.0)
    tip_after(bench)
    bench.calibrate(1000.0, width=64, height=64)
    topic = interface.tip("guidewire")

    def silent() -> bool:
        bench.clear(topic)
        heard = len(bench.heard[interface.MASK])
        bench.send_until(lambda: len(bench.heard[interface.MASK]) >= heard + 3, "three masks")
        return not bench.heard[topic]

    wait_until(silent, "no tip in metres")


def test_no_tip_means_silence_and_after_a_while_lost(bench: Bench) -> None:
    bench.send_until_state("TRACKING")
    bench.send_until_state("LOST", EMPTY)
    bench.clear(*PIXELS, interface.MASK)
    bench.send_until(lambda: len(bench.heard[interface.MASK]) >= 5, "five masks", EMPTY)
    assert not any(bench.heard[name] for name in PIXELS)
    assert bench.status().level == DiagnosticStatus.WARN
    assert bench.values()["guidewire_tip"] == "none"
    bench.send_until_state("TRACKING")
    assert bench.status().level == DiagnosticStatus.OK


def test_no_frames_means_stale(bench: Bench) -> None:
    bench.send_until_state("TRACKING")
    wait_until(lambda: bench.state() == "STALE", "state STALE")
    assert bench.status().level == DiagnosticStatus.STALE
    assert "No image for" in bench.status().message
    assert bench.values()["guidewire_tip"] == "none"


def test_state_beats_twenty_times_a_second_without_images(bench: Bench) -> None:
    bench.clear(interface.STATE)
    start_ns = bench.now_ns()
    wait_until(lambda: len(bench.heard[interface.STATE]) >= 20, "twenty states")
    assert stamps_of(bench.heard[interface.STATE])[0] >= start_ns - 10**9

    def beats() -> bool:
        """Of any twenty in a row: the machine may be busy, but a slow timer never gets there."""
        stamps = stamps_of(bench.heard[interface.STATE])
        return any((b - a) / 1e9 < 19 * 0.075 for a, b in zip(stamps, stamps[19:], strict=False))

    wait_until(beats, "twenty states at nearly 20 Hz")


def test_reset_forgets_the_track_at_once(bench: Bench) -> None:
    bench.send_until_state("TRACKING")
    answer = reset(bench)
    assert answer.success
    wait_until(lambda: bench.values()["guidewire_track"] != "TRACKED", "no track")
    bench.send_until_state("TRACKING")


@pytest.mark.parametrize(
    ("age_s", "reason", "words"),
    [(12.0, "too_old", "12.0"), (-7.0, "from_future", "in the future")],
)
def test_frames_from_another_time_are_refused_by_name(
    bench: Bench, age_s: float, reason: str, words: str
) -> None:
    bench.send_until_state("TRACKING")
    # On a busy machine the state may be STALE for want of images first.
    bench.send_until(lambda: words in bench.status().message, f"'{words}'", age_s=age_s)
    message = bench.status().message
    assert bench.state() == "STALE"
    assert "use_sim_time" in message
    assert "clocks" in message
    counted = f"dropped_{reason}"
    wait_until(lambda: counted in bench.values(interface.DIAGNOSTICS), counted)
    bench.peer.set_parameters(NODE, max_age=0.0)
    bench.send_until_state("TRACKING", age_s=age_s)  # the limit is off


def test_diagnostics_tell_what_runs_and_how_fast(bench: Bench) -> None:
    bench.send_until_state("TRACKING")
    bench.clear(interface.DIAGNOSTICS)
    bench.send_until(lambda: bench.heard[interface.DIAGNOSTICS], "diagnostics")
    values = bench.values(interface.DIAGNOSTICS)
    assert values["model"] == "threshold"
    assert len(values["model_sha256"]) == 64
    assert values["runtime"] in ("openvino", "onnxruntime")
    assert int(values["received"]) >= int(values["processed"]) > 0
    low, high = float(values["latency_ms_p50"]), float(values["latency_ms_max"])
    assert 0 < low <= float(values["latency_ms_p95"]) <= high


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_age", "long", "a double from 0.0 to 3600.0 s"),
        ("max_age", -1.0, "max_age"),
        ("magnification", 0.5, "magnification"),
        ("runtime", "abacus", "one of auto, tensorrt, openvino, onnxruntime, torch"),
        ("threads", 2, "deactivate and clean up first"),
    ],
)
def test_wrong_parameters_are_refused_by_name(
    bench: Bench, name: str, value: object, words: str
) -> None:
    reason = bench.peer.set_parameters(NODE, **{name: value})
    assert name in reason
    assert words in reason


def test_overlay_can_be_switched_off(bench: Bench) -> None:
    assert bench.peer.set_parameters(NODE, overlay=False) == ""
    bench.send_until_state("TRACKING")
    bench.clear(interface.OVERLAY, interface.MASK)
    bench.send_until(lambda: len(bench.heard[interface.MASK]) >= 5, "five masks")
    assert not bench.heard[interface.OVERLAY]
    assert bench.peer.set_parameters(NODE, overlay=True) == ""
    bench.send_until(lambda: bench.heard[interface.OVERLAY], "an overlay")
