# SPDX-License-Identifier: Apache-2.0
"""playback_node as a process of its own, heard over real DDS."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2's rclpy")

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from fedefm_core.errors import FrameError
from fedefm_core.frames import Spacing
from fedefm_core.simulation import simulate_sequence
from fedefm_ros.messages import image_to_array, spacing_from_camera_info, stamp_to_ns
from fedefm_ros.playback import Disturbances, timetable
from fedefm_ros.playback_node import PlaybackNode, camera_info, compressed_image
from fedefm_ros.runner import SIGNALS
from fedefm_ros.transport import LARGE_DATA, TRANSPORT_VARIABLE

pytestmark = pytest.mark.ros
TIMEOUT_S = 240.0
# Reliable, so that a busy machine changes nothing in what arrives; best effort is for the demo.
RELIABLE = {
    f"qos_overrides./{topic}.publisher.{policy}": value
    for topic in ("image", "image/compressed", "camera_info")
    for policy, value in (("reliability", "reliable"), ("depth", 100))
}


@dataclass
class Heard:
    """What a subscriber heard of a playback, and how the process ended."""

    images: list = field(default_factory=list)
    infos: list = field(default_factory=list)
    log: list[dict] = field(default_factory=list)
    code: int | None = None
    output: str = ""

    @property
    def stamps(self) -> list[int]:
        return [stamp_to_ns(message.header.stamp) for message in self.images]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Heard]:
    """Play with parameters to the end, or until `until` images were heard; then interrupt it."""
    monkeypatch.setenv(TRANSPORT_VARIABLE, LARGE_DATA)

    def run(
        until: int | None = None,
        interrupts: int = 1,
        start_after: int | None = None,
        **parameters: object,
    ) -> Heard:
        heard = Heard()
        log_file = tmp_path / "sent.jsonl"
        values = {"rate": 100.0, "wait_for_subscriber": True, **RELIABLE, **parameters}
        with (
            listening(heard) as (spin_once, start),
            playing({**values, "log_file": str(log_file)}) as process,
        ):
            deadline = time.monotonic() + TIMEOUT_S
            while process.poll() is None and time.monotonic() < deadline:
                spin_once()
                if until is not None and len(heard.images) >= until:
                    for number in range(interrupts):
                        process.send_signal(SIGNALS[number % 2])
                    until = None
                if start_after is not None and len(heard.images) >= start_after:
                    start()
                    start_after = None
            heard.output, _ = process.communicate(timeout=TIMEOUT_S)
            while spin_once():
                pass
        heard.code = process.returncode
        if log_file.exists():
            heard.log = [json.loads(line) for line in log_file.read_text().splitlines()]
        return heard

    return run


@contextmanager
def playing(parameters: dict[str, object]) -> Iterator[subprocess.Popen[str]]:
    arguments = [f"{name}:={json.dumps(value)}" for name, value in parameters.items()]
    command = [sys.executable, "-m", "fedefm_ros.playback_node", "--ros-args"]
    command += [word for argument in arguments for word in ("-p", argument)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def listening(heard: Heard) -> Iterator[tuple[Callable[[], bool], Callable[[], object]]]:
    """Subscribe to all that a playback may publish.

    Yields a function that handles a message, if one comes, and one that calls ~/start.
    """
    context = Context()
    context.init()
    node = Node("listener", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    qos = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
    node.create_subscription(Image, "image", heard.images.append, qos)
    node.create_subscription(CompressedImage, "image/compressed", heard.images.append, qos)
    node.create_subscription(CameraInfo, "camera_info", heard.infos.append, qos)
    client = node.create_client(Trigger, "playback_node/start")

    def spin_once() -> bool:
        before = len(heard.images) + len(heard.infos)
        executor.spin_once(timeout_sec=0.05)
        return len(heard.images) + len(heard.infos) > before

    try:
        yield spin_once, lambda: client.call_async(Trigger.Request())
    finally:
        executor.shutdown()
        node.destroy_node()
        context.shutdown()


def write_folder(folder: Path, count: int, dtype: type = np.uint8) -> list[np.ndarray]:
    """Images of count different contents, named so that text order is not natural order."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, np.iinfo(dtype).max, (24, 33)).astype(dtype) for _ in range(count)]
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"frame{number}.png"), picture)
    return pictures


def test_all_frames_of_a_folder_arrive_in_order(play, tmp_path):
    pictures = write_folder(tmp_path / "in", 12)
    heard = play(source=str(tmp_path / "in"), frame_id="c_arm")
    assert heard.code == 0, heard.output
    assert len(heard.images) == 12
    for message, picture in zip(heard.images, pictures, strict=True):
        assert (message.encoding, message.header.frame_id) == ("mono8", "c_arm")
        assert (image_to_array(message) == picture).all()
    assert heard.stamps == sorted(heard.stamps) == [line["stamp_ns"] for line in heard.log]
    assert [stamp_to_ns(info.header.stamp) for info in heard.infos] == heard.stamps
    assert all((info.width, info.height, info.k[0]) == (33, 24, 0.0) for info in heard.infos)


def test_sixteen_bit_frames_arrive_unchanged(play, tmp_path):
    pictures = write_folder(tmp_path / "in", 3, np.uint16)
    heard = play(source=str(tmp_path / "in"))
    assert [message.encoding for message in heard.images] == ["mono16"] * 3
    for message, picture in zip(heard.images, pictures, strict=True):
        assert (image_to_array(message) == picture).all()


def test_compressed_frames_arrive_without_loss(play, tmp_path):
    pictures = write_folder(tmp_path / "in", 3)
    heard = play(source=str(tmp_path / "in"), image_transport="compressed")
    assert [message.format for message in heard.images] == ["mono8; png compressed "] * 3
    for message, picture in zip(heard.images, pictures, strict=True):
        assert (image_to_array(message) == picture).all()


def test_simulator_keeps_its_stamps_and_tells_its_spacing(play):
    heard = play(source="sim", limit=3, seed=4, keep_stamps=True, source_detector_distance=1.2)
    drawn = list(simulate_sequence(4, 3, frame_rate_hz=100.0))
    assert heard.stamps == [simulated.frame.stamp_ns for simulated in drawn]
    for message, simulated in zip(heard.images, drawn, strict=True):
        assert (image_to_array(message) == simulated.frame.pixels).all()
    spacing_m = spacing_from_camera_info(heard.infos[0], (512, 512), 1.2)
    assert spacing_m == pytest.approx((0.3e-3, 0.3e-3))


def test_looping_ends_at_the_limit(play, tmp_path):
    write_folder(tmp_path / "in", 2)
    heard = play(source=str(tmp_path / "in"), loop=True, limit=5)
    assert heard.code == 0
    assert [line["frame"] for line in heard.log] == [0, 1, 0, 1, 0]
    assert len(heard.images) == 5


def test_dropped_frames_are_not_sent_and_logged_so(play, tmp_path):
    write_folder(tmp_path / "in", 10)
    settings = {"drop_probability": 0.3, "drop_from": 2, "drop_count": 3, "seed": 8}
    planned = islice(timetable(100.0, Disturbances(**settings)), 10)
    heard = play(source=str(tmp_path / "in"), **settings)
    assert [line["sent"] for line in heard.log] == [not slot.dropped for slot in planned]
    assert [line["sent"] for line in heard.log][2:5] == [False] * 3
    assert heard.stamps == [line["stamp_ns"] for line in heard.log if line["sent"]]


def test_delayed_frames_carry_the_stamp_of_when_they_were_due(play, tmp_path):
    write_folder(tmp_path / "in", 2)
    before = time.time_ns()
    heard = play(source=str(tmp_path / "in"), delay=1.0, jitter=0.2, seed=1)
    # Sent at the earliest 1 s after its stamp, so the last stamp is at least that old by now.
    assert before < heard.stamps[0]
    assert time.time_ns() - heard.stamps[-1] > 1_000_000_000


def test_rehearsal_ends_when_playback_is_started(play, tmp_path):
    pictures = write_folder(tmp_path / "in", 4)
    heard = play(source=str(tmp_path / "in"), wait_for_start=True, start_after=2)
    assert heard.code == 0, heard.output
    rehearsed, played = heard.images[:-4], heard.images[-4:]
    assert len(rehearsed) >= 2
    assert all((image_to_array(message) == pictures[0]).all() for message in rehearsed)
    for message, picture in zip(played, pictures, strict=True):
        assert (image_to_array(message) == picture).all()
    assert heard.stamps[-4:] == [line["stamp_ns"] for line in heard.log]


def test_the_rate_may_change_until_playback_begins(tmp_path):
    write_folder(tmp_path / "in", 3)
    log_file = tmp_path / "sent.jsonl"
    values = {"source": tmp_path / "in", "rate": 100.0, "wait_for_start": True}
    values["log_file"] = log_file
    arguments = [word for name, value in values.items() for word in ("-p", f"{name}:={value}")]
    rclpy.init(args=["test", "--ros-args", "--log-level", "fatal", *arguments])
    done = threading.Event()
    node = PlaybackNode(done)
    try:
        (other,) = node.set_parameters([Parameter("seed", value=7)])
        assert (other.successful, other.reason) == (
            False,
            "parameter 'seed' is taken when the node starts: start it anew",
        )
        (slower,) = node.set_parameters([Parameter("rate", value=4.0)])
        assert slower.successful, slower.reason
        assert node._on_start(Trigger.Request(), Trigger.Response()).success
        assert done.wait(TIMEOUT_S)
        (late,) = node.set_parameters([Parameter("rate", value=9.0)])
        assert late.reason == "parameter 'rate' can change only until playback begins"
    finally:
        node.close()
        node.destroy_node()
        rclpy.shutdown()
    stamps = [json.loads(line)["stamp_ns"] for line in log_file.read_text().splitlines()]
    assert len(stamps) == 3
    # Two periods of 250 ms, less half of one by which the first may be late; never 20 ms.
    assert stamps[2] - stamps[0] > 300_000_000


@pytest.mark.parametrize("interrupts", [2, 200])
def test_interrupts_in_a_row_end_it_with_code_0(play, tmp_path, interrupts):
    write_folder(tmp_path / "in", 2)
    heard = play(source=str(tmp_path / "in"), loop=True, until=3, interrupts=interrupts)
    assert heard.code == 0, heard.output
    assert "Traceback" not in heard.output


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"source": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"source": "sim", "rate": -1.0}, "parameter 'rate' must be a double from 0.0 to 1000.0"),
        ({"source": "sim", "kind": "mineral"}, "parameter 'kind' must be one of"),
    ],
)
def test_what_cannot_be_played_ends_with_a_sentence(play, parameters, sentence):
    heard = play(**parameters)
    assert heard.code == 1
    assert sentence in heard.output
    assert "Traceback" not in heard.output


def test_a_source_that_breaks_off_ends_with_code_1(play, tmp_path):
    write_folder(tmp_path / "in", 1)
    (tmp_path / "in" / "frame0.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    heard = play(source=str(tmp_path / "in"))
    assert heard.code == 1
    assert "frame0.png" in heard.output
    assert "Traceback" not in heard.output


def test_camera_info_tells_the_spacing_of_each_axis():
    spacing = Spacing(imager_pixel_spacing_mm=(0.2, 0.4))
    info = camera_info((100, 200), Header(), spacing, 1.0)
    assert spacing_from_camera_info(info, (200, 100), 1.0) == pytest.approx((0.4e-3, 0.2e-3))
    assert (info.k[2], info.k[5]) == (99.5, 49.5)
    assert list(info.p[:3]) == list(info.k[:3])


def test_camera_info_stays_uncalibrated_when_something_is_unknown():
    patient_plane = Spacing(pixel_spacing_mm=(0.2, 0.2))
    assert not any(camera_info((10, 10), Header(), patient_plane, 1.0).k)
    detector_plane = Spacing(imager_pixel_spacing_mm=(0.2, 0.2))
    assert not any(camera_info((10, 10), Header(), detector_plane, 0.0).k)


def test_compressed_images_keep_their_bits_or_are_refused():
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    message = compressed_image(pixels, Header(), "png")
    assert message.format == "mono16; png compressed "
    assert (image_to_array(message) == pixels).all()
    with pytest.raises(FrameError, match="use 'png'"):
        compressed_image(pixels, Header(), "jpeg")
    grey = np.full((16, 16), 90, np.uint8)
    jpeg = compressed_image(grey, Header(), "jpeg")
    assert np.abs(image_to_array(jpeg).astype(int) - 90).max() <= 2
