# SPDX-License-Identifier: Apache-2.0
"""Messages <-> arrays and plain values; no node is started."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install the extra 'ros'")

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from fedefm_core.errors import FrameError
from fedefm_core.perception import Instrument
from fedefm_ros import messages
from fedefm_ros.messages import ImagePlane

SQUARE = ImagePlane("plane", (2e-4, 2e-4))
STAMP = messages.ns_to_stamp(1_234_567_890_123_456_789)


def instrument(heading_rad: float = 0.0, length_px: float = 100.0) -> Instrument:
    return Instrument(
        kind="guidewire",
        centerline_px=np.array([[0.0, 10.0], [100.0, 10.0]]),
        tip_px=np.array([100.0, 10.0]),
        heading_rad=heading_rad,
        covariance_px=np.diag([4.0, 1.0]),
        confidence=0.9,
        length_px=length_px,
    )


@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, 10**9 - 1))
def test_stamps_survive_the_round_trip(seconds: int, nanoseconds: int) -> None:
    ns = seconds * 10**9 + nanoseconds
    assert messages.stamp_to_ns(messages.ns_to_stamp(ns)) == ns


@given(
    npst.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int16]),
        npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
    )
)
def test_images_survive_the_round_trip_through_bytes(pixels: np.ndarray) -> None:
    message = messages.array_to_image(pixels, Header(frame_id="xray", stamp=STAMP))
    copy = deserialize_message(serialize_message(message), Image)
    back = messages.image_to_array(copy)
    assert back.dtype == pixels.dtype
    np.testing.assert_array_equal(back, pixels)
    assert (copy.header.frame_id, copy.header.stamp) == ("xray", STAMP)


def test_big_endian_and_padded_rows_are_honoured() -> None:
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4) * 300
    padded = np.zeros((3, 6), ">u2")
    padded[:, :4] = pixels
    message = Image(height=3, width=4, encoding="mono16", step=12, is_bigendian=1)
    message.data = list(padded.tobytes())
    np.testing.assert_array_equal(messages.image_to_array(message), pixels)


def test_mono8_is_read_without_a_copy() -> None:
    message = messages.array_to_image(np.zeros((4, 4), np.uint8), Header())
    view = messages.image_to_array(message)
    message.data[5] = 7
    assert view[1, 1] == 7


def test_a_message_that_is_no_image_says_why() -> None:
    with pytest.raises(FrameError) as caught:
        messages.image_to_array(Image(height=4, width=4, encoding="mono8", step=4))
    assert caught.value.reason == "short_data"


def test_colour_is_written_as_bgr8() -> None:
    message = messages.array_to_image(np.zeros((2, 3, 3), np.uint8), Header())
    assert (message.encoding, message.step, len(message.data)) == ("bgr8", 9, 18)


# --- spacing ----------------------------------------------------------------------------------


def info(fx: float, fy: float, width: int = 0, height: int = 0) -> CameraInfo:
    k = [fx, 0.0, 0.0, 0.0, fy, 0.0, 0.0, 0.0, 1.0]
    return CameraInfo(k=k, width=width, height=height)


def test_spacing_is_the_distance_over_the_focal_length() -> None:
    """1.2 m / 4000 px = 0.3 mm; y: 1.2 m / 2000 px = 0.6 mm; magnified 1.5 times: 0.2, 0.4."""
    spacing = messages.spacing_from_camera_info(info(4000.0, 2000.0), (512, 512), 1.2)
    assert spacing == pytest.approx((0.3e-3, 0.6e-3))
    magnified = messages.spacing_from_camera_info(info(4000.0, 2000.0), (512, 512), 1.2, 1.5)
    assert magnified == pytest.approx((0.2e-3, 0.4e-3))


@pytest.mark.parametrize("focal", [0.0, -1.0, math.nan, math.inf])
def test_no_focal_length_means_no_spacing(focal: float) -> None:
    assert messages.spacing_from_camera_info(info(focal, 1000.0), (512, 512), 1.0) is None
    assert messages.spacing_from_camera_info(info(1000.0, focal), (512, 512), 1.0) is None


def test_spacing_needs_the_distance_and_an_image_of_the_same_size() -> None:
    assert messages.spacing_from_camera_info(info(1e3, 1e3), (512, 512), 0.0) is None
    assert messages.spacing_from_camera_info(info(1e3, 1e3, 512, 512), (512, 512), 1.0)
    assert messages.spacing_from_camera_info(info(1e3, 1e3, 1024, 512), (512, 512), 1.0) is None


# --- poses ------------------------------------------------------------------------------------


@given(st.floats(-math.pi, math.pi))
def test_the_quaternion_turns_x_to_the_heading(heading: float) -> None:
    q = messages.heading_to_quaternion(heading)
    assert (q.x, q.y) == (0.0, 0.0)
    x_axis = (1 - 2 * q.z**2, 2 * q.w * q.z)
    assert x_axis == pytest.approx((math.cos(heading), math.sin(heading)), abs=1e-12)


def test_heading_in_metres_on_pixels_twice_as_high_as_wide() -> None:
    heading = messages.metric_heading(math.atan2(1, 2), (1e-4, 2e-4))
    assert heading == pytest.approx(math.pi / 4)


def test_tip_in_metres() -> None:
    message = messages.tip_message(instrument(heading_rad=0.0), SQUARE, STAMP)
    position = message.pose.pose.position
    assert (position.x, position.y, position.z) == pytest.approx((0.02, 0.002, 0.0))
    covariance = np.reshape(message.pose.covariance, (6, 6))
    np.testing.assert_allclose(np.diag(covariance)[:2], [4 * 4e-8, 1 * 4e-8])
    np.testing.assert_allclose(np.diag(covariance)[2:5], messages.UNSEEN_VARIANCE)
    # 1 px² across, over 12 px: 2 / 144 rad²
    assert covariance[5, 5] == pytest.approx(2 / 144)
    np.testing.assert_array_equal(covariance, covariance.T)
    assert (message.header.frame_id, message.header.stamp) == ("plane", STAMP)


def test_heading_variance_counts_what_lies_across_and_never_beats_ignorance() -> None:
    covariance = np.diag([9.0, 1.0])
    assert messages.heading_variance(covariance, math.pi / 2, 30.0) == pytest.approx(18 / 900)
    assert messages.heading_variance(covariance, 0.0, 30.0) == pytest.approx(2 / 900)
    ignorance = math.pi**2 / 3
    assert messages.heading_variance(covariance, 0.0, 0.1) == pytest.approx(ignorance)
    assert messages.heading_variance(covariance, 0.0, 0.0) == pytest.approx(ignorance)


def test_covariance_scales_with_the_square_of_the_spacing() -> None:
    covariance_px = np.array([[4.0, 1.0], [1.0, 2.0]])
    small = np.reshape(messages.pose_covariance(covariance_px, (1e-4, 1e-4), 0.1), (6, 6))
    large = np.reshape(messages.pose_covariance(covariance_px, (1e-3, 1e-3), 0.1), (6, 6))
    np.testing.assert_allclose(large[:2, :2], 100 * small[:2, :2])


@pytest.mark.parametrize("count", [1, 2, 100, 1000])
def test_paths_keep_both_ends_and_are_never_long(count: int) -> None:
    x = np.linspace(0.0, 500.0, count)
    path = messages.centerline_message(np.column_stack([x, 2 * x]), SQUARE, STAMP)
    assert len(path.poses) == min(count, messages.MAX_PATH_POSES)
    assert path.poses[0].pose.position.x == pytest.approx(x[0] * 2e-4)
    assert path.poses[-1].pose.position.x == pytest.approx(x[-1] * 2e-4)
    if count > 1:
        q = path.poses[len(path.poses) // 2].pose.orientation
        assert 2 * math.atan2(q.z, q.w) == pytest.approx(math.atan2(2, 1))


def test_pixel_tips_name_no_frame() -> None:
    message = messages.tip_pixel_message(np.array([1.5, 2.5]), STAMP)
    assert (message.point.x, message.point.y, message.point.z) == (1.5, 2.5, 0.0)
    assert (message.header.frame_id, message.header.stamp) == ("", STAMP)


def test_status_values_are_text() -> None:
    array = messages.status_message(STAMP, "name", b"\x01", "text", {"a": 1, "b": None}, "id")
    (status,) = array.status
    assert [(pair.key, pair.value) for pair in status.values] == [("a", "1"), ("b", "None")]
    assert (status.level, status.hardware_id) == (b"\x01", "id")
