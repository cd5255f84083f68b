"""`efv2 bench`: measure each part of the package beside a baseline in the same run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from efv2_ros.benchmark import plots
from efv2_ros.benchmark.parts import PARTS, BenchOptions, run
from efv2_ros.cli.options import model_options, split_request
from efv2_ros.files import check_writable, open_atomic


class _OutputFile(click.Path):
    """A file to write to; `-` is standard output."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return Path("/dev/stdout") if value == "-" else super().convert(value, param, ctx)


_FILE = _OutputFile(path_type=Path)


@click.command()
@model_options
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(list(PARTS)),
    help="Measure this part; may be given several times. Default: all parts.",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Only show that everything works, in seconds; the figures mean little.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.01, 3600.0),
    help="Duration of each single measurement. Default: what suits the part.",
)
@click.option(
    "--slots",
    multiple=True,
    type=click.IntRange(1, 32),
    help="Slots of the node, given once for each measurement. Default: what suits the part.",
)
@click.option(
    "--json", "json_file", type=_FILE, metavar="FILE", help="Also write the figures as JSON."
)
@click.option(
    "--markdown",
    "markdown_file",
    type=_FILE,
    metavar="FILE",
    help="Also write the tables as Markdown.",
)
@click.option(
    "--plots",
    "plots_folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Also plot the distributions; requires matplotlib.",
)
def bench(
    parts: tuple[str, ...],
    quick: bool,
    seconds: float | None,
    slots: tuple[int, ...],
    json_file: Path | None,
    markdown_file: Path | None,
    plots_folder: Path | None,
    **options: Any,
) -> None:
    """Measure each part beside a baseline in the same run, and print tables in Markdown.

    If a part cannot be measured because ROS or a model is missing, the report says so.
    """
    if plots_folder:
        plots.check()
    for path in filter(None, (json_file, markdown_file)):
        check_writable(path)
    how = BenchOptions(
        split_request(options), quick, seconds, slots, lambda text: click.echo(text, err=True)
    )
    report = run(how, parts or PARTS)
    click.echo(report.markdown(), nl=False)
    if markdown_file:
        with open_atomic(markdown_file) as file:
            file.write(report.markdown())
    if json_file:
        with open_atomic(json_file) as file:
            json.dump(report.as_dict(), file, indent=2)
            file.write("\n")
    if plots_folder:
        plots.write(report, plots_folder)
    if report.failed:
        sys.exit(1)
