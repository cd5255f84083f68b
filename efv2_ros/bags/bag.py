"""Reader of rosbag2 bags: sqlite3 and mcap, compressed or not, whole or damaged. Needs no ROS."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path, PurePath, PurePosixPath
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
        name: Full name, `/camera/image`.
        type_name: Message type, `sensor_msgs/msg/Image`.
        count: Number of messages.
        qos: QoS that each publisher offered while the bag was recorded: `rosbags.interfaces.Qos`.
    """

    name: str
    type_name: str
    count: int
    qos: tuple[Any, ...] = ()

    @property
    def transport(self) -> str | None:
        """The node's parameter `transport` for this type of image; None for other messages."""
        return _TRANSPORTS.get(self.type_name)


_TRANSPORTS = {each.name: transport for transport, each in IMAGE_TYPES.items()}


class Span(NamedTuple):
    """A part of a bag.

    Attributes:
        part: Number of its storage file, from 0.
        start: Time of recording at which it begins, in nanoseconds; None is the file's beginning.
        stop: Time before which it ends; None is the file's end.
    """

    part: int
    start: int | None = None
    stop: int | None = None


class Bag:
    """A bag that is open for reading; a context manager.

    A damaged bag can be opened if any of its messages can be read.

    Args:
        path: Folder of the bag, or one of its storage files.

    Attributes:
        path: The argument.
        topics: Topics by name.
        problems: A sentence for each thing that cannot be read. Complete only when all messages
            have been read.

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
        self._metadata = _read_metadata(path)
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
        """Close all files and remove temporary ones."""
        self._resources.close()

    def messages(
        self,
        topics: Collection[str],
        should_stop: Callable[[], bool] = lambda: False,
        *,
        span: Span | None = None,
    ) -> Generator[Message, None, None]:
        """Read the messages of some topics, in the order in which they were recorded.

        From a damaged file, all messages that can be read come in the file's order, and
        `problems` grows.

        Args:
            topics: Names of the topics.
            should_stop: Polled for each message, also of other topics where a damaged file has
                to be searched; True ends the iteration.
            span: Read this part of the bag only. Where `problems` grows, what is read is of no
                use: only a whole bag can be salvaged.
        """
        if span is not None:
            yield from self._span(span, topics, should_stop)
            return
        for part in self._parts:
            yield from self._messages(part, topics, should_stop)

    def spans(self, topic: Topic, images: int) -> list[Span]:
        """Cut the bag into spans of about `images` messages of a topic.

        The messages of all spans, one after the other, are those of `messages`. A bag that is
        damaged, or whose files are compressed as a whole, cannot be cut: it has no spans.
        """
        if self.problems or any(part.reader is None or part.packed for part in self._parts):
            return []
        return [
            Span(index, *times)
            for index, part in enumerate(self._parts)
            for times in _cut(part.reader, topic.name, images)
        ]

    def image_topic(self, name: str = "") -> Topic:
        """Find the topic that carries images.

        Args:
            name: Name of the topic; may be empty if only one topic carries images.

        Raises:
            BagError: No topic carries images, several do and `name` is empty, or the named topic
                is missing or carries other messages.
        """
        images = [topic for topic in self.topics.values() if topic.transport]
        listed = ", ".join(f"{topic.name} ({topic.type_name})" for topic in images) or "none"
        if not name:
            if len(images) == 1:
                return images[0]
            choose = "choose one with --topic" if images else "nothing to classify"
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
        *,
        span: Span | None = None,
    ) -> Iterator[Frame | Unreadable]:
        """Read the images of a topic, as views of their messages; `messages` gives the order.

        Args:
            topic: A topic that `image_topic` returned.
            frame_id: Frame of messages without a header (HbmMsg).
            should_stop: See `messages`.
            span: See `messages`.
        """
        kind = IMAGE_TYPES[str(topic.transport)]
        view = kind.frame if kind.has_header else partial(kind.frame, frame_id=frame_id)
        for message in self.messages({topic.name}, should_stop, span=span):
            try:
                yield view(message.data)
            except FrameError as error:
                yield Unreadable(Header(*divmod(message.log_time, 1_000_000_000)), error)

    def info(self) -> dict[str, Any]:
        """Read what `BagWriter.describe` stored; empty for bags of other programs."""
        try:
            info = json.loads(self._metadata["custom_data"][INFO])
        except (ValueError, KeyError, TypeError):
            return {}
        return dict(info) if isinstance(info, dict) else {}

    # Each storage file is opened by itself: given the folder, rosbags leaves out the topics whose
    # QoS in metadata.yaml differs from that in the file.

    def _open(self) -> None:
        for file in self._files():
            part = self._part(file)
            self._parts.append(part)
            for topic in self._topics_of(part):
                known = self.topics.get(topic.name, replace(topic, count=0))
                self.topics[topic.name] = replace(
                    known,
                    count=known.count + topic.count,
                    qos=known.qos or topic.qos or self._metadata_qos.get(topic.name, ()),
                )
        if not self._parts or (self.problems and not self.topics):
            reasons = "; ".join(self.problems) or "it holds no storage file"
            raise BagError(f"nothing of {self.path} can be read: {reasons}")

    @cached_property
    def _metadata_qos(self) -> dict[str, tuple[Any, ...]]:
        """The topics' QoS from metadata.yaml, for early storage files that do not hold it."""
        from rosbags.rosbag2.metadata import parse_qos

        try:
            counts = self._metadata["topics_with_message_count"]
            topics = [each["topic_metadata"] for each in counts]
            return {
                each["name"]: tuple(parse_qos(each["offered_qos_profiles"])) for each in topics
            }
        except Exception:  # only `efv2 play` needs it, and has defaults
            return {}

    def _files(self) -> list[Path]:
        """List the storage files in the order in which they were recorded."""
        if not self.path.is_dir():
            return [self.path]
        listed = _listed_files(self.path, self._metadata)
        for file in listed:
            if not file.exists():
                self._note(f"{self.path} lacks its file {file.name}")
        if listed:
            return [file for file in listed if file.exists()]
        # Without metadata.yaml: the recorder was killed before it wrote it.
        files = [file for file in self.path.iterdir() if is_storage_file(file)]
        return sorted(files, key=lambda file: [*map(int, re.findall(r"\d+", file.name))])

    def _part(self, file: Path) -> _Part:
        """Open a storage file with rosbags; without a reader if it is damaged."""
        from rosbags.rosbag2 import Reader

        packed, file = file, self._unpacked(file)
        if _has_journal(file):  # the recorder was killed; rosbags ignores the journal
            return _Part(file)
        try:
            reader = Reader(file)
            reader.open()
        except Exception as error:  # whatever the damaged bytes make rosbags do
            self._note(f"{file.name} is damaged ({str(error) or type(error).__name__})")
            return _Part(file)
        self._resources.callback(reader.close)
        return _Part(file, reader, packed != file)

    def _unpacked(self, file: Path) -> Path:
        """Decompress a file that was compressed as a whole into a temporary one."""
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

    def _span(
        self, span: Span, topics: Collection[str], should_stop: Callable[[], bool]
    ) -> Iterator[Message]:
        part = self._parts[span.part]
        try:
            for message in _read(part.reader, topics, span.start, span.stop):
                if should_stop():
                    return
                yield message
        except Exception as error:  # whatever the damaged bytes make rosbags do
            self._note(f"{part.file.name} is damaged ({str(error) or type(error).__name__})")

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


class _Part(NamedTuple):
    """A storage file.

    Attributes:
        file: The file; a temporary one if it was compressed as a whole.
        reader: Its rosbags reader; None if the file is damaged.
        packed: Whether it was compressed as a whole.
    """

    file: Path
    reader: Any = None
    packed: bool = False


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image message that cannot be viewed as a frame.

    Attributes:
        header: Holds the time at which the message was recorded, since its own is unknown.
        error: The reason.
    """

    header: Header
    error: FrameError


def is_storage_file(path: PurePath) -> bool:
    """Whether a file's name is that of a bag's storage file."""
    return path.suffix in _STORAGES or (
        path.suffix in _COMPRESSED and PurePath(path.stem).suffix in _STORAGES
    )


def listed_files(folder: Path) -> list[Path]:
    """List the storage files that a bag's metadata.yaml names, whether or not they exist."""
    return _listed_files(folder, _read_metadata(folder))


def _read_metadata(folder: Path) -> Mapping[str, Any]:
    """Read metadata.yaml; empty if it is missing or damaged."""
    try:
        document = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))
        return dict(document["rosbag2_bagfile_information"])
    except Exception:  # damaged YAML may raise anything, RecursionError included
        return {}


def _listed_files(folder: Path, metadata: Mapping[str, Any]) -> list[Path]:
    """List the storage files that metadata.yaml names."""
    try:
        # Early versions of rosbag2 wrote paths that start at the recorder's working folder.
        return [folder / PurePosixPath(name).name for name in metadata["relative_file_paths"]]
    except (KeyError, TypeError):
        return []


def _read(
    reader: Any, topics: Collection[str], start: int | None = None, stop: int | None = None
) -> Iterator[Message]:
    """Read the messages of an undamaged file by their time."""
    wanted = [each for each in reader.connections if each.topic in topics]
    if wanted:
        for connection, log_time, data in reader.messages(wanted, start, stop):
            yield decompressed(Message(connection.topic, connection.msgtype, log_time, data))


def _cut(reader: Any, topic: str, images: int) -> Iterator[tuple[int | None, int | None]]:
    """Cut an undamaged file into spans of equal time: start and stop of each."""
    count = sum(each.msgcount for each in reader.connections if each.topic == topic)
    pieces = -(-count // images)
    begin, length = reader.start_time, reader.end_time - reader.start_time
    edges = [None, *(begin + length * number // pieces for number in range(1, pieces)), None]
    return pairwise(edges) if pieces else iter(())


def _has_journal(file: Path) -> bool:
    """Whether SQLite keeps part of the contents in a write-ahead log beside the file."""
    journal = file.with_name(f"{file.name}-wal")
    return journal.exists() and journal.stat().st_size > 0


def _identity(message: Message) -> int:
    """Hash what distinguishes a message; a hash, since millions are kept.

    The first bytes of the data hold the message's own stamp.
    """
    return hash((message.topic, message.log_time, message.data[:64]))
