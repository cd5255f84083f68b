"""Coordinates and paths of the SVG charts that the template `charts.html` draws.

Coordinates along the width are percentages or, in paths, thousandths of the width; heights are
pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from efv2_ros.report.scales import (
    Scale,
    figure,
    linear_scale,
    logarithmic_scale,
    time_ticks,
)
from efv2_ros.report.segments import Piece
from efv2_ros.report.series import COLUMNS, STAGE_ORDER, Axis, Floats, Series, envelope

CURVE_HEIGHT = 72
LANE_HEIGHT = 18
AXIS_HEIGHT = 22
HISTOGRAM_HEIGHT = 60
HEIGHTS = ("CURVE_HEIGHT", "LANE_HEIGHT", "AXIS_HEIGHT", "HISTOGRAM_HEIGHT")
"""Names of the charts' heights in pixels, which the template uses too."""

_WIDTH = 1000
_MARK_HEIGHT = 12
_BARS_HEIGHT = 50
_LEAST_HEIGHT = 1.5
"""Height in pixels of what must be visible although its value is next to nothing."""

_GAP = 0.2
"""Share of a bar's room that is left free."""

_BINS_PER_DECADE = 40
_MOST_BINS = 400
_TIME_TICKS = 8
_VALUE_TICKS = 10
_FITS_RIGHT = 0.5
"""Up to this share of the width, a text fits to the right of a mark, on a phone too."""

_FITS_AFTER = 0.8
"""Up to this share of the width, a percentile's text fits to the right."""

PERCENTILES = (50, 95, 99)
"""Percentiles that are marked in a distribution."""

_COLOURS = {name.replace("_", " "): f"stage-{name}" for name in STAGE_ORDER}
"""Classes of the style sheet, by stage."""


def stage_colour(stage: str) -> str:
    """Return the style sheet's class for a stage's colour, the same in all charts and tables."""
    return _COLOURS.get(stage, "stage-other")


class Tick(NamedTuple):
    """A coordinate along an axis, and the text there."""

    at: str
    text: str


class Peak(NamedTuple):
    """The highest value of a curve; `is_right` if there is no room for its text to the right."""

    x: str
    y: str
    text_y: str
    text: str
    is_right: bool


class Curve(NamedTuple):
    """Values over time: all of them, or the range and the median of each column.

    Attributes:
        name: Name of the values.
        colour: A class of the style sheet.
        label: What matters about the chart in one sentence, for screen readers.
        median: The median of all values, with its unit.
        values: What the script shows at the pointer: a figure for each point of `line`, separated
            by blanks.
        unit: Unit of `values`, and whether they are maxima.
        ticks: Ticks of the vertical axis.
        line: Path of the values, or of the columns' medians.
        band: Path of the columns' ranges; empty if each image has its own point.
        dots: Path of a dot for each value; empty if there is a band.
        peak: The highest value, if it is to be marked.
    """

    name: str
    colour: str
    label: str
    median: str
    values: str
    unit: str
    ticks: list[Tick]
    line: str
    band: str
    dots: str
    peak: Peak | None


class Mark(NamedTuple):
    """A rectangle in a lane, and the text shown on hover and focus."""

    x: str
    width: str
    y: str
    height: str
    text: str


class Lane(NamedTuple):
    """A lane with marks; `note` stands beside the name, `label` is for screen readers."""

    name: str
    note: str
    colour: str
    label: str
    marks: list[Mark]


class Histogram(NamedTuple):
    """How often each duration of a stage occurred: a path, and the percentiles on its axis."""

    name: str
    colour: str
    images: int
    bars: str
    percentiles: list[Tick]


class Column(NamedTuple):
    """The room of a bar, as high as the chart: where it is, its text, and the page it leads to."""

    x: str
    width: str
    text: str
    page: str


class Bars(NamedTuple):
    """A bar for each of several things side by side, which share their places with other charts.

    Attributes:
        name: Name of the values.
        note: What stands beside the name.
        colour: A class of the style sheet.
        label: What matters about the chart in one sentence, for screen readers.
        ticks: Ticks of the vertical axis.
        path: Path of the bars.
        columns: The rooms of the bars.
    """

    name: str
    note: str
    colour: str
    label: str
    ticks: list[Tick]
    path: str
    columns: list[Column]


class Row(NamedTuple):
    """A row of a table: a name with a spot of its colour, figures, and perhaps notes."""

    name: str
    colour: str
    figures: list[str]
    notes: Sequence[str] = ()


def axis_ticks(axis: Axis) -> list[Tick]:
    """Make the ticks of the horizontal axis that all charts over time share."""
    ticks = time_ticks(axis, _TIME_TICKS)
    shares = axis.share(np.array([position for position, _ in ticks])).tolist()
    return [Tick(_percent(share), text) for share, (_, text) in zip(shares, ticks, strict=True)]


def curve(
    series: Series, positions: Floats, values: Floats, scale: Scale, name: str, unit: str,
    colour: str, *, label: str, mark_highest: bool = False,
) -> Curve:  # fmt: skip
    """Make a chart of values over time.

    Args:
        series: The run.
        positions: Positions of the values on the axis, float64.
        values: The values, float64; NaN is left out.
        scale: Scale of the vertical axis.
        name: See `Curve`.
        unit: Unit of the values, `ms` or `%`.
        colour: See `Curve`.
        label: See `Curve`.
        mark_highest: Whether to mark the highest value.
    """
    axis, drawn = series.axis, envelope(series.axis, positions, values)
    x = axis.share(drawn.positions)
    low, middle, high = (
        (1 - scale(each)) * CURVE_HEIGHT for each in (drawn.low, drawn.middle, drawn.high)
    )
    return Curve(
        name,
        colour,
        label,
        median=median(values, unit),
        values=" ".join(_figures(drawn.high, unit)),
        unit=f"max {unit}" if drawn.summarised else unit,
        ticks=_vertical_ticks(scale, unit),
        line=_line(x, middle, series.pauses(drawn.positions)),
        band=_band(x, low, high) if drawn.summarised else "",
        dots="" if drawn.summarised else "".join(f"M{x},{y}h0" for x, y in _pairs(x, middle)),
        peak=_highest(axis, positions, values, scale) if mark_highest else None,
    )


def median(values: Floats, unit: str) -> str:
    """Format the median of values that are not all NaN, with its unit, `ms` or `%`."""
    return f"{_figures(np.nanmedian(values, keepdims=True), unit)[0]} {unit}"


def _figures(values: Floats, unit: str) -> list[str]:
    if unit == "%":
        return [f"{value * 100:.1f}" for value in values.tolist()]
    return [figure(value) for value in values.tolist()]


def _vertical_ticks(scale: Scale, unit: str) -> list[Tick]:
    """Make the ticks of a vertical axis; the topmost has the unit."""
    factor = 100 if unit == "%" else 1
    ticks = np.array(scale.ticks(4))
    texts = [f"{value * factor:.6g}" for value in ticks.tolist()]
    texts[-1:] = [f"{text} {unit}" for text in texts[-1:]]
    heights = ((1 - scale(ticks)) * CURVE_HEIGHT).tolist()
    return [Tick(f"{height:.1f}", text) for height, text in zip(heights, texts, strict=True)]


def _pairs(x: Floats, y: Floats) -> Iterable[tuple[float, float]]:
    """Return the points of a path, rounded to a tenth."""
    return zip((x * _WIDTH).round(1).tolist(), y.round(1).tolist(), strict=True)


def _line(x: Floats, y: Floats, pauses: NDArray[np.bool_]) -> str:
    moves = np.where(pauses, "M", "L").tolist()
    moves[:1] = "M"
    return "".join(
        f"{move}{left},{top}" for move, (left, top) in zip(moves, _pairs(x, y), strict=True)
    )


def _band(x: Floats, low: Floats, high: Floats) -> str:
    """Draw a bar for each column, from its lowest to its highest value."""
    heights = np.maximum(low - high, _LEAST_HEIGHT)
    width = _WIDTH / COLUMNS
    return "".join(
        f"M{centre - width / 2:g},{top}h{width:g}v{height:.3g}h-{width:g}z"
        for (centre, top), height in zip(_pairs(x, high), heights.tolist(), strict=True)
    )


def _highest(axis: Axis, positions: Floats, values: Floats, scale: Scale) -> Peak:
    index = int(np.nanargmax(values))
    share = float(axis.share(positions)[index])
    y = float((1 - scale(values)[index]) * CURVE_HEIGHT)
    text = f"max {figure(values[index])} ms at {axis.text(positions[index])}"
    return Peak(_percent(share), f"{y:.1f}", f"{y - 2:.1f}", text, share > _FITS_RIGHT)


def mark(axis: Axis, piece: Piece, lines: Iterable[str]) -> Mark:
    """Make a mark as high as the share of its time that is covered.

    Args:
        axis: The axis.
        piece: Where the mark is.
        lines: Text of the mark; empty lines are left out.
    """
    left, right = axis.share(np.array([piece.left, piece.right])).tolist()
    height = max(piece.share * _MARK_HEIGHT, _LEAST_HEIGHT)
    return Mark(
        _percent(left), _percent(right - left), f"{LANE_HEIGHT - 3 - height:.3g}",
        f"{height:.3g}", "\n".join(filter(None, lines)),
    )  # fmt: skip


def histogram_scale(distributions: Sequence[Floats]) -> Scale:
    """Make a logarithmic scale for all, with room for the text right of each 99th percentile."""
    scale = logarithmic_scale(np.concatenate(distributions))
    last = max(float(scale(np.percentile(each, PERCENTILES)).max()) for each in distributions)
    factor = (scale.high / scale.low) ** max(1.0, last / _FITS_AFTER)
    return Scale(scale.low, scale.low * factor, logarithmic=True)


def histogram(name: str, values: Floats, scale: Scale, colour: str) -> Histogram:
    """Make the distribution of a stage's durations.

    Args:
        name: Name of the stage.
        values: Milliseconds, float64, without NaN.
        scale: Scale of the horizontal axis, from `histogram_scale`.
        colour: A class of the style sheet.
    """
    decades = math.log10(scale.high / scale.low)
    bins = round(min(max(decades * _BINS_PER_DECADE, 1), _MOST_BINS))
    counts, edges = np.histogram(scale(values), bins, (0.0, 1.0))
    heights = counts / counts.max() * _BARS_HEIGHT
    width = _WIDTH / bins
    bars = "".join(
        f"M{left * _WIDTH:.4g},{HISTOGRAM_HEIGHT}h{width:.4g}v-{max(height, _LEAST_HEIGHT):.3g}"
        f"h-{width:.4g}z"
        for left, height in zip(edges[:-1].tolist(), heights.tolist(), strict=True)
        if height
    )
    at = np.percentile(values, PERCENTILES)
    shares = zip(PERCENTILES, at.tolist(), scale(at).tolist(), strict=True)
    percentiles = [
        Tick(_percent(share), f"p{percentile} {figure(value)}")
        for percentile, value, share in shares
    ]
    return Histogram(name, colour, values.size, bars, percentiles)


def bars(
    values: Floats, unit: str, name: str, colour: str, *, note: str,
    things: Sequence[tuple[str, str]],
) -> Bars:  # fmt: skip
    """Make a chart of bars side by side, from zero up.

    Args:
        values: The values, float64, at least 0; NaN and zero have no bar.
        unit: Unit of the values, `ms` or `%`.
        name: See `Bars`.
        colour: See `Bars`.
        note: See `Bars`.
        things: Name and page of what each bar is about.
    """
    known = np.nan_to_num(values)
    scale = linear_scale(known)
    room = 1 / values.size
    left, width = np.arange(values.size) * room, (1 - _GAP) * room * _WIDTH
    heights = np.maximum(scale(known) * CURVE_HEIGHT, _LEAST_HEIGHT)
    path = "".join(
        f"M{(start + _GAP / 2 * room) * _WIDTH:.5g},{CURVE_HEIGHT}"
        f"h{width:.4g}v-{height:.3g}h-{width:.4g}z"
        for start, height, value in zip(
            left.tolist(), heights.tolist(), known.tolist(), strict=True
        )
        if value
    )
    texts = [
        "unknown" if math.isnan(value) else f"{text} {unit}"
        for value, text in zip(values.tolist(), _figures(known, unit), strict=True)
    ]
    return Bars(
        name, note, colour, f"{name}: {note}", _vertical_ticks(scale, unit), path,
        [
            Column(_percent(each), _percent(room), f"{thing}\n{name}: {text}", page)
            for each, text, (thing, page) in zip(left.tolist(), texts, things, strict=True)
        ],
    )  # fmt: skip


def value_ticks(scale: Scale) -> list[Tick]:
    """Make the ticks of the histograms' horizontal axis."""
    ticks = scale.ticks(_VALUE_TICKS)
    shares = scale(np.array(ticks)).tolist()
    return [
        Tick(_percent(share), f"{value:.6g}") for value, share in zip(ticks, shares, strict=True)
    ]


def _percent(share: float) -> str:
    """Format a share of the width as a length of SVG."""
    return f"{share * 100:.3f}".rstrip("0").rstrip(".") + "%"
