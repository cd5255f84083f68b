"""Recording what a classifier publishes, and following what becomes of its images."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message
from vision_msgs.msg import VisionInfo

from efv2_ros.bags.writer import BagWriter
from efv2_ros.client.status import ClassifierStatus, Counts, counts_of
from efv2_ros.messages.cdr import CdrReader
from efv2_ros.messages.images import IMAGE_TYPES
from efv2_ros.node.publishers import ANNOTATIONS, LABEL, LATENCY
from efv2_ros.node.transports import message_type
from efv2_ros.play.definitions import has_our_fields
from efv2_ros.replay.results import DIAGNOSTICS, LATCHED, TOPICS
from efv2_ros.vision.frame import FrameError

DIAGNOSTICS_TOPIC = "/diagnostics"

_CLASSIFICATION = "classification"
_ALWAYS = (_CLASSIFICATION, LATENCY)
"""Topics that a classifier has, whatever is installed."""

_DEPTH = 1000
"""Messages that may arrive while something else is done."""

Handler = Callable[[bytes], None]


class _RecordedTopic(NamedTuple):
    name: str
    type_name: str
    latched: bool
    handler: Handler


class Recorder:
    """Subscribes to everything that a classifier publishes, and to all diagnostics.

    Messages are recorded as they came, each at the node's time when it came. Messages that come
    before `recording`, and under simulated time before the first `/clock`, are kept and recorded
    at the first time that is known. Annotations are left out where the installed foxglove_msgs has
    other fields than bags here say it has.

    Args:
        node: The node to subscribe with.
        classifier: Full name of the classifier.
        on_result: Called with the stamp of each result, in nanoseconds.
        on_report: Called after each report of the classifier with the counts since `recording`.
        on_notice: Called with a sentence for the first message that cannot be read.

    Attributes:
        classifier: As given.
        status: The classifier's newest report.
        model: The name of the model, once the classifier is active; empty until then.
        settled: Whether the last two reports since `reset_settled` are equal, and no image is
            being worked on.
    """

    def __init__(
        self,
        node: Node,
        classifier: str,
        *,
        on_result: Callable[[int], None] = lambda stamp_ns: None,
        on_report: Callable[[Counts], None] = lambda counts: None,
        on_notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.classifier = classifier
        self.status = ClassifierStatus(classifier)
        self.model = ""
        self.settled = False
        self._node = node
        self._arrived: Counter[str] = Counter()
        self._on_result, self._on_report, self._on_notice = on_result, on_report, on_notice
        self._bag: BagWriter | None = None
        self._is_recording = False
        self._kept: list[tuple[_RecordedTopic, bytes]] = []
        self._before = self._counts = Counts()
        self._previous: Counts | None = None
        self._noticed = False
        per_image = [LATENCY, LABEL]
        if has_our_fields(TOPICS[ANNOTATIONS]):
            per_image.append(ANNOTATIONS)
        self._per_image = (_CLASSIFICATION, *per_image)
        # The latched ones last: the classifier learns of subscriptions in this order, so when a
        # latched message comes, it knows of them all.
        self._topics = [
            _RecordedTopic(DIAGNOSTICS_TOPIC, DIAGNOSTICS, False, self._handle_diagnostics),
            self._own_topic(_CLASSIFICATION, self._handle_classification),
            *(self._own_topic(name, partial(self._count, name)) for name in per_image),
            self._own_topic("vision_info", self._handle_vision_info),
            self._own_topic("label_info", lambda data: None),
        ]
        for topic in self._topics:
            node.create_subscription(
                message_type(topic.type_name),
                topic.name,
                partial(self._receive, topic),
                QoSProfile(depth=_DEPTH, durability=_DURABILITY[topic.latched]),
                raw=True,
            )

    @property
    def counts(self) -> Counts:
        """Images since `recording` and what became of them, by the newest report."""
        return self._counts.since(self._before)

    @property
    def has_all(self) -> bool:
        """Whether no image is being worked on, and all that was reported of each has come."""
        counts = self.counts
        return counts.complete and all(
            self._arrived[name] + counts.failures.get(name, 0) >= counts.classified
            for name in self._per_image
            if name in _ALWAYS or self._node.count_publishers(f"{self.classifier}/{name}")
        )

    @property
    def results(self) -> int:
        """Results since `recording`."""
        return self._arrived[_CLASSIFICATION]

    @property
    def progress(self) -> int:
        """A number that grows with every message of the classifier that has news."""
        counts = self.counts
        return self._arrived.total() + counts.received + counts.classified + counts.dropped

    @property
    def has_reported(self) -> bool:
        """Whether the classifier has published diagnostics."""
        return self.status.stream is not None

    @property
    def knows_time(self) -> bool:
        """Whether the newest report has a time, as it has once the classifier hears `/clock`."""
        return self.status.stamp_ns > 0

    def image_topics(self) -> list[str]:
        """The topics of images that the classifier subscribes to."""
        namespace, _, name = self.classifier.rpartition("/")
        try:
            found = self._node.get_subscriber_names_and_types_by_node(name, namespace or "/")
        except RuntimeError:  # rclpy's NodeNameNonExistentError, which Humble does not export
            return []
        images = {kind.name for kind in IMAGE_TYPES.values()}
        return [topic for topic, types in found if images.intersection(types)]

    @contextmanager
    def recording(self, bag: BagWriter | None) -> Iterator[None]:
        """Count from now on and write to a bag, if one is given, until the block ends."""
        self._is_recording, self._bag = True, bag
        self._before = self._counts
        self._arrived.clear()
        if bag is not None:
            for topic in self._topics:
                bag.declare(topic.name, topic.type_name, latched=topic.latched)
        self._write(self._now())
        try:
            yield
        finally:
            self._write(self._now() or time.time_ns())  # there may have been no time until now

    def reset_settled(self) -> None:
        """Reset `settled`; only later reports count."""
        self._previous, self.settled = None, False

    def _own_topic(self, name: str, handler: Handler) -> _RecordedTopic:
        return _RecordedTopic(f"{self.classifier}/{name}", TOPICS[name], name in LATCHED, handler)

    def _now(self) -> int:
        now_ns: int = self._node.get_clock().now().nanoseconds
        return now_ns

    def _receive(self, topic: _RecordedTopic, data: bytes) -> None:
        try:
            topic.handler(data)
        except (
            FrameError,
            RuntimeError,
            ValueError,
        ) as error:  # of another node
            self._notice(f"a message of {topic.name} cannot be read: {error}")
        self._kept.append((topic, data))
        if self._is_recording:
            self._write(self._now())

    def _notice(self, text: str) -> None:
        if not self._noticed:
            self._noticed = True
            self._on_notice(text)

    def _write(self, now_ns: int) -> None:
        """Write all messages that are kept, if there is a time."""
        if self._bag is not None:
            if now_ns == 0:
                return
            for topic, data in self._kept:
                self._bag.write(topic.name, topic.type_name, now_ns, data, latched=topic.latched)
        self._kept.clear()

    def _handle_classification(self, data: bytes) -> None:
        sec, nanosec = CdrReader(data).words("iI")
        self._arrived[_CLASSIFICATION] += 1
        self._on_result(sec * 1_000_000_000 + nanosec)

    def _count(self, name: str, data: bytes) -> None:
        self._arrived[name] += 1

    def _handle_vision_info(self, data: bytes) -> None:
        self.model = deserialize_message(data, VisionInfo).method

    def _handle_diagnostics(self, data: bytes) -> None:
        if not self.status.update(deserialize_message(data, DiagnosticArray)):
            return
        self._counts = counts_of(self.status.stream)
        self.settled = self._counts == self._previous and self._counts.complete
        self._previous = self._counts
        self._on_report(self.counts)


_DURABILITY = {False: DurabilityPolicy.VOLATILE, True: DurabilityPolicy.TRANSIENT_LOCAL}
