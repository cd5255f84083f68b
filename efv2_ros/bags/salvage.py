"""What can be read of a storage file that is cut off, damaged, or was never closed.

rosbags wants a file to be whole. Here a file is read from its start, record by record, and what is
damaged is stepped over where the format says how far.
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
"""How a compressed message begins (RFC 8878, 3.1.1); one that is not begins with 0, 0 or 0, 1."""

Damage = Callable[[str], None]
"""Told, in half a sentence, of each thing that could not be read."""


class Message(NamedTuple):
    """A message as it was recorded.

    Attributes:
        topic: Its topic.
        type_name: Its type, as ROS names it.
        log_time: When it was recorded, in nanoseconds.
        data: The serialized message.
    """

    topic: str
    type_name: str
    log_time: int
    data: bytes


def salvage(file: Path, damage: Damage) -> Iterator[Message]:
    """All messages of a storage file that can be read, in the file's own order.

    Args:
        file: `.mcap` or `.db3`, not compressed as a whole.
        damage: See `Damage`.

    Raises:
        BagError: A package that reads such files is missing.
    """
    read = _mcap if file.suffix == ".mcap" else _sqlite
    for message in read(file, damage):
        try:
            yield decompressed(message)
        except Exception as error:  # whatever the damaged data make of the decompressor
            damage(f"a compressed message of {message.topic} is damaged ({error})")


def decompressed(message: Message) -> Message:
    """A message as it was before rosbag2 compressed it, if it did."""
    if message.data[:4] != _ZSTD_MAGIC:
        return message
    return message._replace(data=_zstd().decompress(message.data))


def unpack(file: Path, target: Path, damage: Damage) -> None:
    """Decompress a zstd file as far as that goes."""
    with file.open("rb") as packed, target.open("wb") as unpacked:
        try:
            shutil.copyfileobj(_zstd().open(packed, "rb"), unpacked, 1 << 16)
        except Exception as error:  # whatever the damaged data make of the decompressor
            damage(f"{file.name} is damaged or cut off ({error})")


def _zstd() -> Any:
    name = "compression" if sys.version_info >= (3, 14) else "backports"
    return import_module(f"{name}.zstd")


def _mcap(file: Path, damage: Damage) -> Iterator[Message]:
    try:
        from mcap.records import Channel, Chunk, Schema
        from mcap.records import Message as Record
        from mcap.stream_reader import StreamReader, breakup_chunk
    except ImportError as error:
        raise BagError(
            f"to read what is left of {file}, the package mcap is needed: pip install mcap"
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
            except Exception as error:  # whatever the damaged bytes look like
                damage(f"{file.name} cannot be read on from byte {stream.tell()} ({_text(error)})")
                return
            if record is None:
                return
            if isinstance(record, Chunk):
                try:
                    contents = breakup_chunk(record, validate_crc=True)
                except Exception as error:
                    damage(f"a chunk of {file.name} is damaged ({_text(error)})")
                    continue
                yield from messages(iter(contents))
            else:
                yield from messages(iter((record,)))


def _sqlite(file: Path, damage: Damage) -> Iterator[Message]:
    database = None
    try:
        database = sqlite3.connect(f"file:{_quoted(file)}?mode=ro", uri=True)
        # Without it SQLite does not open a file that is shorter than its header says.
        database.execute("PRAGMA writable_schema = ON")
        topics = {
            number: (str(name), str(type_name))
            for number, name, type_name in database.execute("SELECT id, name, type FROM topics")
        }
        yield from _rows(file, database, topics, damage)
    except sqlite3.Error as error:
        damage(f"{file.name} cannot be read ({error})")
    finally:
        if database is not None:
            database.close()


def _rows(
    file: Path, database: sqlite3.Connection, topics: dict[int, tuple[str, str]], damage: Damage
) -> Iterator[Message]:
    """From the first row up to the damage, and from the last one back to it."""
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
                damage(f"{file.name} is damaged after message {max(last, 0)} ({error})")
            failed = True
        if not failed:
            return


def _quoted(file: Path) -> str:
    return file.absolute().as_uri().removeprefix("file://")


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
