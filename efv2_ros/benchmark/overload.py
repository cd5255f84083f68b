"""Benchmark part `overload`: five times more images than the model can take."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter

from efv2_ros.benchmark.bare import bare_model
from efv2_ros.benchmark.parts import BenchOptions
from efv2_ros.benchmark.publisher import HIGHEST_RATE, Camera
from efv2_ros.benchmark.report import Column, Distribution, Part, Table
from efv2_ros.benchmark.stream import COUNTS, COUNTS_NOTE, measure_flow, node_parameters
from efv2_ros.client.listener import Listener

_TIMES = 5.0
_ASK_INTERVAL_S = 0.5
_ANSWER_TIMEOUT_S = 10.0

_COLUMNS = (
    Column("slots", "slots", "d"),
    Column("published_hz", "input (Hz)", ".0f"),
    Column("node_fps", "results (FPS)", ".1f"),
    Column("infer_ms", "bare infer (ms)", ".2f"),
    Column("p50_ms", "p50 (ms)", ".2f"),
    Column("p50_ratio", "x infer", ".2f"),
    Column("p99_ms", "p99 (ms)", ".2f"),
    Column("p99_ratio", "x infer", ".2f"),
    Column("limit_ms", "limit (ms)", ".2f"),
    Column("answer_p50_ms", "set_parameters p50 (ms)", ".1f"),
    Column("answer_max_ms", "max (ms)", ".1f"),
    *COUNTS,
)
_NOTE = (
    "Best effort, as cameras publish. p50, p99: from an image's stamp to the arrival of its "
    "result. Limit: three times the bare `infer` plus one period of the input. Bare: as many "
    "callers as slots, measured before and after. "
    f"set_parameters is called every {_ASK_INTERVAL_S} s; {_ANSWER_TIMEOUT_S:.0f} s stand for no "
    f"answer. {COUNTS_NOTE}"
)


def run(options: BenchOptions) -> Part:
    """Measure one overloaded stream for each number of slots."""
    rows, distributions = [], []
    for slots in options.slots or (1,):
        options.on_notice(f"overload, slots {slots}")
        row, distribution = _measure(options, slots)
        rows.append(row)
        distributions.append(distribution)
    return Part([Table("Overload: nv12 640x480", _COLUMNS, rows, _NOTE)], distributions)


def _measure(options: BenchOptions, slots: int) -> tuple[dict[str, Any], Distribution]:
    request = replace(options.request, slots=slots)
    answers: list[float] = []
    with bare_model(request, slots, options.duration(3.0, 0.3)) as bare:
        camera = Camera(min(_TIMES * bare.fps, HIGHEST_RATE))
        flow = measure_flow(
            options,
            node_parameters(request),
            camera,
            options.duration(20.0, 1.0),
            meanwhile=lambda listener, seconds: answers.extend(_ask(listener, seconds)),
        )
    p50, p99 = np.percentile(flow.latencies, (50, 99)).tolist()
    limit = 3 * bare.infer_ms + 1e3 / camera.rate
    row = {
        "slots": flow.slots,
        "rate_hz": camera.rate,
        "published_hz": flow.published_hz,
        "node_fps": flow.fps,
        "bare_fps": bare.fps,
        "infer_ms": bare.infer_ms,
        "node_infer_ms": flow.stages["infer"].p50,
        "wait_ms": flow.stages["wait"].p50,
        "p50_ms": p50,
        "p50_ratio": p50 / bare.infer_ms,
        "p99_ms": p99,
        "p99_ratio": p99 / bare.infer_ms,
        "limit_ms": limit,
        "answers": len(answers),
        "answer_p50_ms": float(np.median(answers)) * 1e3,
        "answer_max_ms": max(answers) * 1e3,
        **flow.counts(),
    }
    distribution = Distribution(
        f"overload, slots {slots}, {camera}: stamp to result",
        {f"slots {slots}": flow.latencies},
        {"bare infer": bare.infer_ms, "3x infer + one period": limit},
    )
    return row, distribution


def _ask(listener: Listener, seconds: float) -> list[float]:
    """Set a parameter to the value it has, again and again; return the seconds to each answer."""
    client = listener.node.create_client(SetParameters, f"{listener.classifier}/set_parameters")
    parameter = Parameter("top_k", value=5).to_parameter_msg()

    def ask() -> float:
        start = time.monotonic()
        answer = client.call_async(SetParameters.Request(parameters=[parameter]))
        listener.spin_until(answer.done, _ANSWER_TIMEOUT_S)
        return time.monotonic() - start

    end = time.monotonic() + seconds
    listener.spin_until(client.service_is_ready, _ANSWER_TIMEOUT_S)
    ask()  # not counted: the middleware connects the answer's topic only now
    answers = [ask()]
    while (left := end - time.monotonic()) > 0:
        listener.spin_for(min(_ASK_INTERVAL_S, left))
        answers.append(ask())
    return answers
