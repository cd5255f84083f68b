"""Benchmark part `cameras`: several cameras in one node, and in as many nodes."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import rclpy
from vision_msgs.msg import Classification

from efv2_ros.benchmark import synthetic
from efv2_ros.benchmark.parts import BenchOptions
from efv2_ros.benchmark.process import cpu_seconds, memory
from efv2_ros.benchmark.publisher import Camera, CameraProcess
from efv2_ros.benchmark.report import Column, Part, Table
from efv2_ros.classify.options import NODE_NAME
from efv2_ros.client.process import ClassifierProcess
from efv2_ros.client.ros import ros_context
from efv2_ros.client.spinner import Spinner
from efv2_ros.errors import Efv2Error
from efv2_ros.signals import catch_stop

_COUNTS = (1, 2, 4)
_CAMERA = Camera(30.0, width=960, height=544, reliable=True)
_START_S = 60.0

_COLUMNS = (
    Column("cameras", "cameras", "d"),
    Column("nodes", "nodes", "d"),
    Column("total_fps", "results (FPS)", ".1f"),
    Column("least_fps", "camera with the least (FPS)", ".1f"),
    Column("fair_share", "of its fair share", ".0%"),
    Column("cpu_percent", "CPU (%)", ".1f"),
    Column("rss_mb", "memory, RSS (MB)", ".0f"),
    Column("pss_mb", "memory, PSS (MB)", ".0f"),
    Column("cpu_ratio", "CPU, of as many nodes'", ".0%"),
    Column("memory_ratio", "RSS, of as many nodes'", ".0%"),
)
_NOTE = (
    "Each camera publishes from a process of its own. CPU: of the nodes' processes, 100 % is one "
    "core. RSS counts what processes share in each of them, PSS counts it once. The device is "
    "that of the part `device`; here each node has one of its own, which on a board it has not."
)


def run(options: BenchOptions) -> Part:
    """Measure each number of cameras, first in as many nodes, then in one."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        model = synthetic.model_file(Path(folder))
        for count in _COUNTS[:2] if options.quick else _COUNTS:
            apart = _measure(options, model, count, together=False)
            together = _measure(options, model, count, together=True)
            rows += [_row(apart, apart, count, count), _row(together, apart, count, 1)]
    title = f"Cameras in one node and in as many: {_CAMERA} each, the synthetic device"
    return Part([Table(title, _COLUMNS, rows, _NOTE)])


class _Measured(NamedTuple):
    """Results a second of each camera; CPU seconds a second and bytes of memory of the nodes."""

    fps: Sequence[float]
    cpu: float
    rss: int
    pss: int


def _row(measured: _Measured, apart: _Measured, cameras: int, nodes: int) -> dict[str, Any]:
    total, least = sum(measured.fps), min(measured.fps)
    return {
        "cameras": cameras,
        "nodes": nodes,
        "total_fps": total,
        "least_fps": least,
        "fair_share": least / (total / cameras) if total else 0.0,
        "cpu_percent": 100 * measured.cpu,
        "rss_mb": measured.rss / 1e6,
        "pss_mb": measured.pss / 1e6,
        "cpu_ratio": measured.cpu / apart.cpu,
        "memory_ratio": measured.rss / apart.rss,
    }


def _measure(options: BenchOptions, model: Path, count: int, *, together: bool) -> _Measured:
    options.on_notice(f"{count} cameras, {'one node' if together else 'as many nodes'}")
    root = f"/efv2_benchmark_{os.getpid()}"
    names = [f"camera{number}" for number in range(count)]
    parameters = {
        "runtime": synthetic.NAME, "model_path": str(model), "qos_reliability": "reliable",
    }  # fmt: skip
    if together:
        nodes = {root: {**parameters, "cameras": ",".join(names)}}
        results = [f"{root}/{NODE_NAME}/{name}/classification" for name in names]
    else:
        nodes = {f"{root}/{name}": parameters for name in names}
        results = [f"{root}/{name}/{NODE_NAME}/classification" for name in names]
    counts: Counter[int] = Counter()

    def add(number: int, message: Classification) -> None:
        counts[number] += 1

    with ExitStack() as stack:
        should_stop = stack.enter_context(catch_stop(again=signal.SIG_IGN))
        context = stack.enter_context(ros_context(publishes_images=False))
        node = rclpy.create_node("benchmark", namespace=root, context=context)
        spinner = stack.enter_context(Spinner(node, should_stop))
        processes = [
            stack.enter_context(
                ClassifierProcess(own, namespace=namespace, module=synthetic.__name__)
            )
            for namespace, own in nodes.items()
        ]
        for number, topic in enumerate(results):
            node.create_subscription(Classification, topic, partial(add, number), 100)
        for name in names:
            stack.enter_context(CameraProcess(_CAMERA, f"{root}/{name}/image"))
        if not spinner.spin_until(lambda: len(counts) == count, _START_S):
            said = "\n".join(process.stop() for process in processes)
            raise Efv2Error(f"{count - len(counts)} of {count} cameras gave no result\n{said}")
        spinner.spin_for(0.25 if options.quick else 1.0)
        counts.clear()
        start, cpu = time.monotonic(), sum(cpu_seconds(each.pid) for each in processes)
        spinner.spin_for(options.duration(10.0, 1.0))
        seconds = time.monotonic() - start
        cpu = sum(cpu_seconds(each.pid) for each in processes) - cpu
        memories = [memory(each.pid) for each in processes]
    return _Measured(
        [counts[number] / seconds for number in range(count)],
        cpu / seconds,
        sum(each.rss for each in memories),
        sum(each.pss for each in memories),
    )
