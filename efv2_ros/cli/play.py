"""`efv2 play`: publishes a bag to running nodes and records the classifier's results."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from efv2_ros.bags.errors import BagError
from efv2_ros.classify.latency import END_TO_END
from efv2_ros.cli.console import INTERRUPTED, image_bar, latency_table, messages, output
from efv2_ros.cli.options import ros_is_missing
from efv2_ros.replay.results import NODE, read_run
from efv2_ros.replay.run import Run, save_jsonl

if TYPE_CHECKING:
    from efv2_ros.play.session import Played, PlayOptions

_LATE = 0.05
"""Seconds behind schedule that are worth a word."""


class _Remapping(click.ParamType):  # type: ignore[type-arg]
    name = "OLD:=NEW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        old, separator, new = str(value).partition(":=")
        if not (old and separator and new):
            self.fail(f"'{value}' is not of the form {self.name}", param, ctx)
        return old, new


@click.command()
@click.argument("bag", type=click.Path(path_type=Path))
@click.option("--topics", default="", metavar="A,B,...", help="Play these topics only.")
@click.option(
    "--rate",
    metavar="R",
    type=click.FloatRange(0.0, min_open=True),
    show_default="1; as fast as the results come, with --wait-for-results",
    help="Playback speed; 2 is twice real time.",
)
@click.option(
    "--clock/--no-clock",
    default=False,
    show_default=True,
    help="Publish /clock: the time of each message before it, and times between messages.",
)
@click.option(
    "--clock-rate",
    metavar="HZ",
    default=40.0,
    show_default=True,
    type=click.FloatRange(0.0, 10_000.0, min_open=True),
    help="Rate at which /clock is published between messages.",
)
@click.option(
    "--remap",
    "renamed",
    multiple=True,
    type=_Remapping(),
    help="Publish a topic under another name; may be given several times.",
)
@click.option(
    "--reliable",
    "lossless",
    is_flag=True,
    help="Publish images with reliable QoS, so that none is lost, whatever was recorded.",
)
@click.option(
    "--wait-for-subscribers/--no-wait-for-subscribers",
    "wait",
    default=True,
    show_default=True,
    help="Start only when a node subscribes to the images.",
)
@click.option(
    "--start-timeout",
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0.0),
    help="How long to wait for subscribers and for the classifier.",
)
@click.option(
    "--wait-for-results",
    is_flag=True,
    help="Send each image only when the previous ones have a result or were dropped.",
)
@click.option(
    "--in-flight",
    metavar="N",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="With --wait-for-results: number of images that may wait for a result at once.",
)
@click.option(
    "--classifier",
    metavar="NAME",
    default=NODE,
    show_default=True,
    help="Full name of the classifier node.",
)
@click.option(
    "--result-timeout",
    metavar="SECONDS",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0.0, min_open=True),
    help="Give up when the classifier is silent for this long.",
)
@click.option(
    "--results",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="Record the classifier's results as a bag (mcap), or as JSON lines: OUT.jsonl.",
)
@click.option(
    "--timings", is_flag=True, help="Also write each image's latencies into the JSON lines."
)
@click.option(
    "--player",
    default="efv2",
    show_default=True,
    type=click.Choice(["efv2", "ros2"]),
    help="Program that plays the bag; ros2 is `ros2 bag play`.",
)
def play(
    bag: Path,
    topics: str,
    rate: float | None,
    clock: bool,
    clock_rate: float,
    renamed: tuple[tuple[str, str], ...],
    wait_for_results: bool,
    in_flight: int,
    classifier: str,
    results: Path | None,
    timings: bool,
    player: Any,
    **options: Any,
) -> None:
    """Publish a BAG to running nodes, as it was recorded.

    BAG is a rosbag2 folder or one of its files: sqlite3 or mcap, compressed or not. Messages are
    published unchanged, with the QoS that their topics had; where several publishers differed,
    with one that suits all subscribers. From a damaged bag, all readable messages are played, and
    the exit status is 1.

    With --wait-for-results or --results, the command waits for the last image's result. The
    latency end_to_end is measured by the classifier's clock: under --clock its resolution is that
    of --clock-rate, and with --wait-for-results without --rate it is left out.

    Ctrl-C or SIGTERM ends the playing with the results so far; the exit status is 130.
    """
    if wait_for_results and player == "ros2":
        raise click.UsageError("ros2 bag play cannot wait for results: leave one of them out")
    if timings and not (results and results.suffix == ".jsonl"):
        raise click.UsageError("--timings needs --results OUT.jsonl")
    if results and results.exists():
        raise BagError(f"cannot write {results}: it exists already")
    try:
        from efv2_ros.play.session import PlayOptions
    except ImportError as error:
        raise ros_is_missing(error) from error
    how = PlayOptions(
        topics=[each for each in topics.split(",") if each],
        rate=rate or (math.inf if wait_for_results else 1.0),
        clock_rate=clock_rate if clock else 0.0,
        renamed=dict(renamed),
        in_flight=in_flight if wait_for_results else 0,
        classifier=f"/{classifier.removeprefix('/')}",
        results=results,
        player=player,
        **options,
    )
    try:
        played, run = _play(bag, how, timings=timings)
    except KeyboardInterrupt:  # before anything was played
        sys.exit(INTERRUPTED)
    _summarize(played, run, how)
    if played.interrupted:
        sys.exit(INTERRUPTED)
    if played.problems:
        sys.exit(1)


def _play(bag: Path, options: PlayOptions, *, timings: bool) -> tuple[Played, Run | None]:
    """What came of it, and the results where they are recorded."""
    from efv2_ros.play import live

    out = options.results
    unit = "messages" if options.player == "efv2" else "results"
    with tempfile.TemporaryDirectory(prefix="efv2_play_") as folder, image_bar(unit=unit) as bars:
        recorded = Path(folder, "results") if out and out.suffix == ".jsonl" else out

        def bar(total: int) -> Callable[[int], None]:
            task = bars.add_task("playing", total=total)
            return lambda done: bars.update(task, completed=done)

        def say(text: str) -> None:
            messages.print(text, style="yellow", soft_wrap=True)

        played = live.play(bag, replace(options, results=recorded), say=say, bar=bar)
        if out is None or recorded is None:
            return played, None
        run = read_run(recorded)
        if out is not recorded:
            save_jsonl(run, out, timings=timings)
        return played, run


def _summarize(played: Played, run: Run | None, options: PlayOptions) -> None:
    stages = run.stages() if run is not None else {}
    if options.clock_rate and math.isinf(options.rate):
        stages.pop(END_TO_END, None)  # by a clock that stands still
    if stages:
        output.print(latency_table(stages))
    counts = played.counts
    late = f", up to {played.behind:.2f} s behind schedule" if played.behind >= _LATE else ""
    if played.messages or not played.problems:
        output.print(
            f"{played.messages} messages in {played.seconds:.2f} s, {played.images} of them images"
            f"{' for the classifier' if counts else ''}{late}",
            soft_wrap=True,
        )
    if counts and (counts.received or not played.problems):
        causes = ", ".join(f"{count} {cause}" for cause, count in sorted(counts.drops.items()))
        lost = played.images - counts.received
        output.print(
            f"{options.classifier}: {counts.classified} classified, "
            f"{counts.dropped} dropped{f' ({causes})' if causes else ''}"
            f"{f', {lost} never arrived' if lost > 0 else ''}",
            soft_wrap=True,
        )
    for problem in played.problems:
        messages.print(problem, style="red", soft_wrap=True)
