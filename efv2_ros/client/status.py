"""What a classifier reports about itself on /diagnostics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from efv2_ros.classify.latency import DROPPED_KEY, END_TO_END, STAGES, Percentiles
from efv2_ros.node.diagnostics import FAILED_KEY, latency_key


class Counts(NamedTuple):
    """Images that a classifier received, and what became of them.

    Attributes:
        received: Images that arrived.
        classified: Images with a result.
        drops: Images without a result, by cause.
        failures: Images with a result, without what goes with it on another topic, by the topic.
    """

    received: int = 0
    classified: int = 0
    drops: Mapping[str, int] = {}
    failures: Mapping[str, int] = {}

    @property
    def dropped(self) -> int:
        """Images without a result, whatever the cause."""
        return sum(self.drops.values())

    @property
    def complete(self) -> bool:
        """Whether no image is still being worked on."""
        return self.received <= self.classified + self.dropped

    def since(self, earlier: Counts) -> Counts:
        """The images that came after an earlier report."""
        return Counts(
            self.received - earlier.received,
            self.classified - earlier.classified,
            dict(Counter(self.drops) - Counter(earlier.drops)),
            dict(Counter(self.failures) - Counter(earlier.failures)),
        )


class ClassifierStatus:
    """The newest report of one classifier.

    Args:
        classifier: Full name of the classifier.

    Attributes:
        stamp_ns: Time of the newest report by the classifier's clock; 0 while that is not known.
    """

    def __init__(self, classifier: str) -> None:
        self._node = classifier.lstrip("/")
        self._statuses: dict[str, DiagnosticStatus] = {}
        self.stamp_ns = 0

    def update(self, array: DiagnosticArray) -> bool:
        """Take a message of /diagnostics; return whether it is a report of this classifier."""
        own = {}
        for status in array.status:
            node, _, task = status.name.partition(": ")
            if node == self._node:
                own[task] = status
        if "stream" not in own:
            return False
        self._statuses = own
        self.stamp_ns = array.header.stamp.sec * 1_000_000_000 + array.header.stamp.nanosec
        return True

    def clear(self) -> None:
        """Forget the report, so that the next one is known to be new."""
        self._statuses = {}

    @property
    def stream(self) -> DiagnosticStatus | None:
        """The status of the image stream; None before the first report."""
        return self._statuses.get("stream")

    @property
    def model(self) -> DiagnosticStatus | None:
        """The status of the model; None before the first report."""
        return self._statuses.get("model")

    @property
    def state(self) -> str:
        """State of the image stream, such as `inactive`; empty before the first report."""
        return str(self.stream.message) if self.stream is not None else ""

    @property
    def problem(self) -> str:
        """Why the classifier cannot classify; empty if it can."""
        if self.model is None or self.model.level != DiagnosticStatus.ERROR:
            return ""
        return str(self.model.message)

    @property
    def runtime(self) -> str:
        """What the model runs on; empty if that is not known."""
        return values(self.model).get("runtime", "") if self.model is not None else ""


def values(status: DiagnosticStatus) -> dict[str, str]:
    """A status's key-value pairs."""
    return {pair.key: pair.value for pair in status.values}


def counts_of(stream: DiagnosticStatus) -> Counts:
    """The counts in the status of an image stream.

    Raises:
        ValueError: They are missing or no numbers: it is no status of a classifier.
    """
    reported = values(stream)
    try:
        return Counts(
            int(reported["frames received"]),
            int(reported["frames classified"]),
            _numbers(reported, DROPPED_KEY),
            _numbers(reported, FAILED_KEY),
        )
    except KeyError as error:
        raise ValueError(f"the status {stream.name} has no {error}") from error


def _numbers(reported: Mapping[str, str], prefix: str) -> dict[str, int]:
    return {
        key.removeprefix(prefix): int(value)
        for key, value in reported.items()
        if key.startswith(prefix)
    }


def stage_latencies(stream: DiagnosticStatus) -> dict[str, Percentiles]:
    """The latency of every stage, in milliseconds, in the status of an image stream."""
    reported = values(stream)
    return {
        stage: Percentiles(*map(float, reported[latency_key(stage)].split(" / ")))
        for stage in (*STAGES, END_TO_END)
        if latency_key(stage) in reported
    }
