"""Counts, rates and latencies of the frames, for the diagnostics."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from typing import NamedTuple

from efv2_ros.classify.classifier import Classified
from efv2_ros.classify.latency import END_TO_END, STAGES, LatencyWindow

_RATE_WINDOW_NS = 10_000_000_000


class Snapshot(NamedTuple):
    """Counts and rates at one moment.

    Attributes:
        received: Messages that arrived.
        received_hz: Their rate.
        received_at_ns: When the last one arrived, by the node's clock; None before the first.
        classified: Results that were published.
        classified_hz: Their rate.
        dropped: Frames without a result, by cause.
        failed: Results that were published without something that goes with them, such as the
            annotated image, by its topic.
    """

    received: int
    received_hz: float
    received_at_ns: int | None
    classified: int
    classified_hz: float
    dropped: Mapping[str, int]
    failed: Mapping[str, int]


class Statistics:
    """Counts, rates and latencies of the frames. Thread-safe.

    Attributes:
        latency: The recent durations of each stage, and of `END_TO_END`.
    """

    def __init__(self) -> None:
        self.latency = LatencyWindow()
        self._lock = threading.Lock()
        self._received = _Tally()
        self._classified = _Tally()
        self._dropped: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()

    def count_received(self, now_ns: int) -> None:
        """Count a message that arrived now, by the node's clock."""
        with self._lock:
            self._received.add(now_ns)

    def count_classified(self, now_ns: int, seconds: Mapping[str, float]) -> None:
        """Count a published result.

        Args:
            now_ns: The present time of the node's clock.
            seconds: How long each stage of the frame took; see `stage_durations`.
        """
        with self._lock:
            self._classified.add(now_ns)
        for stage, each in seconds.items():
            self.latency.record(stage, each)

    def count_dropped(self, cause: str) -> None:
        """Count a frame that gets no result."""
        with self._lock:
            self._dropped[cause] += 1

    def count_failed(self, topic: str) -> None:
        """Count a result that was published without what goes with it on another topic."""
        with self._lock:
            self._failed[topic] += 1

    def snapshot(self, now_ns: int) -> Snapshot:
        """Copy the counts and compute the rates at `now_ns`."""
        with self._lock:
            return Snapshot(
                self._received.count,
                self._received.rate_hz(now_ns),
                self._received.last_ns,
                self._classified.count,
                self._classified.rate_hz(now_ns),
                dict(self._dropped),
                dict(self._failed),
            )


class _Tally:
    """A count of events and their recent rate."""

    def __init__(self) -> None:
        self.count = 0
        self.last_ns: int | None = None
        self._recent: deque[int] = deque(maxlen=10_000)

    def add(self, now_ns: int) -> None:
        if self.last_ns is not None and now_ns < self.last_ns:
            self._recent.clear()  # simulated time started again
        self.count += 1
        self.last_ns = now_ns
        self._recent.append(now_ns)

    def rate_hz(self, now_ns: int) -> float:
        """Compute the mean rate over the last seconds of the node's clock.

        The time since the last event counts once it is longer than the mean interval, so that the
        rate of a stream that stopped decays.
        """
        while self._recent and self._recent[0] < now_ns - _RATE_WINDOW_NS:
            self._recent.popleft()
        if len(self._recent) < 2:
            return 0.0
        first, last, intervals = self._recent[0], self._recent[-1], len(self._recent) - 1
        mean_interval = (last - first) / intervals
        span = (last - first) + max(0.0, (now_ns - last) - mean_interval)
        return intervals / span * 1e9 if span > 0 else 0.0


def stage_durations(
    outcome: Classified, waited: float, published: float, now_ns: int, stamp_ns: int
) -> dict[str, float]:
    """Collect how long each stage of a frame took, in seconds.

    Args:
        outcome: The result, which has the durations of the classifier's stages.
        waited: Seconds that the frame waited between the stages.
        published: Seconds that publishing the result took.
        now_ns: The time after that, by the node's clock.
        stamp_ns: The image's stamp; 0 if it has none.

    Returns:
        The duration of each of `STAGES`, and of `END_TO_END` if the image has a stamp that does
        not lie in the future.
    """
    own = (waited, outcome.convert, outcome.infer, outcome.postprocess, published)
    seconds = dict(zip(STAGES, own, strict=True))
    if stamp_ns and now_ns >= stamp_ns:
        seconds[END_TO_END] = (now_ns - stamp_ns) / 1e9
    return seconds
