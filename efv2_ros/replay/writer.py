"""Writing bags that ROS 2 from Humble on and Foxglove open."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from efv2_ros.replay.types import BagError, require_rosbags, typestore

Storage = Literal["mcap", "sqlite3"]
Compression = Literal["none", "chunk", "message", "file"]

INFO = "efv2_ros"
"""Key of metadata.yaml's custom_data under which `info` is kept, as JSON."""


class BagWriter:
    """Writes a bag; a context manager, at whose end the bag is complete.

    Args:
        path: The bag's folder, which must not exist.
        storage: Format of the file in it.
        compression: `chunk` is mcap's own; `message` and `file` are rosbag2's, with zstd.

    Raises:
        BagError: The folder exists or cannot be made, or rosbags is missing.
    """

    def __init__(
        self, path: Path, *, storage: Storage = "mcap", compression: Compression = "none"
    ) -> None:
        require_rosbags()
        from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
        from rosbags.rosbag2.errors import WriterError

        if storage == "sqlite3" and compression == "chunk":
            raise BagError("only mcap compresses chunks; sqlite3 bags take message or file")
        mode = "storage" if compression == "chunk" else compression
        self._topics: dict[str, Any] = {}
        try:
            # Version 8 is the last whose QoS Humble can read.
            self._writer = Writer(path, version=8, storage_plugin=StoragePlugin[storage.upper()])
            self._writer.set_compression(CompressionMode[mode.upper()], CompressionFormat.ZSTD)
            self._writer.open()
        except (WriterError, OSError) as error:
            raise BagError(f"cannot write the bag {path}: {error}") from error

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def describe(self, info: Mapping[str, Any]) -> None:
        """Keep what the bag is about in its metadata."""
        self._writer.set_custom_data(INFO, json.dumps(info))

    def write(
        self, topic: str, type_name: str, log_time: int, data: bytes, *, latched: bool = False
    ) -> None:
        """Add a message.

        Args:
            topic: Its topic, which is added with the first message.
            type_name: Its type, as ROS names it.
            log_time: When it was sent, in nanoseconds.
            data: The serialized message.
            latched: Whether the topic is transient local; else it is volatile, and reliable both.

        Raises:
            BagError: The disk is full, or the type is not known.
        """
        from rosbags.typesys import TypesysError

        try:
            if topic not in self._topics:
                self._topics[topic] = self._writer.add_connection(
                    topic,
                    type_name,
                    typestore=typestore(),
                    offered_qos_profiles=[_qos(latched)],
                )
            self._writer.write(self._topics[topic], max(0, log_time), data)
        except TypesysError as error:
            raise BagError(f"{type_name} is no type that can be written") from error
        except OSError as error:
            raise BagError(f"cannot write to the bag {self._writer.path}: {error}") from error

    def close(self) -> None:
        """Write what makes the bag complete."""
        self._writer.close()


def _qos(latched: bool) -> Any:
    from rosbags.interfaces import (
        Qos,
        QosDurability,
        QosHistory,
        QosLiveliness,
        QosReliability,
        QosTime,
    )

    unlimited = QosTime(9223372036, 854775807)  # RMW_DURATION_INFINITE
    return Qos(
        QosHistory.KEEP_LAST,
        1 if latched else 10,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        unlimited,
        unlimited,
        QosLiveliness.AUTOMATIC,
        unlimited,
        False,
    )
