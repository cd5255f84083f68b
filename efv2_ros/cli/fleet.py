"""The part of `efv2 replay` that replays many bags."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.progress import TextColumn

from efv2_ros.classify.model import find_model, with_absolute_paths
from efv2_ros.cli.console import (
    INTERRUPTED,
    bar_total,
    download_bar,
    image_bar,
    messages,
    output,
    warn_untrained,
)
from efv2_ros.cli.workers import Where
from efv2_ros.fleet.fleet import Fleet, Progress, Task
from efv2_ros.fleet.results import SUMMARY, Results
from efv2_ros.fleet.sources import Source
from efv2_ros.fleet.tasks import Job
from efv2_ros.replay.run import Run
from efv2_ros.signals import catch_stop
from efv2_ros.workers.workers import Workers

_LISTED = 20
"""Number of bags with problems that are printed; all are in the summary."""


def replay_fleet(
    sources: Sequence[Source],
    job: Job,
    folder: Path,
    where: Where,
    *,
    timings: bool,
    parquet: Path | None,
) -> None:
    """Replay bags, print a summary, and exit: with 1 if a bag had problems.

    Raises:
        Efv2Error: No bag can be replayed, or results cannot be written.
    """
    job = replace(job, request=with_absolute_paths(job.request))
    results = Results(folder, job, timings=timings, parquet=parquet)

    def on_run(run: Run, name: str) -> None:
        if parquet is not None:
            from efv2_ros.replay.parquet import write_parquet

            write_parquet(run, parquet, name)

    bar = image_bar(TextColumn("{task.fields[bags]}"))
    task = bar.add_task("replaying", total=bar_total(None), bags="")

    def on_progress(progress: Progress) -> None:
        total = bar_total(progress.total if progress.counted else None)
        bags = f"{progress.bags} of {len(sources)} bags"
        bar.update(task, completed=progress.images, total=total, bags=bags)

    if not where.cluster:
        job = _prepared(job, where.cores_each())
    workers: Workers[Task] = where.open()
    with workers, catch_stop() as should_stop, bar:
        fleet = Fleet(sources, job, results, on_run=on_run, on_progress=on_progress)
        is_complete = fleet.run(workers, should_stop)
    has_problems = _summarize(sources, results)
    if not is_complete:
        messages.print("Stopped. The same command goes on from here.", style="yellow")
        sys.exit(INTERRUPTED)
    if has_problems:
        sys.exit(1)


def _prepared(job: Job, cores: int) -> Job:
    """Fetch the model once for all processes, and use so many cores in each.

    Raises:
        Efv2Error: The model cannot be used.
    """
    with download_bar() as on_progress:
        found = find_model(job.request, on_progress)
    if found.untrained:
        warn_untrained()
    request = replace(job.request, threads=job.request.threads or cores)
    return replace(job, request=request)


def _summarize(sources: Sequence[Source], results: Results) -> bool:
    """Print what came of the bags; return whether any of them had problems."""
    found = [results.bags[each.name] for each in sources if each.name in results.bags]
    drops: Counter[str] = Counter()
    for each in found:
        drops.update(each.dropped)
    images, dropped = sum(each.images for each in found), sum(drops.values())
    causes = ", ".join(f"{count:,} {cause}" for cause, count in sorted(drops.items()))
    output.print(
        f"{len(found)} of {len(sources)} bags, {images:,} images: {images - dropped:,} "
        f"classified, {dropped:,} dropped{f' ({causes})' if causes else ''}; "
        f"{results.folder / SUMMARY}",
        soft_wrap=True,
    )
    troubled = [each for each in found if each.problems]
    for each in troubled[:_LISTED]:
        line = f"{each.status}: {each.bag}: {'; '.join(each.problems)}"
        messages.print(line, style="red", soft_wrap=True)
    if len(troubled) > _LISTED:
        messages.print(f"... and {len(troubled) - _LISTED} more bags with problems", style="red")
    return bool(troubled)
