"""`efv2 report`: turn a run into an HTML page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from rich.filesize import decimal

from efv2_ros.bags.errors import BagError
from efv2_ros.cli.console import messages, output
from efv2_ros.replay.run import Run


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    metavar="OUT.html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the page.  [default: RESULTS with the suffix .html]",
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
def report(results: Path, out: Path | None, bag_path: Path | None, topic: str) -> None:
    """Turn RESULTS into one HTML page with latency, dropped images, and classes over time.

    RESULTS is what efv2 replay wrote with --jsonl (latencies only with --timings) or --out, or a
    recording of the node's topics. The page needs no other file and no network.
    """
    from efv2_ros.replay.results import read_run
    from efv2_ros.report.page import write_report

    out = out or _beside(results)
    _check_out(out, [results, *filter(None, [bag_path])])
    run = read_run(results)
    named = Path(str(run.info.get("bag") or ""))
    pictures: dict[int, NDArray[np.uint8]] = {}
    if bag_path:
        pictures = _thumbnails(run, bag_path, topic)
    elif named.name and os.path.exists(named):  # noqa: PTH110 - any name, even one too long
        _check_out(out, [named])
        try:
            pictures = _thumbnails(run, named, topic)
        except BagError as error:  # nobody asked for it
            messages.print(f"no thumbnails: {error}", style="yellow", soft_wrap=True)
    write_report(run, out, pictures)
    thumbnails = f"{len(pictures)} thumbnails" if pictures else "no thumbnails: see --bag"
    output.print(
        f"wrote {out} ({len(run.frames):,} images, {thumbnails}, {decimal(out.stat().st_size)})",
        soft_wrap=True,
    )


def _beside(results: Path) -> Path:
    if results.name in ("", ".."):
        results = results.resolve()
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


def _thumbnails(run: Run, path: Path, topic: str) -> dict[int, NDArray[np.uint8]]:
    """Read the images that the page would like to show from a bag.

    Raises:
        BagError: The bag cannot be read, or it does not hold the images.
    """
    from efv2_ros.bags.bag import Bag
    from efv2_ros.report.thumbnails import find_thumbnails, wanted_thumbnails

    wanted = wanted_thumbnails(run)
    with messages.status(f"reading {path}"), Bag(path) as bag:
        images = bag.image_topic(topic or str(run.info.get("topic") or ""))
        pictures = find_thumbnails(run, wanted, bag.images(images))
    for problem in bag.problems:
        messages.print(problem, style="red", soft_wrap=True)
    if wanted and not pictures:
        raise BagError(f"{path} holds none of the images of the run")
    return pictures
