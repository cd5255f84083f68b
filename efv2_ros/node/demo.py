"""The main job to watch: photos go over DDS to the node, its results are printed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rich.console import Console

from efv2_ros.console import latency_table
from efv2_ros.errors import Efv2Error
from efv2_ros.node.session import (
    ClassifierProcess,
    Listener,
    session,
    stage_latencies,
    values,
)
from efv2_ros.vision.frame import Frame
from efv2_ros.vision.photo import read_photo


class DemoError(Efv2Error):
    """The node did not do what it should have done."""


def run(
    photos: Sequence[Path], frames: int, rate: float, parameters: dict[str, Any], console: Console
) -> None:
    """Publish photos, print every classification, then the latency of each stage.

    Args:
        photos: Image files, published in turn.
        frames: How many images to publish.
        rate: Images a second.
        parameters: Parameters of the classifier node.
        console: Where to print.

    Raises:
        DemoError: The node did not start, or an image got no result.
    """
    pictures = [read_photo(path) for path in photos]
    with session("demo", {"queue_policy": "all", **parameters}) as (process, listener):
        _stream(listener, process, pictures, frames, 1.0 / rate, console)
    if process.returncode:
        raise DemoError(f"the node ended with status {process.returncode}\n{process.output}")


def _stream(
    listener: Listener,
    process: ClassifierProcess,
    pictures: Sequence[Frame],
    frames: int,
    period: float,
    console: Console,
) -> None:
    with console.status("starting the classifier node"):
        started = listener.spin_until(
            lambda: not process.running or listener.connected or _has_failed(listener), 120.0
        )
    if not started or not process.running or _has_failed(listener):
        status = listener.model
        raise DemoError(status.message if status else f"the node did not start\n{process.stop()}")
    method = listener.vision_info[-1].method
    labels = [each.class_name for each in listener.label_info[-1].class_map]
    console.print(f"[bold]{method}[/bold] takes images from {listener.images.topic_name}")

    for number, picture in enumerate(itertools.islice(itertools.cycle(pictures), frames), start=1):
        published = time.monotonic()
        listener.publish(picture)
        if not listener.wait_for_results(number):
            raise DemoError(f"no result for {picture.header.frame_id}\n{process.stop()}")
        result = listener.results[-1]
        elapsed = (listener.arrivals[-1] - published) * 1e3
        best, *others = (
            f"{hypothesis.score:6.1%} {labels[int(hypothesis.class_id)]}"
            for hypothesis in result.results
        )
        console.print(
            f"{number:4d}  [cyan]{result.header.frame_id:<12}[/cyan] {elapsed:6.1f} ms  "
            f"[bold]{best}[/bold]"
        )
        for other in others:
            console.print(f"{'':30}[dim]{other}[/dim]")
        listener.spin_for(published + period - time.monotonic())

    listener.wait_for_diagnostics()
    _print_summary(listener, console)


def _has_failed(listener: Listener) -> bool:
    return listener.model is not None and listener.model.level == DiagnosticStatus.ERROR


def _print_summary(listener: Listener, console: Console) -> None:
    if listener.stream is None or listener.model is None:
        raise DemoError("the node publishes no diagnostics")
    stream, model = values(listener.stream), values(listener.model)
    console.print(latency_table(stage_latencies(listener.stream)))
    console.print(
        f"{stream['frames received']} images received, {stream['frames classified']} classified, "
        f"{stream['frames dropped']} dropped; {model['model']} on {model['runtime']}"
    )
    if "untrained" in model["model"]:
        console.print(
            "[yellow bold]The network is untrained: no model was found, so its labels mean "
            "nothing.[/yellow bold]\n[yellow]`efv2 models fetch s0 --format onnx` downloads the "
            "trained one; then run this again.[/yellow]"
        )
