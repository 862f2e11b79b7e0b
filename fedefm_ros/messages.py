# SPDX-License-Identifier: Apache-2.0
"""Messages <-> arrays and plain values; no node, no publisher.

Pixel coordinates as everywhere here: (x, y), centre of a pixel at integers, x right, y down.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import (
    Point,
    PointStamped,
    Pose,
    PoseStamped,
    PoseWithCovarianceStamped,
    Quaternion,
)
from nav_msgs.msg import Path
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float64, Header

from fedefm_core.frames.encoding import decode_compressed_image, decode_image
from fedefm_core.frames.limits import DEFAULT_LIMITS, FrameLimits
from fedefm_core.perception.types import FloatArray, Instrument

UNSEEN_VARIANCE = 1e6  # m², rad²: of what one view cannot see; never 0, which would mean certain
MAX_PATH_POSES = 100  # building a PoseStamped in Python takes some 20 µs
HEADING_BASELINE_PX = 12.0  # headings are taken over about so much of the wire
ENCODINGS = {"uint8": "mono8", "uint16": "mono16", "int16": "16SC1", "float32": "32FC1"}


@dataclass(frozen=True)
class ImagePlane:
    """Scale of the image plane: metres a pixel, (x, y), and the name of its frame."""

    frame_id: str
    spacing_m: tuple[float, float]


# --- time -------------------------------------------------------------------------------------


def stamp_to_ns(stamp: Time) -> int:
    """Nanoseconds since the epoch of the clock that wrote the stamp."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def ns_to_stamp(ns: int) -> Time:
    """The inverse of stamp_to_ns; ns in the range of int32 seconds."""
    return Time(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


# --- images -----------------------------------------------------------------------------------


def image_to_array(
    message: Image | CompressedImage, limits: FrameLimits = DEFAULT_LIMITS
) -> npt.NDArray[np.generic]:
    """Return the (H, W) grey array of an image message, without a copy where that is possible.

    Raises FrameError, whose `reason` says in one word what is wrong with the message.
    """
    if isinstance(message, CompressedImage):
        return decode_compressed_image(message.data, message.format, limits)
    return decode_image(
        message.data,
        message.height,
        message.width,
        message.encoding,
        message.step,
        bool(message.is_bigendian),
        limits,
    )


def array_to_image(pixels: npt.NDArray[np.generic], header: Header, encoding: str = "") -> Image:
    """(H, W) or (H, W, 3) array to message; encoding '' follows the dtype, or bgr8 for colour.

    The detour through array.array is what makes this fast: assigning a numpy array to `data`
    checks every byte in Python.
    """
    if not encoding:
        encoding = "bgr8" if pixels.ndim == 3 else ENCODINGS[pixels.dtype.name]
    message = Image(
        header=header,
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        step=pixels.shape[1] * pixels.dtype.itemsize * (3 if pixels.ndim == 3 else 1),
        is_bigendian=0,
    )
    message.data = array("B", pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes())
    return message


# --- positions --------------------------------------------------------------------------------


def spacing_from_camera_info(
    message: CameraInfo,
    image_size: tuple[int, int],
    source_detector_distance_m: float,
    magnification: float = 1.0,
) -> tuple[float, float] | None:
    """Metres a pixel as (x, y), from the intrinsics of an X-ray source and detector.

    The focal length K[0] of such a camera is the source-detector distance in pixels, so the
    spacing at the detector is distance / K[0] (y: / K[4]); dividing by the magnification brings it
    to the plane of the instrument. None when the distance is not known (0), when K holds no focal
    length, or when the message describes an image of another size (width, height; 0 = not told).
    """
    focal = (message.k[0], message.k[4])
    if source_detector_distance_m <= 0 or not all(math.isfinite(f) and f > 0 for f in focal):
        return None
    if (message.width, message.height) not in ((0, 0), image_size):
        return None
    scale = source_detector_distance_m / magnification
    return scale / focal[0], scale / focal[1]


def heading_to_quaternion(heading_rad: float) -> Quaternion:
    """Rotation about z by heading: x axis along the direction of advance."""
    return Quaternion(x=0.0, y=0.0, z=math.sin(heading_rad / 2), w=math.cos(heading_rad / 2))


def metric_heading(heading_rad: float, spacing_m: tuple[float, float]) -> float:
    """Heading in metres; differs from that in pixels when these are not square."""
    return math.atan2(math.sin(heading_rad) * spacing_m[1], math.cos(heading_rad) * spacing_m[0])


def heading_variance(covariance_px: FloatArray, heading_rad: float, baseline_px: float) -> float:
    """Variance in rad² of a heading taken between two points baseline_px apart.

    Both points are as uncertain across the wire as the tip: 2 σ² / L² for small angles, and never
    more than π²/3, the variance of a heading of which nothing is known.
    """
    across = np.array([-math.sin(heading_rad), math.cos(heading_rad)])
    variance = float(across @ covariance_px @ across)
    unknown = math.pi**2 / 3
    return min(2 * variance / baseline_px**2, unknown) if baseline_px > 0 else unknown


def pose_covariance(
    covariance_px: FloatArray, spacing_m: tuple[float, float], yaw_variance: float
) -> list[float]:
    """Row-major 6 x 6 of (x, y, z, roll, pitch, yaw) from (2, 2) px²; m² and rad²."""
    scale = np.diag(spacing_m)
    covariance = np.diag([0.0, 0.0, UNSEEN_VARIANCE, UNSEEN_VARIANCE, UNSEEN_VARIANCE, 0.0])
    covariance[:2, :2] = scale @ covariance_px @ scale
    covariance[5, 5] = yaw_variance
    return covariance.ravel().tolist()


def tip_pixel_message(tip_px: FloatArray, stamp: Time) -> PointStamped:
    """Tip in pixels. No frame: pixels are no place in space."""
    point = Point(x=float(tip_px[0]), y=float(tip_px[1]), z=0.0)
    return PointStamped(header=Header(stamp=stamp), point=point)


def tip_message(
    instrument: Instrument, plane: ImagePlane, stamp: Time
) -> PoseWithCovarianceStamped:
    """Tip in metres in the image plane, x axis along the direction of advance.

    The instrument must have a tip, with its heading and covariance.
    """
    message = PoseWithCovarianceStamped(header=Header(stamp=stamp, frame_id=plane.frame_id))
    message.pose.pose = Pose(
        position=_metric_point(instrument.tip_px, plane),
        orientation=heading_to_quaternion(metric_heading(instrument.heading_rad, plane.spacing_m)),
    )
    baseline_px = min(instrument.length_px, HEADING_BASELINE_PX)
    yaw_variance = heading_variance(instrument.covariance_px, instrument.heading_rad, baseline_px)
    message.pose.covariance = pose_covariance(
        instrument.covariance_px, plane.spacing_m, yaw_variance
    )
    return message


def centerline_message(centerline_px: FloatArray, plane: ImagePlane, stamp: Time) -> Path:
    """(N, 2) centreline to a path from the border to the tip, at most MAX_PATH_POSES poses.

    Orientations follow the line. First and last point are always kept.
    """
    header = Header(stamp=stamp, frame_id=plane.frame_id)
    points = subsample(centerline_px, MAX_PATH_POSES) * np.asarray(plane.spacing_m)
    steps = np.gradient(points, axis=0) if len(points) > 1 else np.array([[1.0, 0.0]])
    half = np.arctan2(steps[:, 1], steps[:, 0]) / 2
    rows = np.column_stack([points, np.sin(half), np.cos(half)]).tolist()
    return Path(header=header, poses=[_path_pose(header, *row) for row in rows])


def subsample(points: FloatArray, limit: int) -> FloatArray:
    """At most limit of the (N, 2) points, evenly spread, with the first and the last."""
    if len(points) <= limit:
        return points
    return points[np.linspace(0, len(points) - 1, limit).round().astype(int)]


def _path_pose(header: Header, x: float, y: float, z_rotation: float, w: float) -> PoseStamped:
    pose = Pose(
        position=Point(x=x, y=y, z=0.0),
        orientation=Quaternion(x=0.0, y=0.0, z=z_rotation, w=w),
    )
    return PoseStamped(header=header, pose=pose)


def _metric_point(point_px: FloatArray, plane: ImagePlane) -> Point:
    return Point(
        x=float(point_px[0]) * plane.spacing_m[0],
        y=float(point_px[1]) * plane.spacing_m[1],
        z=0.0,
    )


# --- diagnostics ------------------------------------------------------------------------------


def status_message(
    stamp: Time,
    name: str,
    level: bytes,
    text: str,
    values: Mapping[str, object],
    hardware_id: str = "",
) -> DiagnosticArray:
    """A diagnostic array with one status; values are written as text."""
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    status = DiagnosticStatus(
        level=level, name=name, message=text, hardware_id=hardware_id, values=pairs
    )
    return DiagnosticArray(header=Header(stamp=stamp), status=[status])


def milliseconds(value: float) -> Float64:
    """A duration in ms."""
    return Float64(data=float(value))
