"""`efv2 perf` and `efv2 bench`: what the bare model does, and what the node makes of it."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import click
from rich.table import Table

from efv2_ros.benchmark.parts import PARTS, Plan, run
from efv2_ros.classifier import load_model
from efv2_ros.cli_options import model_options, split_request
from efv2_ros.console import download_bar, output
from efv2_ros.perf import THREADS

_WRITTEN = click.File("w", encoding="utf-8", lazy=False)  # said at once if it cannot be


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
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
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
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(list(PARTS)),
    help="Measure this part; may be given again. All of them, if it is not given.",
)
@click.option("--quick", is_flag=True, help="Only show that all works: figures mean little.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.01, 3600.0),
    help="Of each single measurement, instead of what suits the part.",
)
@click.option(
    "--slots",
    multiple=True,
    type=click.IntRange(1, 32),
    help="Of the node, once for each measurement, instead of what suits the part.",
)
@click.option("--json", "json_file", type=_WRITTEN, metavar="FILE", help="Write JSON as well.")
@click.option(
    "--markdown", "markdown_file", type=_WRITTEN, metavar="FILE", help="Write the tables as well."
)
@click.option(
    "--plots",
    "plots_folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Draw the distributions as well; needs matplotlib.",
)
def bench(
    parts: tuple[str, ...],
    quick: bool,
    seconds: float | None,
    slots: tuple[int, ...],
    json_file: IO[str] | None,
    markdown_file: IO[str] | None,
    plots_folder: Path | None,
    **options: Any,
) -> None:
    """Measure each part against a baseline in the same run, and print tables in Markdown.

    What a part needs and does not find, as ROS or a model, is said in its place.
    """
    from efv2_ros.benchmark import plots

    if plots_folder:
        plots.check()
    plan = Plan(
        split_request(options), quick, seconds, slots, lambda text: click.echo(text, err=True)
    )
    report = run(plan, parts or PARTS)
    click.echo(report.markdown(), nl=False)
    if markdown_file:
        markdown_file.write(report.markdown())
    if json_file:
        json.dump(report.as_dict(), json_file, indent=2)
        json_file.write("\n")
    if plots_folder:
        plots.write(report, plots_folder)
    if report.failed:
        sys.exit(1)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
