"""Benchmark part `start`: how long the node takes to start, and how much memory it needs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from efv2_ros.benchmark import smallest_node
from efv2_ros.benchmark.frames import picture
from efv2_ros.benchmark.parts import BenchOptions
from efv2_ros.benchmark.process import Memory, age, memory
from efv2_ros.benchmark.publisher import Camera, CameraProcess
from efv2_ros.benchmark.report import Column, Part, Table
from efv2_ros.benchmark.stream import node_parameters, wait_for_node
from efv2_ros.client.listener import Listener, running_classifier
from efv2_ros.client.process import CLASSIFIER_MODULE, ClassifierProcess
from efv2_ros.errors import Efv2Error

_ROUNDS = 5
_CAMERA = Camera(250.0, reliable=True)
_STEP_S = 0.01
_TIMEOUT_S = 60.0
_LISTED = 10

_COLUMNS = (
    Column("node", "node"),
    Column("model_s", "to the model (s)", ".2f"),
    Column("result_s", "to the first result (s)", ".2f"),
    Column("rest_mb", "RSS at rest (MB)", ".0f"),
    Column("rest_anonymous_mb", "anonymous (MB)", ".0f"),
    Column("flood_mb", "RSS in flood (MB)", ".0f"),
    Column("flood_anonymous_mb", "anonymous (MB)", ".0f"),
)
_NOTE = (
    "From the start of the process until it says which model runs, and until its first result, "
    f"with an image every {_STEP_S * 1e3:.0f} ms. The smallest node has no model: it is what "
    f"Python and ROS cost. In flood: during a stream of {_CAMERA}. Medians of {_ROUNDS} starts."
)
_IMPORT_COLUMNS = (
    Column("package", "package"),
    Column("ms", "import (ms)", ".0f"),
    Column("share", "of all", ".0%"),
)
_IMPORT_NOTE = "Time in the modules of a package themselves, by `python -X importtime`."


def run(options: BenchOptions) -> Part:
    """Measure starts of the smallest node and of the classifier in turns, then imports."""
    nodes: dict[str, tuple[str, Mapping[str, Any]]] = {
        "smallest": (smallest_node.__name__, {}),
        "classifier": (CLASSIFIER_MODULE, node_parameters(options.request)),
    }
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in nodes}
    for number in range(1 if options.quick else _ROUNDS):
        for name, (module, parameters) in nodes.items():
            options.on_notice(f"start {number + 1} of the {name} node")
            measured[name].append(_start(options, module, parameters))
    rows = [
        {"node": name, **{key: median(each[key] for each in starts) for key in starts[0]}}
        for name, starts in measured.items()
    ]
    return Part([Table("Start and memory", _COLUMNS, rows, _NOTE), _imports()])


def _start(options: BenchOptions, module: str, parameters: Mapping[str, Any]) -> dict[str, float]:
    with running_classifier("benchmark", parameters, module=module) as (process, listener):
        wait_for_node(process, listener)
        model_s = age(process.pid)
        arrival = _first_result(process, listener)
        result_s = age(process.pid) - (time.monotonic() - arrival)
        listener.spin_for(options.duration(2.0, 0.2))
        rest = memory(process.pid)
        with CameraProcess(_CAMERA, listener.images.topic_name):
            listener.spin_for(options.duration(4.0, 0.5))
            flood = memory(process.pid)
    return {"model_s": model_s, "result_s": result_s, **_of("rest", rest), **_of("flood", flood)}


def _first_result(process: ClassifierProcess, listener: Listener) -> float:
    """Publish images until a result comes; when it came, in seconds of `time.monotonic`."""
    frame = picture(_CAMERA.encoding, _CAMERA.width, _CAMERA.height)
    end = time.monotonic() + _TIMEOUT_S
    while not listener.arrivals:
        if time.monotonic() > end:
            raise Efv2Error(f"the node gave no result\n{process.stop()}")
        listener.publish(frame)
        listener.wait_for_results(1, _STEP_S)
    return listener.arrivals[0]


def _of(name: str, measured: Memory) -> dict[str, float]:
    return {f"{name}_mb": measured.rss / 1e6, f"{name}_anonymous_mb": measured.anonymous / 1e6}


def _imports() -> Table:
    command = [sys.executable, "-X", "importtime", "-c", f"import {CLASSIFIER_MODULE}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    microseconds = by_package(done.stderr.splitlines())
    total = microseconds.total() or 1
    rows = [
        {"package": package, "ms": each / 1e3, "share": each / total}
        for package, each in microseconds.most_common(_LISTED)
    ]
    title = f"Imports of the classifier, {total / 1e3:.0f} ms in all"
    return Table(title, _IMPORT_COLUMNS, rows, _IMPORT_NOTE)


def by_package(lines: Sequence[str]) -> Counter[str]:
    """Add up the times that `python -X importtime` printed.

    Args:
        lines: Its lines, `import time: SELF | CUMULATIVE | MODULE`, among others.

    Returns:
        Microseconds by the first part of the modules' names.
    """
    microseconds: Counter[str] = Counter()
    for line in lines:
        own, _, rest = line.removeprefix("import time:").partition("|")
        if line.startswith("import time:") and own.strip().isdecimal():
            microseconds[rest.rpartition("|")[2].strip().partition(".")[0]] += int(own)
    return microseconds
