"""The recipes that a search tried: their front of latency and fidelity, and a choice from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from efv2_ros.evaluation.statistics import CONFIDENCE
from efv2_ros.files import open_atomic
from efv2_ros.quantize.errors import QuantizeError
from efv2_ros.quantize.recipe import Recipe
from efv2_ros.quantize.trials import Cost, Score

_SLOWEST = 5


@dataclass(frozen=True)
class Point:
    """A recipe that was tried.

    Attributes:
        name: What it does, in a few words.
        origin: Why it was tried.
        key: Digest of the recipe, its model and its images.
        recipe: The recipe.
        score: What it keeps; None where it failed.
        cost: What it costs; None where it was not compiled.
        problem: Why it failed; may be empty.
    """

    name: str
    origin: str
    key: str
    recipe: Recipe
    score: Score | None = None
    cost: Cost | None = None
    problem: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether both figures are there, and the latency is that of the whole model."""
        return self.score is not None and self.cost is not None and self.cost.subgraphs == 1

    @property
    def figures(self) -> tuple[float, float]:
        """Milliseconds and mean cosine of a complete point."""
        assert self.score is not None and self.cost is not None
        return self.cost.milliseconds, self.score.cosine


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        points: All recipes tried, in the order in which they were.
        front: Those that none beats in both figures, the fastest first.
        ended: Why the search ended, as a sentence.
    """

    points: tuple[Point, ...]
    front: tuple[Point, ...]
    ended: str


def pareto(points: Iterable[Point]) -> tuple[Point, ...]:
    """The complete points that no other beats in both latency and cosine, the fastest first."""
    front: list[Point] = []
    complete = (each for each in points if each.is_complete)
    for point in sorted(complete, key=lambda each: (each.figures[0], -each.figures[1], each.name)):
        if not front or point.figures[1] > front[-1].figures[1]:
            front.append(point)
    return tuple(front)


def choose(
    front: Sequence[Point], *, budget_ms: float | None = None, max_drop: float | None = None
) -> Point:
    """Choose a recipe from the front.

    Args:
        front: From a search, the fastest first.
        budget_ms: Longest latency; the point that keeps most is chosen.
        max_drop: Most lost top-1, a share of 1 as in `Score.drop`; the fastest point is chosen.
            With both, the one that keeps most among those that meet both.

    Raises:
        QuantizeError: No point meets the wishes.
    """
    if not front:
        raise QuantizeError("no recipe could be compiled in one piece, so there is no choice")
    fitting = [each for each in front if budget_ms is None or each.figures[0] <= budget_ms]
    if not fitting:
        fastest = front[0].figures[0]
        raise QuantizeError(
            f"no recipe takes at most {budget_ms:g} ms: the fastest takes {fastest:.2f} ms"
        )
    if max_drop is None:
        return fitting[-1]
    keeping = [each for each in fitting if _drop(each) <= max_drop]
    if not keeping:
        best = min(fitting, key=_drop)
        raise QuantizeError(
            f"no recipe loses at most {100 * max_drop:g} points of top-1: the best loses "
            f"{100 * _drop(best):.2f}"
        )
    return keeping[0] if budget_ms is None else keeping[-1]


def _drop(point: Point) -> float:
    assert point.score is not None
    return point.score.drop


def as_dict(found: Found, about: Mapping[str, Any], chosen: Point | None) -> dict[str, Any]:
    """All figures of a search as plain values for JSON.

    Args:
        found: What it found.
        about: What was searched, and with what.
        chosen: The recipe that was chosen.
    """
    on_front = {each.key for each in found.front}
    return {
        **about,
        "milliseconds_are": "the compiler's estimate, not a board's measurement",
        "confidence": CONFIDENCE,
        "ended": found.ended,
        "chosen": chosen.key if chosen is not None else None,
        "front": [_point(each, layers=True) for each in found.front],
        "others": [_point(each) for each in found.points if each.key not in on_front],
    }


def _point(point: Point, *, layers: bool = False) -> dict[str, Any]:
    fields: dict[str, Any] = {"key": point.key, "name": point.name, "tried_as": point.origin}
    if point.score is not None:
        fields |= {
            "cosine_mean": point.score.cosine,
            "cosine_min": point.score.worst,
            "agreement": point.score.agreement,
            "agreement_interval": list(point.score.agreement_interval),
            "drop": point.score.drop,
            "images": len(point.score.cosines),
        }
    if point.cost is not None:
        fields |= {
            "milliseconds": point.cost.milliseconds,
            "fps": point.cost.fps,
            "ddr_bytes": point.cost.ddr_bytes,
            "level": point.cost.level,
            "pieces": point.cost.subgraphs,
        }
        if layers:
            fields["slowest_layers"] = [
                {"name": each.name, "microseconds": each.microseconds, "waits_for": each.waits_for}
                for each in point.cost.slowest(_SLOWEST)
            ]
    if point.problem:
        fields["problem"] = point.problem
    return {**fields, "recipe": point.recipe.as_dict()}


def describe(point: Point) -> str:
    """A line on a compiled recipe, for its file."""
    milliseconds, cosine = point.figures
    assert point.score is not None and point.cost is not None
    return (
        f"Found by a search: {milliseconds:.2f} ms by the compiler's estimate at "
        f"{point.cost.level}, cosine {cosine:.4f}, agreement {100 * point.score.agreement:.1f} % "
        f"on {len(point.score.cosines)} images"
    )


def write_recipe(recipe: Recipe, description: str, path: Path) -> None:
    """Write a recipe as a file that `read_recipe` reads.

    Raises:
        FileWriteError: It cannot be written.
    """
    document = replace(recipe, description=description).as_dict()
    with open_atomic(path) as file:
        yaml.safe_dump(document, file, sort_keys=False, allow_unicode=True, width=99)
