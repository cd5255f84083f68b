"""Diagnostics of the node: one status for the image stream, the model and the board each.

This follows diagnostic_updater, but its FrequencyStatus and TimeStampStatus are not used: they
report an idle node as an error, and their clock ignores `/clock`. Here all times are those of the
node's clock, so that a bag that is played is judged by its own time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.time import Time

from efv2_ros.classify.latency import DROPPED_KEY, END_TO_END, STAGES
from efv2_ros.classify.model import Model
from efv2_ros.classify.options import ONLY_CAMERA
from efv2_ros.node.conversions import header_message
from efv2_ros.node.statistics import Snapshot, Statistics
from efv2_ros.runtimes import board
from efv2_ros.vision.frame import Header

FAILED_KEY = "failed: "
"""Key prefix of a topic's count of messages that could not be published with a result."""

_INTENDED_DROPS = frozenset({"superseded"})
"""Causes that are no failure: `latest` drops a frame when a newer one is there."""


def latency_key(stage: str) -> str:
    """Return the key of a stage's `Percentiles`."""
    return f"{stage} p50/p95/p99/max (ms)"


class StatusTask(Protocol):
    """A part of the node that reports its state.

    Attributes:
        name: The status's name, after the node's.
    """

    name: str

    def run(self, now_ns: int) -> DiagnosticStatus:
        """Report the state at `now_ns` of the node's clock; name and hardware_id stay empty."""


class StreamStatus:
    """Frames received, classified and dropped, their rates, and the latency of each stage."""

    def __init__(
        self,
        statistics: Statistics,
        state: Callable[[], str],
        stale_after_s: Callable[[], float],
        *,
        camera: str = ONLY_CAMERA,
        topic: Callable[[], str] = lambda: "",
    ) -> None:
        """Report on a stream.

        Args:
            statistics: The frames' counts.
            state: `active`, `disabled`, or a lifecycle state in which no frames are expected.
            stale_after_s: Seconds without a frame after which the stream is stale.
            camera: Name of the camera; empty if it is the only one.
            topic: Full name of the images' topic; empty without a subscription.
        """
        self.name = f"{camera} stream".lstrip()
        self._topic = topic
        self._statistics = statistics
        self._state = state
        self._stale_after_s = stale_after_s
        self._active_since_ns: int | None = None
        self._received_before = 0
        self._previous_ns = 0
        self._reported_drops = self._reported_failures = 0

    def run(self, now_ns: int) -> DiagnosticStatus:
        """See `StatusTask.run`."""
        frames = self._statistics.snapshot(now_ns)
        state = self._state()
        if state == "active":
            level, summary = self._judge(frames, now_ns)
        else:
            self._active_since_ns = None
            level, summary = DiagnosticStatus.OK, state
        values: dict[str, Any] = {
            "frames received": frames.received,
            "frames classified": frames.classified,
            "frames dropped": sum(frames.dropped.values()),
            **{f"{DROPPED_KEY}{cause}": count for cause, count in sorted(frames.dropped.items())},
            **{f"{FAILED_KEY}{topic}": count for topic, count in sorted(frames.failed.items())},
            "input rate (Hz)": f"{frames.received_hz:.2f}",
            "output rate (Hz)": f"{frames.classified_hz:.2f}",
        }
        if topic := self._topic():
            values["image topic"] = topic
        percentiles = self._statistics.latency.percentiles()
        for stage in (*STAGES, END_TO_END):
            if stage in percentiles:
                values[latency_key(stage)] = percentiles[stage]
        return status(level, summary, values)

    def _judge(self, frames: Snapshot, now_ns: int) -> tuple[bytes, str]:
        """Find the level and the summary of an active stream."""
        if now_ns == 0:
            return DiagnosticStatus.WARN, "use_sim_time is set, but nothing publishes /clock"
        drops = sum(n for cause, n in frames.dropped.items() if cause not in _INTENDED_DROPS)
        failures = sum(frames.failed.values())
        new_drops = drops - self._reported_drops
        new_failures = failures - self._reported_failures
        self._reported_drops, self._reported_failures = drops, failures
        silence_s = self._silence_s(frames, now_ns)
        if silence_s > self._stale_after_s():
            return DiagnosticStatus.STALE, f"no frame for {silence_s:.1f} s"
        if not frames.received:
            return DiagnosticStatus.OK, "waiting for the first frame"
        if new_drops:
            return DiagnosticStatus.WARN, f"{new_drops} frames could not be classified"
        if new_failures:
            topics = " or ".join(sorted(frames.failed))
            return DiagnosticStatus.WARN, f"{new_failures} times, {topics} could not be published"
        return DiagnosticStatus.OK, f"{frames.classified_hz:.1f} results/s"

    def _silence_s(self, frames: Snapshot, now_ns: int) -> float:
        """Compute the seconds without a frame.

        They count from the last frame, from the activation, or from when the node's clock jumped
        back, as when a bag is played again: whatever was last.
        """
        if self._active_since_ns is None or now_ns < self._previous_ns:
            self._active_since_ns, self._received_before = now_ns, frames.received
        self._previous_ns = now_ns
        since_ns = self._active_since_ns
        if frames.received_at_ns is not None and frames.received > self._received_before:
            since_ns = frames.received_at_ns
        return max(0, now_ns - since_ns) / 1e9


class ModelStatus:
    """The running model, its runtime and file, and any problem with it.

    Attributes:
        model: The model that classifies the next frame.
        problem: Why there is no model, or not the one that was requested; empty if there is no
            problem.
    """

    name = "model"

    def __init__(self) -> None:
        self.model: Model | None = None
        self.problem = ""

    def run(self, now_ns: int) -> DiagnosticStatus:
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
    """The board's BPU load, CPU governor and temperature."""

    name = "board"

    def run(self, now_ns: int) -> DiagnosticStatus:
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


def latency_array(
    header: Header, node_name: str, seconds: Mapping[str, float], camera: str = ONLY_CAMERA
) -> DiagnosticArray:
    """Make the message with the latencies of one frame, which has the frame's header.

    Args:
        header: The frame's header.
        node_name: Full name of the node, without the leading slash.
        seconds: See `stage_durations`.
        camera: Name of the camera; empty if it is the only one.
    """
    milliseconds = {stage: f"{each * 1e3:.4f}" for stage, each in seconds.items()}
    state = status(DiagnosticStatus.OK, "", milliseconds)
    state.name = f"{node_name}: {f'{camera} latency'.lstrip()}"
    return DiagnosticArray(header=header_message(header), status=[state])


def status(level: bytes, summary: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    """Make a status without a name; values become text."""
    return DiagnosticStatus(
        level=level,
        message=summary,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )


def diagnostic_array(
    stamp: Time, node_name: str, hardware_id: str, tasks: list[StatusTask]
) -> DiagnosticArray:
    """Make the message with the status of every task, named `node_name: task` as in REP-107."""
    array = DiagnosticArray()
    array.header.stamp = stamp.to_msg()
    for task in tasks:
        state = task.run(stamp.nanoseconds)
        state.name = f"{node_name}: {task.name}"
        state.hardware_id = hardware_id
        array.status.append(state)
    return array
