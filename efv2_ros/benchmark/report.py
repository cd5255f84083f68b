"""What was measured, as Markdown for people and as plain values for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        key: Of the value in a row, and in JSON; ends in the value's unit.
        heading: For people.
        spec: Format specification of the value; empty for text.
    """

    key: str
    heading: str
    spec: str = ""

    def cell(self, row: Mapping[str, Any]) -> str:
        """A row's value as text; counts by name become a list."""
        value = row[self.key]
        if isinstance(value, Mapping):
            return ", ".join(f"{name} {count}" for name, count in value.items()) or "0"
        return f"{value:{self.spec}}"


@dataclass(frozen=True)
class Table:
    """Rows of figures.

    Attributes:
        title: What was measured, and on what.
        columns: What people see, in order.
        rows: Values by key; those without a column are for JSON only.
        note: What one has to know to read it.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    note: str = ""

    def markdown(self) -> str:
        """A Markdown table with aligned columns; numbers are right-aligned."""
        cells = [[each.cell(row) for each in self.columns] for row in self.rows]
        lines = [[each.heading for each in self.columns], *cells]
        widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
        numeric = [bool(each.spec) for each in self.columns]

        def line(texts: Sequence[str]) -> str:
            padded = (
                text.rjust(width) if right else text.ljust(width)
                for text, width, right in zip(texts, widths, numeric, strict=True)
            )
            return f"| {' | '.join(padded)} |"

        rule = [
            "-" * (width - right) + ":" * right
            for width, right in zip(widths, numeric, strict=True)
        ]
        table = "\n".join([line(lines[0]), line(rule), *map(line, cells)])
        return "\n\n".join(filter(None, [f"### {self.title}", table, self.note]))

    def as_dict(self) -> dict[str, Any]:
        """Title, note and rows, for JSON."""
        return {"title": self.title, "note": self.note, "rows": [dict(row) for row in self.rows]}


@dataclass(frozen=True)
class Distribution:
    """Durations to be drawn.

    Attributes:
        title: What took so long.
        series: Milliseconds, float64, 1-D, by whose they are.
        limits: Milliseconds to compare with, by name.
    """

    title: str
    series: Mapping[str, NDArray[np.float64]]
    limits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """What a part measured, or in one sentence why it could not.

    Attributes:
        tables: The figures.
        distributions: What lies behind them.
        problem: Why there are none; empty where there are.
    """

    tables: Sequence[Table] = ()
    distributions: Sequence[Distribution] = ()
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The tables or the problem, for JSON."""
        if self.problem:
            return {"problem": self.problem}
        return {"tables": [each.as_dict() for each in self.tables]}


@dataclass(frozen=True)
class Report:
    """All that one run of `efv2 bench` found.

    Attributes:
        environment: What it ran on.
        parts: The parts by name.
    """

    environment: Mapping[str, Any]
    parts: Mapping[str, Part]

    @property
    def failed(self) -> bool:
        """Whether nothing at all could be measured."""
        return all(each.problem for each in self.parts.values())

    def markdown(self) -> str:
        """The whole report."""
        blocks = ["# efv2 bench"]
        blocks.append("\n".join(f"- {key}: {value}" for key, value in self.environment.items()))
        for name, part in self.parts.items():
            blocks.append(f"## {name}")
            if part.problem:
                blocks.append(f"Not measured: {part.problem}")
            blocks += [table.markdown() for table in part.tables]
        return "\n\n".join(blocks) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """The whole report, for JSON."""
        parts = {name: part.as_dict() for name, part in self.parts.items()}
        return {"environment": dict(self.environment), "parts": parts}
