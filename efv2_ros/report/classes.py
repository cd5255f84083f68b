"""The section on classes: which was seen when, how sure the model was, and what it looked at."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

import numpy as np

from efv2_ros.replay.run import Run
from efv2_ros.report.charts import LOW_BARS, curve_row, lane_row, over_time
from efv2_ros.report.markup import Html, count, element, name_cell, number_cell, table
from efv2_ros.report.scales import Scale
from efv2_ros.report.segments import LANES, Segments, chosen, lanes, pieces, segments
from efv2_ros.report.series import COLUMNS, Series
from efv2_ros.report.thumbnails import Thumbnail

_LISTED = 100
"""Most segments in the table."""

_NO_RESULT = "no result above the threshold"
_OTHER = "other"


def classes_section(run: Run, series: Series, thumbnails: Mapping[int, Thumbnail]) -> Html:
    """The section.

    Args:
        run: The run.
        series: Of the run.
        thumbnails: By their index in the run.
    """
    content = [element("h2", "Classes")]
    if not series.classified.size:
        content.append(element("p", "No image was classified."))
        return element("section", *content)
    found = segments(series)
    timeline = _Timeline(run, series, found)
    content += [
        timeline.chart(),
        element("h3", "What was seen"),
        timeline.film(thumbnails) if thumbnails else _no_thumbnails(run),
        timeline.table(),
    ]
    return element("section", *content)


class _Timeline:
    """Segments with the names and colours of their classes."""

    def __init__(self, run: Run, series: Series, found: Segments) -> None:
        self._series, self._segments = series, found
        self._lanes = lanes(found.classes, found.images)
        self._names = [_name(run, class_id) for class_id in series.class_ids]
        self._colours = _colours(series.class_ids, self._lanes)

    def chart(self) -> Html:
        series = self._series
        rows = [self._lane(lane) for lane in self._lanes]
        if not np.isnan(series.scores).all():
            rows.append(_score_row(series))
        notes = [
            f"{count(len(series.class_ids) - (None in series.class_ids), 'class', 'classes')} in "
            f"{count(self._segments.images.size, 'segment')}, which are consecutive images with "
            "the same best class.",
            "Beside a class is its share of the classified images. Below is the best class's score"
            + (
                f": the median, lowest and highest of each of {COLUMNS:,} columns."
                if series.scores.size > COLUMNS
                else "."
            ),
        ]
        if series.positions.size > COLUMNS:
            notes.append(LOW_BARS)
        if len(self._lanes[-1]) > 1:
            notes.insert(1, f"All but the {LANES} most frequent classes share the lane {_OTHER}.")
        return over_time(series.axis, rows, " ".join(notes))

    def _lane(self, lane: list[int]) -> Html:
        """A lane with the segments of its classes."""
        axis, found = self._series.axis, self._segments
        of_lane = np.flatnonzero(np.isin(found.classes, lane))
        name = self._names[lane[0]] if len(lane) == 1 else _OTHER
        bars = []
        for piece in pieces(axis, found.start[of_lane], found.end[of_lane]):
            group = of_lane[piece.members]
            lines = [
                self._names[found.classes[group[0]]] if group.size == 1 else name,
                axis.range_text(found.start[group[0]], found.end[group[-1]]),
                count(int(found.images[group].sum()), "image")
                + (f" in {count(group.size, 'segment')}" if group.size > 1 else ""),
                _score_range(np.fmin.reduce(found.low[group]), np.fmax.reduce(found.high[group])),
            ]
            bars.append((piece, lines))
        images = int(found.images[of_lane].sum())
        share = f"{images / self._series.classified.size:.1%}"
        label = f"{name}: {count(images, 'image')}, {share}"
        return lane_row(axis, name, share, bars, self._colours[lane[0]], label=label)

    def film(self, thumbnails: Mapping[int, Thumbnail]) -> Html:
        """The chosen segments that there is a thumbnail of."""
        items = []
        for segment in chosen(self._segments):
            thumbnail = thumbnails.get(int(self._segments.best[segment]))
            if thumbnail:
                items.append(self._picture(segment, thumbnail))
        shown, total = len(items), self._segments.images.size
        which = "Each segment" if shown == total else f"{shown} of {count(total, 'segment')}"
        note = f"{which} as the image with its highest score"
        if shown < total:
            note += ": the longest of each class, and the longest of equal parts of the run"
        return element("div", element("p", f"{note}."), element("ol", *items, class_="film"))

    def _picture(self, segment: int, thumbnail: Thumbnail) -> Html:
        found, axis = self._segments, self._series.axis
        key = found.classes[segment]
        when = axis.text(self._series.positions[found.best[segment]])
        picture = element(
            "img", src=thumbnail.uri, width=thumbnail.width, height=thumbnail.height,
            alt=f"{self._names[key]} at {when}",
        )  # fmt: skip
        score = _score_range(found.high[segment], found.high[segment], "")
        caption = element(
            "p",
            element("b", self._names[key], title=self._names[key]),
            " · ".join(filter(None, [score, when])),
            class_=self._colours[key],
        )
        return element("li", picture, caption)

    def table(self) -> Html:
        """The longest segments as text, folded away."""
        found, axis = self._segments, self._series.axis
        longest = np.argsort(-found.images, kind="stable")[:_LISTED]
        rows = []
        for segment in sorted(longest.tolist()):
            key = found.classes[segment]
            rows.append(
                [
                    name_cell(self._names[key], self._colours[key]),
                    number_cell(axis.range_text(found.start[segment], found.end[segment])),
                    number_cell(f"{found.images[segment]:,}"),
                    number_cell(_score_range(found.low[segment], found.high[segment], "")),
                ]
            )
        title = "All segments" if len(rows) == found.images.size else (
            f"The {len(rows)} longest of {count(found.images.size, 'segment')}"
        )  # fmt: skip
        return element(
            "details",
            element("summary", f"{title} as a table"),
            table(title, ["class", "#time", "#images", "#score"], rows),
        )


def _score_row(series: Series) -> Html:
    scores = series.scores
    lowest, median, highest = np.nanpercentile(scores, (0, 50, 100)).tolist()
    return curve_row(
        series, series.positions[series.classified], scores,
        Scale(0.0, max(1.0, highest)), "score", "%", "score",
        label=f"score of the best class over time: median {median:.1%}, "
        f"{lowest:.1%} to {highest:.1%}",
    )  # fmt: skip


def _score_range(low: float, high: float, before: str = "score ") -> str:
    """Empty where there are no scores."""
    if np.isnan(high):
        return ""
    first, last = f"{low:.1%}", f"{high:.1%}"
    return before + (first if first == last else f"{first} to {last}")


def _no_thumbnails(run: Run) -> Html:
    bag = run.info.get("bag")
    named = shlex.quote(bag) if bag and isinstance(bag, str) else "BAG"
    command = f"efv2 report RESULTS --bag {named}"
    return element(
        "div",
        element("p", "Pictures are not in here, but in the bag that was classified. To add them:"),
        element("p", element("code", command)),
    )


def _name(run: Run, class_id: int | None) -> str:
    if class_id is None:
        return _NO_RESULT
    return run.labels.get(class_id) or f"class {class_id}"


def _colours(class_ids: Sequence[int | None], groups: Sequence[Sequence[int]]) -> dict[int, str]:
    """A class of the style sheet for each class of the model.

    A colour goes with the class id, so that pages about the same model are alike, unless a more
    frequent class has it.
    """
    colours, free = {}, list(range(LANES))
    for group in groups:
        for key in group:
            class_id = class_ids[key]
            colours[key] = "other"
            if free and len(group) == 1 and class_id is not None:
                wanted = class_id % LANES
                taken = min(free, key=lambda each: (each - wanted) % LANES)
                free.remove(taken)
                colours[key] = f"class-{taken}"
    return colours
