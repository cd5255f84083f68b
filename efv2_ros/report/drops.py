"""Images of a run that got no result: how many, why, and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from efv2_ros.replay.run import Run
from efv2_ros.report.charts import Lane, Row, mark
from efv2_ros.report.scales import count
from efv2_ros.report.segments import lanes, pieces
from efv2_ros.report.series import Series

_MOST_REASONS = 3
"""Most reasons listed for each cause."""


class Drops(NamedTuple):
    """Dropped images as the templates show them.

    Attributes:
        outcomes: Number and share of images, and the first reasons; empty if none was dropped.
        lanes: A lane for each cause, with a mark where images were dropped.
    """

    outcomes: list[Row]
    lanes: list[Lane]


def summarize_drops(run: Run, series: Series) -> Drops:
    """Describe the dropped images of a run."""
    drops = run.drops()
    if not drops:
        return Drops([], [])
    total = len(run.frames) + sum(run.lost.values())
    outcomes = [_outcome("classified", "", series.classified.size, total)]
    for cause, number in sorted(drops.items(), key=lambda item: -item[1]):
        outcomes.append(_outcome(cause, "dropped", number, total, _reasons(run, series, cause)))
    return Drops(outcomes, _lanes(run, series))


def _outcome(name: str, colour: str, number: int, total: int, reasons: Sequence[str] = ()) -> Row:
    return Row(name, colour, [f"{number:,}", f"{number / total:.1%}"], reasons)


def _reasons(run: Run, series: Series, cause: str) -> list[str]:
    counts: Counter[str] = Counter()
    first: dict[str, int] = {}
    for index, frame in enumerate(run.frames):
        if frame.dropped == cause and frame.reason:
            counts[frame.reason] += 1
            first.setdefault(frame.reason, index)
    reasons = [
        f"{series.axis.text(series.positions[index])}: {reason}"
        + (f" ({counts[reason]:,} times)" if counts[reason] > 1 else "")
        for reason, index in list(first.items())[:_MOST_REASONS]
    ]
    if len(first) > _MOST_REASONS:
        reasons.append(f"and {count(len(first) - _MOST_REASONS, 'other reason')}")
    if run.lost.get(cause):
        reasons.append(f"{run.lost[cause]:,} of them were only counted, without a stamp")
    return reasons


def _lanes(run: Run, series: Series) -> list[Lane]:
    axis = series.axis
    dropped = np.array([index for index, frame in enumerate(run.frames) if frame.dropped], np.intp)
    numbers: dict[str, int] = {}
    causes = [run.frames[index].dropped for index in dropped.tolist()]
    keys = np.array([numbers.setdefault(cause, len(numbers)) for cause in causes], np.intp)
    names = list(numbers)
    found = []
    for lane in lanes(keys, np.ones_like(keys)):
        indices = dropped[np.isin(keys, lane)]
        name = names[lane[0]] if len(lane) == 1 else count(len(lane), "other cause")
        start = series.positions[indices] - series.before
        marks = []
        for piece in pieces(axis, start, start + series.width):
            members = indices[piece.members]
            where = axis.range_text(*series.positions[members[[0, -1]]].tolist())
            lines = [f"{count(members.size, 'image')} dropped: {name}", where]
            if members.size == 1:
                frame = run.frames[members[0]]
                lines = [f"dropped: {frame.dropped}", where, frame.reason]
            marks.append(mark(axis, piece, lines))
        label = f"dropped: {name}, {count(indices.size, 'image')}"
        found.append(Lane(name, f"{indices.size:,}", "dropped", label, marks))
    return found
