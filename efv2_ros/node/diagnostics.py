"""Diagnostics: one small task a status, in the manner of diagnostic_updater.

The stock FrequencyStatus and TimeStampStatus are not used: they call an idle node an error and
their clock ignores `/clock`. Ours read the node's clock, so a replay is judged by its own time.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.time import Time

from efv2_ros.classify.classifier import Classified
from efv2_ros.classify.latency import DROPPED_KEY, END_TO_END, STAGES, LatencyWindow
from efv2_ros.classify.model import Model
from efv2_ros.node.conversions import header_message
from efv2_ros.runtimes import board
from efv2_ros.vision.frame import Header

_RATE_WINDOW = 10_000_000_000  # nanoseconds over which rates are averaged


def latency_key(stage: str) -> str:
    """Key under which a stage's `Percentiles` are reported."""
    return f"{stage} p50/p95/p99/max (ms)"


class StatusTask(Protocol):
    """A part of the node that can say how it is."""

    name: str

    def run(self, now: int) -> DiagnosticStatus:
        """The state at `now`, nanoseconds of the node's clock; name and hardware_id left empty."""


class Statistics:
    """What happened to the frames so far; written by several threads."""

    def __init__(self) -> None:
        self.latency = LatencyWindow()
        self._lock = threading.Lock()
        self._received = _Tally()
        self._classified = _Tally()
        self._dropped: Counter[str] = Counter()

    def received(self, now: int) -> None:
        """A message arrived."""
        with self._lock:
            self._received.add(now)

    def classified(self, now: int, seconds: Mapping[str, float]) -> None:
        """A result was published.

        Args:
            now: The moment, in nanoseconds of the node's clock.
            seconds: How long each stage of the frame took; see `durations`.
        """
        with self._lock:
            self._classified.add(now)
        for stage, each in seconds.items():
            self.latency.record(stage, each)

    def dropped(self, cause: str) -> None:
        """A frame got no result."""
        with self._lock:
            self._dropped[cause] += 1

    def snapshot(self, now: int) -> tuple[int, float, int, float, Mapping[str, int], int | None]:
        """Received and its rate, classified and its rate, drops by cause, last arrival."""
        with self._lock:
            return (
                self._received.count,
                self._received.rate(now),
                self._classified.count,
                self._classified.rate(now),
                dict(self._dropped),
                self._received.last,
            )


class _Tally:
    """A count, and a rate in Hz over the last seconds of the node's clock."""

    def __init__(self) -> None:
        self.count = 0
        self.last: int | None = None
        self._recent: deque[int] = deque(maxlen=10_000)

    def add(self, now: int) -> None:
        if self.last is not None and now < self.last:
            self._recent.clear()  # simulated time started again
        self.count += 1
        self.last = now
        self._recent.append(now)

    def rate(self, now: int) -> float:
        while self._recent and self._recent[0] < now - _RATE_WINDOW:
            self._recent.popleft()
        if len(self._recent) < 2:
            return 0.0
        # The time since the last event counts as soon as it is longer than a usual gap, so that
        # the rate of a stream that stopped decays instead of freezing.
        first, last, intervals = self._recent[0], self._recent[-1], len(self._recent) - 1
        gap = (last - first) / intervals
        span = (last - first) + max(0.0, (now - last) - gap)
        return intervals / span * 1e9 if span > 0 else 0.0


class StreamStatus:
    """Frames in, results out, drops, rates and latencies."""

    name = "stream"

    def __init__(
        self, statistics: Statistics, state: Callable[[], str], stale_after: Callable[[], float]
    ) -> None:
        """Report on a stream.

        Args:
            statistics: Where the frames are counted.
            state: `active`, `disabled`, or a lifecycle state in which no frames are expected.
            stale_after: Seconds without a frame after which the stream is stale.
        """
        self._statistics = statistics
        self._state = state
        self._stale_after = stale_after
        self._since: int | None = None
        """From when frames are expected, in nanoseconds; None while none are."""
        self._previous = 0
        self._received_before = 0
        """Frames received before `_since`."""
        self._reported_drops = 0

    def run(self, now: int) -> DiagnosticStatus:
        """See `StatusTask.run`."""
        received, rate_in, classified, rate_out, drops, last = self._statistics.snapshot(now)
        state = self._state()
        level, summary = DiagnosticStatus.OK, f"{rate_out:.1f} results/s"
        if state != "active":
            self._since = None
            summary = state
        elif now == 0:
            level, summary = DiagnosticStatus.WARN, "use_sim_time is set and /clock is silent"
        else:
            if self._since is None or now < self._previous:  # activated, or time went back
                self._since, self._received_before = now, received
            self._previous = now
            is_arriving = received > self._received_before
            arrival = last if last is not None and is_arriving else self._since
            silence = max(0, now - arrival) / 1e9
            failures = sum(count for cause, count in drops.items() if cause not in _BY_DESIGN)
            if silence > self._stale_after():
                level = DiagnosticStatus.STALE
                summary = f"no frame for {silence:.1f} s"
            elif last is None:
                summary = "waiting for the first frame"
            elif failures > self._reported_drops:
                level = DiagnosticStatus.WARN
                summary = f"{failures - self._reported_drops} frames could not be classified"
            self._reported_drops = failures
        values: dict[str, Any] = {
            "frames received": received,
            "frames classified": classified,
            "frames dropped": sum(drops.values()),
            **{f"{DROPPED_KEY}{cause}": count for cause, count in sorted(drops.items())},
            "input rate (Hz)": f"{rate_in:.2f}",
            "output rate (Hz)": f"{rate_out:.2f}",
        }
        percentiles = self._statistics.latency.percentiles()
        for stage in (*STAGES, END_TO_END):
            if stage in percentiles:
                values[latency_key(stage)] = percentiles[stage]
        return status(level, summary, values)


class ModelStatus:
    """Which model runs, on what, from which file, and what is wrong with it."""

    name = "model"

    def __init__(self) -> None:
        self.model: Model | None = None
        """The model that classifies the next frame."""
        self.problem: str = ""
        """Why there is no model, or not the one that was asked for."""

    def run(self, now: int) -> DiagnosticStatus:
        """See `StatusTask.run`."""
        model, problem = self.model, self.problem
        if model is None:
            level = DiagnosticStatus.ERROR if problem else DiagnosticStatus.OK
            return status(level, problem or "not configured", {})
        untrained = "the network is untrained: its labels mean nothing"
        level = DiagnosticStatus.WARN if problem or model.file.untrained else DiagnosticStatus.OK
        info, file = model.runtime.info, model.file
        return status(
            level,
            problem or (untrained if file.untrained else f"{model.name} on {info.name}"),
            {
                "model": model.name,
                "runtime": f"{info.name} {info.version}",
                "device": info.device,
                "slots": model.request.slots,
                "classes": info.classes,
                "input": f"{model.image.width}x{model.image.height} NV12 {model.image.nv12_range}",
                "file": file.path,
                "file found by": file.origin,
                "file sha256": file.sha256,
            },
        )


class BoardStatus:
    """Load, clock and temperature of the board; for boards only."""

    name = "board"

    def run(self, now: int) -> DiagnosticStatus:
        """See `StatusTask.run`."""
        state = board.state() or board.BoardState(None, None, None)
        level, summary = DiagnosticStatus.OK, board.name() or "a board with a BPU"
        if state.governor not in (None, "performance"):
            level = DiagnosticStatus.WARN
            summary = (
                f"the CPU governor is {state.governor}, which makes latencies longer and uneven: "
                f"{board.PERFORMANCE_MODE}"
            )
        values = {
            "BPU load (%)": state.bpu_load,
            "CPU governor": state.governor,
            "SoC temperature (C)": state.temperature,
        }
        known = {key: value for key, value in values.items() if value is not None}
        return status(level, summary, known)


def durations(
    outcome: Classified, waited: float, published: float, now: int, stamp: int
) -> dict[str, float]:
    """How long each stage of a frame took, in seconds.

    Args:
        outcome: Has the stages of the classifier.
        waited: Seconds in which the frame waited for its turns.
        published: Seconds that publishing the result took.
        now: The moment after, in nanoseconds of the node's clock.
        stamp: The frame's own, alike; 0 where it has none, and then END_TO_END is left out.
    """
    own = (waited, outcome.convert, outcome.infer, outcome.postprocess, published)
    seconds = dict(zip(STAGES, own, strict=True))
    if stamp and now >= stamp:
        seconds[END_TO_END] = (now - stamp) / 1e9
    return seconds


def latency_array(header: Header, node_name: str, seconds: Mapping[str, float]) -> DiagnosticArray:
    """One message with the latencies of one frame, under the frame's own header."""
    milliseconds = {stage: f"{each * 1e3:.4f}" for stage, each in seconds.items()}
    state = status(DiagnosticStatus.OK, "", milliseconds)
    state.name = f"{node_name}: latency"
    return DiagnosticArray(header=header_message(header), status=[state])


# Dropped because a newer frame was there, which is what `latest` is for.
_BY_DESIGN = frozenset({"superseded"})


def status(level: bytes, summary: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    """A status without its name; values become text."""
    return DiagnosticStatus(
        level=level,
        message=summary,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )


def diagnostic_array(
    stamp: Time, node_name: str, hardware_id: str, tasks: list[StatusTask]
) -> DiagnosticArray:
    """One message with the state of every task, named `node_name: task` as REP-107 has it."""
    array = DiagnosticArray()
    array.header.stamp = stamp.to_msg()
    for task in tasks:
        state = task.run(stamp.nanoseconds)
        state.name = f"{node_name}: {task.name}"
        state.hardware_id = hardware_id
        array.status.append(state)
    return array
