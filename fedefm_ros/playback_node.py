# SPDX-License-Identifier: Apache-2.0
"""Publishes the frames of a file, a folder or the simulator as if an X-ray system sent them.

    ros2 run fedefm_ros playback_node --ros-args -p source:=sim -p rate:=30.0

Publishes `image` (sensor_msgs/Image, mono8 or mono16) or `image/compressed`, and `camera_info`.
Frames are read, or simulated, in a thread ahead of time and playback starts when the buffer is
full: publishing on time then depends on that thread only when it is slower than the rate for
longer than the buffer lasts. Frames that came late for this reason are counted and reported.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from fedefm_core.errors import FedefmError, FrameError
from fedefm_core.frames import Spacing
from fedefm_core.simulation import KINDS
from fedefm_ros.messages import ENCODINGS, array_to_image, ns_to_stamp
from fedefm_ros.parameters import Parameters, ParameterSpec, Value
from fedefm_ros.playback import (
    SIMULATOR,
    Disturbances,
    PlayedFrame,
    ReadAhead,
    SentPixels,
    Slot,
    open_playback,
    repeated,
    sent_pixels,
    timetable,
)
from fedefm_ros.qos import image_qos, overridable
from fedefm_ros.runner import run_node

POLL_S = 0.02
# At the end: for subscribers to acknowledge the last frames, where they are reliable, and for the
# middleware to hand them over, where they are not.
ACKNOWLEDGE_S, LINGER_S = 5.0, 0.3
START_SERVICE = "~/start"
RATE = "rate"
KEPT_BYTES = 512 * 2**20  # a looped source no larger than this is read only once
NS_PER_S = 1_000_000_000
MM_PER_M = 1000.0

PARAMETERS = (
    ParameterSpec("source", SIMULATOR, "'sim', or a file or folder of X-ray images."),
    ParameterSpec(
        RATE,
        0.0,
        "Frames a second; 0: the source's own, else 30. May change until playback begins.",
        "Hz",
        0.0,
        1e3,
    ),
    ParameterSpec("limit", 0, "Frames to play in all; 0: no limit.", "frames", 0, 10**9),
    ParameterSpec("loop", False, "Begin again after the last frame."),
    ParameterSpec("exit_when_done", True, "End the process after the last frame."),
    ParameterSpec(
        "image_transport",
        "raw",
        "Publish `image` or `image/compressed`.",
        choices=("raw", "compressed"),
    ),
    ParameterSpec("compressed_format", "png", "Lossless, or small.", choices=("png", "jpeg")),
    ParameterSpec("frame_id", "xray", "Coordinate frame of the X-ray source's images."),
    ParameterSpec("keep_stamps", False, "Send the source's stamps instead of the present time."),
    ParameterSpec(
        "source_detector_distance",
        0.0,
        "Distance from X-ray source to detector, needed to tell the pixel spacing in camera_info; "
        "0: unknown, camera_info then says nothing of the spacing.",
        "m",
        0.0,
        10.0,
    ),
    ParameterSpec("kind", "", "Kind of simulated image; empty: drawn.", choices=("", *KINDS)),
    ParameterSpec("seed", 0, "Of the simulator and of all disturbances.", "", 0, 2**31 - 1),
    ParameterSpec(
        "read_ahead", 64, "Frames to hold ready before they are due.", "frames", 1, 10**6
    ),
    ParameterSpec("wait_for_subscriber", False, "Begin when somebody subscribes to the images."),
    ParameterSpec(
        "wait_for_start",
        False,
        "Send the first frame again and again until the service ~/start is called. A best-effort "
        "subscriber misses what is sent while it is discovered; an answer to that frame proves "
        "that discovery is over.",
    ),
    ParameterSpec("drop_probability", 0.0, "Chance of each frame not to be sent.", "", 0.0, 1.0),
    ParameterSpec("drop_from", 0, "First frame of a drop-out.", "frames", 0, 10**9),
    ParameterSpec("drop_count", 0, "Length of the drop-out.", "frames", 0, 10**9),
    ParameterSpec("delay", 0.0, "Time from a frame's stamp to its sending.", "s", 0.0, 60.0),
    ParameterSpec("jitter", 0.0, "Random part of the delay, at most.", "s", 0.0, 60.0),
    ParameterSpec("log_file", "", "Write a JSON line for each frame here; empty: do not."),
)


@dataclass(frozen=True)
class Prepared:
    """The messages of a frame, stamps still to be set; number and stamp_ns as in its source."""

    number: int
    stamp_ns: int
    image: Image | CompressedImage
    info: CameraInfo
    crc32: int


class PlaybackNode(Node):
    """Plays its source once, or in a loop, then sets done; failed: it could not be read."""

    def __init__(self, done: threading.Event) -> None:
        super().__init__("playback_node")
        self.failed = False
        self._done = done
        self._begun = False
        parameters = Parameters(self, PARAMETERS, fixed=self._fixed, on_set=self._on_parameter)
        values = self._values = parameters.values()
        self._source = open_playback(
            values["source"],
            values[RATE],
            values["limit"],
            values["seed"],
            values["kind"] or None,
        )
        compressed = values["image_transport"] == "compressed"
        kind, topic = (CompressedImage, "image/compressed") if compressed else (Image, "image")
        self._images = self.create_publisher(
            kind, topic, image_qos(), qos_overriding_options=overridable()
        )
        self._infos = self.create_publisher(
            CameraInfo, "camera_info", image_qos(), qos_overriding_options=overridable()
        )
        self._log = _open_log(values["log_file"])
        self._sent = self._dropped = self._late = 0
        self._started = threading.Event()
        self.create_service(Trigger, START_SERVICE, self._on_start)
        self._stop = threading.Event()
        self._ahead = ReadAhead(self._prepared(), values["read_ahead"])
        self._player = threading.Thread(target=self._run, name="player")
        self._player.start()

    def close(self) -> None:
        """Stop playing and close the log."""
        self._stop.set()
        self._ahead.close()
        self._player.join()
        if self._log is not None:
            self._log.close()

    @property
    def _rate_hz(self) -> float:
        return float(self._values[RATE] or self._source.rate_hz)

    def _fixed(self, spec: ParameterSpec) -> str:
        if spec.name != RATE:
            return "is taken when the node starts: start it anew"
        return "can change only until playback begins" if self._begun else ""

    def _on_parameter(self, name: str, value: Value) -> None:
        self._values[name] = value

    def _prepared(self) -> Iterator[Prepared]:
        return repeated(
            lambda: map(self._prepare, self._source.frames()),
            self._values["loop"],
            self._values["limit"],
            keep_at_most=KEPT_BYTES,
            size=lambda prepared: len(prepared.image.data),
        )

    def _prepare(self, played: PlayedFrame) -> Prepared:
        pixels = sent_pixels(played.frame)
        header = Header(frame_id=self._values["frame_id"])
        if self._values["image_transport"] == "compressed":
            image = compressed_image(pixels, header, self._values["compressed_format"])
        else:
            image = array_to_image(pixels, header)
        distance_m = self._values["source_detector_distance"]
        info = camera_info(pixels.shape, header, played.frame.spacing, distance_m)
        crc32 = zlib.crc32(pixels.tobytes())
        return Prepared(played.number, played.frame.stamp_ns, image, info, crc32)

    def _run(self) -> None:
        try:
            self._play()
        except FedefmError as error:
            self.failed = True
            self.get_logger().error(f"Playback ended early: {error}")
        self._report()
        if self.failed or self._values["exit_when_done"]:
            self._images.wait_for_all_acked(Duration(seconds=ACKNOWLEDGE_S))
            self._stop.wait(LINGER_S)
            self._done.set()

    def _play(self) -> None:
        frames = iter(self._ahead)
        self._await_frames()
        first = next(frames, None)
        if first is None or not self._await_start(first):
            return
        self._begun = True
        period_s = 1 / self._rate_hz
        # One period later, so that the first frame comes on time after the last rehearsed one.
        start = time.monotonic() + period_s
        slots = timetable(self._rate_hz, self._disturbances())
        for prepared, slot in zip(chain([first], frames), slots, strict=False):
            if self._stop.wait(max(0.0, start + slot.send_s - time.monotonic())):
                return
            behind = time.monotonic() - start - slot.send_s
            if behind > 0.5 * period_s:  # shift the rest: no burst to catch up
                self._late += 1
                start += behind
            self._send(prepared, slot)

    def _disturbances(self) -> Disturbances:
        values = self._values
        return Disturbances(
            drop_probability=values["drop_probability"],
            drop_from=values["drop_from"],
            drop_count=values["drop_count"],
            delay_s=values["delay"],
            jitter_s=values["jitter"],
            seed=values["seed"],
        )

    def _await_frames(self) -> None:
        started = time.monotonic()
        while not self._ahead.wait_filled(POLL_S) and not self._stop.is_set():
            pass
        self.get_logger().info(
            f"{self._source.name}: ready after {time.monotonic() - started:.1f} s, "
            f"plays at {self._rate_hz:g} Hz"
        )

    def _await_start(self, first: Prepared) -> bool:
        """Wait for what the parameters say; False when the node is to end before."""
        wait_for_subscriber = self._values["wait_for_subscriber"]
        while wait_for_subscriber and self._images.get_subscription_count() == 0:
            if self._stop.wait(POLL_S):
                return False
        while self._values["wait_for_start"] and not self._started.is_set():
            self._publish(first, self.get_clock().now().nanoseconds)
            if self._stop.wait(1 / self._rate_hz):
                return False
        return not self._stop.is_set()

    def _on_start(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = not self._started.is_set()
        response.message = "Playback begins." if response.success else "It has begun already."
        self._started.set()
        return response

    def _send(self, prepared: Prepared, slot: Slot) -> None:
        if self._values["keep_stamps"]:
            stamp_ns = prepared.stamp_ns
        else:
            withheld_ns = round((slot.send_s - slot.due_s) * NS_PER_S)
            stamp_ns = self.get_clock().now().nanoseconds - withheld_ns
        if slot.dropped:
            self._dropped += 1
        else:
            self._sent += 1
            self._publish(prepared, stamp_ns)
        if self._log is not None:
            line = {
                "frame": prepared.number,
                "stamp_ns": stamp_ns,
                "sent": not slot.dropped,
                "crc32": prepared.crc32,
            }
            self._log.write(json.dumps(line) + "\n")

    def _publish(self, prepared: Prepared, stamp_ns: int) -> None:
        stamp = ns_to_stamp(stamp_ns)
        prepared.image.header.stamp = prepared.info.header.stamp = stamp
        self._infos.publish(prepared.info)
        self._images.publish(prepared.image)

    def _report(self) -> None:
        for path, reason in self._source.skipped():
            self.get_logger().warning(f"Set aside: {path}: {reason}")
        self.get_logger().info(
            f"{self._source.name}: {self._sent} sent, {self._dropped} dropped on purpose, "
            f"{self._late} late because they were not ready in time"
        )


def compressed_image(pixels: SentPixels, header: Header, image_format: str) -> CompressedImage:
    """(H, W) uint8 or uint16 to message; image_format: 'png', or 'jpeg' for uint8.

    Raises FrameError for 16-bit JPEG, which OpenCV cannot write.
    """
    encoding = ENCODINGS[pixels.dtype.name]
    if image_format == "jpeg" and pixels.dtype != np.uint8:
        raise FrameError(
            "compressed_format 'jpeg' holds 8-bit pixels only, and the frames have 16: use 'png'."
        )
    # Level 1: three times as fast as OpenCV's default for files that are hardly larger.
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1] if image_format == "png" else []
    _, encoded = cv2.imencode(f".{image_format}", pixels, options)
    message = CompressedImage(header=header, format=f"{encoding}; {image_format} compressed ")
    message.data = array("B", encoded.tobytes())
    return message


def camera_info(
    shape: tuple[int, int], header: Header, spacing: Spacing, source_detector_distance_m: float
) -> CameraInfo:
    """X-ray source and detector as a pinhole camera: focal length = distance / pixel spacing.

    The spacing is that at the detector (ImagerPixelSpacing). Where it or the distance is unknown
    the matrices stay zero, which sensor_msgs defines as 'not calibrated'.
    """
    height, width = shape
    info = CameraInfo(header=header, height=height, width=width)
    if spacing.imager_pixel_spacing_mm is None or source_detector_distance_m <= 0:
        return info
    row_mm, column_mm = spacing.imager_pixel_spacing_mm
    focal_x = source_detector_distance_m * MM_PER_M / column_mm
    focal_y = source_detector_distance_m * MM_PER_M / row_mm
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    info.distortion_model = "plumb_bob"
    info.d = [0.0] * 5
    info.k = [focal_x, 0.0, center_x, 0.0, focal_y, center_y, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [focal_x, 0.0, center_x, 0.0, 0.0, focal_y, center_y, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def _open_log(path: str) -> IO[str] | None:
    if not path:
        return None
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return open(path, "w", buffering=1, encoding="utf-8")  # a line is there once it is written


def main(args: Sequence[str] | None = None) -> None:
    """Run the node; exit code 1 when the source cannot be opened or read to its end."""
    nodes: list[PlaybackNode] = []

    def make(done: threading.Event) -> PlaybackNode:
        nodes.append(PlaybackNode(done))
        return nodes[0]

    code = run_node(make, args)
    sys.exit(code or any(node.failed for node in nodes))


if __name__ == "__main__":
    main()
