"""Segments of the class timeline, and the choice of the images that are shown for them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from efv2_ros.report.series import Axis, Floats, Indices, Series

THUMBNAILS = 40
"""Most images that are shown."""

LANES = 8
"""Most classes, or causes of drops, with a lane of their own; all others share one lane."""

_PART = 8
"""Number of columns within which intervals too short to be visible are drawn as one bar."""


class Segments(NamedTuple):
    """Runs of consecutive results with the same best class; arrays with an entry for each.

    A dropped image does not end a segment, a pause does.

    Attributes:
        classes: Indices into the `class_ids` of the series.
        start: Left ends on the axis, float64.
        end: Right ends, float64: the start of the next segment unless there is a pause.
        images: Numbers of results.
        best: Index in the run of the image with the highest score; of equal scores, the first.
        low: Lowest scores, float64, NaN without results.
        high: Highest scores, float64, NaN without results.
    """

    classes: Indices
    start: Floats
    end: Floats
    images: Indices
    best: Indices
    low: Floats
    high: Floats


def segments(series: Series) -> Segments:
    """Find the segments of a run, from left to right."""
    classes, scores = series.classes, series.scores
    positions = series.positions[series.classified] - series.before
    paused = series.pauses(positions)
    starts = np.flatnonzero((np.diff(classes, prepend=-1) != 0) | paused)
    images = np.diff(np.append(starts, classes.size))
    lasts = starts + images - 1
    # A segment lasts until the next one starts, or as long as its last image does.
    end = positions[lasts] + series.width
    goes_on = np.flatnonzero(~paused[starts][1:])
    end[goes_on] = positions[starts][goes_on + 1]
    order = np.lexsort((-scores, np.repeat(np.arange(starts.size), images)))
    best, worst = order[starts], order[lasts]
    return Segments(
        classes[starts], positions[starts], end, images,
        series.classified[best], scores[worst], scores[best],
    )  # fmt: skip


def lanes(keys: Indices, weights: Indices) -> list[list[int]]:
    """Group keys into lanes: one for each of the `LANES` heaviest keys, one for all others.

    Args:
        keys: Integers from 0; a key may occur several times.
        weights: Weight of each occurrence.

    Returns:
        The keys of each lane, the heaviest first; of equal weights, the lower key first.
    """
    totals = np.bincount(keys, weights)
    ranked = [int(key) for key in np.argsort(-totals, kind="stable") if totals[key]]
    if len(ranked) <= LANES:
        return [[key] for key in ranked]
    return [*([key] for key in ranked[:LANES]), ranked[LANES:]]


def chosen(segments: Segments) -> list[int]:
    """Choose the segments to show an image of, at most `THUMBNAILS`, from left to right.

    Up to that number, all are chosen. Of more, half of the places go to different classes, the
    most frequent first, each with its longest segment; the other half goes to the longest
    segments of equal parts of the run.
    """
    count = segments.classes.size
    if count <= THUMBNAILS:
        return list(range(count))
    longest = np.argsort(-segments.images, kind="stable")
    firsts = longest[np.unique(segments.classes[longest], return_index=True)[1]]
    totals = np.bincount(segments.classes, segments.images)[segments.classes[firsts]]
    taken = set(firsts[np.argsort(-totals, kind="stable")][: THUMBNAILS // 2].tolist())
    # From each part in turn, take its longest free segment; then fill up with the longest of all.
    left, right = segments.start[0], segments.start[-1]
    places = (segments.start - left) / (right - left) if right > left else np.zeros(count)
    free = THUMBNAILS - len(taken)
    parts = np.minimum((places * free).astype(np.intp), free - 1)
    for part in range(free):
        of_part = longest[parts[longest] == part].tolist()
        taken.update([each for each in of_part if each not in taken][:1])
    for each in longest.tolist():
        if len(taken) == THUMBNAILS:
            break
        taken.add(each)
    return sorted(taken)


class Piece(NamedTuple):
    """A bar of a lane, which stands for one interval or for several short ones.

    Attributes:
        left: Left end on the axis.
        right: Right end on the axis.
        share: Share of the bar's width that its intervals cover, 0 to 1.
        members: Indices of the bar's intervals.
    """

    left: float
    right: float
    share: float
    members: Indices


def pieces(axis: Axis, start: Floats, end: Floats) -> list[Piece]:
    """Make the bars of a lane: one for each visible interval, one for neighbouring short ones.

    Args:
        axis: The axis.
        start: Left ends of the intervals, ascending, float64.
        end: Right ends, float64.
    """
    small = end - start < axis.column / 2
    found = [
        Piece(float(start[each]), float(end[each]), 1.0, np.array([each]))
        for each in np.flatnonzero(~small)
    ]
    length = _PART * axis.column
    parts = np.floor((start[small] - axis.start) / length)
    groups = np.split(np.flatnonzero(small), np.flatnonzero(np.diff(parts)) + 1)
    for members in groups if small.any() else []:
        left = axis.start + math.floor((start[members[0]] - axis.start) / length) * length
        covered = float((end - start)[members].sum()) / length
        found.append(Piece(left, min(left + length, axis.end), min(covered, 1.0), members))
    return sorted(found, key=lambda piece: piece.left)
