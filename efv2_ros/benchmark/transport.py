"""Benchmark part `transport`: what it costs to receive an image, typed and serialized."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efv2_ros.benchmark.parts import BenchOptions
from efv2_ros.benchmark.publisher import Camera, CameraProcess
from efv2_ros.benchmark.report import Column, Distribution, Part, Table
from efv2_ros.client.process import end_process
from efv2_ros.errors import Efv2Error
from efv2_ros.node.fastdds import image_profile
from efv2_ros.signals import catch_stop

CAMERAS = (
    Camera(60.0, "bgr8", 640, 480, reliable=True),
    Camera(20.0, "bgr8", 1920, 1080, reliable=True),
)


@dataclass(frozen=True)
class Way:
    """How images are received.

    Attributes:
        subscription: Value of the node's parameter of that name.
        keep_memory: Whether malloc keeps memory, as with the node's parameter; False leaves
            malloc's settings alone.
    """

    subscription: str
    keep_memory: bool

    def __str__(self) -> str:
        return f"{self.subscription}, malloc {'keeps memory' if self.keep_memory else 'as it is'}"


WAYS = (Way("typed", False), Way("typed", True), Way("serialized", False), Way("serialized", True))
"""The first is the baseline, plain rclpy; the last is what the node does by default."""

_ROUNDS = 3
_POLL_S = 0.1
_COLUMNS = (
    Column("size", "size"),
    Column("way", "subscription"),
    Column("cpu_ms", "CPU (ms an image)", ".2f"),
    Column("cpu_ratio", "of typed", ".0%"),
    Column("page_faults", "page faults", ".0f"),
    Column("p50_ms", "latency p50 (ms)", ".2f"),
    Column("p99_ms", "p99 (ms)", ".2f"),
    Column("images", "images", "d"),
)
_NOTE = (
    "bgr8, publisher and subscriber in processes of their own, the subscriptions in turn, "
    f"{_ROUNDS} rounds. CPU and page faults are those of the whole subscribing process, "
    "middleware included, divided by the images it received; no pixel is looked at. Latency: from "
    "the stamp, just before publishing, to the frame. All processes use "
    "config/fastdds_images.xml."
)


@dataclass(frozen=True)
class Reception:
    """The measurements of one subscriber; see `subscriber.receive`."""

    cpu_seconds: float
    page_faults: int
    latencies_ms: list[float]


def run(options: BenchOptions) -> Part:
    """Measure every way of receiving at every size, in turn."""
    with catch_stop(again=signal.SIG_IGN) as should_stop:
        return _run(options, should_stop)


def _run(options: BenchOptions, should_stop: Callable[[], bool]) -> Part:
    rows: list[dict[str, Any]] = []
    distributions = []
    for camera in CAMERAS:
        size = f"{camera.width}x{camera.height}"
        images = max(5, round(camera.rate * options.duration(5.0, 0.5)))
        received: dict[Way, list[Reception]] = {way: [] for way in WAYS}
        for number in range(1 if options.quick else _ROUNDS):
            options.on_notice(f"transport of {size}, round {number + 1}")
            for way in WAYS:
                received[way].append(_receive(camera, way, images, should_stop))
        rows += _rows(size, received)
        series = {str(way): _latencies(each) for way, each in received.items()}
        distributions.append(Distribution(f"bgr8 {size}: stamp to frame", series))
    return Part([Table("From publisher to frame", _COLUMNS, rows, _NOTE)], distributions)


def _receive(camera: Camera, way: Way, images: int, should_stop: Callable[[], bool]) -> Reception:
    namespace = f"/efv2_transport_{os.getpid()}"
    command = [
        sys.executable, "-m", "efv2_ros.benchmark.subscriber", namespace, str(images),
        json.dumps(asdict(way)),
    ]  # fmt: skip
    with CameraProcess(camera, f"{namespace}/image") as publisher:
        told = _output(command, should_stop)
        publisher.stop()
    return Reception(**json.loads(told))


def _output(command: Sequence[str], should_stop: Callable[[], bool]) -> str:
    """Run the subscriber and return what it printed."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **image_profile(os.environ)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process, which ends the other
    )
    try:
        while True:
            try:
                told, _ = process.communicate(timeout=_POLL_S)
                break
            except subprocess.TimeoutExpired:
                if should_stop():
                    raise KeyboardInterrupt from None
    finally:
        end_process(process)
    if process.returncode:
        raise Efv2Error("the benchmark's subscriber failed: see above")
    return told


def _rows(size: str, received: dict[Way, list[Reception]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for way, receptions in received.items():
        latencies = _latencies(receptions)
        p50, p99 = np.percentile(latencies, (50, 99)).tolist()
        # The median over rounds: one in which something else ran must not count.
        cpu = float(np.median([_each(x, x.cpu_seconds * 1e3) for x in receptions]))
        rows.append(
            {
                "size": size,
                "way": str(way),
                "cpu_ms": cpu,
                "cpu_ratio": cpu / rows[0]["cpu_ms"] if rows else 1.0,
                "page_faults": float(np.median([_each(x, x.page_faults) for x in receptions])),
                "p50_ms": p50,
                "p99_ms": p99,
                "images": len(latencies),
            }
        )
    return rows


def _each(reception: Reception, total: float) -> float:
    return total / len(reception.latencies_ms)


def _latencies(receptions: Sequence[Reception]) -> NDArray[np.float64]:
    return np.concatenate([each.latencies_ms for each in receptions])
