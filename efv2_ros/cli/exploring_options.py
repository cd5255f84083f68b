"""The options of `efv2 quantize --explain` and `--search`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from efv2_ros.cli.options import FiniteRange
from efv2_ros.cli.workers import worker_options


def exploring_options(command: Any) -> Any:
    """Add the options of `--explain` and `--search`."""
    options = (
        click.option(
            "--explain",
            "is_explaining",
            is_flag=True,
            help="Make no model: measure what the width of each block does to the answers, beside "
            "the milliseconds that 16 bits there cost.",
        ),
        click.option(
            "--explain-in",
            "widths",
            type=click.Choice(("int8", "int16", "both")),
            default="int8",
            show_default=True,
            help="For --explain: the width of the other blocks. In int8 the block alone has 16 "
            "bits; in int16 it alone has 8, which takes three times as long.",
        ),
        click.option(
            "--costs",
            type=click.Choice(("none", "shared", "compiled")),
            default="shared",
            show_default=True,
            help="For --explain: where milliseconds come from. shared compiles twice, compiled "
            "once for each block.",
        ),
        click.option(
            "--search",
            "is_searching",
            is_flag=True,
            help="Make no model: search for recipes on the front of latency and fidelity, from "
            "those of --recipe.",
        ),
        click.option(
            "--budget-points",
            type=click.IntRange(1, 100_000),
            default=60,
            show_default=True,
            metavar="N",
            help="For --search: most recipes to try.",
        ),
        click.option(
            "--budget-minutes",
            type=FiniteRange(0.0, min_open=True),
            metavar="MINUTES",
            help="For --search: longest time of this run; the same command goes on.",
        ),
        click.option(
            "--budget-ms",
            type=FiniteRange(0.0, min_open=True),
            metavar="MS",
            help="For --search: write the recipe that keeps most in at most this latency, as "
            "chosen.yaml.",
        ),
        click.option(
            "--state",
            metavar="DIR",
            type=click.Path(path_type=Path, file_okay=False),
            help="For --explain and --search: folder with a file for each recipe tried.  "
            "[default: the cache]",
        ),
        worker_options(
            workers="For --explain and --search: try recipes in so many processes of this "
            "machine, which share its cores.  [default: in this one]",
            cluster="For --explain and --search: try recipes on the Dask cluster of this "
            "scheduler: tcp://HOST:8786. Each worker needs the toolchain, and the model and the "
            "images at the same places.",
        ),
    )
    for each in reversed(options):
        command = each(command)
    return command
