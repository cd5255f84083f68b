"""`efv2 play`: play a bag to running nodes and record what a classifier makes of it."""

from __future__ import annotations

import math
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from efv2_ros.bags.bag import Bag
from efv2_ros.bags.errors import BagError
from efv2_ros.classify.latency import END_TO_END
from efv2_ros.classify.options import NODE
from efv2_ros.cli.console import INTERRUPTED, image_bar, latency_table, messages, output
from efv2_ros.cli.options import ros_is_missing
from efv2_ros.files import check_writable
from efv2_ros.play.options import Played, PlayOptions, PlayProgress
from efv2_ros.replay.results import read_run
from efv2_ros.replay.run import Run, save_jsonl
from efv2_ros.signals import catch_stop

_WORTH_TELLING_S = 0.05
"""Lateness from which on the summary tells of it."""


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
    help="Publish /clock: before each message its time, and the time in between.",
)
@click.option(
    "--clock-rate",
    metavar="HZ",
    default=40.0,
    show_default=True,
    type=click.FloatRange(0.0, 10_000.0, min_open=True),
    help="With --clock: how often /clock is published between messages.",
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
    help="Publish images reliably and lose none, whatever QoS they were recorded with.",
)
@click.option(
    "--wait-for-subscribers/--no-wait-for-subscribers",
    "wait",
    default=True,
    show_default=True,
    help="Wait until somebody subscribes to images.",
)
@click.option(
    "--start-timeout",
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0.0),
    help="How long to wait for subscribers, and for the classifier.",
)
@click.option(
    "--wait-for-results",
    is_flag=True,
    help="Send an image once those before it have a result or were dropped.",
)
@click.option(
    "--in-flight",
    metavar="N",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="With --wait-for-results: how many images may be without a result at once.",
)
@click.option(
    "--classifier",
    metavar="NAME",
    default=NODE,
    show_default=True,
    help="Full name of the classifier.",
)
@click.option(
    "--result-timeout",
    metavar="SECONDS",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0.0, min_open=True),
    help="Give up if the classifier does not answer for this long.",
)
@click.option(
    "--results",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="Record what the classifier publishes: as a bag (mcap), or as JSON lines if OUT ends "
    "in .jsonl.",
)
@click.option(
    "--timings", is_flag=True, help="Write the latencies of each image into the JSON lines too."
)
@click.option(
    "--player",
    default="efv2",
    show_default=True,
    type=click.Choice(["efv2", "ros2"]),
    help="What plays the bag: this program, or `ros2 bag play`, which it runs and records.",
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
    lossless: bool,
    wait: bool,
    start_timeout: float,
    result_timeout: float,
) -> None:
    """Publish a BAG to running nodes, as it was recorded.

    BAG is a rosbag2 folder or one of its files: sqlite3 or mcap, compressed or not. Messages are
    published unchanged, with the QoS that their topics had. If a topic had several publishers,
    its QoS is one that serves all subscribers. Of a damaged bag, all that can be read is played;
    the exit status is 1 then.

    With --wait-for-results or --results, every image is followed until it has a result or was
    dropped. The latency end_to_end is measured by the classifier's clock: with --clock it is no
    finer than --clock-rate, and it is not shown if images are sent as fast as results come.

    SIGINT (Ctrl-C) and SIGTERM end the playing with the results so far; the exit status is 130
    then. If SIGINT is ignored at the start, as it is for `efv2 play ... &` in a script, it stays
    ignored.
    """
    if wait_for_results and player == "ros2":
        raise click.UsageError(
            "ros2 bag play cannot wait for results: leave out --wait-for-results or --player ros2"
        )
    if timings and not (results and results.suffix == ".jsonl"):
        raise click.UsageError("--timings needs --results OUT.jsonl")
    if results and results.exists():
        raise BagError(f"cannot write {results}: it exists already")
    if results and results.suffix == ".jsonl":
        check_writable(results)
    how = PlayOptions(
        topics=[each for each in topics.split(",") if each],
        rate=rate or (math.inf if wait_for_results else 1.0),
        clock_rate_hz=clock_rate if clock else 0.0,
        renamed=dict(renamed),
        lossless=lossless,
        wait_for_subscribers=wait,
        start_timeout_s=start_timeout,
        in_flight=in_flight if wait_for_results else 0,
        classifier=f"/{classifier.removeprefix('/')}",
        result_timeout_s=result_timeout,
        results=results,
        player=player,
    )
    played = _play(bag, how, timings=timings)
    if played.interrupted:
        sys.exit(INTERRUPTED)
    if played.problems:
        sys.exit(1)


def _play(path: Path, options: PlayOptions, *, timings: bool) -> Played:
    """Play a bag, write and print the results, whatever ended the playing."""
    try:
        from efv2_ros.play.session import play
    except ImportError as error:
        raise ros_is_missing(error) from error
    out = options.results
    with tempfile.TemporaryDirectory(prefix="efv2_play_") as folder, Bag(path) as bag:
        recorded = Path(folder, "results") if out and out.suffix == ".jsonl" else out
        with catch_stop(again=signal.SIG_IGN) as should_stop:
            with _progress(options) as on_progress:
                played = play(
                    bag,
                    replace(options, results=recorded),
                    on_notice=_notice,
                    on_progress=on_progress,
                    should_stop=should_stop,
                )
            run = read_run(recorded) if recorded is not None else None
            if run is not None and out is not None and out is not recorded:
                save_jsonl(run, out, timings=timings)
            _summarize(played, run, options)
    return played


@contextmanager
def _progress(options: PlayOptions) -> Iterator[PlayProgress]:
    """Show a bar that appears when the playing begins."""
    with image_bar(unit="messages" if options.player == "efv2" else "results") as bars:

        def on_progress(done: int, total: int) -> None:
            if not bars.tasks:
                bars.add_task("playing", total=total)
            bars.update(bars.tasks[0].id, completed=done)

        yield on_progress


def _notice(text: str) -> None:
    messages.print(text, style="yellow", soft_wrap=True)


def _summarize(played: Played, run: Run | None, options: PlayOptions) -> None:
    stages = run.stages() if run is not None else {}
    if options.clock_rate_hz and math.isinf(options.rate):
        stages.pop(END_TO_END, None)  # measured by a clock that stands still
    if stages:
        output.print(latency_table(stages))
    counts = played.counts
    late = ""
    if played.max_lateness_s >= _WORTH_TELLING_S:
        late = f", up to {played.max_lateness_s:.2f} s behind schedule"
    if played.messages or not played.problems:
        output.print(
            f"{played.messages} messages in {played.duration_s:.2f} s, {played.images} of them "
            f"images{' for the classifier' if counts else ''}{late}",
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
