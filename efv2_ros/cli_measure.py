"""`efv2 perf` and `efv2 bench`: what the bare model does, and what the node makes of it."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from typing import Any

import click
from rich.table import Table

from efv2_ros.classifier import load_model
from efv2_ros.cli_options import model_options, split_request
from efv2_ros.console import download_bar, output
from efv2_ros.perf import THREADS

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@model_options
@click.option(
    "--callers",
    multiple=True,
    default=THREADS,
    show_default=True,
    type=click.IntRange(1, 32),
    help="Threads that infer at once; give it once for each row.",
)
@click.option(
    "--frames",
    default=200,
    show_default=True,
    type=click.IntRange(2),
    help="Inferences of each thread.",
)
@_json_option
def perf(callers: tuple[int, ...], frames: int, as_json: bool, **options: Any) -> None:
    """Measure latency and FPS of the bare model, as in the Model Zoo's table.

    On a board in performance mode this redoes the table; the published figures stand beside.
    """
    from efv2_ros.perf import measure

    request = replace(split_request(options), slots=max(callers))
    with download_bar() as progress:
        model = load_model(request, progress)
    with closing(model), output.status("measuring"):
        loads = [measure(model, each, frames) for each in callers]
    published = model.file.spec.published
    latencies = {
        1: published.get("latency_1_thread_ms"), 4: published.get("latency_4_threads_ms")
    }  # fmt: skip
    rates = {4: published.get("throughput_fps")}
    info = model.runtime.info
    if as_json:
        rows = [
            {
                **load.as_dict(),
                "published_latency": latencies.get(load.threads),
                "published_fps": rates.get(load.threads),
            }
            for load in loads
        ]
        described = {"model": model.name, "runtime": info.name, "version": info.version,
                     "device": info.device}  # fmt: skip
        click.echo(json.dumps({**described, "rows": rows}, indent=2))
        return
    table = Table(
        title=f"{model.name} on {info.name} {info.version} ({info.device})", title_justify="left"
    )
    for heading in (
        "threads", "latency (ms)", "p50", "p99", "published (ms)", "FPS", "published (FPS)",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for load in loads:
        table.add_row(
            str(load.threads),
            *(f"{each:.2f}" for each in (load.latency, load.latency_p50, load.latency_p99)),
            _figure(latencies.get(load.threads)),
            f"{load.fps:.2f}",
            _figure(rates.get(load.threads)),
        )
    output.print(table)


@click.command()
@model_options
@click.option(
    "--frames", default=200, show_default=True, type=click.IntRange(2), help="Images to stream."
)
@click.option(
    "--slots",
    multiple=True,
    type=click.IntRange(1, 32),
    help="Measure the node's throughput at this number of slots instead; may be given again.",
)
@click.option(
    "--rate",
    default=250.0,
    show_default=True,
    type=click.FloatRange(1.0, 2000.0),
    help="For --slots: images a second, more than the model can take.",
)
@click.option(
    "--seconds",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0.1, 3600.0),
    help="For --slots: how long to count, for each.",
)
@_json_option
def bench(
    frames: int,
    slots: tuple[int, ...],
    rate: float,
    seconds: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure what the ROS node costs on top of the model.

    Images are 640x480 bgr8, or nv12 for throughput; the bare model runs in a loop before and
    after, in the same run.
    """
    from efv2_ros.benchmark import Overhead, measure_overhead, measure_throughput

    request = split_request(options)
    if slots:
        measured: Any = measure_throughput(request, slots, rate=rate, seconds=seconds)
    else:
        measured = measure_overhead(request, frames=frames)
    if as_json:
        click.echo(json.dumps(measured.as_dict(), indent=2))
    else:
        show = _overhead_table if isinstance(measured, Overhead) else _throughput_table
        output.print(show(measured))


def _overhead_table(measured: Any) -> Table:
    table = Table(
        title=f"{measured.model}, {measured.runtime}, {measured.image}, {measured.frames} frames",
        title_justify="left",
    )
    table.add_column("median of")
    table.add_column("ms", justify="right")
    table.add_column("share of the bare infer", justify="right")
    rows = {
        "infer in a bare loop (baseline)": measured.bare_infer,
        "infer in the node": measured.node_infer,
        **measured.stages,
        "node overhead: convert, postprocess, publish": measured.overhead,
    }
    for name, milliseconds in rows.items():
        table.add_row(name, f"{milliseconds:.3f}", f"{milliseconds / measured.bare_infer:.2%}")
    return table


def _throughput_table(measured: Any) -> Table:
    table = Table(
        title=f"{measured.model}, {measured.runtime}, {measured.image} at {measured.rate:g} Hz",
        title_justify="left",
    )
    table.add_column("")
    table.add_column("FPS", justify="right")
    table.add_column("ratio", justify="right")
    table.add_row("bare model, 4 threads (baseline)", f"{measured.bare:.2f}", "100.0%")
    for slots, fps in measured.node.items():
        table.add_row(f"node, slots {slots}", f"{fps:.2f}", f"{fps / measured.bare:.1%}")
    return table


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
