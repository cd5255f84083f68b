"""The section on images that got no result, and their lanes in the charts over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from efv2_ros.replay.run import Run
from efv2_ros.report.charts import LOW_BARS, lane_row, over_time
from efv2_ros.report.markup import Html, count, element, name_cell, number_cell, table
from efv2_ros.report.segments import lanes, pieces
from efv2_ros.report.series import COLUMNS, Series

_REASONS = 3
"""Reasons told of each cause."""


def drops_section(run: Run, series: Series, lanes: Sequence[Html]) -> Html:
    """The section.

    Args:
        run: The run.
        series: Of the run.
        lanes: Rows of the dropped images, if they have not been shown yet.
    """
    drops = run.drops()
    total = len(run.frames) + sum(run.lost.values())
    content = [element("h2", "Dropped images")]
    if not drops:
        content.append(element("p", "None."))
        return element("section", *content)
    rows = [_row("classified", series.classified.size, total)]
    for cause, number in sorted(drops.items(), key=lambda item: -item[1]):
        rows.append(_row(cause, number, total, _reasons(run, series, cause), "dropped"))
    content.append(
        table("What became of the images", ["outcome", "#images", "#share", "first reasons"], rows)
    )
    if lanes:
        many = series.positions.size > COLUMNS
        content.append(over_time(series.axis, lanes, LOW_BARS if many else ""))
    return element("section", *content)


def _row(
    name: str, number: int, total: int, notes: Sequence[str] = (), colour: str | None = None
) -> list[Html]:
    items = [element("li", each) for each in notes]
    return [
        name_cell(name, colour),
        number_cell(f"{number:,}"),
        number_cell(f"{number / total:.1%}"),
        element("td", *([element("ul", *items)] if items else [])),
    ]


def _reasons(run: Run, series: Series, cause: str) -> list[str]:
    counts: Counter[str] = Counter()
    first: dict[str, int] = {}
    for index, frame in enumerate(run.frames):
        if frame.dropped == cause and frame.reason:
            counts[frame.reason] += 1
            first.setdefault(frame.reason, index)
    told = [
        f"{series.axis.text(series.positions[index])}: {reason}"
        + (f" ({counts[reason]:,} times)" if counts[reason] > 1 else "")
        for reason, index in list(first.items())[:_REASONS]
    ]
    if len(first) > _REASONS:
        told.append(f"and {count(len(first) - _REASONS, 'other reason')}")
    if run.lost.get(cause):
        told.append(f"{run.lost[cause]:,} of them counted only, without a stamp")
    return told


def drop_rows(run: Run, series: Series) -> list[Html]:
    """A lane for each cause, with a mark where images were dropped."""
    axis = series.axis
    dropped = np.array([index for index, frame in enumerate(run.frames) if frame.dropped], np.intp)
    numbers: dict[str, int] = {}
    causes = [run.frames[index].dropped for index in dropped.tolist()]
    keys = np.array([numbers.setdefault(cause, len(numbers)) for cause in causes], np.intp)
    names = list(numbers)
    rows = []
    for lane in lanes(keys, np.ones_like(keys)):
        indices = dropped[np.isin(keys, lane)]
        name = names[lane[0]] if len(lane) == 1 else count(len(lane), "other cause")
        start = series.positions[indices] - series.before
        end = start + series.width
        bars = []
        for piece in pieces(axis, start, end):
            members = indices[piece.members]
            where = axis.range_text(*series.positions[members[[0, -1]]].tolist())
            lines = [f"{count(members.size, 'image')} dropped: {name}", where]
            if members.size == 1:
                frame = run.frames[members[0]]
                lines = [f"dropped: {frame.dropped}", where, frame.reason]
            bars.append((piece, lines))
        label = f"dropped: {name}, {count(indices.size, 'image')}"
        rows.append(lane_row(axis, name, f"{indices.size:,}", bars, "dropped", label=label))
    return rows
