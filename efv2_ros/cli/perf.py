"""`efv2 perf`: measure latency and FPS of the bare model."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from typing import Any

import click
from rich.table import Table

from efv2_ros.benchmark.perf import THREADS, measure
from efv2_ros.classify.model import load_model
from efv2_ros.cli.console import download_bar, output
from efv2_ros.cli.options import model_options, split_request


@click.command()
@model_options
@click.option(
    "--callers",
    multiple=True,
    default=THREADS,
    show_default=True,
    type=click.IntRange(1, 32),
    help="Threads that infer at once; given once for each row.",
)
@click.option(
    "--frames",
    default=200,
    show_default=True,
    type=click.IntRange(2),
    help="Number of inferences of each thread.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--estimate",
    is_flag=True,
    help="Measure nothing: show the zoo's table beside the compiler's estimates for the shipped "
    "recipes, with what each keeps of the float model's answers.",
)
def perf(
    callers: tuple[int, ...], frames: int, as_json: bool, estimate: bool, **options: Any
) -> None:
    """Measure latency and FPS of the bare model, as in the Model Zoo's table.

    On a board in performance mode this reproduces the table; the published figures are shown
    beside the measured ones.
    """
    request = replace(split_request(options), slots=max(callers))
    if estimate:
        from efv2_ros.cli.perf_estimate import show

        show(request.catalog_file, as_json=as_json)
        return
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


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
