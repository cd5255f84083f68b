"""Where the command line prints: results to standard output, the rest to standard error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from efv2_ros.latency import Percentiles

output = Console(highlight=False)
messages = Console(stderr=True, highlight=False)


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
            self._task = self._bar.add_task("download", total=total)
        self._bar.update(self._task, completed=done, total=total)


def image_bar() -> Progress:
    """A bar of the images that are done and the time that is left."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("images"), TimeRemainingColumn(), console=messages,
        disable=not messages.is_terminal,
    )  # fmt: skip


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
