# SPDX-License-Identifier: Apache-2.0
"""Image topics of MCAP and rosbag2 recordings -> frames, without ROS."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader, ReaderError
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore

from fedefm_core.errors import FrameError
from fedefm_core.frames.clip import Clip
from fedefm_core.frames.encoding import decode_compressed_image, decode_image
from fedefm_core.frames.frame import Frame
from fedefm_core.frames.limits import DEFAULT_LIMITS, FrameLimits, check_frame_count

_IMAGE = "sensor_msgs/msg/Image"
_COMPRESSED = "sensor_msgs/msg/CompressedImage"


def read_bag(path: Path, limits: FrameLimits = DEFAULT_LIMITS, topic: str | None = None) -> Clip:
    """Open the image topic named, or the only one. Stamps are those of the message headers.

    frame_rate_hz is the mean over the whole recording. Raises FrameError, listing the topics, when
    the choice is open.
    """
    with Reader(path) as reader:
        chosen = _choose_topic(reader.connections, topic)
        count = sum(c.msgcount for c in reader.connections if c.topic == chosen)
        check_frame_count(count, limits)
        seconds = reader.duration * 1e-9
    rate = (count - 1) / seconds if count > 1 and seconds > 0 else None
    return Clip(lambda: _decode_frames(path, chosen, limits), rate, count)


@dataclass(frozen=True)
class RecordedMessage:
    """A message of any topic. received_ns: when it was recorded. data: has its type's fields."""

    topic: str
    received_ns: int
    data: Any

    @property
    def stamp_ns(self) -> int:
        """Of the header, nanoseconds; for messages that have one."""
        return _stamp_ns(self.data)


def recorded_topics(path: Path) -> dict[str, str]:
    """Message type of each topic of a recording. Raises FrameError when it cannot be read."""
    with _open(path) as reader:
        return {connection.topic: connection.msgtype for connection in reader.connections}


def read_messages(path: Path, topics: Collection[str]) -> Iterator[RecordedMessage]:
    """All messages of these topics, as they came. Topics that are not there are passed over.

    Raises FrameError when the recording cannot be read.
    """
    types = get_typestore(Stores.ROS2_HUMBLE)
    with _open(path) as reader:
        wanted = [c for c in reader.connections if c.topic in topics]
        for connection, received_ns, raw in reader.messages(wanted) if wanted else ():
            try:
                data = types.deserialize_cdr(raw, connection.msgtype)
            except SerdeError as error:
                raise FrameError(
                    f"{path} holds a message on '{connection.topic}' that cannot be read: {error}"
                ) from error
            yield RecordedMessage(connection.topic, received_ns, data)


def image_topics(topics: Mapping[str, str]) -> list[str]:
    """Those of the topics, by their message type, that hold images; sorted."""
    return sorted(topic for topic, kind in topics.items() if kind in (_IMAGE, _COMPRESSED))


def count_messages(path: Path, topic: str) -> int:
    """How many messages of a topic there are. Raises FrameError when it cannot be read."""
    with _open(path) as reader:
        return sum(c.msgcount for c in reader.connections if c.topic == topic)


def decode_message(
    message: RecordedMessage, limits: FrameLimits = DEFAULT_LIMITS
) -> npt.NDArray[np.generic]:
    """(H, W) grey image of a message of an image topic. Raises FrameError when it is none."""
    compressed = hasattr(message.data, "format")
    pixels: npt.NDArray[np.generic] = _pixels(message.data, compressed, limits, 0)
    return pixels


@contextmanager
def _open(path: Path) -> Iterator[Reader]:
    try:
        reader = Reader(path)
        reader.open()
    except (ReaderError, OSError) as error:
        raise FrameError(f"{path} cannot be read as a recording: {error}") from error
    try:
        yield reader
    finally:
        reader.close()


def _choose_topic(connections: list[Connection], wanted: str | None) -> str:
    topics = sorted({c.topic for c in connections if c.msgtype in (_IMAGE, _COMPRESSED)})
    if wanted is not None and wanted in topics:
        return wanted
    listed = ", ".join(topics) or "none"
    if wanted is not None:
        raise FrameError(f"it has no image topic '{wanted}'; its image topics: {listed}")
    if len(topics) != 1:
        raise FrameError(
            "it must have one image topic, or the path must name one as in 'path#topic'; "
            f"its image topics: {listed}"
        )
    return topics[0]


def _decode_frames(path: Path, topic: str, limits: FrameLimits) -> Iterator[Frame]:
    # The two image messages are the same in every distribution, so one definition serves all.
    types = get_typestore(Stores.ROS2_HUMBLE)
    with Reader(path) as reader:
        connections = [c for c in reader.connections if c.topic == topic]
        for index, (connection, _, raw) in enumerate(reader.messages(connections)):
            message: Any = types.deserialize_cdr(raw, connection.msgtype)
            yield Frame(
                pixels=_pixels(message, connection.msgtype == _COMPRESSED, limits, index),
                stamp_ns=_stamp_ns(message),
                source=f"{path}#{topic}",
                index=index,
            )


def _stamp_ns(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _pixels(message: Any, compressed: bool, limits: FrameLimits, index: int) -> Any:
    try:
        if compressed:
            return decode_compressed_image(message.data, message.format, limits)
        return decode_image(
            message.data,
            message.height,
            message.width,
            message.encoding,
            message.step,
            message.is_bigendian,
            limits,
        )
    except FrameError as error:
        raise type(error)(f"in message {index}, {error}", reason=error.reason) from error
