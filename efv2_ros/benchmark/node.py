"""Benchmark part `node`: throughput and overhead of the node, beside the bare model."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efv2_ros.benchmark.bare import Bare, bare_model
from efv2_ros.benchmark.frames import picture
from efv2_ros.benchmark.parts import BenchOptions
from efv2_ros.benchmark.publisher import HIGHEST_RATE, Camera
from efv2_ros.benchmark.report import Column, Distribution, Part, Table
from efv2_ros.benchmark.stream import (
    COUNTS,
    COUNTS_NOTE,
    Flow,
    measure_flow,
    node_parameters,
    total_counts,
    wait_for_node,
)
from efv2_ros.client.listener import running_classifier
from efv2_ros.client.status import stage_latencies
from efv2_ros.errors import Efv2Error

_SLOTS = (1, 2)
_ROUNDS = 3
_MORE_THAN_IT_CAN_TAKE = 1.25
_WORK = ("convert", "postprocess", "publish")
"""Stages of the node's own work on an image, all but `infer`."""

_ADDED = ("wait", *_WORK)

_THROUGHPUT = (
    Column("slots", "slots", "d"),
    Column("loop_fps", "bare loop (FPS)", ".2f"),
    Column("node_fps", "node (FPS)", ".2f"),
    Column("loop_ratio", "ratio", ".1%"),
    Column("bare_fps", "as many loops (FPS)", ".2f"),
    Column("ratio", "ratio", ".1%"),
    *(Column(f"{stage}_ms", f"{stage} (ms)", ".2f") for stage in _ADDED),
    *COUNTS,
)
_THROUGHPUT_NOTE = (
    "Bare loop: one caller and nothing around `infer`. As many loops: a caller for each of the "
    f"node's slots. Both are measured before and after each of {_ROUNDS} streams; means of all. "
    "Stages are the node's medians; more images come than it can take, so that one always waits. "
    f"{COUNTS_NOTE}"
)
_OVERHEAD = (
    Column("median", "median of"),
    Column("ms", "ms", ".3f"),
    Column("ratio", "share of the bare infer", ".1%"),
)


def run(options: BenchOptions) -> Part:
    """Measure the throughput for each number of slots, then the overhead of single images."""
    flows, rows = {}, []
    for slots in options.slots or (_SLOTS[:1] if options.quick else _SLOTS):
        row, latencies = _throughput(options, slots)
        rows.append(row)
        flows[f"slots {slots}"] = latencies
    options.on_notice("what the node adds to one image")
    overhead, described = _overhead(options)
    distributions = [
        Distribution("the node, more images than it can take: stamp to result", flows)
    ]
    title = f"Throughput: {described}, nv12 640x480"
    return Part([Table(title, _THROUGHPUT, rows, _THROUGHPUT_NOTE), overhead], distributions)


def _throughput(options: BenchOptions, slots: int) -> tuple[dict[str, Any], NDArray[np.float64]]:
    rounds = 1 if options.quick else _ROUNDS
    seconds = options.duration(3.0, 0.3)
    flows: list[Flow] = []
    with ExitStack() as stack:
        loop = stack.enter_context(bare_model(options.request, 1, seconds))
        bare = loop
        if slots > 1:
            bare = stack.enter_context(bare_model(options.request, slots, seconds))
        camera = Camera(
            min(_MORE_THAN_IT_CAN_TAKE * max(loop.fps, bare.fps), HIGHEST_RATE), reliable=True
        )
        request = replace(options.request, slots=slots)
        parameters = {**node_parameters(request), "qos_reliability": "reliable"}
        for number in range(rounds):
            options.on_notice(f"the node's throughput, slots {slots}, round {number + 1}")
            if number:
                loop.measure()
                if bare is not loop:
                    bare.measure()
            flows.append(measure_flow(options, parameters, camera, options.duration(6.0, 0.5)))
    fps = float(np.mean([flow.fps for flow in flows]))
    row = {
        "slots": flows[0].slots,
        "published_hz": camera.rate,
        "loop_fps": loop.fps,
        "bare_fps": bare.fps,
        "node_fps": fps,
        "loop_ratio": fps / loop.fps,
        "ratio": fps / bare.fps,
        **{
            f"{stage}_ms": float(np.median([flow.stages[stage].p50 for flow in flows]))
            for stage in _ADDED
        },
        **total_counts(flows),
    }
    return row, np.concatenate([flow.latencies for flow in flows])


def _described(bare: Bare) -> str:
    info = bare.model.runtime.info
    return f"{bare.model.name} on {info.name} {info.version}"


def _overhead(options: BenchOptions) -> tuple[Table, str]:
    """Measure one image at a time, so that stages do not compete; also describe the model."""
    images = 10 if options.quick else 200
    request = replace(options.request, slots=1)
    frame = picture("bgr8", 640, 480)
    # The policy `all`, so that no image is lost.
    parameters = {**node_parameters(request), "queue_policy": "all"}
    with (
        bare_model(request, 1, options.duration(3.0, 0.3)) as bare,
        running_classifier("benchmark", parameters) as (process, listener),
    ):
        wait_for_node(process, listener)
        for number in range(1, images + 1):
            listener.publish(frame)
            if not listener.wait_for_results(number):
                raise Efv2Error(f"the node lost image {number}\n{process.stop()}")
        listener.wait_for_diagnostics()
        if listener.stream is None:
            raise Efv2Error("the node publishes no diagnostics")
        stages = stage_latencies(listener.stream)
    figures = {
        "infer in a bare loop (baseline)": bare.infer_ms,
        "infer in the node": stages["infer"].p50,
        **{stage: stages[stage].p50 for stage in _ADDED},
        f"node overhead: {', '.join(_WORK)}": sum(stages[stage].p50 for stage in _WORK),
    }
    rows = [
        {"median": name, "ms": figure, "ratio": figure / bare.infer_ms}
        for name, figure in figures.items()
    ]
    title = f"What the node adds: {_described(bare)}, {images} images, bgr8 640x480"
    return Table(title, _OVERHEAD, rows, "One image at a time."), _described(bare)
