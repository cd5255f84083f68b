"""Printing of all commands: results to standard output, everything else to standard error."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.status import Status
from rich.table import Table
from rich.text import Text

from efv2_ros.classify.latency import Percentiles
from efv2_ros.files import open_atomic
from efv2_ros.findings import Finding


class PlainConsole(Console):
    """A console that prints every text as it is.

    Labels and paths hold square brackets, which rich would take for markup. Styles are given by
    `style=` or by `Text` instead.

    Args:
        stderr: Print to standard error instead of standard output.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def status(self, status: Any, **options: Any) -> Status:
        """Show a status line; rich would read markup in it whatever the console's settings."""
        return super().status(Text(status) if isinstance(status, str) else status, **options)


output = PlainConsole()
messages = PlainConsole(stderr=True)

INTERRUPTED = 128 + signal.SIGINT
"""Exit status of a command that Ctrl-C or SIGTERM ended."""


def is_standard_output(path: Path | None) -> bool:
    """Whether an option that takes a file was given `-`."""
    return path is not None and str(path) == "-"


@contextmanager
def open_result(path: Path) -> Iterator[IO[str]]:
    """Open a result file, which is replaced as a whole at the end; `-` is standard output.

    Raises:
        FileWriteError: The file cannot be written.
    """
    if is_standard_output(path):
        with click.open_file("-", "w", encoding="utf-8") as file:
            yield file
        return
    with open_atomic(path) as file:
        yield file


def bar_total(number: int | None) -> Any:
    """Total of a progress bar's task; None, if unknown, needs rich 12.3 and is 0 before."""
    major, minor = map(int, version("rich").split(".")[:2])
    return 0 if number is None and (major, minor) < (12, 3) else number


class download_bar:
    """A progress bar that appears with the first byte of a download."""

    def __enter__(self) -> Callable[[int, int | None], None]:
        self._bar = Progress(
            TextColumn("downloading"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
            TimeRemainingColumn(), console=messages,
        )  # fmt: skip
        self._task: Any = None
        return self._update

    def __exit__(self, *_: object) -> None:
        if self._task is not None:  # one that was not shown would print an empty line
            self._bar.stop()

    def _update(self, done: int, total: int | None) -> None:
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task("download", total=bar_total(total))
        self._bar.update(self._task, completed=done, total=bar_total(total))


class _Counted(ProgressColumn):
    """`12 of 300 images`, or `12 images` where the total is not known.

    Ubuntu 22.04's rich 11 has no such column.
    """

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        total = f" of {task.total:,.0f}" if task.total else ""
        return Text(f"{task.completed:,.0f}{total} {self._unit}")


def image_bar(*more: ProgressColumn, unit: str = "images") -> Progress:
    """Make a progress bar that counts images and estimates the time left.

    Args:
        *more: Columns to add at its end.
        unit: What is counted, if not images.
    """
    return Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), _Counted(unit),
        TimeRemainingColumn(), *more, console=messages, disable=not messages.is_terminal,
    )  # fmt: skip


def latency_table(stages: Mapping[str, Percentiles]) -> Table:
    """Make a table of each stage's latency in milliseconds."""
    table = Table(title="latency (ms)", title_justify="left")
    table.add_column("stage")
    for column in Percentiles._fields:
        table.add_column(column, justify="right")
    for stage, latency in stages.items():
        table.add_row(stage.replace("_", " "), *(f"{figure:.2f}" for figure in latency))
    return table


def findings_table(findings: Iterable[Finding]) -> Table:
    """Make a table of what a `doctor` command found, each with what to do about it."""
    marks = {"ok": ("ok", "green"), "missing": ("missing", "red"), "info": ("-", "blue")}
    table = Table(show_header=False, box=None)
    for overflow in ("ellipsis", "ellipsis", "fold"):
        table.add_column(overflow=overflow)  # type: ignore[arg-type]
    for finding in findings:
        table.add_row(Text(*marks[finding.verdict]), finding.subject, finding.detail)
        if finding.fix:
            table.add_row("", "", Text(f"-> {finding.fix}", "bold"))
    return table


def warn_untrained() -> None:
    """Warn that the network is untrained, so that its labels mean nothing."""
    messages.print(
        "No model is here, so this is the untrained network: its labels mean nothing. "
        "`efv2 models fetch s0` downloads a trained one.",
        style="yellow",
    )
