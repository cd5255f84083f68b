"""Reader of storage files that are cut off, damaged, or were never closed.

rosbags reads complete files only. Here a file is read from its start, record by record; damaged
records are skipped where the format tells their length.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NamedTuple

from efv2_ros.bags.errors import BagError

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""First bytes of a compressed message (RFC 8878, 3.1.1). CDR begins with 0, 0 or 0, 1."""

OnDamage = Callable[[str], None]
"""Called with half a sentence for each thing that cannot be read."""


class Message(NamedTuple):
    """A message as it was recorded.

    Attributes:
        topic: Full name of its topic.
        type_name: Message type, `sensor_msgs/msg/Image`.
        log_time: Time at which it was recorded, in nanoseconds.
        data: The serialized message.
    """

    topic: str
    type_name: str
    log_time: int
    data: bytes


def salvage(file: Path, on_damage: OnDamage) -> Iterator[Message]:
    """Read all readable messages of a storage file, in the file's own order.

    Args:
        file: A `.mcap` or `.db3` file that is not compressed as a whole.
        on_damage: See `OnDamage`.

    Raises:
        BagError: The package mcap is missing.
    """
    read = _mcap if file.suffix == ".mcap" else _sqlite
    for message in read(file, on_damage):
        try:
            yield decompressed(message)
        except Exception as error:  # the decompressor may raise anything
            on_damage(f"a compressed message of {message.topic} is damaged ({error})")


def decompressed(message: Message) -> Message:
    """Decompress a message if rosbag2 compressed it (compression mode `message`)."""
    if message.data[:4] != _ZSTD_MAGIC:
        return message
    return message._replace(data=_zstd().decompress(message.data))


def unpack(file: Path, target: Path, on_damage: OnDamage) -> None:
    """Decompress a zstd file up to its end or its first damage."""
    with file.open("rb") as packed, target.open("wb") as unpacked:
        try:
            shutil.copyfileobj(_zstd().open(packed, "rb"), unpacked, 1 << 16)
        except Exception as error:  # the decompressor may raise anything
            on_damage(f"{file.name} is damaged or cut off ({error})")


def _zstd() -> Any:
    name = "compression" if sys.version_info >= (3, 14) else "backports"
    return import_module(f"{name}.zstd")


def _mcap(file: Path, on_damage: OnDamage) -> Iterator[Message]:
    try:
        from mcap.records import Channel, Chunk, Schema
        from mcap.records import Message as Record
        from mcap.stream_reader import StreamReader, breakup_chunk
    except ImportError as error:
        raise BagError(
            f"reading the damaged file {file} needs the package mcap: pip install mcap"
        ) from error
    schemas: dict[int, str] = {}
    channels: dict[int, Any] = {}

    def messages(records: Iterator[Any]) -> Iterator[Message]:
        for record in records:
            if isinstance(record, Schema):
                schemas[record.id] = record.name
            elif isinstance(record, Channel):
                channels[record.id] = record
            elif isinstance(record, Record) and record.channel_id in channels:
                channel = channels[record.channel_id]
                type_name = schemas.get(channel.schema_id, "")
                yield Message(channel.topic, type_name, record.log_time, record.data)

    stream: IO[bytes]
    with file.open("rb") as stream:
        records = StreamReader(stream, emit_chunks=True).records
        while True:
            try:
                record = next(records, None)
            except Exception as error:  # damaged records may raise anything
                on_damage(
                    f"{file.name} cannot be read on from byte {stream.tell()} ({_text(error)})"
                )
                return
            if record is None:
                return
            if isinstance(record, Chunk):
                try:
                    contents = breakup_chunk(record, validate_crc=True)
                except Exception as error:
                    on_damage(f"a chunk of {file.name} is damaged ({_text(error)})")
                    continue
                yield from messages(iter(contents))
            else:
                yield from messages(iter((record,)))


def _sqlite(file: Path, on_damage: OnDamage) -> Iterator[Message]:
    database = None
    try:
        database = sqlite3.connect(f"file:{_quoted(file)}?mode=ro", uri=True)
        # Needed to open a file that is shorter than its header says.
        database.execute("PRAGMA writable_schema = ON")
        topics = {
            number: (str(name), str(type_name))
            for number, name, type_name in database.execute("SELECT id, name, type FROM topics")
        }
        yield from _rows(file, database, topics, on_damage)
    except sqlite3.Error as error:
        on_damage(f"{file.name} cannot be read ({error})")
    finally:
        if database is not None:
            database.close()


def _rows(
    file: Path,
    database: sqlite3.Connection,
    topics: dict[int, tuple[str, str]],
    on_damage: OnDamage,
) -> Iterator[Message]:
    """Read rows from the first up to the damage, then from the last one back to it."""
    read, last = "SELECT id, topic_id, timestamp, data FROM messages WHERE id > ? ORDER BY id", -1
    failed = False
    for query in (read, f"{read} DESC"):
        try:
            for number, topic, log_time, data in database.execute(query, (last,)):
                last = number
                if topic in topics:
                    yield Message(*topics[topic], log_time, data)
        except sqlite3.Error as error:
            if not failed:
                on_damage(f"{file.name} is damaged after message {max(last, 0)} ({error})")
            failed = True
        if not failed:
            return


def _quoted(file: Path) -> str:
    return file.absolute().as_uri().removeprefix("file://")


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
