"""Reading bags: sqlite3 and mcap, compressed or not, whole or damaged; without a middleware."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml  # type: ignore[import-untyped]

from efv2_ros.replay.salvage import Message, decompressed, salvage, unpack
from efv2_ros.replay.types import BagError, require_rosbags
from efv2_ros.replay.writer import INFO
from efv2_ros.serialized import IMAGE_TYPES
from efv2_ros.vision.frame import Frame, FrameError, Header

_STORAGES = (".mcap", ".db3")
_COMPRESSED = (".zstd", ".zst")


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of a bag.

    Attributes:
        name: Its name.
        type_name: Its type, as ROS names it.
        count: Messages of it.
        qos: What was offered when it was recorded, a `rosbags.interfaces.Qos` each.
    """

    name: str
    type_name: str
    count: int
    qos: tuple[Any, ...] = ()

    @property
    def transport(self) -> str | None:
        """The value of the node's parameter `transport` for it; None if these are no images."""
        return _TRANSPORTS.get(self.type_name)


_TRANSPORTS = {each.name: transport for transport, each in IMAGE_TYPES.items()}


class Bag:
    """A bag, open for reading; a context manager.

    A damaged bag opens too, if anything of it can be read.

    Args:
        path: A bag's folder, or a storage file.

    Attributes:
        path: As given.
        topics: By name.
        problems: What cannot be read, a sentence each; complete once all has been read.

    Raises:
        BagError: There is no bag, nothing of it can be read, or rosbags is missing.
    """

    def __init__(self, path: Path) -> None:
        require_rosbags()
        self.path = path
        self.topics: dict[str, Topic] = {}
        self.problems: list[str] = []
        self._resources = ExitStack()
        self._readers: list[Any] = []
        if not path.exists():
            raise BagError(f"there is no bag {path}")
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Bag:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._resources.close()

    def messages(self, topics: Collection[str]) -> Generator[Message, None, None]:
        """The messages of these topics, in the order in which they were recorded.

        Of a damaged bag, what can be read, in the order of its files; `problems` grows meanwhile.
        """
        if not self._readers:
            yield from self._salvaged(topics, Counter())
            return
        seen: Counter[int] = Counter()
        try:
            for message in self._read(topics):
                seen[_identity(message)] += 1
                yield message
        except GeneratorExit:
            raise
        except Exception as error:  # whatever the damaged bytes make rosbags do
            self._note(f"{self.path} is damaged ({str(error) or type(error).__name__})")
            yield from self._salvaged(topics, seen)

    def image_topic(self, name: str = "") -> Topic:
        """The topic of images.

        Args:
            name: Its name; may be empty when there is only one.

        Raises:
            BagError: There is none, there are several, or the one named carries something else.
        """
        images = [topic for topic in self.topics.values() if topic.transport]
        listed = ", ".join(f"{topic.name} ({topic.type_name})" for topic in images) or "none"
        if not name:
            if len(images) == 1:
                return images[0]
            choose = "choose one by its name" if images else "nothing to classify"
            raise BagError(f"topics of images in {self.path}: {listed}; {choose}")
        topic = self.topics.get(name)
        if topic is None:
            raise BagError(f"{self.path} has no topic {name}; topics of images: {listed}")
        if topic.transport is None:
            raise BagError(f"{name} carries {topic.type_name}; topics of images: {listed}")
        return topic

    def images(self, topic: Topic, frame_id: str = "camera") -> Iterator[Frame | Unreadable]:
        """The images of a topic, as views of their messages; see `messages` for the order.

        Args:
            topic: From `image_topic`.
            frame_id: For messages without a header.
        """
        kind = IMAGE_TYPES[str(topic.transport)]
        view = kind.frame if kind.has_header else partial(kind.frame, frame_id=frame_id)
        for message in self.messages({topic.name}):
            try:
                yield view(message.data)
            except FrameError as error:
                yield Unreadable(Header(*divmod(message.log_time, 1_000_000_000)), error)

    def info(self) -> dict[str, Any]:
        """What `BagWriter.describe` kept; empty for a bag that was not written here."""
        try:
            document = yaml.safe_load((self.path / "metadata.yaml").read_text(encoding="utf-8"))
            info = json.loads(document["rosbag2_bagfile_information"]["custom_data"][INFO])
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
            return {}
        return dict(info) if isinstance(info, dict) else {}

    # Whole bags

    def _open(self) -> None:
        # With a journal the recorder was killed, and rosbags would not see the journal's part.
        if any(map(_has_journal, self._files())) or not self._open_whole():
            self._survey()
            return
        counts: Counter[str] = Counter()
        for reader in self._readers:
            for connection in reader.connections:
                counts[connection.topic] += connection.msgcount
                self.topics[connection.topic] = Topic(
                    connection.topic,
                    connection.msgtype,
                    counts[connection.topic],
                    tuple(connection.ext.offered_qos_profiles),
                )

    def _open_whole(self) -> bool:
        from rosbags.rosbag2 import Reader

        # Without metadata.yaml recording was killed, but each file may still be whole.
        described = (self.path / "metadata.yaml").exists()
        try:
            for each in [self.path] if described else self._files():
                reader = Reader(self._unpacked(each))
                reader.open()
                self._resources.callback(reader.close)
                self._readers.append(reader)
        except Exception as error:  # whatever the damaged bytes make rosbags do
            self._readers.clear()
            self._note(f"{self.path} is damaged ({str(error) or type(error).__name__})")
        return bool(self._readers)

    def _read(self, topics: Collection[str]) -> Iterator[Message]:
        for reader in self._readers:
            wanted = [each for each in reader.connections if each.topic in topics]
            if wanted:
                for connection, log_time, data in reader.messages(wanted):
                    message = Message(connection.topic, connection.msgtype, log_time, data)
                    yield decompressed(message)  # rosbags does it only with metadata.yaml

    # Damaged ones

    def _files(self) -> list[Path]:
        """The storage files, in the order of their numbers."""
        if not self.path.is_dir():
            return [self.path]
        files = [
            file
            for file in self.path.iterdir()
            if file.suffix in _STORAGES
            or (file.suffix in _COMPRESSED and Path(file.stem).suffix in _STORAGES)
        ]
        return sorted(files, key=lambda file: [*map(int, re.findall(r"\d+", file.name))])

    def _survey(self) -> None:
        """Find out by reading what topics there are, and how much of each."""
        counts: Counter[str] = Counter()
        for message in self._salvaged(None, Counter()):
            counts[message.topic] += 1
            self.topics[message.topic] = Topic(
                message.topic, message.type_name, counts[message.topic]
            )
        if not self.topics:
            reasons = "; ".join(self.problems) or "it holds no storage file"
            raise BagError(f"nothing of {self.path} can be read: {reasons}")

    def _salvaged(self, topics: Collection[str] | None, seen: Counter[int]) -> Iterator[Message]:
        """What can be read of all files, but for what was `seen` already."""
        for file in self._files():
            for message in salvage(self._unpacked(file), self._note):
                if topics is not None and message.topic not in topics:
                    continue
                identity = _identity(message)
                if seen[identity] > 0:
                    seen[identity] -= 1
                else:
                    yield message

    def _unpacked(self, file: Path) -> Path:
        """The file, or what was compressed as a whole, in a temporary one."""
        if file.suffix not in _COMPRESSED:
            return file
        folder = self._resources.enter_context(tempfile.TemporaryDirectory())
        unpack(file, Path(folder, file.stem), self._note)
        return Path(folder, file.stem)

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image message that cannot be viewed as a frame.

    Attributes:
        header: The time at which it was recorded, for want of another.
        error: Why.
    """

    header: Header
    error: FrameError


def _has_journal(file: Path) -> bool:
    """Whether SQLite keeps part of the file's contents beside it."""
    journal = file.with_name(f"{file.name}-wal")
    return journal.exists() and journal.stat().st_size > 0


def _identity(message: Message) -> int:
    """What tells a message from others; its first bytes hold its own stamp."""
    return hash((message.topic, message.log_time, message.data[:64]))  # millions are kept
