"""What the node costs on top of the bare model, measured against it in the same run."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from efv2_ros.classifier import Model, ModelRequest, load_model
from efv2_ros.errors import Efv2Error
from efv2_ros.perf import measure
from efv2_ros.vision.frame import Frame, Header

OVERHEAD_STAGES = ("convert", "postprocess", "publish")
"""What the node does for a frame besides `infer`."""


@dataclass(frozen=True)
class Overhead:
    """Medians in milliseconds of one run.

    Attributes:
        model: The model's name.
        runtime: What ran it.
        image: Size and encoding of the images.
        frames: Images classified by the node.
        bare_infer: `Runtime.infer` in a loop with nothing around it, before and after the stream.
        node_infer: The same call inside the node.
        stages: The node's other stages.
    """

    model: str
    runtime: str
    image: str
    frames: int
    bare_infer: float
    node_infer: float
    stages: dict[str, float]

    @property
    def overhead(self) -> float:
        """Milliseconds the node spends on a frame outside `infer`."""
        return sum(self.stages.values())

    @property
    def ratio(self) -> float:
        """Overhead as a share of the bare inference."""
        return self.overhead / self.bare_infer

    def as_dict(self) -> dict[str, Any]:
        """All figures, for JSON."""
        return {**asdict(self), "overhead": self.overhead, "ratio": self.ratio}


def measure_overhead(
    request: ModelRequest, *, frames: int = 200, width: int = 640, height: int = 480
) -> Overhead:
    """Stream bgr8 images through the node in its own process, one at a time.

    Needs ROS 2. The bare loop runs before and after the stream, so that a machine whose speed
    drifts is noticed by neither side alone.

    Raises:
        Efv2Error: The model cannot be loaded, or the node does not answer.
    """
    model = load_model(request)
    bare = _bare_loop(model, frames // 2)
    stages = _stream(request, frames, width, height)
    bare += _bare_loop(model, frames - frames // 2)
    return Overhead(
        model=model.name,
        runtime=f"{model.runtime.info.name} {model.runtime.info.version}, "
        f"{request.threads or 'default'} thread(s)",
        image=f"{width}x{height} bgr8",
        frames=frames,
        bare_infer=statistics.median(bare) * 1e3,
        node_infer=stages["infer"],
        stages={stage: stages[stage] for stage in OVERHEAD_STAGES},
    )


def _bare_loop(model: Model, count: int) -> list[float]:
    nv12 = np.random.RandomState(0).randint(0, 256, model.image.nv12_shape, np.uint8)
    durations = []
    for _ in range(count):
        start = time.perf_counter()
        model.runtime.infer(nv12)
        durations.append(time.perf_counter() - start)
    return durations


def _stream(request: ModelRequest, frames: int, width: int, height: int) -> dict[str, float]:
    """Median milliseconds of every stage, as the node itself reports them."""
    from efv2_ros.node.session import session, stage_latencies

    frame = _frame("bgr8", height, width)
    # Every frame, so that what is published one at a time is not lost.
    parameters = {**_parameters(request), "queue_policy": "all"}
    with session("benchmark", parameters) as (process, listener):
        if not listener.wait_for_classifier():
            raise Efv2Error(f"the node did not start\n{process.stop()}")
        for number in range(1, frames + 1):
            listener.publish(frame)
            if not listener.wait_for_results(number):
                raise Efv2Error(f"the node lost image {number}\n{process.stop()}")
        listener.wait_for_diagnostics()
        if listener.stream is None:
            raise Efv2Error("the node publishes no diagnostics")
        return {stage: each.p50 for stage, each in stage_latencies(listener.stream).items()}


@dataclass(frozen=True)
class Throughput:
    """Inferences a second of one run.

    Attributes:
        model: The model's name.
        runtime: What ran it.
        image: Size and encoding of the images.
        rate: Images published a second.
        bare: Of the bare model at four threads, before and after the streams.
        node: Of the node, by its number of slots.
    """

    model: str
    runtime: str
    image: str
    rate: float
    bare: float
    node: dict[int, float]

    def as_dict(self) -> dict[str, Any]:
        """All figures, for JSON."""
        ratios = {slots: fps / self.bare for slots, fps in self.node.items()}
        return {**asdict(self), "ratio": ratios}


_BARE_THREADS, _BARE_FRAMES = 4, 50


def measure_throughput(
    request: ModelRequest,
    slots: Sequence[int],
    *,
    rate: float = 250.0,
    seconds: float = 5.0,
    width: int = 640,
    height: int = 480,
) -> Throughput:
    """Stream more nv12 images than the model can take, and count what the node classifies.

    Args:
        request: The model.
        slots: Numbers of slots to run the node with, one after the other.
        rate: Images a second.
        seconds: How long to count, for each number of slots.
        width: Of the images.
        height: Of the images.

    Raises:
        Efv2Error: The model cannot be loaded, or the node does not answer.
    """
    frame = _frame("nv12", height, width)
    with closing(load_model(replace(request, slots=_BARE_THREADS))) as model:
        bare = [measure(model, _BARE_THREADS, _BARE_FRAMES).fps]
        node = {}
        for each in slots:
            node[each] = _classified_per_second(replace(request, slots=each), frame, rate, seconds)
            bare.append(measure(model, _BARE_THREADS, _BARE_FRAMES).fps)
    return Throughput(
        model=model.name,
        runtime=f"{model.runtime.info.name} {model.runtime.info.version}",
        image=f"{width}x{height} nv12",
        rate=rate,
        bare=statistics.median(bare),
        node=node,
    )


def _classified_per_second(
    request: ModelRequest, frame: Frame, rate: float, seconds: float
) -> float:
    from efv2_ros.node.session import session, values

    parameters = {**_parameters(request), "diagnostics_period": 0.5}
    with session("benchmark", parameters) as (process, listener):
        if not listener.wait_for_classifier():
            raise Efv2Error(f"the node did not start\n{process.stop()}")
        ended = threading.Event()

        def publish() -> None:
            due = time.monotonic()
            while not ended.wait(max(0.0, due - time.monotonic())):
                listener.publish(frame)
                due += 1 / rate

        def count() -> tuple[int, float]:
            if not listener.wait_for_diagnostics() or listener.stream is None:
                raise Efv2Error(f"the node publishes no diagnostics\n{process.stop()}")
            return int(values(listener.stream)["frames classified"]), listener.reported_at

        publisher = threading.Thread(target=publish)
        publisher.start()
        try:
            listener.spin_for(1.0)
            first, start = count()
            listener.spin_for(seconds)
            last, end = count()
        finally:
            ended.set()
            publisher.join()
        return (last - first) / (end - start)


def _frame(encoding: str, height: int, width: int) -> Frame:
    """An image of noise, bgr8 or nv12."""
    step, rows = (3 * width, height) if encoding == "bgr8" else (width, height * 3 // 2)
    pixels = np.random.RandomState(1).randint(0, 256, rows * step, np.uint8)
    return Frame(Header(frame_id="camera"), encoding, pixels, height, width, step)


def _parameters(request: ModelRequest) -> dict[str, Any]:
    """The node's parameters with which it runs just what a request means."""
    parameters = {name: value for name, value in asdict(request).items() if value is not None}
    for name in ("mean", "scale"):
        if name in parameters:
            parameters[name] = ",".join(map(str, parameters[name]))
    return parameters
