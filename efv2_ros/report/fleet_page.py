"""The page of many runs: totals, the worst bags first, and what models disagree about."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from efv2_ros.report.charts import Bars, Row, Tick, axis_ticks, bars, median
from efv2_ros.report.disagreement import BagDisagreement, Disagreement, Example
from efv2_ros.report.rendering import write_page
from efv2_ros.report.scales import figure
from efv2_ros.report.series import Axis
from efv2_ros.report.sources import Problem, Source
from efv2_ros.report.summary import LOW_SCORE, RunSummary, group_by_bag, models_of
from efv2_ros.report.thumbnails import Thumbnail, encode

MOST_BARS = 200
"""Most bags in a chart: so many bars can be told apart."""

_MOST_PAIRS = 20
"""Most pairs of classes in the table."""

_MOST_REASONS = 3
"""Most reasons that are told of each bag."""


class Cell(NamedTuple):
    """A figure of a table, and what it is sorted by; empty if unknown."""

    text: str
    value: str


class BagRow(NamedTuple):
    """A row of a table of bags: the bag's name, the page that tells more, and figures."""

    name: str
    title: str
    page: str
    model: str
    figures: list[Cell]


class Chart(NamedTuple):
    """Charts of the same bags below each other.

    Attributes:
        rows: The charts.
        ticks: Ticks of their axis.
        left_out: Number of bags that have no bar.
    """

    rows: list[Bars]
    ticks: list[Tick]
    left_out: int


class _Measure(NamedTuple):
    name: str
    unit: str
    colour: str
    values: Sequence[float]


class Bags(NamedTuple):
    """All runs, the worst first, as the template `bags.html` shows them."""

    chart: Chart
    has_models: bool
    has_latency: bool
    rows: list[BagRow]


class Picture(NamedTuple):
    """An image that two models see differently."""

    thumbnail: Thumbnail
    classes: list[tuple[str, str]]
    bag: str
    page: str
    when: str


class Difference(NamedTuple):
    """A disagreement as the template `disagreement.html` shows it.

    Attributes:
        models: The two models.
        differing: Number of images whose best classes differ.
        images: Number of images that both classified.
        share: Share of `differing`.
        chart: Share of each bag, the highest first.
        pairs: The most frequent pairs of classes: number and share of the images that differ.
        number_of_pairs: Number of all pairs.
        pictures: Images that both models are sure about.
        rows: Figures of each bag.
    """

    models: tuple[str, str]
    differing: int
    images: int
    share: str
    chart: Chart
    pairs: list[tuple[str, str, list[str]]]
    number_of_pairs: int
    pictures: list[Picture]
    rows: list[BagRow]


def write_fleet_page(
    path: Path,
    name: str,
    summaries: Sequence[RunSummary],
    problems: Sequence[Problem],
    disagreements: Sequence[Disagreement] = (),
    pictures: Mapping[Example, NDArray[np.uint8]] | None = None,
) -> None:
    """Write the page of many runs, which links to the page of each in the same folder.

    Args:
        path: The page.
        name: Its title.
        summaries: The runs.
        problems: What has no run.
        disagreements: What the models disagree about.
        pictures: BGR pictures of their examples, uint8 of shape (height, width, 3) and any size.

    Raises:
        FileWriteError: The file cannot be written.
    """
    names = _names(summaries)
    worst = sorted(summaries, key=lambda each: (-each.unsure_share, names[each.source]))
    shown = list(pictures or {})
    thumbnails = encode(dict(enumerate((pictures or {}).values())))
    by_example = {shown[index]: thumbnail for index, thumbnail in thumbnails.items()}
    write_page(
        path, "fleet.html", ["page.css", "fleet.css"], ["marks.js", "fleet.js"],
        name=name,
        models=models_of(summaries),
        figures=_key_figures(summaries),
        problems=_problems(summaries, names, problems),
        low_score=f"{LOW_SCORE:.0%}",
        bags=_bags(worst, names) if worst else None,
        drops=_drops(summaries),
        disagreements=[_difference(each, names, by_example) for each in disagreements],
    )  # fmt: skip


def _names(summaries: Sequence[RunSummary]) -> dict[Source, str]:
    """Name each run as its file is named; with the folder where a model has several of a name."""
    counts = Counter((each.source.name, each.model) for each in summaries)
    return {
        each.source: each.source.name
        if counts[each.source.name, each.model] == 1
        else str(Path(each.source.path.absolute().parent.name, each.source.name))
        for each in summaries
    }


def _link(page: str) -> str:
    return quote(os.fsencode(page))


def _key_figures(summaries: Sequence[RunSummary]) -> list[tuple[str, str, str]]:
    groups = group_by_bag(summaries)
    images = sum(each.images for each in summaries)
    classified = sum(each.classified for each in summaries)
    dropped = images - classified
    seconds = sum(max(each.seconds for each in group) for group in groups)
    models = len(models_of(summaries))
    runs = "" if len(groups) == len(summaries) else f"in {len(summaries):,} runs"
    return [
        ("bags", f"{len(groups):,}", runs),
        ("images", f"{images:,}", runs),
        ("classified", f"{classified:,}", f"{classified / images:.1%}" if images else ""),
        ("dropped", f"{dropped:,}", f"{dropped / images:.1%}" if images else ""),
        ("recorded", _duration(seconds), "first to last stamp"),
        ("models", f"{models:,}", ""),
    ]  # fmt: skip


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:,.1f} h"


def _problems(
    summaries: Sequence[RunSummary], names: Mapping[Source, str], problems: Sequence[Problem]
) -> list[tuple[str, str, str]]:
    """List name, page and reason of what went wrong; what has no run has no page.

    Runs of several models about the same damaged bag share a line.
    """
    pages = {(each.name, each.reason): "" for each in problems}
    for each in summaries:
        if each.problems:
            problem = names[each.source], _reasons(each.problems)
            pages.setdefault(problem, _link(each.source.page))
    return [(name, page, reason) for (name, reason), page in pages.items()]


def _reasons(reasons: Sequence[str]) -> str:
    more = len(reasons) - _MOST_REASONS
    return "; ".join(reasons[:_MOST_REASONS]) + (f"; and {more:,} more" if more > 0 else "")


def _drops(summaries: Sequence[RunSummary]) -> list[Row]:
    drops = sum((Counter(each.drops) for each in summaries), Counter())
    images = sum(each.images for each in summaries)
    return [
        Row(cause, "dropped", [
            f"{number:,}", f"{number / images:.1%}",
            f"{sum(cause in each.drops for each in summaries):,}",
        ])
        for cause, number in sorted(drops.items(), key=lambda item: (-item[1], item[0]))
    ]  # fmt: skip


def _bags(worst: Sequence[RunSummary], names: Mapping[Source, str]) -> Bags:
    has_models = len(models_of(worst)) > 1
    has_latency = any(not math.isnan(each.latency[0]) for each in worst)
    things = [
        (f"{names[each.source]}, {each.model}" if has_models else names[each.source],
         _link(each.source.page))
        for each in worst
    ]  # fmt: skip
    measures = [
        _Measure("dropped", "%", "dropped", [each.dropped_share for each in worst]),
        _Measure(f"below {LOW_SCORE:.0%}", "%", "low", [each.low_share for each in worst]),
        _Measure("mean score", "%", "score", [each.mean_score for each in worst]),
        _Measure("p95 latency", "ms", "stage-infer", [each.latency[1] for each in worst]),
    ]
    return Bags(
        _chart(measures, things),
        has_models,
        has_latency,
        [
            BagRow(
                names[each.source], each.bag, _link(each.source.page), each.model,
                [
                    Cell(f"{each.images:,}", str(each.images)),
                    _share(each.dropped_share),
                    _share(each.low_share),
                    _share(each.mean_score),
                    *(map(_milliseconds, each.latency) if has_latency else ()),
                    Cell(str(len(each.problems) or ""), str(len(each.problems))),
                ],
            )
            for each in worst
        ],
    )  # fmt: skip


def _chart(measures: Sequence[_Measure], things: Sequence[tuple[str, str]]) -> Chart:
    """Draw the first `MOST_BARS` values of each measure, if any is neither zero nor unknown."""
    shown = things[:MOST_BARS]
    rows = [
        bars(
            values[:MOST_BARS], each.unit, each.name, each.colour,
            note=f"median {median(values, each.unit)}", things=shown,
        )
        for each in measures
        if np.nan_to_num((values := np.array(each.values, np.float64))[:MOST_BARS]).any()
    ]  # fmt: skip
    ticks = axis_ticks(Axis("images", 0.5, len(shown) + 0.5))
    return Chart(rows, ticks, len(things) - len(shown))


def _share(share: float) -> Cell:
    return Cell("", "") if math.isnan(share) else Cell(f"{share:.1%}", f"{share:.6g}")


def _milliseconds(value: float) -> Cell:
    return Cell("", "") if math.isnan(value) else Cell(figure(value), f"{value:.6g}")


def _difference(
    disagreement: Disagreement,
    names: Mapping[Source, str],
    thumbnails: Mapping[Example, Thumbnail],
) -> Difference:
    bags = sorted(disagreement.bags, key=lambda each: (-each.share, names[each.first.source]))
    pairs = disagreement.pairs
    differing, images = sum(pairs.values()), disagreement.images
    most = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:_MOST_PAIRS]
    things = [(names[each.first.source], _link(each.first.source.page)) for each in bags]
    return Difference(
        (disagreement.first, disagreement.second),
        differing,
        images,
        f"{differing / max(1, images):.1%}",
        _chart([_Measure("different", "%", "different", [each.share for each in bags])], things),
        [(*pair, [f"{number:,}", f"{number / differing:.1%}"]) for pair, number in most],
        len(pairs),
        [
            _picture(each, names, thumbnails[each])
            for each in disagreement.examples
            if each in thumbnails
        ],
        [_bag_row(each, names) for each in bags],
    )


def _bag_row(bag: BagDisagreement, names: Mapping[Source, str]) -> BagRow:
    return BagRow(
        names[bag.first.source], bag.first.bag, _link(bag.first.source.page), "",
        [
            Cell(f"{bag.images:,}", str(bag.images)),
            Cell(f"{bag.differing:,}", str(bag.differing)),
            _share(bag.share),
        ],
    )  # fmt: skip


def _picture(example: Example, names: Mapping[Source, str], thumbnail: Thumbnail) -> Picture:
    return Picture(
        thumbnail,
        [(name, f"{score:.1%}") for name, score in zip(example.pair, example.scores, strict=True)],
        names[example.summary.source],
        _link(example.summary.source.page),
        f"{example.seconds:.2f}\N{NO-BREAK SPACE}s",
    )
