"""`efv2 bench`: benchmarks of each part against a baseline in the same run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import IO, Any

import click

from efv2_ros.benchmark import plots
from efv2_ros.benchmark.parts import PARTS, Plan, run
from efv2_ros.cli.options import model_options, split_request

_WRITTEN = click.File("w", encoding="utf-8", lazy=False)  # said at once if it cannot be


@click.command()
@model_options
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(list(PARTS)),
    help="Measure this part only; may be given several times.",
)
@click.option("--quick", is_flag=True, help="Only check that all works: figures mean little.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.01, 3600.0),
    help="Duration of each measurement, instead of the part's own.",
)
@click.option(
    "--slots",
    multiple=True,
    type=click.IntRange(1, 32),
    help="Slots of the node; give it once per measurement, instead of the part's own.",
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
    help="Also draw the distributions; needs matplotlib.",
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

    For a part that cannot run here, for want of ROS or a model, the reason is printed instead.
    """
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
