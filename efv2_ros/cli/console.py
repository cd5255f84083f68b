"""Where the command line prints: results to standard output, the rest to standard error."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

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
from rich.table import Table
from rich.text import Text

from efv2_ros.classify.latency import Percentiles

output = Console(highlight=False)
messages = Console(stderr=True, highlight=False)

INTERRUPTED = 128 + signal.SIGINT
"""Exit status of a command that Ctrl-C ended, as shells give it."""


def bar_total(number: int | None) -> Any:
    """The total of a bar's task. None, where it is not known, is new in rich 12.3."""
    major, minor = map(int, version("rich").split(".")[:2])
    return 0 if number is None and (major, minor) < (12, 3) else number


class download_bar:
    """A bar that appears with the first byte of a download."""

    def __enter__(self) -> Callable[[int, int | None], None]:
        self._bar = Progress(
            TextColumn("downloading"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
            TimeRemainingColumn(), console=messages,
        )  # fmt: skip
        self._task: Any = None
        return self._update

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _update(self, done: int, total: int | None) -> None:
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task("download", total=bar_total(total))
        self._bar.update(self._task, completed=done, total=bar_total(total))


class _Counted(ProgressColumn):
    """How many are done, of how many where that is known. Ubuntu 22.04's rich has none of it."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        total = f" of {task.total:,.0f}" if task.total else ""
        return Text(f"{task.completed:,.0f}{total} {self._unit}")


def image_bar(*more: ProgressColumn, unit: str = "images") -> Progress:
    """A bar of the images that are done and the time that is left.

    Args:
        *more: What else is shown.
        unit: What is counted instead.
    """
    return Progress(
        TextColumn("{task.description}"), BarColumn(), _Counted(unit), TimeRemainingColumn(),
        *more, console=messages, disable=not messages.is_terminal,
    )  # fmt: skip


@contextmanager
def ctrl_c(again: Any = None) -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed, which does nothing else.

    Args:
        again: What handles the next one; the handler there was before, if it is not given.
    """
    pressed = False

    def press(*_: Any) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, before if again is None else again)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def latency_table(stages: Mapping[str, Percentiles]) -> Table:
    """How long each stage took."""
    table = Table(title="latency (ms)", title_justify="left")
    table.add_column("stage")
    for column in Percentiles._fields:
        table.add_column(column, justify="right")
    for stage, latency in stages.items():
        table.add_row(stage.replace("_", " "), *(f"{figure:.2f}" for figure in latency))
    return table


def warn_untrained() -> None:
    """Say that the labels mean nothing."""
    messages.print(
        "[yellow]No model is here, so this is the untrained network: its labels mean nothing. "
        "`efv2 models fetch s0` downloads a trained one.[/yellow]"
    )
