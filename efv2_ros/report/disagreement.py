"""Disagreement of two models about the images of the same bags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from efv2_ros.classify.postprocess import Prediction
from efv2_ros.replay.run import Run
from efv2_ros.report.classes import class_name
from efv2_ros.report.sources import Source
from efv2_ros.report.summary import RunSummary, group_by_bag, models_of
from efv2_ros.report.thumbnails import ImageKey, image_keys

EXAMPLES = 24
"""Most images that are shown for two models."""

Pair = tuple[str, str]
"""The first model's class, and the second's."""


class Example(NamedTuple):
    """An image that two models see differently.

    Attributes:
        summary: The first model's run.
        key: The image.
        seconds: Its stamp, after the first of the run.
        pair: The best classes.
        scores: Their scores.
    """

    summary: RunSummary
    key: ImageKey
    seconds: float
    pair: Pair
    scores: tuple[float, float]

    @property
    def confidence(self) -> float:
        """How sure both models are: the lower score."""
        return min(self.scores)


@dataclass(slots=True)
class BagDisagreement:
    """Disagreement about a bag.

    Attributes:
        first: The first model's run.
        second: The second model's run.
        images: Number of images that both models classified.
        pairs: Number of images whose best classes differ, by the pair of classes.
        examples: For each of the pairs, at most `EXAMPLES`, the image with the most confidence;
            the surest first.
    """

    first: RunSummary
    second: RunSummary
    images: int = 0
    pairs: Counter[Pair] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)

    @property
    def differing(self) -> int:
        """Number of images whose best classes differ."""
        return sum(self.pairs.values())

    @property
    def share(self) -> float:
        """Share of the images whose best classes differ; 0 without images."""
        return self.differing / max(1, self.images)


@dataclass(slots=True)
class Disagreement:
    """Disagreement of two models about all bags that both have classified.

    Attributes:
        first: The first model.
        second: The second model.
        bags: What it is for each bag, in the order of the runs.
        examples: Images that both models are sure about, spread over bags and pairs of classes;
            the surest first.
    """

    first: str
    second: str
    bags: list[BagDisagreement]
    examples: list[Example]

    @property
    def images(self) -> int:
        """Number of images that both models classified."""
        return sum(each.images for each in self.bags)

    @property
    def pairs(self) -> Counter[Pair]:
        """Number of images whose best classes differ, by the pair of classes."""
        return sum((each.pairs for each in self.bags), Counter())


def compare_models(
    summaries: Sequence[RunSummary], read: Callable[[Source], Run]
) -> list[Disagreement]:
    """Compare the first model with each other one that has classified some of the same bags.

    Two runs are read at a time. Images are matched by their stamps; those that either model
    dropped do not count. Classes are the same if they have the same name.

    Args:
        summaries: All runs.
        read: Reads a run.
    """
    models = models_of(summaries)
    pairs = [
        (first, second)
        for group in group_by_bag(summaries)
        for first, second in _pairs(sorted(group, key=lambda each: models.index(each.model)))
    ]
    disagreements: dict[Pair, list[BagDisagreement]] = {}
    for first, second in pairs:
        found = compare_runs(first, read(first.source), second, read(second.source))
        disagreements.setdefault((first.model, second.model), []).append(found)
    return [
        Disagreement(*pair, bags, _spread(bags))
        for pair, bags in sorted(
            disagreements.items(), key=lambda item: [models.index(each) for each in item[0]]
        )
    ]


def _spread(bags: Iterable[BagDisagreement]) -> list[Example]:
    """Choose at most `EXAMPLES`: again and again the surest of the least shown bags and pairs."""
    found = [example for bag in bags for example in bag.examples]
    found.sort(key=lambda each: -each.confidence)
    chosen: list[Example] = []
    used: Counter[object] = Counter()
    while found and len(chosen) < EXAMPLES:
        best = min(found, key=lambda each: used[each.summary] + used[each.pair])
        found.remove(best)
        used.update((best.summary, best.pair))
        chosen.append(best)
    return sorted(chosen, key=lambda each: -each.confidence)


def _pairs(group: Sequence[RunSummary]) -> Iterator[tuple[RunSummary, RunSummary]]:
    """Pair the first run of the first model with the first run of each other model."""
    firsts = {each.model: each for each in reversed(group)}
    first, *others = (firsts[model] for model in models_of(group))
    for other in others:
        yield first, other


def compare_runs(
    first: RunSummary, first_run: Run, second: RunSummary, second_run: Run
) -> BagDisagreement:
    """Compare two runs of the same bag."""
    found = BagDisagreement(first, second)
    start = min((frame.header.nanoseconds for frame in first_run.frames), default=0)
    predictions = _predictions(second_run)
    examples: dict[Pair, Example] = {}
    for key, prediction in _predictions(first_run).items():
        other = predictions.get(key)
        if other is None:
            continue
        found.images += 1
        (one, one_score), (two, two_score) = _best(first_run, prediction), _best(second_run, other)
        if one == two:
            continue
        found.pairs[one, two] += 1
        example = Example(
            first, key, (key.stamp - start) / 1e9, (one, two), (one_score, two_score)
        )
        known = examples.setdefault((one, two), example)
        if example.confidence > known.confidence:
            examples[one, two] = example
    found.examples = sorted(examples.values(), key=lambda each: -each.confidence)[:EXAMPLES]
    return found


def _predictions(run: Run) -> dict[ImageKey, Prediction]:
    return {
        key: frame.prediction
        for key, frame in zip(image_keys(run), run.frames, strict=True)
        if not frame.dropped
    }


def _best(run: Run, prediction: Prediction) -> tuple[str, float]:
    class_id, score = next(zip(*prediction, strict=True), (None, 0.0))
    return class_name(run, class_id), score
