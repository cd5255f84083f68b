"""Classes of a run: which was seen when, how sure the model was, and what it looked at."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from efv2_ros.replay.run import Run
from efv2_ros.report.charts import Curve, Lane, Row, curve, mark
from efv2_ros.report.scales import Scale, count
from efv2_ros.report.segments import LANES, Segments, chosen, lanes, pieces, segments
from efv2_ros.report.series import COLUMNS, Series
from efv2_ros.report.thumbnails import Thumbnail

OTHER = "other"
"""Name of the lane that rare classes share."""

_MOST_ROWS = 100
"""Most segments in the table."""

_NO_RESULT = "no result above the threshold"


class Picture(NamedTuple):
    """The image of a segment with its highest score."""

    thumbnail: Thumbnail
    name: str
    colour: str
    score: str
    when: str


class Classes(NamedTuple):
    """Classes as the template `classes.html` shows them.

    Attributes:
        number: Number of classes that were the best for an image.
        segments: Number of segments.
        lanes: The segments over time.
        has_other_lane: Whether rare classes share a lane.
        score: The best class's score over time; None if no image has a result.
        is_summarised: Whether the score is that of columns, not of single images.
        pictures: The segments that have a thumbnail and are to be shown.
        bag: The bag for the command that adds thumbnails, quoted for a shell.
        rows: Time, number of images and scores of the longest segments, in the order of time.
    """

    number: int
    segments: int
    lanes: list[Lane]
    has_other_lane: bool
    score: Curve | None
    is_summarised: bool
    pictures: list[Picture]
    bag: str
    rows: list[Row]


def summarize_classes(
    run: Run, series: Series, thumbnails: Mapping[int, Thumbnail]
) -> Classes | None:
    """Describe the classes of a run; None if no image was classified.

    Args:
        run: The run.
        series: The run's series.
        thumbnails: Thumbnails by their index in the run.
    """
    if not series.classified.size:
        return None
    found = segments(series)
    timeline = _Timeline(run, series, found)
    bag = run.info.get("bag")
    return Classes(
        number=len(series.class_ids) - (None in series.class_ids),
        segments=found.images.size,
        lanes=timeline.lanes(),
        has_other_lane=timeline.has_other_lane,
        score=None if np.isnan(series.scores).all() else _score(series),
        is_summarised=series.scores.size > COLUMNS,
        pictures=timeline.pictures(thumbnails),
        bag=shlex.quote(bag) if bag and isinstance(bag, str) else "BAG",
        rows=timeline.rows(),
    )


class _Timeline:
    """Segments of a run together with the names and colours of their classes."""

    def __init__(self, run: Run, series: Series, found: Segments) -> None:
        self._series, self._segments = series, found
        self._lanes = lanes(found.classes, found.images)
        self._names = [class_name(run, class_id) for class_id in series.class_ids]
        self._colours = _colours(series.class_ids, self._lanes)
        self.has_other_lane = len(self._lanes[-1]) > 1

    def lanes(self) -> list[Lane]:
        return [self._lane(lane) for lane in self._lanes]

    def _lane(self, lane: list[int]) -> Lane:
        axis, found = self._series.axis, self._segments
        of_lane = np.flatnonzero(np.isin(found.classes, lane))
        name = self._names[lane[0]] if len(lane) == 1 else OTHER
        marks = []
        for piece in pieces(axis, found.start[of_lane], found.end[of_lane]):
            group = of_lane[piece.members]
            lines = [
                self._names[found.classes[group[0]]] if group.size == 1 else name,
                axis.range_text(found.start[group[0]], found.end[group[-1]]),
                count(int(found.images[group].sum()), "image")
                + (f" in {count(group.size, 'segment')}" if group.size > 1 else ""),
                _score_range(np.fmin.reduce(found.low[group]), np.fmax.reduce(found.high[group])),
            ]
            marks.append(mark(axis, piece, lines))
        images = int(found.images[of_lane].sum())
        share = f"{images / self._series.classified.size:.1%}"
        label = f"{name}: {count(images, 'image')}, {share}"
        return Lane(name, share, self._colours[lane[0]], label, marks)

    def pictures(self, thumbnails: Mapping[int, Thumbnail]) -> list[Picture]:
        found, axis = self._segments, self._series.axis
        pictures = []
        for segment in chosen(found):
            thumbnail = thumbnails.get(int(found.best[segment]))
            if thumbnail:
                key, high = found.classes[segment], found.high[segment]
                when = axis.text(self._series.positions[found.best[segment]])
                pictures.append(
                    Picture(
                        thumbnail, self._names[key], self._colours[key],
                        _score_range(high, high, ""), when,
                    )
                )  # fmt: skip
        return pictures

    def rows(self) -> list[Row]:
        found, axis = self._segments, self._series.axis
        longest = np.argsort(-found.images, kind="stable")[:_MOST_ROWS]
        rows = []
        for segment in sorted(longest.tolist()):
            key = found.classes[segment]
            figures = [
                axis.range_text(found.start[segment], found.end[segment]),
                f"{found.images[segment]:,}",
                _score_range(found.low[segment], found.high[segment], ""),
            ]
            rows.append(Row(self._names[key], self._colours[key], figures))
        return rows


def _score(series: Series) -> Curve:
    scores = series.scores
    lowest, median, highest = np.nanpercentile(scores, (0, 50, 100)).tolist()
    return curve(
        series, series.positions[series.classified], scores,
        Scale(0.0, max(1.0, highest)), "score", "%", "score",
        label=f"score of the best class over time: median {median:.1%}, "
        f"{lowest:.1%} to {highest:.1%}",
    )  # fmt: skip


def _score_range(low: float, high: float, before: str = "score ") -> str:
    """Format a range of scores; empty without scores."""
    if np.isnan(high):
        return ""
    first, last = f"{low:.1%}", f"{high:.1%}"
    return before + (first if first == last else f"{first} to {last}")


def class_name(run: Run, class_id: int | None) -> str:
    """Return the name of a class of the model; None stands for images without a result."""
    if class_id is None:
        return _NO_RESULT
    return run.labels.get(class_id) or f"class {class_id}"


def _colours(class_ids: Sequence[int | None], groups: Sequence[Sequence[int]]) -> dict[int, str]:
    """Choose a class of the style sheet for each class of the model.

    The colour depends on the class id, so that pages about the same model are alike, unless a
    more frequent class has the same colour.
    """
    colours, free = {}, list(range(LANES))
    for group in groups:
        for key in group:
            class_id = class_ids[key]
            colours[key] = OTHER
            if free and len(group) == 1 and class_id is not None:
                wanted = class_id % LANES
                taken = min(free, key=lambda each: (each - wanted) % LANES)
                free.remove(taken)
                colours[key] = f"class-{taken}"
    return colours
