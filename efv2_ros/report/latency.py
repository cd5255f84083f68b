"""The section on latency: each stage as figures, over time, and as a distribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from efv2_ros.report.charts import (
    LOW_BARS,
    PERCENTILES,
    curve_row,
    histogram_row,
    histogram_scale,
    milliseconds_axis_row,
    over_time,
    stage_colour,
)
from efv2_ros.report.markup import Html, count, element, name_cell, number_cell, table
from efv2_ros.report.scales import figure, linear_scale, logarithmic_scale
from efv2_ros.report.series import COLUMNS, Floats, Series

_SPREAD = 30
"""Medians that the slowest image takes from which on a linear scale would flatten the rest."""


def latency_section(series: Series, drops: Sequence[Html]) -> Html:
    """The section.

    Args:
        series: Of the run.
        drops: Rows of the dropped images, shown below those of the stages.
    """
    known = {name: values[~np.isnan(values)] for name, values in series.stages.items()}
    content = [element("h2", "Latency")]
    if not known:
        content.append(
            element("p", "No durations are known: the run was made without ",
                    element("code", "--timings"), ".")
        )  # fmt: skip
        return element("section", *content)
    timed = ~np.isnan(list(series.stages.values())).all(axis=0)
    untimed = int((~timed[series.classified]).sum())
    if untimed:
        content.append(
            element("p", f"{count(untimed, 'classified image')} without timings: not in here.")
        )
    content += [
        _table(known),
        element("h3", "Over time"),
        _over_time(series, known, drops),
        element("h3", "Distribution"),
        _distributions(known),
    ]
    return element("section", *content)


def _table(known: Mapping[str, Floats]) -> Html:
    rows = []
    for name, values in known.items():
        figures = (*np.percentile(values, PERCENTILES).tolist(), values.max(), values.mean())
        cells = [*(f"{each:.3f}" for each in figures), f"{values.size:,}"]
        rows.append([name_cell(name, stage_colour(name)), *map(number_cell, cells)])
    headings = [f"#p{each} (ms)" for each in PERCENTILES]
    return table(
        "Milliseconds of each stage",
        ["stage", *headings, "#max (ms)", "#mean (ms)", "#images"],
        rows,
    )


def _over_time(series: Series, known: Mapping[str, Floats], drops: Sequence[Html]) -> Html:
    ratios = {
        name: float(values.max() / np.median(values))
        for name, values in known.items()
        if values.min() > 0
    }
    widest = max(ratios, key=lambda name: ratios[name], default="")
    logarithmic = bool(ratios) and ratios[widest] > _SPREAD
    rows = []
    for name, values in series.stages.items():
        highest = int(np.nanargmax(values))
        rows.append(
            curve_row(
                series, series.positions, values,
                logarithmic_scale(known[name]) if logarithmic else linear_scale(known[name]),
                name, "ms", stage_colour(name), mark_highest=True,
                label=f"{name} over time: median {figure(float(np.median(known[name])))} ms, "
                f"highest {figure(values[highest])} ms at "
                f"{series.axis.text(series.positions[highest])}",
            )
        )  # fmt: skip
    most = max(values.size for values in known.values())
    notes = [
        f"The width is divided into {COLUMNS:,} columns, of {most / COLUMNS:.1f} images on "
        "average: the line is the median of each, the band reaches from the fastest to the "
        "slowest, so that not a single spike is lost."
        if most > COLUMNS
        else "Each dot is an image.",
        f"Scales are logarithmic, since the slowest {widest} took {ratios[widest]:.0f} times its "
        "median: on linear ones all else would be flat."
        if logarithmic
        else "Each stage has its own scale, linear from zero.",
    ]
    if drops:
        notes.append("The lowest lanes show when images were dropped, and why.")
        if series.positions.size > COLUMNS:
            notes.append(LOW_BARS)
    return over_time(series.axis, [*rows, *drops], " ".join(notes))


def _distributions(known: Mapping[str, Floats]) -> Html:
    scale = histogram_scale(list(known.values()))
    rows = [
        histogram_row(name, values, scale, stage_colour(name)) for name, values in known.items()
    ]
    note = (
        "One logarithmic axis for all, since stages differ by orders of magnitude. Bars are in "
        "proportion to the highest of their stage, but high enough to be seen for a single image."
    )
    return element(
        "figure",
        element("div", *rows, milliseconds_axis_row(scale), class_="chart"),
        element("figcaption", note),
    )
