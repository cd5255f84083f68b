"""`efv2 report`: turn a run into an HTML page."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from numpy.typing import NDArray
from rich.filesize import decimal

from efv2_ros.bags.errors import BagError
from efv2_ros.cli.console import image_bar, messages, output
from efv2_ros.errors import Efv2Error
from efv2_ros.replay.run import Run
from efv2_ros.report.sources import INDEX, Problem, find_runs, is_folder_of_runs

if TYPE_CHECKING:
    from efv2_ros.report.disagreement import Example
    from efv2_ros.report.thumbnails import ImageKey


@click.command()
@click.argument("results", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "-o",
    "--out",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="File of the page, or folder of the pages of many runs.  [default: RESULTS with the "
    "suffix .html; of many runs, the first RESULTS with the ending _report]",
)
@click.option(
    "--bag",
    "bag_path",
    metavar="BAG",
    type=click.Path(path_type=Path),
    help="The bag that was classified, for thumbnails.  [default: the bag that RESULTS names, if "
    "it exists]",
)
@click.option(
    "--topic",
    default="",
    help="Topic of the images in BAG; only needed if BAG has several and RESULTS names none.",
)
@click.option("--no-thumbnails", is_flag=True, help="Read no bag.")
def report(
    results: tuple[Path, ...],
    out: Path | None,
    bag_path: Path | None,
    topic: str,
    no_thumbnails: bool,
) -> None:
    """Turn RESULTS into one HTML page with latency, dropped images, and classes over time.

    RESULTS is what efv2 replay wrote with --jsonl (latencies only with --timings) or --out, or a
    recording of the node's topics. The page needs no other file and no network.

    Several RESULTS, or a folder of runs as efv2 replay --results writes it, become a folder: a
    page of all runs, OUT/index.html, with the worst bags first and what models disagree about,
    and a page of each run. The exit status is 1 if one of the runs cannot be read.
    """
    if bag_path and no_thumbnails:
        raise click.UsageError("--no-thumbnails reads no bag, and --bag names one")
    if len(results) == 1 and not is_folder_of_runs(results[0]):
        _report_run(results[0], out, bag_path, topic, not no_thumbnails)
        return
    if bag_path or topic:
        raise click.UsageError("--bag and --topic are for a single run")
    if not _report_runs(results, out or _folder_beside(results[0]), not no_thumbnails):
        sys.exit(1)


def _report_run(
    results: Path, out: Path | None, bag_path: Path | None, topic: str, with_thumbnails: bool
) -> None:
    from efv2_ros.replay.results import read_run
    from efv2_ros.report.page import write_report

    out = out or _beside(results)
    if out.is_dir():
        raise click.UsageError(f"the page of a run is a file, and {out} is a folder")
    _check_out(out, [results, *filter(None, [bag_path])])
    run = read_run(results)
    pictures: dict[int, NDArray[np.uint8]] = {}
    if bag_path:
        with messages.status(f"reading {bag_path}"):
            pictures = _thumbnails(run, bag_path, topic)
    elif with_thumbnails and (named := _named_bag(run.info.get("bag"))):
        _check_out(out, [named])
        with messages.status(f"reading {named}"):
            pictures = _thumbnails_if_any(run, named, topic)
    write_report(run, out, pictures)
    thumbnails = f"{len(pictures)} thumbnails" if pictures else "no thumbnails: see --bag"
    output.print(
        f"wrote {out} ({len(run.frames):,} images, {thumbnails}, {decimal(out.stat().st_size)})",
        soft_wrap=True,
    )


def _report_runs(results: Sequence[Path], out: Path, with_thumbnails: bool) -> bool:
    """Write the pages of many runs; return whether all of them can be read."""
    from efv2_ros.replay.results import read_run
    from efv2_ros.report.disagreement import compare_models
    from efv2_ros.report.fleet_page import write_fleet_page
    from efv2_ros.report.page import write_report
    from efv2_ros.report.summary import summarize_run

    sources = find_runs(results)
    inputs = [*results, *(each.path for each in sources.runs)]
    for name in (INDEX, *(each.page for each in sources.runs)):
        _check_out(out / name, inputs)
    out.mkdir(parents=True, exist_ok=True)
    summaries = []
    unreadable = list(sources.unreadable)
    with image_bar(unit="runs") as bar:
        for source in bar.track(sources.runs, description="pages"):
            try:
                run = read_run(source.path)
            except Efv2Error as error:
                unreadable.append(Problem(source.name, str(error)))
                continue
            bag = _named_bag(run.info.get("bag")) if with_thumbnails else None
            pictures = _thumbnails_if_any(run, bag, "") if bag else {}
            write_report(run, out / source.page, pictures)
            summaries.append(summarize_run(run, source))
    for problem in unreadable:
        messages.print(problem.reason, style="red", soft_wrap=True)
    with messages.status("comparing the models"):
        disagreements = compare_models(summaries, lambda source: read_run(source.path))
        examples = [example for each in disagreements for example in each.examples]
        write_fleet_page(
            out / INDEX, _title(results), summaries, [*unreadable, *sources.failed],
            disagreements, _example_pictures(examples) if with_thumbnails else {},
        )  # fmt: skip
    images = sum(each.images for each in summaries)
    output.print(f"wrote {out / INDEX} ({len(summaries):,} runs, {images:,} images)",
                 soft_wrap=True)  # fmt: skip
    return not unreadable


def _title(results: Sequence[Path]) -> str:
    """Name at most three RESULTS."""
    names = [_named(each).name for each in results[:3]]
    return ", ".join(names) + (f" and {len(results) - 3} more" if len(results) > 3 else "")


def _named(path: Path) -> Path:
    """Resolve `.` and `..`, which have no name of their own."""
    return path.resolve() if path.name in ("", "..") else path


def _folder_beside(results: Path) -> Path:
    results = _named(results)
    return results.with_name(f"{results.name if results.is_dir() else results.stem}_report")


def _beside(results: Path) -> Path:
    results = _named(results)
    return results.with_name(f"{results.name if results.is_dir() else results.stem}.html")


def _check_out(out: Path, inputs: Sequence[Path]) -> None:
    """Refuse to replace what the page is made from; in a bag's folder, pages may be replaced."""
    if not out.exists():
        return
    for each in inputs:
        files = [each]
        if each.is_dir():
            files = [file for file in each.iterdir() if file.suffix != ".html"]
        if any(file.exists() and out.samefile(file) for file in files):
            raise click.UsageError(f"the page would replace {out}, which it is made from")


def _named_bag(name: object) -> Path | None:
    """Return the bag that a run names, if it is on this machine."""
    path = Path(str(name or ""))
    return path if path.name and os.path.exists(path) else None  # noqa: PTH110 - too long a name


def _thumbnails_if_any(run: Run, path: Path, topic: str) -> dict[int, NDArray[np.uint8]]:
    """Read the images from a bag that nobody asked for, so that it may be unreadable."""
    try:
        return _thumbnails(run, path, topic)
    except BagError as error:
        messages.print(f"no thumbnails: {error}", style="yellow", soft_wrap=True)
        return {}


def _thumbnails(run: Run, path: Path, topic: str) -> dict[int, NDArray[np.uint8]]:
    """Read the images that the page would like to show from a bag.

    Raises:
        BagError: The bag cannot be read, or it does not hold the images.
    """
    from efv2_ros.bags.bag import Bag
    from efv2_ros.report.thumbnails import find_thumbnails, wanted_thumbnails

    wanted = wanted_thumbnails(run)
    with Bag(path) as bag:
        images = bag.image_topic(topic or str(run.info.get("topic") or ""))
        pictures = find_thumbnails(run, wanted, bag.images(images))
    for problem in bag.problems:
        messages.print(problem, style="red", soft_wrap=True)
    if wanted and not pictures:
        raise BagError(f"{path} holds none of the images of the run")
    return pictures


def _example_pictures(examples: Sequence[Example]) -> dict[Example, NDArray[np.uint8]]:
    """Read the images that models disagree about from their bags, as far as that is possible."""
    from efv2_ros.bags.bag import Bag
    from efv2_ros.report.thumbnails import find_images

    by_bag: dict[tuple[Path, str], dict[ImageKey, list[Example]]] = {}
    for each in examples:
        if path := _named_bag(each.summary.bag):
            wanted = by_bag.setdefault((path, each.summary.topic), {})
            wanted.setdefault(each.key, []).append(each)
    found: dict[Example, NDArray[np.uint8]] = {}
    for (path, topic), wanted in by_bag.items():
        with suppress(BagError), Bag(path) as bag:  # its own page has said what is wrong with it
            pictures = find_images(wanted, bag.images(bag.image_topic(topic)))
            for key, picture in pictures.items():
                found |= dict.fromkeys(wanted[key], picture)
    return {each: found[each] for each in examples if each in found}
