"""Arrays of a run for the charts: positions on the time axis, classes, scores, latencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from efv2_ros.classify.latency import END_TO_END, STAGES
from efv2_ros.replay.run import Run

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

COLUMNS = 1000
"""Number of columns of a chart; a run with more images than that is summarised by column."""

_PAUSE = 10
"""Number of median intervals without a result after which a line or a segment ends."""

STAGE_ORDER = ("read", *STAGES, END_TO_END)
"""Order of the stages, from the bag or the camera on; stages of other names come last."""


@dataclass(frozen=True, eq=False)
class Axis:
    """The horizontal axis that all charts over time share.

    Attributes:
        unit: `seconds` since the first stamp; or `images`, counted from 1, if all stamps are
            equal.
        start: Left end, in `unit`.
        end: Right end, in `unit`; the last image has a width too.
    """

    unit: Literal["seconds", "images"]
    start: float
    end: float

    @property
    def column(self) -> float:
        """Width of one of the `COLUMNS`, about a pixel, in `unit`."""
        return (self.end - self.start) / COLUMNS

    def share(self, positions: Floats) -> Floats:
        """Convert positions to shares of the axis' length, 0 to 1."""
        return (positions - self.start) / (self.end - self.start)

    def text(self, position: float) -> str:
        """Format a position, for example `12.30 s`, `1:02.3`, `1:01:02.3` or `image 7`."""
        if self.unit == "images":
            return f"image {round(position)}"
        return f"{position:.2f} s" if self.end < 120 else clock(position, 1)

    def range_text(self, start: float, end: float) -> str:
        """Format a range of positions."""
        if self.unit == "images":
            left, right = math.ceil(start), max(math.ceil(start), math.floor(end))
            return f"image {left}" if left == right else f"images {left} to {right}"
        first, last = self.text(start), self.text(end)
        return last if first == last else f"{first.removesuffix(' s')} to {last}"


def clock(seconds: float, decimals: int = 0) -> str:
    """Format seconds as `minutes:seconds`, from an hour on as `hours:minutes:seconds`."""
    minutes, rest = divmod(round(seconds, decimals), 60)
    hours, minutes = divmod(int(minutes), 60)
    width = 2 + (decimals and decimals + 1)
    tail = f"{rest:0{width}.{decimals}f}"
    return f"{hours}:{minutes:02}:{tail}" if hours else f"{minutes}:{tail}"


@dataclass(frozen=True, eq=False)
class Series:
    """Arrays that the charts draw, with an entry for each image of the run unless noted.

    Attributes:
        axis: The horizontal axis.
        positions: Positions of the images on the axis, float64.
        width: Width of one image on the axis: the median interval.
        before: Part of the width that lies before the image's position.
        duration: Seconds from the first to the last stamp.
        stages: Milliseconds by stage, float64, NaN if unknown; in the order of the stages, whose
            names have spaces instead of underscores.
        classified: Indices of the images that were not dropped.
        classes: Best class of each classified image, as an index into `class_ids`.
        scores: Score of that class, float64, NaN for an image without a result.
        class_ids: The best classes that occur; None stands for images without a result.
    """

    axis: Axis
    positions: Floats
    width: float
    before: float
    duration: float
    stages: dict[str, Floats]
    classified: Indices
    classes: Indices
    scores: Floats
    class_ids: Sequence[int | None]

    def pauses(self, positions: Floats) -> NDArray[np.bool_]:
        """Tell which positions are the first after a pause; the first of all is not.

        Args:
            positions: Ascending positions, float64.
        """
        steps = np.diff(positions, prepend=positions[:1])
        usual = float(np.median(steps[1:])) if steps.size > 1 else 0.0
        return steps > _PAUSE * max(usual, self.width)


def series(run: Run) -> Series:
    """Make the arrays of a run."""
    stamps = [frame.header.nanoseconds for frame in run.frames]
    first = min(stamps, default=0)
    seconds = np.array([(stamp - first) / 1e9 for stamp in stamps])
    duration = float(seconds.max(initial=0.0))
    if duration > 0:
        width, before = float(np.median(np.diff(np.unique(seconds)))), 0.0
        axis, positions = Axis("seconds", 0.0, duration + width), seconds
    else:
        width, before = 1.0, 0.5
        positions = np.arange(1.0, len(stamps) + 1)
        axis = Axis("images", 0.5, max(1, len(stamps)) + 0.5)

    class_ids: dict[int | None, int] = {}
    classified, classes, scores = [], [], []
    for index, frame in enumerate(run.frames):
        if frame.dropped:
            continue
        best, score = next(zip(*frame.prediction, strict=True), (None, math.nan))
        classified.append(index)
        classes.append(class_ids.setdefault(best, len(class_ids)))
        scores.append(score)
    return Series(
        axis, positions, width, before, duration, _stages(run),
        np.array(classified, np.intp), np.array(classes, np.intp), np.array(scores, np.float64),
        tuple(class_ids),
    )  # fmt: skip


def _stages(run: Run) -> dict[str, Floats]:
    names = dict.fromkeys(name for frame in run.frames for name in frame.milliseconds)
    stages = {}
    for name in dict.fromkeys((*STAGE_ORDER, *names)):
        if name in names:
            values = np.array([frame.milliseconds.get(name, math.nan) for frame in run.frames])
            values[~np.isfinite(values)] = math.nan
            if not np.isnan(values).all():
                stages[name.replace("_", " ")] = values
    return stages


class Envelope(NamedTuple):
    """Values to draw, from left to right, float64 without NaN.

    Attributes:
        positions: Positions on the axis; of summarised values, the middle of their column.
        low: The value, or the lowest of the column.
        middle: The value, or the median of the column.
        high: The value, or the highest of the column.
        summarised: Whether a column may stand for several images.
    """

    positions: Floats
    low: Floats
    middle: Floats
    high: Floats
    summarised: bool


def envelope(axis: Axis, positions: Floats, values: Floats) -> Envelope:
    """Keep at most `COLUMNS` values as they are; summarise more by column: range and median.

    Args:
        axis: The axis; its `COLUMNS` equal parts are the columns.
        positions: Positions of the values on the axis, float64.
        values: The values, float64; NaN is left out.
    """
    known = ~np.isnan(values)
    positions, values = positions[known], values[known]
    if values.size <= COLUMNS:
        return Envelope(positions, values, values, values, False)
    column = np.minimum((axis.share(positions) * COLUMNS).astype(np.intp), COLUMNS - 1)
    order = np.lexsort((values, column))
    column, values = column[order], values[order]
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    ends = np.append(starts[1:], values.size)
    middle = (values[(starts + ends - 1) // 2] + values[(starts + ends) // 2]) / 2
    centres = axis.start + (column[starts] + 0.5) * axis.column
    return Envelope(centres, values[starts], middle, values[ends - 1], True)
