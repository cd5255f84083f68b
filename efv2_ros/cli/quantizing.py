"""The work of `efv2 quantize`, and what it prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from efv2_ros.cli.console import download_bar, image_bar, messages, output, warn_untrained
from efv2_ros.evaluation.classes import Classes
from efv2_ros.evaluation.statistics import scipy_stats
from efv2_ros.quantize.check import Remark, check_images, errors
from efv2_ros.quantize.errors import QuantizeError
from efv2_ros.quantize.page import figures
from efv2_ros.quantize.pipeline import Made, Task, check_limits, quantize_all
from efv2_ros.quantize.prepare import FloatModel, Inputs, Sources, open_float_model
from efv2_ros.quantize.proof import failed
from efv2_ros.quantize.report import verdicts

_STYLES = {"error": "red", "warning": "yellow", "note": "dim"}
_STATES = {True: ("holds", "green"), False: ("does not hold", "red"), None: ("told", "dim")}


def run(
    sources: Sources,
    task: Task,
    *,
    force: bool,
    allow_unproven: bool,
    should_stop: Callable[[], bool],
) -> bool:
    """Do the work and print what came of it.

    Args:
        sources: The model and the images.
        task: What to make of them.
        force: Whether to compile with images that the check refuses.
        allow_unproven: Whether a recipe may be without effect.
        should_stop: Polled; ends the work.

    Returns:
        Whether all is as it was wanted.

    Raises:
        Efv2Error: It cannot be done.
    """
    with open_inputs(sources, force=force, should_stop=should_stop) as (inputs, remarks):
        check_limits(inputs, task.limits)
        is_fine = True
        for made in _made(inputs, remarks, task, should_stop):
            is_proven = allow_unproven or not failed(made.outcome.claims)
            is_kept = all(each.holds for each in verdicts(made.outcome))
            is_fine = is_fine and is_proven and is_kept
        return is_fine


@contextmanager
def open_inputs(
    sources: Sources, *, force: bool, should_stop: Callable[[], bool]
) -> Iterator[tuple[Inputs, list[Remark]]]:
    """Load the model, read and check the images, and print what is remarkable about them.

    Args:
        sources: The model and the images.
        force: Whether to go on with images that the check refuses.
        should_stop: Polled; ends the work.

    Yields:
        The model with the images, and the remarks of the check.

    Raises:
        Efv2Error: They cannot be used.
    """
    if sources.held_out:
        scipy_stats()  # which comparing needs, after the compiler's minutes
    with (
        download_bar() as on_download,
        open_float_model(sources.request, sources.crop_pct, on_download, should_stop) as source,
    ):
        if source.model.file.untrained:
            warn_untrained()
        for note in source.notes:
            _print("warning", note)
        inputs = _read(sources, source, should_stop)
        remarks = check_images(inputs.images, source.model.image, Classes.of(source.model))
        for each in remarks:
            _print(each.level, each.text)
        if errors(remarks) and not (force and inputs.images.calibration):
            hint = "; --force compiles nevertheless" if inputs.images.calibration else ""
            raise QuantizeError(f"the calibration images cannot be used, see above{hint}")
        yield inputs, remarks


def _read(sources: Sources, source: FloatModel, should_stop: Callable[[], bool]) -> Inputs:
    with image_bar() as bar:
        task = bar.add_task("reading", total=None)
        return sources.read(
            source,
            lambda done, total: bar.update(task, completed=done, total=total),
            should_stop,
        )


def _made(
    inputs: Inputs,
    remarks: Sequence[Remark],
    task: Task,
    should_stop: Callable[[], bool],
) -> list[Made]:
    """Make all results, with a bar for each recipe, and print them as they come."""
    made: list[Made] = []
    with Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(),
        console=messages, disable=not messages.is_terminal,
    ) as progress:  # fmt: skip
        bars = {each.name: progress.add_task(each.name, total=1.0) for each in task.recipes}

        def on_progress(recipe: str, step: str, share: float) -> None:
            text = f"{recipe}: {step}"
            progress.update(bars[recipe], completed=share, description=text)

        for each in quantize_all(
            inputs, remarks, task, on_progress=on_progress, should_stop=should_stop
        ):
            _show(each)
            made.append(each)
    return made


def _show(made: Made) -> None:
    """Print a result."""
    outcome = made.outcome
    table = Table(title=outcome.name, title_justify="left", show_header=False)
    for name, value, note in figures(made.report):
        table.add_row(name, value, note)
    output.print(table)
    for claim in outcome.claims:
        state, style = _STATES[claim.holds]
        output.print(Text.assemble((f"{state:>14}  ", style), claim.text), soft_wrap=True)
    for verdict in verdicts(outcome):
        state, style = ("met", "green") if verdict.holds else ("not met", "red")
        output.print(Text.assemble((f"{state:>14}  ", style), verdict.text), soft_wrap=True)
    cached = ", compiled before" if outcome.built.cached else ""
    output.print(f"wrote {made.folder}: see report.html{cached}", soft_wrap=True)


def _print(level: str, text: str) -> None:
    line = Text.assemble((f"{level}: ", _STYLES[level]), text)
    messages.print(line, soft_wrap=True)
