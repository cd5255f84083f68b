"""Writer of bags that ROS 2 from Humble on and Foxglove can open."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from efv2_ros.bags.errors import BagError
from efv2_ros.messages.typestore import require_rosbags, typestore

Storage = Literal["mcap", "sqlite3"]
Compression = Literal["none", "chunk", "message", "file"]

_STORAGE_ERRORS = (OSError, sqlite3.Error)

INFO = "efv2_ros"
"""Key in metadata.yaml's `custom_data` that holds what `describe` stores, as JSON."""


class BagWriter:
    """Writer of one bag; a context manager that completes the bag at its end.

    Args:
        path: Folder of the bag; must not exist, its parents are made.
        storage: Format of the storage file.
        compression: zstd compression: `chunk` is mcap's own, `message` and `file` are rosbag2's.

    Raises:
        BagError: The folder exists or cannot be made.
        MessageError: rosbags is missing.
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
        self._path = path
        self._topics: dict[str, Any] = {}
        try:
            # Version 8 is the last whose QoS Humble can read.
            self._writer = Writer(path, version=8, storage_plugin=StoragePlugin[storage.upper()])
            self._writer.set_compression(CompressionMode[mode.upper()], CompressionFormat.ZSTD)
            self._writer.open()
        except WriterError as error:
            raise BagError(f"cannot write the bag {path}: {error}") from error
        except _STORAGE_ERRORS as error:
            shutil.rmtree(path, ignore_errors=True)  # made just now: the writer refuses others
            raise self._failed(error) from error

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
        """Store a description, of JSON's types, in the bag's metadata."""
        self._writer.set_custom_data(INFO, json.dumps(info))

    def declare(
        self, topic: str, type_name: str, *, latched: bool = False, reliable: bool = True
    ) -> None:
        """Add a topic if the bag does not have it yet; topics without messages are kept too.

        Args:
            topic: Full name of the topic.
            type_name: Message type, `sensor_msgs/msg/Image`.
            latched: Record the durability as transient local instead of volatile.
            reliable: Record the reliability as reliable instead of best effort.

        Raises:
            BagError: The disk is full, or the type is unknown.
        """
        from rosbags.typesys import TypesysError

        if topic in self._topics:
            return
        try:
            self._topics[topic] = self._writer.add_connection(
                topic,
                type_name,
                typestore=typestore(),
                offered_qos_profiles=[_qos(latched, reliable)],
            )
        except TypesysError as error:
            raise BagError(f"{type_name} is not a known message type") from error
        except _STORAGE_ERRORS as error:
            raise self._failed(error) from error

    def write(
        self,
        topic: str,
        type_name: str,
        log_time: int,
        data: bytes,
        *,
        latched: bool = False,
        reliable: bool = True,
    ) -> None:
        """Add a message, and its topic with the first one.

        Args:
            topic: See `declare`.
            type_name: See `declare`.
            log_time: Time at which the message was received, in nanoseconds; negative times
                become 0.
            data: The serialized message.
            latched: See `declare`.
            reliable: See `declare`.

        Raises:
            BagError: The disk is full, or the type is unknown.
        """
        self.declare(topic, type_name, latched=latched, reliable=reliable)
        try:
            self._writer.write(self._topics[topic], max(0, log_time), data)
        except _STORAGE_ERRORS as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Write the index and the metadata, which complete the bag.

        Raises:
            BagError: The disk is full; nothing is left of the bag then.
        """
        try:
            self._writer.close()
        except _STORAGE_ERRORS as error:
            self.discard()
            raise self._failed(error) from error

    def discard(self) -> None:
        """Remove the unfinished bag instead of closing it."""
        with suppress(*_STORAGE_ERRORS):  # buffered data need not reach the disk
            self._writer.abort()
        shutil.rmtree(self._path, ignore_errors=True)

    def _failed(self, error: Exception) -> BagError:
        return BagError(f"cannot write the bag {self._path}: {error}")


def _qos(latched: bool, reliable: bool) -> Any:
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
        QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        unlimited,
        unlimited,
        QosLiveliness.AUTOMATIC,
        unlimited,
        False,
    )
