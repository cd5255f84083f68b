"""What the page of many runs keeps of each of them."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from efv2_ros.classify.latency import STAGES
from efv2_ros.replay.run import Run
from efv2_ros.report.sources import Source

LOW_SCORE = 0.5
"""A best class with a lower score is more likely wrong than right, says the model itself."""

_WORK = tuple(stage for stage in STAGES if stage != "wait")
"""Stages whose durations do not depend on how fast the images come."""

_MOST_MS = 1e12
"""A longer latency, 32 years, is no latency, but files may hold any."""


@dataclass(frozen=True, slots=True, eq=False)
class RunSummary:
    """Figures of a run.

    Attributes:
        source: Where the run is.
        bag: Path or URL of the bag; empty if unknown.
        topic: Topic of the images; empty if unknown.
        model: The model and its runtime.
        images: Number of images, dropped ones included.
        drops: Number of images without a result, by cause.
        low_scores: Number of images whose best score is below `LOW_SCORE`, or that have no class.
        mean_score: Mean of the best scores; NaN if no image has one.
        seconds: Time from the first to the last stamp.
        latency: Median and 95th percentile, in milliseconds, of the time from converting an image
            to its result, without waiting for other images; NaN if unknown.
        problems: A sentence for each thing that was wrong with the bag.
    """

    source: Source
    bag: str
    topic: str
    model: str
    images: int
    drops: Mapping[str, int]
    low_scores: int
    mean_score: float
    seconds: float
    latency: tuple[float, float]
    problems: tuple[str, ...]

    @property
    def classified(self) -> int:
        """Number of images with a result."""
        return self.images - sum(self.drops.values())

    @property
    def dropped_share(self) -> float:
        """Share of the images that were dropped; 0 without images."""
        return sum(self.drops.values()) / max(1, self.images)

    @property
    def low_share(self) -> float:
        """Share of the images with a low score; 0 without images."""
        return self.low_scores / max(1, self.images)

    @property
    def unsure_share(self) -> float:
        """Share of the images without a sure result: dropped ones, and those with a low score."""
        return self.dropped_share + self.low_share


def summarize_run(run: Run, source: Source) -> RunSummary:
    """Summarize a run."""
    info = {key: str(run.info.get(key) or "") for key in ("bag", "topic", "model", "runtime")}
    problems = run.info.get("problems") or []
    known = map(str, problems if isinstance(problems, list) else [problems])
    best = [
        next(iter(frame.prediction.scores), math.nan) for frame in run.frames if not frame.dropped
    ]
    scores = np.array(best, np.float64).clip(0.0, 1.0)
    stamps = [frame.header.nanoseconds for frame in run.frames]
    return RunSummary(
        source,
        info["bag"],
        info["topic"],
        " on ".join(filter(None, [info["model"], info["runtime"]])) or "unknown model",
        images=len(run.frames) + sum(run.lost.values()),
        drops=run.drops(),
        low_scores=int((~(scores >= LOW_SCORE)).sum()),
        mean_score=math.nan if np.isnan(scores).all() else float(np.nanmean(scores)),
        seconds=(max(stamps) - min(stamps)) / 1e9 if stamps else 0.0,
        latency=_latency(run),
        problems=tuple(dict.fromkeys([*source.problems, *known])),
    )


def _latency(run: Run) -> tuple[float, float]:
    sums = [
        sum(frame.milliseconds.get(stage, 0.0) for stage in _WORK)
        for frame in run.frames
        if not frame.dropped and any(stage in frame.milliseconds for stage in _WORK)
    ]
    known = [each for each in sums if math.isfinite(each)]
    if not known:
        return math.nan, math.nan
    median, high = np.percentile(np.clip(known, 0.0, _MOST_MS), (50, 95)).tolist()
    return median, high


def group_by_bag(summaries: Iterable[RunSummary]) -> list[list[RunSummary]]:
    """Put the runs of the same topic of the same bag together.

    Bags may have been moved between two runs, so bags of the same name are the same unless a model
    has classified several of them; then their paths tell them apart.
    """
    by_name: dict[tuple[str, str], list[RunSummary]] = defaultdict(list)
    for each in summaries:
        by_name[PurePath(each.bag).name or each.source.name, each.topic].append(each)
    groups: list[list[RunSummary]] = []
    for group in by_name.values():
        by_path: dict[str, list[RunSummary]] = defaultdict(list)
        if len({each.model for each in group}) == len(group):
            groups.append(group)
            continue
        for each in group:
            by_path[os.path.abspath(each.bag)].append(each)  # noqa: PTH100 - URLs and odd names
        groups.extend(by_path.values())
    return groups


def models_of(summaries: Sequence[RunSummary]) -> list[str]:
    """List the models of some runs, in the order in which they occur."""
    return list(dict.fromkeys(each.model for each in summaries))
