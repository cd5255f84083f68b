"""What the node costs on top of the bare model, measured against it in the same run."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from efv2_ros.classifier import Model, ModelRequest, load_model
from efv2_ros.errors import Efv2Error
from efv2_ros.vision.frame import Frame, Header

OVERHEAD_STAGES = ("convert", "postprocess", "publish")
"""What a worker does for a frame besides `infer`."""


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
        stages: The worker's other stages.
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
        """Milliseconds a worker spends on a frame outside `infer`."""
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

    pixels = np.random.RandomState(1).randint(0, 256, height * width * 3, np.uint8)
    frame = Frame(Header(frame_id="camera"), "bgr8", pixels, height, width, 3 * width)
    # What the bare loop ran is what the node must run.
    parameters = {
        **{name: value for name, value in asdict(request).items() if value is not None},
        "queue_policy": "all",
    }
    for name in ("mean", "scale"):
        if name in parameters:
            parameters[name] = ",".join(map(str, parameters[name]))
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
