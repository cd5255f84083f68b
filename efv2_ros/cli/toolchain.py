"""`efv2 toolchain`: install D-Robotics' toolchain in an environment of its own, and examine it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from efv2_ros.cli.console import bar_total, findings_table, messages, output
from efv2_ros.signals import catch_stop
from efv2_ros.toolchain.doctor import examine
from efv2_ros.toolchain.environment import toolchain_path
from efv2_ros.toolchain.install import Step
from efv2_ros.toolchain.install import install as install_toolchain


@click.group()
def toolchain() -> None:
    """Install and examine D-Robotics' quantiser, compiler and simulator."""


@toolchain.command()
@click.option("--full", is_flag=True, help="All that the vendor's packages ask for: 6.4 GB more.")
@click.option(
    "--python", metavar="PATH", type=click.Path(path_type=Path),
    help="The Python 3.10 to use; default: the one of PATH, pyenv or uv.",
)  # fmt: skip
def install(full: bool, python: Path | None) -> None:
    """Install the toolchain from PyPI into the user's cache, under its own licences."""
    with _InstallBar() as on_step:
        changed = install_toolchain("full" if full else "slim", python=python, on_step=on_step)
    where = toolchain_path()
    output.print(f"{'installed' if changed else 'already here'}: {where}", soft_wrap=True)


@toolchain.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for issue reports and scripts.")
def doctor(as_json: bool) -> None:
    """Check the toolchain; exit with 1 where it cannot work."""
    with messages.status("looking"), catch_stop() as should_stop:
        findings = list(examine(should_stop))
    if as_json:
        click.echo(json.dumps([asdict(each) for each in findings], indent=2))
    else:
        output.print(findings_table(findings))
    if any(each.verdict == "missing" for each in findings):
        sys.exit(1)


class _Amount(ProgressColumn):
    """`17.1 of 45.2 MB`, or `3 of 19 packages`."""

    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        if not task.completed and not task.total:
            return Text()
        scale, digits, unit = (1e6, 1, "MB") if unit == "bytes" else (1.0, 0, unit)
        total = f" of {task.total / scale:,.{digits}f}" if task.total else ""
        return Text(f"{task.completed / scale:,.{digits}f}{total} {unit}")


class _InstallBar:
    """Shows the steps of an installation; where there is no terminal, one line for each."""

    def __enter__(self) -> Any:
        self._name = ""
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), _Amount(),
            console=messages, disable=not messages.is_terminal,
        )  # fmt: skip
        self._task: Any = None
        return self._show

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _show(self, step: Step) -> None:
        total = bar_total(step.total)
        if step.name != self._name:  # a task's total cannot become unknown again
            if self._task is None:
                self._bar.start()
            else:
                self._bar.remove_task(self._task)
            self._name = step.name
            self._task = self._bar.add_task(step.name, total=total, unit=step.unit)
            if not messages.is_terminal:
                messages.print(step.name, soft_wrap=True)
        self._bar.update(self._task, completed=step.done, total=total)
