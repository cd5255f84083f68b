"""`efv2 report`: an HTML page about a run."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from rich.filesize import decimal

from efv2_ros.bags.errors import BagError
from efv2_ros.cli.console import messages, output
from efv2_ros.errors import Efv2Error
from efv2_ros.replay.run import Run


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    metavar="OUT.html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write the page to.  [default: RESULTS with the suffix .html]",
)
@click.option(
    "--bag",
    "bag_path",
    metavar="BAG",
    type=click.Path(path_type=Path),
    help="The bag that was classified, for thumbnails.  [default: the one RESULTS names, if it "
    "exists]",
)
@click.option(
    "--topic",
    default="",
    help="Topic of the images in BAG; needed if several carry images and RESULTS names none.",
)
def report(results: Path, out: Path | None, bag_path: Path | None, topic: str) -> None:
    """Turn RESULTS into an HTML page: latencies, drops, and which class was seen when.

    RESULTS is a file of efv2 replay --jsonl (with latencies if --timings was given), a bag of
    efv2 replay --out, or a recording of the node's topics. The page needs no other file and no
    network.
    """
    from efv2_ros.replay.results import read_run
    from efv2_ros.report.page import write_report

    run = read_run(results)
    out = out or _beside(results)
    if out.exists() and out.samefile(results):
        raise click.UsageError(f"the page would replace the results {results}")
    named = Path(str(run.info.get("bag") or ""))
    pictures: dict[int, NDArray[np.uint8]] = {}
    if bag_path:
        pictures = _thumbnails(run, bag_path, topic)
    elif named.name and named.exists():
        try:
            pictures = _thumbnails(run, named, topic)
        except Efv2Error as error:  # nobody asked for it
            messages.print(f"no thumbnails: {error}", style="yellow", soft_wrap=True)
    write_report(run, out, pictures)
    thumbnails = f"{len(pictures)} thumbnails" if pictures else "no thumbnails: see --bag"
    output.print(
        f"wrote {out} ({len(run.frames):,} images, {thumbnails}, {decimal(out.stat().st_size)})",
        soft_wrap=True,
    )


def _beside(results: Path) -> Path:
    if not results.name:  # as of `.`
        results = results.resolve()
    return results.with_name(f"{results.name if results.is_dir() else results.stem}.html")


def _thumbnails(run: Run, path: Path, topic: str) -> dict[int, NDArray[np.uint8]]:
    """Read thumbnails of the images that the page shows.

    Raises:
        BagError: The bag cannot be read, or lacks the images.
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
