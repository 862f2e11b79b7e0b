# SPDX-License-Identifier: Apache-2.0
"""Writes serialised messages to a rosbag2 recording (MCAP), which ros2 bag and Foxglove read."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from rosbags.rosbag2 import StoragePlugin, Writer, WriterError
from rosbags.typesys import Stores, get_typestore

from fedefm_core.errors import OutputError

VERSION: Literal[9] = 9  # of rosbag2's metadata; Jazzy and later write it


class BagWriter:
    """An open recording: a folder with a .mcap file and metadata.yaml, both whole after close.

    May be used from several threads.
    """

    def __init__(self, path: Path, types: Mapping[str, type]) -> None:
        """types: message class of each topic, by its full name.

        Raises OutputError when the path exists or cannot be written.
        """
        self._lock = threading.Lock()
        self._closed = False
        store = get_typestore(Stores.ROS2_KILTED)
        try:
            self._writer = Writer(path, version=VERSION, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()
        except (WriterError, OSError) as error:
            raise OutputError(f"Cannot record to '{path}': {error}") from error
        self._connections = {
            topic: self._writer.add_connection(topic, type_name(kind), typestore=store)
            for topic, kind in types.items()
        }

    def write(self, topic: str, data: bytes, received_ns: int) -> None:
        """Add a message as it came, CDR; after close nothing happens."""
        with self._lock:
            if not self._closed:
                self._writer.write(self._connections[topic], received_ns, data)

    def close(self) -> None:
        """Finish the file."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._writer.close()


def type_name(kind: type) -> str:
    """Such as 'sensor_msgs/msg/Image'.

    >>> from std_msgs.msg import Bool
    >>> type_name(Bool)
    'std_msgs/msg/Bool'
    """
    return f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"
