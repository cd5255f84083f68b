"""The results of a benchmark: tables in Markdown for people, plain values for JSON."""

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
        key: Key of the value in a row and in JSON; ends in the value's unit.
        heading: Heading of the column in Markdown.
        spec: Format specification of the value; empty for text.
    """

    key: str
    heading: str
    spec: str = ""

    def cell(self, row: Mapping[str, Any]) -> str:
        """Format a row's value; a mapping of counts becomes a list."""
        value = row[self.key]
        if isinstance(value, Mapping):
            return ", ".join(f"{name} {count}" for name, count in value.items()) or "0"
        return f"{value:{self.spec}}"


@dataclass(frozen=True)
class Table:
    """Rows of figures.

    Attributes:
        title: What was measured, and on what.
        columns: The columns in Markdown, in order.
        rows: Values by key; those without a column appear in JSON only.
        note: How to read the table.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    note: str = ""

    def markdown(self) -> str:
        """Format as Markdown with aligned columns; numbers are right-aligned."""
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
        """Title, note and rows as plain values for JSON."""
        return {"title": self.title, "note": self.note, "rows": [dict(row) for row in self.rows]}


@dataclass(frozen=True)
class Distribution:
    """Durations to plot.

    Attributes:
        title: What was measured.
        series: Milliseconds, float64, 1-D, by label.
        limits: Milliseconds to compare with, by label.
    """

    title: str
    series: Mapping[str, NDArray[np.float64]]
    limits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """The results of a part, or the reason why there are none.

    Attributes:
        tables: The figures.
        distributions: The durations behind the figures.
        problem: Why the part could not be measured, in one sentence; empty if it could.
    """

    tables: Sequence[Table] = ()
    distributions: Sequence[Distribution] = ()
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The tables or the problem as plain values for JSON."""
        if self.problem:
            return {"problem": self.problem}
        return {"tables": [each.as_dict() for each in self.tables]}


@dataclass(frozen=True)
class Report:
    """The results of one run of `efv2 bench`.

    Attributes:
        environment: Machine and software; see `environment.describe`.
        parts: The parts by name.
    """

    environment: Mapping[str, Any]
    parts: Mapping[str, Part]

    @property
    def failed(self) -> bool:
        """Whether no part could be measured."""
        return all(each.problem for each in self.parts.values())

    def markdown(self) -> str:
        """Format the whole report as Markdown."""
        blocks = ["# efv2 bench"]
        blocks.append("\n".join(f"- {key}: {value}" for key, value in self.environment.items()))
        for name, part in self.parts.items():
            blocks.append(f"## {name}")
            if part.problem:
                blocks.append(f"Not measured: {part.problem}")
            blocks += [table.markdown() for table in part.tables]
        return "\n\n".join(blocks) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """The whole report as plain values for JSON."""
        parts = {name: part.as_dict() for name, part in self.parts.items()}
        return {"environment": dict(self.environment), "parts": parts}
