"""`efv2 replay`: classifies the images of a bag, without ROS."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from efv2_ros.bags.errors import BagError
from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.failures import MACHINE_CAUSES
from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import ModelRequest, ViewOptions
from efv2_ros.cli.console import (
    INTERRUPTED,
    download_bar,
    image_bar,
    is_standard_output,
    latency_table,
    messages,
    open_result,
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
from efv2_ros.cli.workers import Where, worker_options
from efv2_ros.files import check_writable
from efv2_ros.fleet.remote import on_this_machine
from efv2_ros.fleet.sources import find_bags, is_url
from efv2_ros.fleet.tasks import Job
from efv2_ros.replay.golden import Comparison, compare, write_junit
from efv2_ros.replay.run import Run, RunError, read_jsonl, save_jsonl, write_jsonl
from efv2_ros.signals import catch_stop

_LISTED = 10
"""Number of differences that are printed; more are only counted."""


@click.command()
@click.argument("bags", metavar="BAG... | DIR | LIST", nargs=-1, required=True)
@click.option(
    "--topic", default="", help="Topic of the images; needed if several topics carry images."
)
@click.option(
    "--out",
    metavar="BAG",
    type=click.Path(path_type=Path),
    help="Write the results as a bag (mcap), each at its image's stamp.",
)
@click.option(
    "--jsonl",
    metavar="FILE",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Write the results as JSON lines, always the same bytes; - is standard output.",
)
@click.option(
    "--timings", is_flag=True, help="Also write each image's latencies into the JSON lines."
)
@click.option(
    "--parquet",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write the results as Parquet files into this folder, for DuckDB and others.",
)
@click.option(
    "--results",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Replay any number of bags, in several processes; write a file of JSON lines for each, "
    "and a summary, into this folder. The same command goes on after an interruption.",
)
@worker_options(
    workers="Processes that replay bags for --results.  [default: one a core]",
    cluster="Replay the bags for --results on the Dask cluster of this scheduler: "
    "tcp://HOST:8786.",
)
@click.option(
    "--chunk",
    default=500,
    show_default=True,
    type=click.IntRange(1),
    help="Images after which a bag is cut for --results, so that several processes share it.",
)
@click.option(
    "--golden",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Compare with these results of --update-golden; the exit status is 1 if they differ.",
)
@click.option("--update-golden", is_flag=True, help="Write the golden file instead.")
@click.option(
    "--tolerance",
    default=0.001,
    show_default=True,
    type=click.FloatRange(0.0, 1.0),
    help="Largest allowed difference of a score from the golden one.",
)
@click.option(
    "--junit",
    metavar="FILE.xml",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the comparison as JUnit XML.",
)
@table_option("input_range")
@table_option("smoothing")
@table_option("smoothing_time")
@click.option(
    "--frame-id",
    default="camera",
    show_default=True,
    help="frame_id of images without a header (hbm_img_msgs).",
)
@table_option("slots")
@view_options
@model_options
def replay(
    bags: tuple[str, ...],
    topic: str,
    out: Path | None,
    jsonl: Path | None,
    timings: bool,
    parquet: Path | None,
    results: Path | None,
    processes: int | None,
    cluster: str | None,
    chunk: int,
    golden: Path | None,
    update_golden: bool,
    tolerance: float,
    junit: Path | None,
    input_range: Any,
    smoothing: Any,
    smoothing_time: float,
    frame_id: str,
    slots: int,
    **options: Any,
) -> None:
    """Classify every image of BAG; the results are in the order of the stamps.

    BAG is a rosbag2 folder or one of its files: sqlite3 or mcap, compressed or not, with images
    of type Image, CompressedImage or HbmMsg; or the URL of one, such as s3://BUCKET/BAG. It is
    read from disk, without ROS and as fast as possible. From a damaged bag, all readable images
    are classified, and the exit status is 1.

    With --results, any number of bags are replayed side by side: those that are named, those in
    folders, and those in text files with a bag in each line.

    Ctrl-C or SIGTERM ends the replay with the results so far; the exit status is 130.
    """
    if golden is None and (update_golden or junit):
        raise click.UsageError("--update-golden and --junit need --golden FILE")
    if junit and update_golden:
        raise click.UsageError("--junit writes a comparison, and --update-golden makes none")
    single = {"--out": out, "--jsonl": jsonl, "--golden": golden}
    fleet = {"--workers": processes, "--cluster": cluster}
    where = Where(processes, cluster)
    if results and any(single.values()):
        raise click.UsageError(f"{_given(single)}: for one bag, without --results")
    if not results and any(fleet.values()):
        raise click.UsageError(f"{_given(fleet)}: for --results")
    request = replace(split_request(options), slots=slots)
    view = replace(
        split_view(options), input_range=input_range, smoothing=smoothing,
        smoothing_time=smoothing_time,
    )  # fmt: skip
    if parquet:
        from efv2_ros.replay.parquet import require_pyarrow

        require_pyarrow()
    if results:
        from efv2_ros.cli.fleet import replay_fleet

        job = Job(request, view, topic, frame_id, chunk)
        replay_fleet(find_bags(bags), job, results, where, timings=timings, parquet=parquet)
        return
    if len(bags) > 1 or _are_several(bags[0]):
        raise click.UsageError("several bags need --results DIR, for their results")
    bag = bags[0]
    if out and out.exists():
        raise BagError(f"cannot write the bag {out}: it exists already")
    for path in (jsonl, junit, golden if update_golden else None):
        if path is not None and not is_standard_output(path):
            check_writable(path)
    expected = read_jsonl(golden) if golden and not update_golden else None
    run, problems, is_interrupted = _run(bag, topic, request, view, frame_id)

    if out:
        from efv2_ros.replay.results import write_results

        write_results(run, out)
    if jsonl:
        with open_result(jsonl) as file:
            write_jsonl(run, file, timings=timings)
    if parquet:
        from efv2_ros.replay.parquet import write_parquet

        write_parquet(run, parquet, find_bags([bag])[0].name)
    console = messages if is_standard_output(jsonl) else output
    _summarize(run, problems, console)
    failed = bool(problems) or any(cause in MACHINE_CAUSES for cause in run.drops())
    if golden and update_golden:
        if failed:
            raise RunError(f"{golden} was not changed: only a whole run can be golden")
        save_jsonl(run, golden)
        console.print(f"wrote {golden}: {len(run.frames)} images", style="green")
    elif golden and expected:
        comparison = compare(expected, run, tolerance)
        if junit:
            write_junit(comparison, junit, name=f"efv2 replay {bag}", problems=problems)
        _show(comparison, golden, console)
        failed = failed or bool(comparison.differences)
    if is_interrupted:
        sys.exit(INTERRUPTED)
    if failed:
        sys.exit(1)


def _given(options: Mapping[str, Any]) -> str:
    return ", ".join(name for name, value in options.items() if value)


def _are_several(argument: str) -> bool:
    """Whether an argument names bags in a folder or a list, and not one bag."""
    path = Path(argument)
    if is_url(argument):
        return False
    if path.is_dir():
        return [each.location for each in find_bags([argument])] != [argument]
    return path.is_file() and path.suffix == _LIST_SUFFIX


_LIST_SUFFIX = ".txt"


def _run(
    location: str, topic: str, request: ModelRequest, view: ViewOptions, frame_id: str
) -> tuple[Run, list[str], bool]:
    """Return the results, the bag's problems, and whether a signal ended the run."""
    from efv2_ros.bags.bag import Bag
    from efv2_ros.replay.offline import replay

    with on_this_machine(location) as path, Bag(path) as bag:
        images = bag.image_topic(topic)
        with download_bar() as progress:
            model = load_model(request, progress, pipelined=True)
        if model.file.untrained:
            warn_untrained()
        with closing(model), image_bar() as bar, catch_stop() as should_stop:
            task = bar.add_task(images.name, total=images.count)
            run = replay(
                bag, images, Classifier(model, view), slots=request.slots, frame_id=frame_id,
                on_progress=lambda done: bar.update(task, completed=done),
                should_stop=should_stop,
            )  # fmt: skip
        run.info["bag"] = location
        return run, bag.problems, should_stop()


def _summarize(run: Run, problems: list[str], console: Console) -> None:
    stages = run.stages()
    if stages:
        console.print(latency_table(stages))
    drops = run.drops()
    classified = len(run.frames) - sum(drops.values())
    causes = ", ".join(f"{count} {cause}" for cause, count in drops.items())
    console.print(
        f"{len(run.frames)} images of {run.info['topic']}: {classified} classified, "
        f"{sum(drops.values())} dropped{f' ({causes})' if causes else ''}; "
        f"{run.info['model']} on {run.info['runtime']}",
        soft_wrap=True,
    )
    told: set[str] = set()
    for frame in run.frames:
        if frame.dropped and frame.dropped not in told:
            told.add(frame.dropped)
            sentence = f"first dropped for {frame.dropped}: {frame.reason}"
            console.print(sentence, style="yellow", soft_wrap=True)
    for problem in problems:
        messages.print(problem, style="red", soft_wrap=True)


def _show(comparison: Comparison, golden: Path, console: Console) -> None:
    for note in comparison.notes:
        console.print(note, style="yellow", soft_wrap=True)
    differences, count = comparison.differences, len(comparison.keys)
    if not differences:
        console.print(f"the same as {golden}: {count} images, scores within "
                      f"{comparison.tolerance:g}", style="green", soft_wrap=True)  # fmt: skip
        return
    console.print(f"{len(differences)} of {count} images differ from {golden}",
                  style="red", soft_wrap=True)  # fmt: skip
    for key, kind, text in differences[:_LISTED]:
        line = Text.assemble(f"  {key}  ", (kind, "bold"), f"  {text}")
        console.print(line, soft_wrap=True)
    if len(differences) > _LISTED:
        console.print(f"  ... and {len(differences) - _LISTED} more; --junit lists all of them")
