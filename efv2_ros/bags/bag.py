"""Reading bags: sqlite3 and mcap, compressed or not, whole or damaged; without a middleware."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]

from efv2_ros.bags.errors import BagError
from efv2_ros.bags.salvage import Message, decompressed, salvage, unpack
from efv2_ros.bags.writer import INFO
from efv2_ros.messages.images import IMAGE_TYPES
from efv2_ros.messages.typestore import require_rosbags
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
        BagError: There is no bag, or nothing of it can be read.
        MessageError: rosbags is missing.
    """

    def __init__(self, path: Path) -> None:
        require_rosbags()
        self.path = path
        self.topics: dict[str, Topic] = {}
        self.problems: list[str] = []
        self._resources = ExitStack()
        self._parts: list[_Part] = []
        self._description = _described(path)
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

    def messages(
        self, topics: Collection[str], should_stop: Callable[[], bool] = lambda: False
    ) -> Generator[Message, None, None]:
        """The messages of these topics, in the order in which they were recorded.

        Of a damaged file, what can be read, in the order of the file; `problems` grows meanwhile.

        Args:
            topics: Their names.
            should_stop: Polled; ends the messages. Much that is not wanted may lie between two.
        """
        for part in self._parts:
            yield from self._messages(part, topics, should_stop)

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

    def images(
        self,
        topic: Topic,
        frame_id: str = "camera",
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Frame | Unreadable]:
        """The images of a topic, as views of their messages; see `messages` for the order.

        Args:
            topic: From `image_topic`.
            frame_id: For messages without a header.
            should_stop: See `messages`.
        """
        kind = IMAGE_TYPES[str(topic.transport)]
        view = kind.frame if kind.has_header else partial(kind.frame, frame_id=frame_id)
        for message in self.messages({topic.name}, should_stop):
            try:
                yield view(message.data)
            except FrameError as error:
                yield Unreadable(Header(*divmod(message.log_time, 1_000_000_000)), error)

    def info(self) -> dict[str, Any]:
        """What `BagWriter.describe` kept; empty for a bag that was not written here."""
        try:
            info = json.loads(self._description["custom_data"][INFO])
        except (ValueError, KeyError, TypeError):
            return {}
        return dict(info) if isinstance(info, dict) else {}

    # Files, each by itself: rosbags, when it reads a folder, leaves out the messages of topics of
    # which metadata.yaml tells another QoS than the file does.

    def _open(self) -> None:
        described = _described_qos(self._description)
        for file in self._files():
            part = self._part(file)
            self._parts.append(part)
            for topic in self._topics_of(part):
                known = self.topics.get(topic.name, replace(topic, count=0))
                self.topics[topic.name] = replace(
                    known,
                    count=known.count + topic.count,
                    qos=known.qos or topic.qos or described.get(topic.name, ()),
                )
        if not self._parts or (self.problems and not self.topics):
            reasons = "; ".join(self.problems) or "it holds no storage file"
            raise BagError(f"nothing of {self.path} can be read: {reasons}")

    def _files(self) -> list[Path]:
        """The storage files, in the order in which they were recorded."""
        if not self.path.is_dir():
            return [self.path]
        listed = _listed_files(self.path, self._description)
        for file in listed:
            if not file.exists():
                self._note(f"{self.path} lacks {file.name}, which is part of it")
        if listed:
            return [file for file in listed if file.exists()]
        # Recording was killed before it could describe itself.
        files = [
            file
            for file in self.path.iterdir()
            if file.suffix in _STORAGES
            or (file.suffix in _COMPRESSED and Path(file.stem).suffix in _STORAGES)
        ]
        return sorted(files, key=lambda file: [*map(int, re.findall(r"\d+", file.name))])

    def _part(self, file: Path) -> _Part:
        """A file, opened by rosbags if it is whole."""
        from rosbags.rosbag2 import Reader

        file = self._unpacked(file)
        if _has_journal(file):  # the recorder was killed, and rosbags does not see the journal
            return _Part(file)
        try:
            reader = Reader(file)
            reader.open()
        except Exception as error:  # whatever the damaged bytes make rosbags do
            self._note(f"{file.name} is damaged ({str(error) or type(error).__name__})")
            return _Part(file)
        self._resources.callback(reader.close)
        return _Part(file, reader)

    def _unpacked(self, file: Path) -> Path:
        """The file, or what was compressed as a whole, in a temporary one."""
        if file.suffix not in _COMPRESSED:
            return file
        folder = self._resources.enter_context(tempfile.TemporaryDirectory())
        unpack(file, Path(folder, file.stem), self._note)
        return Path(folder, file.stem)

    def _topics_of(self, part: _Part) -> list[Topic]:
        if part.reader is None:
            kinds = Counter(
                (each.topic, each.type_name) for each in salvage(part.file, self._note)
            )
            return [Topic(*kind, count) for kind, count in kinds.items()]
        return [
            Topic(each.topic, each.msgtype, each.msgcount, tuple(each.ext.offered_qos_profiles))
            for each in part.reader.connections
        ]

    def _messages(
        self, part: _Part, topics: Collection[str], should_stop: Callable[[], bool]
    ) -> Iterator[Message]:
        seen: Counter[int] = Counter()
        if part.reader is not None:
            try:
                for message in _read(part.reader, topics):
                    if should_stop():
                        return
                    seen[_identity(message)] += 1
                    yield message
                return
            except Exception as error:  # whatever the damaged bytes make rosbags do
                self._note(f"{part.file.name} is damaged ({str(error) or type(error).__name__})")
        for message in salvage(part.file, self._note):
            if should_stop():
                return
            identity = _identity(message)
            if message.topic not in topics:
                continue
            if seen[identity] > 0:
                seen[identity] -= 1
            else:
                yield message

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


class _Part(NamedTuple):
    """A storage file, and what reads it; None where it is not whole."""

    file: Path
    reader: Any = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image message that cannot be viewed as a frame.

    Attributes:
        header: The time at which it was recorded, for want of another.
        error: Why.
    """

    header: Header
    error: FrameError


def _described(folder: Path) -> Mapping[str, Any]:
    """What a bag says of itself; nothing where that cannot be read."""
    try:
        document = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))
        return dict(document["rosbag2_bagfile_information"])
    except Exception:  # whatever YAML of another program, or damaged, makes of it
        return {}


def _listed_files(folder: Path, description: Mapping[str, Any]) -> list[Path]:
    """The files that a bag says it has."""
    try:
        # Early bags name files by the path that they had when they were recorded.
        return [folder / PurePosixPath(name).name for name in description["relative_file_paths"]]
    except (KeyError, TypeError):
        return []


def _described_qos(description: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """The QoS of topics as a bag tells it; the files of early bags do not."""
    from rosbags.rosbag2.metadata import parse_qos

    try:
        topics = [each["topic_metadata"] for each in description["topics_with_message_count"]]
        return {each["name"]: tuple(parse_qos(each["offered_qos_profiles"])) for each in topics}
    except Exception:  # it is only needed to play a topic as it was
        return {}


def _read(reader: Any, topics: Collection[str]) -> Iterator[Message]:
    """The messages of a whole file, by their time."""
    wanted = [each for each in reader.connections if each.topic in topics]
    if wanted:
        for connection, log_time, data in reader.messages(wanted):
            yield decompressed(Message(connection.topic, connection.msgtype, log_time, data))


def _has_journal(file: Path) -> bool:
    """Whether SQLite keeps part of the file's contents beside it."""
    journal = file.with_name(f"{file.name}-wal")
    return journal.exists() and journal.stat().st_size > 0


def _identity(message: Message) -> int:
    """What tells a message from others; its first bytes hold its own stamp."""
    return hash((message.topic, message.log_time, message.data[:64]))  # millions are kept
