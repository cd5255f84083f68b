"""`efv2 quantize`: make a compiled model for the board from a float model, and show what it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from efv2_ros.classify.options import ModelRequest, ViewOptions
from efv2_ros.cli.console import INTERRUPTED, messages, output
from efv2_ros.cli.exploring_options import exploring_options
from efv2_ros.cli.options import FiniteRange, table_option
from efv2_ros.signals import catch_stop
from efv2_ros.toolchain.environment import Stopped, toolchain_python

_REQUEST_NAMES = ("model_size", "catalog_file", "mean", "scale", "labels_file", "nv12_range",
                  "allow_download", "allow_untrained")  # fmt: skip
_VIEW_NAMES = ("fit", "antialias", "roi", "input_range", "max_pixels")


def _list_recipes(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from efv2_ros.quantize.recipe import find_recipe, recipe_files

    table = Table()
    for column in ("recipe", "what it is"):
        table.add_column(column)
    for name in recipe_files():
        table.add_row(name, find_recipe(name).description)
    output.print(table)
    ctx.exit()


def _explain_recipe(ctx: click.Context, param: click.Parameter, text: str | None) -> None:
    if text is None:
        return
    from efv2_ros.quantize.explanation import explain
    from efv2_ros.quantize.recipe import find_recipe

    recipe = find_recipe(text)
    parts = {"": recipe, **recipe.sizes}
    for size, each in parts.items():
        title = f"{recipe.name}, {size}" if size else f"{recipe.name}: {recipe.description}"
        table = Table(title=title, title_justify="left")
        table.add_column("line", overflow="fold")
        table.add_column("what it does", overflow="fold")
        for line, sentence in explain(each):
            table.add_row(line, sentence)
        output.print(table)
    ctx.exit()


_HELP = {
    "model_size": "For MODEL.onnx: the entry of the catalog that describes it, where the file "
    "does not.",
    "mean": "Mean that MODEL.onnx needs subtracted, as 'R,G,B' in 0..255.  [default: from the "
    "catalog, or ImageNet's]",
    "scale": "Factors that MODEL.onnx needs applied after the mean, as 'R,G,B'.  [default: from "
    "the catalog, or ImageNet's]",
    "nv12_range": "Value range of the NV12 images that the compiled model is to take. auto: from "
    "the catalog, or full.",
    "roi": "Part of each image to use, as 'x,y,width,height' in pixels. Empty: all of it.",
    "allow_untrained": "Without a model, quantise the untrained network, to try out everything "
    "else.",
}
"""What some options of the table mean here."""


def _table_options(command: Any) -> Any:
    """Add the options that all commands have."""
    for name in reversed((*_REQUEST_NAMES, *_VIEW_NAMES)):
        texts = {"help": _HELP[name]} if name in _HELP else {}
        command = table_option(name, **texts)(command)
    return command


@click.command()
@click.argument("model", metavar="SIZE|MODEL.onnx")
@click.option(
    "--calib",
    required=True,
    metavar="DIR|BAG",
    type=click.Path(path_type=Path),
    help="Images to calibrate with: a folder at any depth, or a bag. Or float32 arrays that were "
    "made before: RGB in 0..255, not normalised, 3xHxW.",
)
@click.option("--topic", default="", help="Topic of the images of a bag, if it has several.")
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    required=True,
    metavar="NAME|FILE.yaml",
    help="How to quantise. Several make a folder each in --out.",
)
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder to make; an earlier result is replaced.",
)
@click.option(
    "--name",
    default="",
    help="Name of the result in its catalog.  [default: the model's and the recipe's name]",
)
@click.option(
    "--opt",
    "level",
    type=click.Choice(("O0", "O1", "O2", "O3")),
    default="O2",
    show_default=True,
    help="The compiler's effort. O3 takes ten to forty times as long as O2, and gains little.",
)
@click.option(
    "--images",
    "count",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    metavar="N",
    help="Most images to calibrate with, spread over the folder's subfolders or the bag's time.",
)
@click.option(
    "--eval",
    "eval_path",
    metavar="DIR|BAG",
    type=click.Path(path_type=Path),
    help="Images to compare the float model and the quantised one with.  [default: others of "
    "--calib]",
)
@click.option(
    "--eval-images",
    "held_out",
    type=click.IntRange(0, 100_000),
    default=100,
    show_default=True,
    metavar="N",
    help="Most images to compare with; 0 compares nothing.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Seed of the choice of images from a folder.",
)
@click.option(
    "--crop-pct",
    type=FiniteRange(0.0, 1.0, min_open=True),
    metavar="F",
    help="Share of the image's shorter side that --fit crop keeps.  [default: from the catalog]",
)
@_table_options
@click.option(
    "--min-agreement",
    type=FiniteRange(0.0, 1.0),
    metavar="F",
    help="Least share of images with the same best class as the float model, 0 to 1.",
)
@click.option(
    "--max-drop",
    type=FiniteRange(-100.0, 100.0),
    metavar="POINTS",
    help="Most top-1 accuracy lost, in percentage points; the images' classes must be known. With "
    "--search: write the fastest recipe that loses no more, of agreement where no class is known.",
)
@click.option(
    "--max-ms",
    type=FiniteRange(0.0, min_open=True),
    metavar="MS",
    help="Longest estimated latency.",
)
@click.option("--force", is_flag=True, help="Compile although the calibration check has errors.")
@click.option(
    "--allow-unproven", is_flag=True, help="Exit with 0 although the recipe did not take effect."
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Cores to use; several recipes share them.  [default: all]",
)
@click.option("--no-cache", is_flag=True, help="Compile anew, and keep nothing.")
@click.option(
    "--recipes",
    "list_recipes",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_recipes,
    help="List the recipes and exit.",
)
@click.option(
    "--show-recipe",
    metavar="NAME|FILE.yaml",
    is_eager=True,
    expose_value=False,
    callback=_explain_recipe,
    help="Explain a recipe line by line and exit.",
)
@exploring_options
def quantize(
    model: str,
    calib: Path,
    topic: str,
    recipes: tuple[str, ...],
    out: Path,
    name: str,
    eval_path: Path | None,
    jobs: int | None,
    level: Any,
    min_agreement: float | None,
    max_drop: float | None,
    max_ms: float | None,
    force: bool,
    allow_unproven: bool,
    no_cache: bool,
    is_explaining: bool,
    widths: str,
    costs: Any,
    is_searching: bool,
    budget_points: int,
    budget_minutes: float | None,
    budget_ms: float | None,
    state: Path | None,
    processes: int | None,
    cluster: str | None,
    **options: Any,
) -> None:
    """Make a compiled model for the RDK X5 from a float model: SIZE of the catalog, or MODEL.onnx.

    The images go through the node's own preprocessing and are checked before anything is
    compiled. Then the compiler's output is held against the recipe, and the quantised model
    against the float model. --out becomes a folder with the model, its catalog, and a report:

    \b
      efv2 quantize s0 --calib photos --recipe fast --out s0_fast
      efv2 classify cat.jpg --catalog s0_fast/catalog.yaml --size s0_fast --runtime simulator

    \b
      efv2 quantize s0 --calib photos --recipe fast --out why --explain
      efv2 quantize s0 --calib photos --recipe fast --out found --search --budget-ms 2

    --explain and --search make no model. They show what 16 bits in each block gain and cost, and
    which recipes are best for their latency. Both go on where Ctrl-C ended them.

    The exit status is 1 if a limit (--min-agreement, --max-drop, --max-ms) is not met, if the
    recipe did not take effect, and after errors; 130 after Ctrl-C, which leaves nothing
    half-written.
    """  # noqa: D301 - click keeps the lines of a paragraph that starts with \b
    from efv2_ros.cli.quantizing import run
    from efv2_ros.cli.workers import Where
    from efv2_ros.quantize.pipeline import Task
    from efv2_ros.quantize.prepare import Sources, find_float_model
    from efv2_ros.quantize.recipe import find_recipe
    from efv2_ros.quantize.report import Limits
    from efv2_ros.quantize.result import result_name

    chosen = [find_recipe(text) for text in recipes]
    if len({each.name for each in chosen}) < len(chosen):
        raise click.UsageError("two recipes have the same name")
    if name and len(chosen) > 1:
        raise click.UsageError("--name is for one recipe")
    if name and name != result_name(name):
        raise click.UsageError("--name takes letters, digits, '_', '.' and '-'")
    if is_explaining and is_searching:
        raise click.UsageError("--explain and --search are two commands")
    if is_explaining and len(chosen) > 1:
        raise click.UsageError("--explain is for one recipe")
    where = Where(processes, cluster)
    if where.is_given and not (is_explaining or is_searching):
        raise click.UsageError("--workers and --cluster are for --explain and --search")
    cores = jobs or len(os.sched_getaffinity(0))
    toolchain_python()
    request = ModelRequest(**{each: options.pop(each) for each in _REQUEST_NAMES})
    view = ViewOptions(**{each: options.pop(each) for each in _VIEW_NAMES})
    sources = Sources(find_float_model(model, request), view, calib, topic, eval_path, **options)

    def make(should_stop: Callable[[], bool]) -> bool:
        limits = Limits(min_agreement, max_drop, max_ms)
        task = Task(chosen, out, name, level, cores, limits, use_cache=not no_cache)
        task.check_places()
        return run(
            sources, task, force=force, allow_unproven=allow_unproven, should_stop=should_stop
        )

    def explore(should_stop: Callable[[], bool]) -> bool:
        from efv2_ros.cli.exploring import Exploration, explain, find
        from efv2_ros.quantize.search import Budget

        exploration = Exploration(chosen, out, level, cores, state, where)
        exploration.check()
        if is_explaining:
            explain(
                sources, exploration, widths=widths, costs=costs, force=force,
                should_stop=should_stop,
            )  # fmt: skip
        else:
            seconds = None if budget_minutes is None else 60 * budget_minutes
            find(
                sources, exploration, Budget(budget_points, seconds), seed=sources.seed,
                budget_ms=budget_ms, max_drop=None if max_drop is None else max_drop / 100,
                force=force, should_stop=should_stop,
            )  # fmt: skip
        return True

    work = explore if is_explaining or is_searching else make
    with catch_stop() as should_stop:
        try:
            is_fine = work(should_stop)
        except Stopped:
            messages.print("interrupted")
            sys.exit(INTERRUPTED)
    if not is_fine:
        sys.exit(1)
