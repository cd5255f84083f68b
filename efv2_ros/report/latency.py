"""Latency of a run's stages: figures, values over time, and distributions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from efv2_ros.report.charts import (
    PERCENTILES,
    Curve,
    Histogram,
    Row,
    Tick,
    curve,
    histogram,
    histogram_scale,
    stage_colour,
    value_ticks,
)
from efv2_ros.report.scales import figure, linear_scale, logarithmic_scale
from efv2_ros.report.series import COLUMNS, Floats, Series

_LARGEST_SPREAD = 30
"""Ratio of the slowest image to the median from which a linear scale would flatten the rest."""


class Latency(NamedTuple):
    """Latency as the template `latency.html` shows it.

    Attributes:
        untimed: Number of classified images without any duration.
        stages: Percentiles, maximum and mean in milliseconds, and number of images.
        curves: A chart over time for each stage.
        images_per_column: Mean number of images of a column; empty if each has its own dot.
        spread: The stage whose slowest image took the most times its median, and how many times;
            None if that is too little for logarithmic scales.
        histograms: A distribution for each stage.
        ticks: Ticks of the histograms' axis.
    """

    untimed: int
    stages: list[Row]
    curves: list[Curve]
    images_per_column: str
    spread: tuple[str, str] | None
    histograms: list[Histogram]
    ticks: list[Tick]


def summarize_latency(series: Series) -> Latency | None:
    """Describe the stages' durations; None if none is known."""
    known = {name: values[~np.isnan(values)] for name, values in series.stages.items()}
    if not known:
        return None
    timed = ~np.isnan(list(series.stages.values())).all(axis=0)
    most = max(values.size for values in known.values())
    spread = _spread(known)
    scale = histogram_scale(list(known.values()))
    return Latency(
        untimed=int((~timed[series.classified]).sum()),
        stages=[Row(name, stage_colour(name), _figures(values)) for name, values in known.items()],
        curves=[
            _curve(series, name, values, logarithmic=spread is not None)
            for name, values in series.stages.items()
        ],
        images_per_column=f"{most / COLUMNS:.1f}" if most > COLUMNS else "",
        spread=spread,
        histograms=[
            histogram(name, values, scale, stage_colour(name)) for name, values in known.items()
        ],
        ticks=value_ticks(scale),
    )


def _figures(values: Floats) -> list[str]:
    figures = (*np.percentile(values, PERCENTILES).tolist(), values.max(), values.mean())
    return [*(f"{each:.3f}" for each in figures), f"{values.size:,}"]


def _spread(known: Mapping[str, Floats]) -> tuple[str, str] | None:
    ratios = {
        name: float(values.max() / np.median(values))
        for name, values in known.items()
        if values.min() > 0
    }
    widest = max(ratios, key=lambda name: ratios[name], default="")
    if not ratios or ratios[widest] <= _LARGEST_SPREAD:
        return None
    return widest, f"{ratios[widest]:.0f}"


def _curve(series: Series, name: str, values: Floats, *, logarithmic: bool) -> Curve:
    known = values[~np.isnan(values)]
    highest = int(np.nanargmax(values))
    return curve(
        series, series.positions, values,
        logarithmic_scale(known) if logarithmic else linear_scale(known),
        name, "ms", stage_colour(name), mark_highest=True,
        label=f"{name} over time: median {figure(float(np.median(known)))} ms, "
        f"highest {figure(values[highest])} ms at {series.axis.text(series.positions[highest])}",
    )  # fmt: skip
