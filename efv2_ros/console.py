"""Where the command line prints: results to standard output, the rest to standard error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

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
