"""Benchmark part `device`: how much of an accelerator of known speed the node uses."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from efv2_ros.benchmark import synthetic
from efv2_ros.benchmark.parts import BenchOptions
from efv2_ros.benchmark.publisher import Camera
from efv2_ros.benchmark.report import Column, Distribution, Part, Table
from efv2_ros.benchmark.stream import COUNTS, COUNTS_NOTE, measure_flow

_SLOTS = (1, 2, 4)
_CAMERA = Camera(250.0, width=960, height=544, reliable=True)

_COLUMNS = (
    Column("slots", "slots", "d"),
    Column("device_fps", "device (FPS)", ".2f"),
    Column("node_fps", "node (FPS)", ".2f"),
    Column("ratio", "ratio", ".1%"),
    Column("disordered_results", "out of order", "d"),
    *COUNTS,
)
_NOTE = (
    f"A modelled device that works on one task at a time, {synthetic.TASK_S * 1e3:.2f} ms each "
    "(the Model Zoo publishes 198 FPS for s0 on the X5), while the caller sleeps. Out of order: "
    f"results whose stamp is not later than that of the result before. {COUNTS_NOTE}"
)


def run(options: BenchOptions) -> Part:
    """Measure one stream for each number of slots."""
    rows: list[dict[str, Any]] = []
    latencies = {}
    with tempfile.TemporaryDirectory() as folder:
        model = synthetic.model_file(Path(folder))
        for slots in options.slots or (_SLOTS[:2] if options.quick else _SLOTS):
            options.on_notice(f"a synthetic device, slots {slots}")
            parameters = {
                "runtime": synthetic.NAME,
                "model_path": str(model),
                "slots": slots,
                "qos_reliability": "reliable",
            }
            flow = measure_flow(
                options, parameters, _CAMERA, options.duration(8.0, 0.5), module=synthetic.__name__
            )
            rows.append(
                {
                    "slots": flow.slots,
                    "published_hz": flow.published_hz,
                    "device_fps": synthetic.FPS,
                    "node_fps": flow.fps,
                    "ratio": flow.fps / synthetic.FPS,
                    "disordered_results": flow.disordered,
                    **flow.counts(),
                }
            )
            latencies[f"slots {slots}"] = flow.latencies
    return Part(
        [Table(f"A synthetic device: {_CAMERA}", _COLUMNS, rows, _NOTE)],
        [Distribution(f"a synthetic device, {_CAMERA}: stamp to result", latencies)],
    )
