"""The charts as SVG. Their width is the page's: whatever depends on it is given in percent.

Curves are paths in a nested SVG of `_UNITS` units that is stretched to the width, with strokes
that are not; texts, segments and marks have percentages for coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from efv2_ros.report.markup import Html, count, element, join
from efv2_ros.report.scales import Scale, figure, logarithmic_scale, time_ticks
from efv2_ros.report.segments import Piece
from efv2_ros.report.series import COLUMNS, STAGE_ORDER, Axis, Floats, Series, envelope

_UNITS = 1000
_CURVE_HEIGHT = 72
_LANE_HEIGHT = 18
_BAR_HEIGHT = 12
_AXIS_HEIGHT = 22
_HISTOGRAM_HEIGHT = 60
_BARS_HEIGHT = 50
_LEAST = 1.5
"""Height in pixels of what must be seen although it is next to nothing."""

_BINS_PER_DECADE = 40
_MOST_BINS = 400
_TIME_TICKS = 8
_VALUE_TICKS = 10
_FITS_RIGHT = 0.5
"""Up to this share of the width, a text fits to the right of a mark, on a phone too."""

_FITS_AFTER = 0.8
"""Up to this share of the width, a percentile's text fits to the right."""

PERCENTILES = (50, 95, 99)
"""What is marked in a distribution."""

LOW_BARS = (
    "Bars that are not as high as their lane stand for what is too short to be seen alone, and "
    "their height for its share of the time."
)
"""What a reader has to know of lanes with very short pieces."""

_COLOURS = {name.replace("_", " "): f"stage-{name}" for name in STAGE_ORDER}
"""Classes of the style sheet, by stage."""


def stage_colour(stage: str) -> str:
    """The style sheet's class for the colour of a stage, the same in all charts and tables."""
    return _COLOURS.get(stage, "stage-other")


def curve_row(
    series: Series, positions: Floats, values: Floats, scale: Scale, name: str, unit: str,
    colour: str, *, label: str, mark_highest: bool = False,
) -> Html:  # fmt: skip
    """Values over time: all of them, or the range and the median of each column.

    Args:
        series: Of the run.
        positions: Of the values on the axis, float64.
        values: What to draw, float64; NaN is left out.
        scale: Of the vertical axis.
        name: What is drawn.
        unit: Of the values, `ms` or `%`.
        colour: A class of the style sheet.
        label: All that matters about the chart in a sentence, for those who do not see it.
        mark_highest: Whether to write the highest value where it is.
    """
    axis, drawn = series.axis, envelope(series.axis, positions, values)
    x = axis.share(drawn.positions)
    low, middle, high = (
        (1 - scale(each)) * _CURVE_HEIGHT for each in (drawn.low, drawn.middle, drawn.high)
    )
    curves = [_line(x, middle, series.pauses(drawn.positions))]
    if drawn.summarised:
        curves.insert(0, _band(x, low, high))
    else:
        dots = "".join(f"M{left},{top}h0" for left, top in _pairs(x, middle))
        curves.append(element("path", d=dots, class_="dots"))
    ticks = [
        element(
            "g",
            element("line", x2="100%", y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid"),
            element("text", text, x="-8", y=f"{y:.1f}", dy=".35em", class_="tick end"),
        )
        for y, text in _vertical_ticks(scale, unit)
    ]
    content = [_time_grid(axis, _CURVE_HEIGHT), *ticks, _stretched(_CURVE_HEIGHT, *curves)]
    if mark_highest:
        content.append(_highest(axis, positions, values, scale))
    shown = _figures(drawn.high, unit)
    usual = _figures(np.nanmedian(values, keepdims=True), unit)[0]
    return _row(
        name,
        f"median {usual} {unit}",
        _plot(_CURVE_HEIGHT, *content, label=label),
        colour,
        data_v=" ".join(shown),
        data_unit=f"max {unit}" if drawn.summarised else unit,
    )


def _figures(values: Floats, unit: str) -> list[str]:
    if unit == "%":
        return [f"{value * 100:.1f}" for value in values.tolist()]
    return [figure(value) for value in values.tolist()]


def _vertical_ticks(scale: Scale, unit: str) -> list[tuple[float, str]]:
    """Height in pixels and text of each tick; the topmost has the unit."""
    factor = 100 if unit == "%" else 1
    ticks = np.array(scale.ticks(4))
    texts = [f"{value * factor:.6g}" for value in ticks.tolist()]
    texts[-1:] = [f"{text} {unit}" for text in texts[-1:]]
    heights = ((1 - scale(ticks)) * _CURVE_HEIGHT).tolist()
    return list(zip(heights, texts, strict=True))


def _pairs(x: Floats, y: Floats) -> Iterable[tuple[float, float]]:
    """Points of a path, rounded to a tenth of a pixel."""
    return zip((x * _UNITS).round(1).tolist(), y.round(1).tolist(), strict=True)


def _line(x: Floats, y: Floats, pauses: NDArray[np.bool_]) -> Html:
    moves = np.where(pauses, "M", "L").tolist()
    moves[:1] = "M"
    path = "".join(
        f"{move}{left},{top}" for move, (left, top) in zip(moves, _pairs(x, y), strict=True)
    )
    return element("path", d=path, class_="line")


def _band(x: Floats, low: Floats, high: Floats) -> Html:
    """A bar for each column from its lowest to its highest value."""
    heights = np.maximum(low - high, _LEAST)
    width = _UNITS / COLUMNS
    path = "".join(
        f"M{centre - width / 2:g},{top}h{width:g}v{height:.3g}h-{width:g}z"
        for (centre, top), height in zip(_pairs(x, high), heights.tolist(), strict=True)
    )
    return element("path", d=path, class_="band")


def _highest(axis: Axis, positions: Floats, values: Floats, scale: Scale) -> Html:
    index = int(np.nanargmax(values))
    share = float(axis.share(positions)[index])
    y = float((1 - scale(values)[index]) * _CURVE_HEIGHT)
    left = share > _FITS_RIGHT
    # Above the mark there are no values that the text could cover.
    text = f"max {figure(values[index])} ms at {axis.text(positions[index])}"
    return join(
        [
            element("circle", cx=_percent(share), cy=f"{y:.1f}", r=4, class_="peak"),
            element(
                "text", text, x=_percent(share), dx=-7 if left else 7, y=f"{y - 2:.1f}",
                class_="note end" if left else "note",
            ),
        ]
    )  # fmt: skip


def lane_row(
    axis: Axis, name: str, note: str, bars: Iterable[tuple[Piece, Iterable[str]]], colour: str,
    *, label: str,
) -> Html:  # fmt: skip
    """A lane with bars that are as high as what they cover.

    Args:
        axis: The axis.
        name: Of the lane.
        note: Beside the name.
        bars: Each with lines that say what it is, told on hover and focus.
        colour: A class of the style sheet.
        label: What is in the lane, for those who do not see it.
    """
    marks = []
    for piece, lines in bars:
        left, right = axis.share(np.array([piece.left, piece.right])).tolist()
        height = max(piece.share * _BAR_HEIGHT, _LEAST)
        text = "\n".join(filter(None, lines))
        marks.append(
            element(
                "rect", element("title", text), x=_percent(left), width=_percent(right - left),
                y=f"{_LANE_HEIGHT - 3 - height:.3g}", height=f"{height:.3g}", class_="mark",
                role="img",
            )
        )  # fmt: skip
    plot = _plot(
        _LANE_HEIGHT, _time_grid(axis, _LANE_HEIGHT), *marks, label=label, role="group"
    )  # fmt: skip
    return _row(name, note, plot, f"lane {colour}")


def over_time(axis: Axis, rows: Iterable[Html], note: str) -> Html:
    """Charts one below the other that share the horizontal axis.

    Args:
        axis: The axis.
        rows: The charts.
        note: How to read them.
    """
    return element(
        "figure",
        element("div", *rows, _time_axis_row(axis), class_="chart"),
        element("figcaption", note),
        class_="time", data_unit=axis.unit, data_start=axis.start, data_end=axis.end,
    )  # fmt: skip


def _time_axis_row(axis: Axis) -> Html:
    ticks = [
        element("text", text, x=_percent(share), y=15, class_="tick middle")
        for share, text in _time_ticks(axis)
    ]
    unit = "image" if axis.unit == "images" else "time (s)" if axis.end < 120 else "time (min:s)"
    return _row(unit, "", _plot(_AXIS_HEIGHT, *ticks, label=f"axis: {unit}"), "axis")


def _time_ticks(axis: Axis) -> list[tuple[float, str]]:
    ticks = time_ticks(axis, _TIME_TICKS)
    shares = axis.share(np.array([position for position, _ in ticks]))
    return list(zip(shares.tolist(), [text for _, text in ticks], strict=True))


def _time_grid(axis: Axis, height: int) -> Html:
    return _grid([share for share, _ in _time_ticks(axis)], height)


def _grid(shares: Iterable[float], height: int) -> Html:
    return join(
        element("line", x1=_percent(share), x2=_percent(share), y2=height, class_="grid")
        for share in shares
    )


def histogram_scale(distributions: Sequence[Floats]) -> Scale:
    """A logarithmic scale for all, with room for a text to the right of each 99th percentile."""
    scale = logarithmic_scale(np.concatenate(distributions))
    last = max(float(scale(np.percentile(each, PERCENTILES)).max()) for each in distributions)
    factor = (scale.high / scale.low) ** max(1.0, last / _FITS_AFTER)
    return Scale(scale.low, scale.low * factor, logarithmic=True)


def histogram_row(name: str, values: Floats, scale: Scale, colour: str) -> Html:
    """How often which duration occurred, with its percentiles marked.

    Args:
        name: Of the stage.
        values: Milliseconds, float64, NaN-free.
        scale: Of the horizontal axis, from `histogram_scale`.
        colour: A class of the style sheet.
    """
    decades = math.log10(scale.high / scale.low)
    bins = round(min(max(decades * _BINS_PER_DECADE, 1), _MOST_BINS))
    counts, edges = np.histogram(scale(values), bins, (0.0, 1.0))
    heights = counts / counts.max() * _BARS_HEIGHT
    width = _UNITS / bins
    bars = "".join(
        f"M{left * _UNITS:.4g},{_HISTOGRAM_HEIGHT}h{width:.4g}v-{max(height, _LEAST):.3g}"
        f"h-{width:.4g}z"
        for left, height in zip(edges[:-1].tolist(), heights.tolist(), strict=True)
        if height
    )
    at = np.percentile(values, PERCENTILES)
    shares = scale(at).tolist()
    texts = [
        f"p{percentile} {figure(value)}"
        for percentile, value in zip(PERCENTILES, at.tolist(), strict=True)
    ]
    marks = []
    for line, (share, text) in enumerate(zip(shares, texts, strict=True)):
        # From each percentile up to a line of its own, then right to where its text has room.
        x, end, y = _percent(share), _percent(shares[-1]), 6 + 14 * line
        marks += [
            element("line", x1=x, x2=x, y1=y, y2=_HISTOGRAM_HEIGHT, class_="percentile"),
            element("line", x1=x, x2=end, y1=y, y2=y, class_="leader"),
            element("text", text, x=end, y=y, dx=5, dy=".35em", class_="note"),
        ]
    plot = _plot(
        _HISTOGRAM_HEIGHT,
        _grid(scale(np.array(scale.ticks(_VALUE_TICKS))).tolist(), _HISTOGRAM_HEIGHT),
        element("line", x2="100%", y1=_HISTOGRAM_HEIGHT, y2=_HISTOGRAM_HEIGHT, class_="grid"),
        _stretched(_HISTOGRAM_HEIGHT, element("path", d=bars, class_="bars")),
        *marks,
        label=f"{name}: {', '.join(texts)} ms",
    )
    return _row(name, count(values.size, "image"), plot, colour)


def milliseconds_axis_row(scale: Scale) -> Html:
    """The ticks below all histograms."""
    ticks = scale.ticks(_VALUE_TICKS)
    texts = [
        element("text", f"{value:.6g}", x=_percent(share), y=15, class_="tick middle")
        for value, share in zip(ticks, scale(np.array(ticks)).tolist(), strict=True)
    ]
    return _row("milliseconds", "", _plot(_AXIS_HEIGHT, *texts, label="axis: ms"), "axis")


def _row(name: str, note: str, plot: Html, colour: str, **data: object) -> Html:
    """A chart with its name and a note beside it, or above it on a narrow screen."""
    head = element(
        "div",
        element("span", name, class_="name", title=name),
        element("span", note, class_="readout"),
        class_="gutter",
    )
    return element("div", head, plot, class_=f"row {colour}", **data)


def _plot(height: int, *content: Html, label: str, role: str = "img") -> Html:
    return element(
        "svg", *content, class_="plot", width="100%", height=height, role=role, aria_label=label
    )


def _stretched(height: int, *content: Html) -> Html:
    return element(
        "svg", *content, viewBox=f"0 0 {_UNITS} {height}", preserveAspectRatio="none",
        width="100%", height=height,
    )  # fmt: skip


def _percent(share: float) -> str:
    """A share as SVG takes it for a length."""
    return f"{share * 100:.3f}".rstrip("0").rstrip(".") + "%"
