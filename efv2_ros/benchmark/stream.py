"""A camera's stream through the node in its own process, and what became of every image."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efv2_ros.benchmark.parts import BenchOptions
from efv2_ros.benchmark.publisher import Camera, CameraProcess
from efv2_ros.benchmark.report import Column
from efv2_ros.classify.latency import Percentiles
from efv2_ros.classify.options import ModelRequest
from efv2_ros.client.listener import Listener, running_classifier
from efv2_ros.client.process import CLASSIFIER_MODULE, ClassifierProcess
from efv2_ros.client.status import Counts, counts_of, stage_latencies, values
from efv2_ros.errors import Efv2Error

COUNTS = (
    Column("published_frames", "published", "d"),
    Column("lost_frames", "lost", "d"),
    Column("dropped_frames", "dropped"),
    Column("classified_frames", "classified", "d"),
)
COUNTS_NOTE = (
    "Published = lost + dropped + classified, from the first image to the last. Lost: on the way, "
    "or replaced by a newer one before the node looked at it. The publisher is a process of its "
    "own, with shared memory for many images."
)

_SETTLING_S = 15.0


@dataclass(frozen=True)
class Flow:
    """What became of a stream.

    Attributes:
        slots: Of the node, by its own word.
        published: Images, by the publisher's count.
        received: Images that reached the node, by its own count, as of the next two.
        classified: Images with a result.
        dropped: Images without one, by cause.
        published_hz: Images published a second.
        fps: Results a second, by the node's count, without start and end of the stream.
        stages: Of the node's newest images, in milliseconds.
        latencies: Milliseconds from an image's stamp to its result's arrival at a listener,
            float64, 1-D; of the same time as `fps`.
        disordered: Results whose stamp is not later than that of the result before.
    """

    slots: int
    published: int
    received: int
    classified: int
    dropped: Mapping[str, int]
    published_hz: float
    fps: float
    stages: Mapping[str, Percentiles]
    latencies: NDArray[np.float64]
    disordered: int

    def counts(self) -> dict[str, Any]:
        """The values of `COUNTS`."""
        return {
            "published_frames": self.published,
            "lost_frames": self.published - self.received,
            "dropped_frames": dict(self.dropped),
            "classified_frames": self.classified,
        }


def total_counts(flows: Sequence[Flow]) -> dict[str, Any]:
    """The values of `COUNTS` for several streams together."""
    dropped = sum((Counter(flow.dropped) for flow in flows), Counter[str]())
    counts = [flow.counts() for flow in flows]
    return {
        key: dict(dropped) if key == "dropped_frames" else sum(each[key] for each in counts)
        for key in counts[0]
    }


def measure_flow(
    options: BenchOptions,
    parameters: Mapping[str, Any],
    camera: Camera,
    seconds: float,
    *,
    module: str = CLASSIFIER_MODULE,
    meanwhile: Callable[[Listener, float], None] = Listener.spin_for,
) -> Flow:
    """Stream images through the node.

    Args:
        options: A quick run warms up for less long.
        parameters: Of the node.
        camera: What is streamed.
        seconds: How long to measure.
        module: See `ClassifierProcess`.
        meanwhile: Spins the listener for so many seconds.

    Raises:
        Efv2Error: The node does not start, or loses its way.
    """
    parameters = {"diagnostics_period": 0.25, **parameters}
    with running_classifier("benchmark", parameters, module=module) as (process, listener):
        wait_for_node(process, listener)
        with CameraProcess(camera, listener.images.topic_name) as publisher:
            if not listener.wait_for_results(1):
                raise Efv2Error(f"the node gave no result\n{process.stop()}")
            listener.spin_for(0.25 if options.quick else 1.0)
            first, start, begin = *_classified(process, listener), len(listener.results)
            meanwhile(listener, seconds)
            last, end, stop = *_classified(process, listener), len(listener.results)
            published = publisher.stop()
        counts = _settled(process, listener)
        stream, model = listener.stream, listener.model
        if stream is None or model is None:
            raise Efv2Error("the node publishes no diagnostics")
    stamps = np.array([_nanoseconds(each.header.stamp) for each in listener.results])
    # The listener's arrivals are steady times, stamps are the system's.
    system = time.time_ns() - time.monotonic_ns()
    latencies = np.array(listener.arrivals) * 1e3 - (stamps - system) / 1e6
    return Flow(
        slots=int(values(model)["slots"]),
        published=published.frames,
        received=counts.received,
        classified=counts.classified,
        dropped=counts.drops,
        published_hz=published.frames / published.seconds,
        fps=(last - first) / (end - start),
        stages=stage_latencies(stream),
        latencies=latencies[begin:stop],
        disordered=count_disordered(stamps),
    )


def count_disordered(stamps: NDArray[np.int64]) -> int:
    """How many stamps, int64 of shape (results,), are not later than the one before."""
    return int(np.count_nonzero(np.diff(stamps) <= 0))


def wait_for_node(process: ClassifierProcess, listener: Listener) -> None:
    """Wait until the node classifies.

    Raises:
        Efv2Error: It does not, and says why.
    """
    listener.spin_until(lambda: listener.connected or not process.running, 60.0)
    if not listener.connected:
        raise Efv2Error(f"the node did not start\n{process.stop()}")


def node_parameters(request: ModelRequest) -> dict[str, Any]:
    """The node's parameters with which it runs just what a request means."""
    parameters = {name: value for name, value in asdict(request).items() if value is not None}
    for name in ("mean", "scale"):
        if name in parameters:
            parameters[name] = ",".join(map(str, parameters[name]))
    return parameters


def _nanoseconds(stamp: Any) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _counts(process: ClassifierProcess, listener: Listener) -> Counts:
    """The counts of the node's next report."""
    if not listener.wait_for_diagnostics() or listener.stream is None:
        raise Efv2Error(f"the node publishes no diagnostics\n{process.stop()}")
    return counts_of(listener.stream)


def _classified(process: ClassifierProcess, listener: Listener) -> tuple[int, float]:
    """How many images the node has classified, and when it said so, in seconds."""
    return _counts(process, listener).classified, listener.reported_at


def _settled(process: ClassifierProcess, listener: Listener) -> Counts:
    """The counts once no image is being worked on."""
    end = time.monotonic() + _SETTLING_S
    before, now = None, _counts(process, listener)
    while before != now or not now.complete:
        if time.monotonic() > end:
            raise Efv2Error(f"the node's counts do not add up: {now}")
        before, now = now, _counts(process, listener)
    return now
