"""Rows as a line, a table, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table
from rows import Length, Row

from efv2_ros.benchmark.environment import describe
from efv2_ros.classify.options import ModelRequest
from efv2_ros.cli.console import output
from efv2_ros.files import open_atomic

COLUMNS = ("check", "how often", "not as it should be (must be 0)", "time", "measured")


def line(row: Row) -> str:
    """A finished row in one line."""
    check, count, failures, seconds, figures = cells(row)
    return f"{check}: {count}, {failures} not as it should be, {seconds}; {figures}"


def cells(row: Row, separator: str = ", ") -> tuple[str, ...]:
    figures = separator.join(f"{name}: {value}" for name, value in row.figures.items())
    return (
        row.name, f"{row.count:,} {row.unit}", str(len(row.failures)), f"{row.seconds:.0f} s",
        figures,
    )  # fmt: skip


def show(rows: Iterable[Row]) -> None:
    """Print the table, and below it all failures."""
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*cells(row, "\n"), style="red" if row.failures else "")
    output.print(table)
    for row in rows:
        for failure in row.failures:
            output.print(f"{row.name}: {failure}", soft_wrap=True)


def save_markdown(rows: Sequence[Row], length: Length, path: Path) -> None:
    """Write the table with the run's length, seed, date and machine.

    Raises:
        FileWriteError: The file cannot be written.
    """
    lines = [
        f"`{_command(length)}`: "
        + ", ".join(f"{name} {value}" for name, value in _environment().items()),
        "",
        _markdown_row(COLUMNS),
        _markdown_row("---" for _ in COLUMNS),
        *(_markdown_row(cells(row)) for row in rows),
    ]
    for row in rows:
        for failure in row.failures:
            lines += ["", f"**{row.name}**", "", "```", failure, "```"]
    with open_atomic(path) as file:
        file.writelines(f"{each}\n" for each in lines)


def save_json(rows: Sequence[Row], length: Length, path: Path) -> None:
    """Write everything about the rows and the run.

    Raises:
        FileWriteError: The file cannot be written.
    """
    document: Mapping[str, object] = {
        "command": _command(length), "environment": _environment(),
        "rows": [asdict(row) for row in rows],
    }  # fmt: skip
    with open_atomic(path) as file:
        json.dump(document, file, indent=1)
        file.write("\n")


def _command(length: Length) -> str:
    return f"scripts/endurance --minutes {length.share * 60:g} --seed {length.seed}"


def _environment() -> dict[str, str | int]:
    """The machine, its software and the date; the checks choose runtimes themselves."""
    described = describe(ModelRequest())
    del described["runtime"]
    return described


def _markdown_row(texts: Iterable[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"
