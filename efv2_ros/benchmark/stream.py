"""Streaming images through the node, and accounting for every one of them."""

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
    "Published = lost + dropped + classified, from the first image to the last. Lost: on the way "
    "to the node, or replaced by a newer image before the node took it. The publisher is a "
    "process of its own, with shared memory for many images."
)

_SETTLING_S = 15.0


@dataclass(frozen=True)
class Flow:
    """What became of a stream of images.

    Attributes:
        slots: Slots of the node, as it reports them.
        published: Images that were published, counted by the publisher.
        received: Images that reached the node, counted by the node like the next two.
        classified: Images with a result.
        dropped: Images without a result, by cause.
        published_hz: Images published a second.
        fps: Results a second, counted by the node, without start and end of the stream.
        stages: Latency of each stage, in milliseconds, over the node's newest images.
        latencies: Milliseconds from an image's stamp to the arrival of its result at a listener,
            float64, 1-D, in the period of `fps`.
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
        parameters: Parameters of the node.
        camera: The images.
        seconds: How long to measure.
        module: See `ClassifierProcess`.
        meanwhile: Called to spin the listener for the given number of seconds.

    Raises:
        Efv2Error: The node does not start, or its counts do not add up.
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
    # Arrivals are times of the steady clock, stamps of the system clock.
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
    """Count stamps, int64 of shape (results,), that are not later than the one before."""
    return int(np.count_nonzero(np.diff(stamps) <= 0))


def wait_for_node(process: ClassifierProcess, listener: Listener) -> None:
    """Wait until the node classifies.

    Raises:
        Efv2Error: It does not start; the message holds what it printed.
    """
    listener.spin_until(lambda: listener.connected or not process.running, 60.0)
    if not listener.connected:
        raise Efv2Error(f"the node did not start\n{process.stop()}")


def node_parameters(request: ModelRequest) -> dict[str, Any]:
    """The parameters with which the node runs the model of a request."""
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
