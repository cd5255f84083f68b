"""What a classifier says, heard and written into a bag."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message
from vision_msgs.msg import VisionInfo

from efv2_ros.bags.writer import BagWriter
from efv2_ros.classify.latency import DROPPED_KEY
from efv2_ros.client.listener import values
from efv2_ros.messages.cdr import CdrReader
from efv2_ros.messages.images import IMAGE_TYPES
from efv2_ros.node.transports import message_type
from efv2_ros.replay.results import DIAGNOSTICS, LATCHED, TOPICS

REPORTS = "/diagnostics"

_DEPTH = 1000
"""Messages that may come while something else is done."""


class Counts(NamedTuple):
    """What became of a classifier's images, as it reports it."""

    received: int = 0
    classified: int = 0
    drops: Mapping[str, int] = {}

    @property
    def dropped(self) -> int:
        """Images without a result, whatever the cause."""
        return sum(self.drops.values())

    @property
    def complete(self) -> bool:
        """Whether nothing is in work."""
        return self.received <= self.classified + self.dropped

    def since(self, earlier: Counts) -> Counts:
        """What came after an earlier report."""
        return Counts(
            self.received - earlier.received,
            self.classified - earlier.classified,
            dict(Counter(self.drops) - Counter(earlier.drops)),
        )


class _Source(NamedTuple):
    """A topic that is recorded."""

    topic: str
    type_name: str
    latched: bool = False


class Recorder:
    """Subscribes to what a classifier says, and to all diagnostics.

    Messages are written as they came, each at the node's time. What comes before `begin`, and
    under simulated time before the first `/clock`, is written at the time from then on.

    Args:
        node: The node to subscribe with.
        classifier: Full name of the classifier.

    Attributes:
        classifier: As given.
        model: The name of the model, once the classifier is active; until then empty.
        results: Results since `begin`.
        latencies: Latencies since `begin`.
        settled: Whether two reports since `await_rest` say the same, and that nothing is in work.
        on_result: Called with the stamp of each result, in nanoseconds.
        on_report: Called after each report of the classifier.
    """

    def __init__(self, node: Node, classifier: str) -> None:
        self.classifier = classifier
        self.model = ""
        self.results = self.latencies = 0
        self.settled = False
        self.on_result: Callable[[int], None] = lambda stamp: None
        self.on_report: Callable[[], None] = lambda: None
        self._node = node
        self._bag: BagWriter | None = None
        self._begun = False
        self._held: list[tuple[_Source, bytes]] = []
        self._statuses: dict[str, DiagnosticStatus] = {}
        self._before = self._counts = Counts()
        self._previous: Counts | None = None
        self._reported_at = 0
        own = (
            _Source(f"{classifier}/{name}", type_name, name in LATCHED)
            for name, type_name in TOPICS.items()
        )
        # The latched ones last: the classifier learns of subscriptions in this order, so when
        # what is latched comes, it knows of them all.
        self._sources = [
            _Source(REPORTS, DIAGNOSTICS), *sorted(own, key=lambda source: source.latched)
        ]  # fmt: skip
        for source in self._sources:
            node.create_subscription(
                message_type(source.type_name),
                source.topic,
                partial(self._hear, source),
                QoSProfile(depth=_DEPTH, durability=_DURABILITY[source.latched]),
                raw=True,
            )

    @property
    def counts(self) -> Counts:
        """What became of the images since `begin`, by the newest report."""
        return self._counts.since(self._before)

    @property
    def has_all(self) -> bool:
        """Whether nothing is in work, and all that was reported has come."""
        counts = self.counts
        return counts.complete and min(self.results, self.latencies) >= counts.classified

    @property
    def total(self) -> int:
        """Grows with everything that comes from the classifier, but for reports of nothing new."""
        counts = self.counts
        return self.results + self.latencies + counts.received + counts.classified + counts.dropped

    @property
    def has_reported(self) -> bool:
        """Whether a report of the classifier has come."""
        return bool(self._statuses)

    @property
    def knows_time(self) -> bool:
        """Whether the newest report has a time, as it has once the classifier hears `/clock`."""
        return self._reported_at > 0

    @property
    def state(self) -> str:
        """What the classifier says of its stream, such as `inactive`."""
        stream = self._statuses.get("stream")
        return str(stream.message) if stream is not None else ""

    @property
    def problem(self) -> str:
        """What keeps the classifier from working, as it says itself; empty if nothing does."""
        model = self._statuses.get("model")
        if model is None or model.level != DiagnosticStatus.ERROR:
            return ""
        return str(model.message)

    @property
    def runtime(self) -> str:
        """What the model runs on; empty if that is not known."""
        model = self._statuses.get("model")
        return values(model).get("runtime", "") if model is not None else ""

    def takes(self) -> list[str]:
        """The topics of images that the classifier subscribes to."""
        namespace, _, name = self.classifier.rpartition("/")
        try:
            found = self._node.get_subscriber_names_and_types_by_node(name, namespace or "/")
        except RuntimeError:  # rclpy's NodeNameNonExistentError, which Humble does not export
            return []
        images = {kind.name for kind in IMAGE_TYPES.values()}
        return [topic for topic, types in found if images.intersection(types)]

    def begin(self, bag: BagWriter | None) -> None:
        """Count from now on, and write into a bag, if there is one."""
        self._begun, self._bag = True, bag
        self._before = self._counts
        self.results = self.latencies = 0
        if bag is not None:
            for source in self._sources:
                bag.declare(source.topic, source.type_name, latched=source.latched)
        self._write(self._now())

    def await_rest(self) -> None:
        """See to it that `settled` tells of what is reported from now on."""
        self._previous, self.settled = None, False

    def end(self) -> None:
        """Write what was held back, though there is no time yet."""
        self._write(self._now() or time.time_ns())

    def _now(self) -> int:
        now: int = self._node.get_clock().now().nanoseconds
        return now

    def _hear(self, source: _Source, data: bytes) -> None:
        name = source.topic.rpartition("/")[2]
        getattr(self, f"_on_{name}")(data)
        self._held.append((source, data))
        if self._begun:
            self._write(self._now())

    def _write(self, now: int) -> None:
        """Write all that is held, if there is a time."""
        if self._bag is not None:
            if now == 0:
                return
            for source, data in self._held:
                topic, type_name, latched = source
                self._bag.write(topic, type_name, now, data, latched=latched)
        self._held.clear()

    def _on_classification(self, data: bytes) -> None:
        self.results += 1
        sec, nanosec = CdrReader(data).words("iI")
        self.on_result(sec * 1_000_000_000 + nanosec)

    def _on_latency(self, data: bytes) -> None:
        self.latencies += 1

    def _on_vision_info(self, data: bytes) -> None:
        self.model = deserialize_message(data, VisionInfo).method

    def _on_label_info(self, data: bytes) -> None:
        """It is written, and that is all."""

    def _on_diagnostics(self, data: bytes) -> None:
        array = deserialize_message(data, DiagnosticArray)
        own = {}
        for status in array.status:
            node, _, task = status.name.partition(": ")
            if node == self.classifier.lstrip("/"):
                own[task] = status
        if "stream" not in own:
            return
        self._statuses = own
        self._counts = _counts(values(own["stream"]))
        self.settled = self._counts == self._previous and self._counts.complete
        self._previous = self._counts
        self._reported_at = array.header.stamp.sec * 10**9 + array.header.stamp.nanosec
        self.on_report()


_DURABILITY = {False: DurabilityPolicy.VOLATILE, True: DurabilityPolicy.TRANSIENT_LOCAL}


def _counts(reported: Mapping[str, Any]) -> Counts:
    return Counts(
        int(reported["frames received"]),
        int(reported["frames classified"]),
        {
            key.removeprefix(DROPPED_KEY): int(value)
            for key, value in reported.items()
            if key.startswith(DROPPED_KEY)
        },
    )
