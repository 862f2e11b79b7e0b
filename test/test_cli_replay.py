# SPDX-License-Identifier: Apache-2.0
"""fedefm_core replay: recordings written by hand, through a network that is always right."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_runner import run_cli
from model_fixture import draw_instruments, write_threshold_model
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from fedefm_core.frames.bag import read_messages, recorded_topics

TYPES = get_typestore(Stores.ROS2_HUMBLE)
MESSAGE = TYPES.types
PERIOD_NS = 100_000_000
BEGIN_NS = 1_700_000_000_000_000_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_threshold_model(tmp_path_factory.mktemp("model") / "threshold.onnx")


def header(stamp_ns: int) -> object:
    time = MESSAGE["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return MESSAGE["std_msgs/msg/Header"](stamp=time, frame_id="xray")


def image(stamp_ns: int, pixels: np.ndarray) -> object:
    height, width = pixels.shape
    return MESSAGE["sensor_msgs/msg/Image"](
        header(stamp_ns), height, width, "mono8", 0, width, pixels.ravel()
    )


def tip(stamp_ns: int, x: float, y: float) -> object:
    point = MESSAGE["geometry_msgs/msg/Point"](x=x, y=y, z=0.0)
    return MESSAGE["geometry_msgs/msg/PointStamped"](header(stamp_ns), point)


def state(stamp_ns: int, name: str) -> object:
    pair = MESSAGE["diagnostic_msgs/msg/KeyValue"]
    values = [pair("state", name), pair("frame_stamp_ns", str(stamp_ns))]
    status = MESSAGE["diagnostic_msgs/msg/DiagnosticStatus"](0, "s", name, "", values)
    return MESSAGE["diagnostic_msgs/msg/DiagnosticArray"](header(stamp_ns), [status])


def write_bag(path: Path, messages: list[tuple[str, int, object]]) -> Path:
    """messages: (topic, nanoseconds, message)."""
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {}
        for topic, at_ns, message in messages:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            writer.write(connections[topic], at_ns, TYPES.serialize_cdr(message, kind))
    return path


def labels(pixels: np.ndarray) -> np.ndarray:
    """What the network makes of an image."""
    return np.where(pixels < 40, 2, np.where(pixels < 80, 1, 0)).astype(np.uint8)


def insertion(namespace: str = "") -> list[tuple[str, int, object]]:
    """Ten images of a wire that advances; masks and tips as told by somebody who was right."""
    messages: list[tuple[str, int, object]] = []
    for number in range(10):
        at_ns = BEGIN_NS + number * PERIOD_NS
        end = (60.0 + 2 * number, 40.0)
        pixels = draw_instruments(guidewire=[(0.0, 40.0), end])
        messages += [
            (f"{namespace}/image", at_ns, image(at_ns, pixels)),
            (f"{namespace}/guidewire/tip_pixel", at_ns + 20, tip(at_ns, *end)),
            (f"{namespace}/state", at_ns + 30, state(at_ns, "TRACKING")),
            (f"{namespace}/mask", at_ns + 40, image(at_ns, labels(pixels))),
        ]
    return messages


def report_of(out: Path) -> dict:
    return json.loads((out / "replay.json").read_text())


@pytest.mark.parametrize("namespace", ["", "/lateral"])
def test_the_same_model_says_the_same(tmp_path: Path, model: Path, namespace: str) -> None:
    bag = write_bag(tmp_path / "bag", insertion(namespace))
    result = run_cli("replay", bag, "--model", model, "--out", tmp_path / "out")
    assert (result.code, result.err) == (0, "")
    report = report_of(tmp_path / "out")
    assert report["images"] == report["images_with_a_recorded_mask"] == 10
    assert report["changed_pixels_share"]["max"] == 0.0
    tips = report["tips"]["guidewire"]
    # One frame is needed to confirm a track: of it alone the recording tells more.
    assert (tips["both"], tips["only_recorded"], tips["only_replayed"]) == (9, 1, 0)
    assert tips["moved_px"]["max"] < 2.0
    assert report["tips"]["catheter"]["neither"] == 10
    assert report["state_differs"] == 1
    assert cv2.imread(str(tmp_path / "out" / "replay.png")) is not None
    assert "worst frames" in result.out


def test_what_differs_is_counted_and_the_worst_is_drawn_first(tmp_path: Path, model: Path) -> None:
    messages = insertion()
    at_ns = BEGIN_NS + 5 * PERIOD_NS
    changed = [
        (topic, ns, tip(at_ns, 70.0, 70.0) if topic.endswith("pixel") and ns == at_ns + 20 else m)
        for topic, ns, m in messages
        if not (topic == "/mask" and ns == BEGIN_NS + 7 * PERIOD_NS + 40)
    ]
    bag = write_bag(tmp_path / "bag", changed)
    out = tmp_path / "out"
    result = run_cli("replay", bag, "--model", model, "--out", out, "--worst", 2)
    assert result.code == 0, result.err
    report = report_of(out)
    assert report["images"] == 10
    assert report["images_with_a_recorded_mask"] == 9
    assert report["tips"]["guidewire"]["moved_px"]["max"] == pytest.approx(30.0, abs=2.0)
    frames = {frame["stamp_ns"]: frame for frame in report["frames"]}
    assert frames[at_ns]["recorded_tips_px"]["guidewire"] == [70.0, 70.0]
    assert sorted(path.name for path in out.glob("worst_*")) == ["worst_01.png", "worst_02.png"]
    assert cv2.imread(str(out / "worst_01.png")).shape == (128, 256, 3)


def test_messages_of_a_recording_come_in_order(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", insertion())
    assert recorded_topics(bag)["/image"] == "sensor_msgs/msg/Image"
    messages = list(read_messages(bag, ["/state", "/nowhere"]))
    assert [message.received_ns for message in messages] == [
        BEGIN_NS + number * PERIOD_NS + 30 for number in range(10)
    ]
    assert list(read_messages(bag, ["/nowhere"])) == []


@pytest.mark.parametrize(
    ("topics", "sentence"),
    [
        ([], "its topics of images: none"),
        (["/a/image", "/b/image", "/mask"], "must have one topic of images"),
        (["/image"], "must hold the mask"),
        (["/image", "/a/mask", "/b/mask"], "must hold the mask"),
    ],
)
def test_a_recording_that_does_not_say_which_is_refused(
    tmp_path: Path, model: Path, topics: list[str], sentence: str
) -> None:
    pixels = np.zeros((64, 64), np.uint8)
    messages = [(topic, BEGIN_NS, image(BEGIN_NS, pixels)) for topic in topics]
    bag = write_bag(tmp_path / "bag", [*messages, ("/state", BEGIN_NS, state(BEGIN_NS, "LOST"))])
    result = run_cli("replay", bag, "--model", model, "--out", tmp_path / "out")
    assert result.code == 1
    assert sentence in result.err
    assert not (tmp_path / "out").exists()


def test_what_is_no_recording_is_refused(tmp_path: Path, model: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        result = run_cli("replay", path, "--model", model, "--out", tmp_path / "out")
        assert result.code == 1
        assert "cannot be read as a recording" in result.err


def test_a_folder_that_holds_something_is_refused(tmp_path: Path, model: Path) -> None:
    bag = write_bag(tmp_path / "bag", insertion())
    result = run_cli("replay", bag, "--model", model, "--out", tmp_path)
    assert result.code == 1
    assert "is not empty; name a new one" in result.err
    assert "--overwrite" not in result.err  # it has no such option
