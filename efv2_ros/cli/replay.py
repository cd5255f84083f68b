"""`efv2 replay`: a bag through the classifier, without a middleware."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import ModelRequest, ViewOptions
from efv2_ros.cli.console import (
    download_bar,
    image_bar,
    latency_table,
    messages,
    output,
    warn_untrained,
)
from efv2_ros.cli.options import (
    model_options,
    split_request,
    split_view,
    table_option,
    view_options,
)
from efv2_ros.messages.typestore import BagError
from efv2_ros.replay.golden import Comparison, compare, write_junit
from efv2_ros.replay.run import Run, RunError, read_jsonl, write_jsonl

_LISTED = 10
"""Differences that are printed; more are only counted."""


@click.command()
@click.argument("bag", type=click.Path(path_type=Path))
@click.option("--topic", default="", help="Topic of the images; not needed if there is only one.")
@click.option(
    "--out",
    metavar="BAG",
    type=click.Path(path_type=Path),
    help="Write the results as a bag (mcap), each at the stamp of its image.",
)
@click.option(
    "--jsonl",
    metavar="FILE",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Write the results as JSON lines, the same bytes each time; - is standard output.",
)
@click.option(
    "--timings", is_flag=True, help="Write each image's latencies into the JSON lines too."
)
@click.option(
    "--golden",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Compare with these results, made by --update-golden; exit status 1 if they differ.",
)
@click.option("--update-golden", is_flag=True, help="Write the golden file instead.")
@click.option(
    "--tolerance",
    default=0.001,
    show_default=True,
    type=click.FloatRange(0.0, 1.0),
    help="By how much a score may differ from the golden one.",
)
@click.option(
    "--junit",
    metavar="FILE.xml",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the comparison as JUnit XML.",
)
@table_option("input_range")
@click.option(
    "--frame-id",
    default="camera",
    show_default=True,
    help="frame_id for images without a header, as hbm_img_msgs'.",
)
@table_option("slots")
@view_options
@model_options
def replay(
    bag: Path,
    topic: str,
    out: Path | None,
    jsonl: Path | None,
    timings: bool,
    golden: Path | None,
    update_golden: bool,
    tolerance: float,
    junit: Path | None,
    input_range: Any,
    frame_id: str,
    slots: int,
    **options: Any,
) -> None:
    """Classify every image of a BAG, in the order of their stamps, and none dropped.

    BAG is a rosbag2 folder or a file of one: sqlite3 or mcap, compressed or not, with images of
    type Image, CompressedImage or HbmMsg. It is read from the disk: neither ROS nor a clock is
    needed. Of a damaged one, what can be read is classified; the exit status is 1 then.
    """
    if golden is None and (update_golden or junit):
        raise click.UsageError("--update-golden and --junit need --golden FILE")
    if junit and update_golden:
        raise click.UsageError("--junit shows a comparison, and --update-golden makes none")
    if out and out.exists():
        raise BagError(f"cannot write the bag {out}: it exists already")
    expected = read_jsonl(golden) if golden and not update_golden else None
    request = replace(split_request(options), slots=slots)
    view = replace(split_view(options), input_range=input_range)
    run, problems = _run(bag, topic, request, view, frame_id)

    if out:
        from efv2_ros.replay.results import write_results

        write_results(run, out)
    if jsonl:
        _write_jsonl(run, jsonl, timings=timings)
    console = messages if jsonl and str(jsonl) == "-" else output
    _summarize(run, problems, console)
    failed = bool(problems) or any(cause in _FAILURES for cause in run.drops())
    if golden and update_golden:
        if failed:
            raise RunError(f"{golden} was left as it is: only a whole run can be golden")
        _write_jsonl(run, golden, timings=False)
        console.print(f"[green]wrote {escape(str(golden))}: {len(run.frames)} images[/green]")
    elif golden and expected:
        comparison = compare(expected, run, tolerance)
        if junit:
            write_junit(comparison, junit, name=f"efv2 replay {bag}", problems=problems)
        _show(comparison, golden, console)
        failed = failed or bool(comparison.differences)
    if failed:
        sys.exit(1)


_FAILURES = ("device", "infer", "internal", "timeout")
"""Causes that are not the image's own fault."""


def _run(
    path: Path, topic: str, request: ModelRequest, view: ViewOptions, frame_id: str
) -> tuple[Run, list[str]]:
    """The results, and what is wrong with the bag."""
    from efv2_ros.bags.bag import Bag
    from efv2_ros.classify.pipeline import spare_slots
    from efv2_ros.replay.offline import replay

    with Bag(path) as bag:
        images = bag.image_topic(topic)
        with download_bar() as progress:
            model = load_model(request, progress, spare_slots=spare_slots(request.slots))
        if model.file.untrained:
            warn_untrained()
        with closing(model), image_bar() as bar:
            task = bar.add_task(images.name, total=images.count)
            run = replay(
                bag, images, Classifier(model, view), slots=request.slots, frame_id=frame_id,
                progress=lambda done: bar.update(task, completed=done),
            )  # fmt: skip
        return run, bag.problems


def _write_jsonl(run: Run, path: Path, *, timings: bool) -> None:
    try:
        with click.open_file(str(path), "w", encoding="utf-8") as file:
            write_jsonl(run, file, timings=timings)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error}") from error


def _summarize(run: Run, problems: list[str], console: Console) -> None:
    stages = run.stages()
    if stages:
        console.print(latency_table(stages))
    drops = run.drops()
    classified = len(run.frames) - sum(drops.values())
    causes = ", ".join(f"{count} {cause}" for cause, count in drops.items())
    console.print(
        f"{len(run.frames)} images of {escape(run.info['topic'])}: {classified} classified, "
        f"{sum(drops.values())} dropped{f' ({causes})' if causes else ''}; "
        f"{run.info['model']} on {run.info['runtime']}",
        soft_wrap=True,
    )
    told: set[str] = set()
    for frame in run.frames:
        if frame.dropped and frame.dropped not in told:
            told.add(frame.dropped)
            sentence = f"first dropped for {frame.dropped}: {escape(frame.reason)}"
            console.print(f"[yellow]{sentence}[/yellow]", soft_wrap=True)
    for problem in problems:
        messages.print(f"[red]{escape(problem)}[/red]", soft_wrap=True)


def _show(comparison: Comparison, golden: Path, console: Console) -> None:
    for note in comparison.notes:
        console.print(f"[yellow]{escape(note)}[/yellow]", soft_wrap=True)
    differences = comparison.differences
    if not differences:
        console.print(f"[green]the same as {escape(str(golden))}: {len(comparison.keys)} images, "
                      f"scores within {comparison.tolerance:g}[/green]")  # fmt: skip
        return
    console.print(f"[red]{len(differences)} of {len(comparison.keys)} images differ from "
                  f"{escape(str(golden))}[/red]")  # fmt: skip
    for key, kind, text in differences[:_LISTED]:
        console.print(f"  {key}  [bold]{kind}[/bold]  {escape(text)}", soft_wrap=True)
    if len(differences) > _LISTED:
        console.print(f"  ... and {len(differences) - _LISTED} more; --junit lists all of them")
