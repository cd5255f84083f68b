"""A search for better recipes: the Pareto front of latency against fidelity, on a budget."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from efv2_ros.quantize.errors import QuantizeError
from efv2_ros.quantize.front import Found, Point, pareto
from efv2_ros.quantize.recipe import Recipe
from efv2_ros.quantize.sensitivity import Row, by_worth, effect, shared_costs
from efv2_ros.quantize.space import Space
from efv2_ros.quantize.trials import Trials
from efv2_ros.quantize.variants import (
    summary,
    wide_groups,
    with_rewrites,
    with_wide,
)

BATCH = 4
"""Recipes that are tried between two looks at the front: the same on every machine."""

_MARGIN = 0.97
"""Share of the expected latency that a recipe may take at the least, if its blocks differ."""

_SHARE = 0.5
"""Share of its part of the cost of 16 bits everywhere that 16 bits in one block take at least."""

_ATTEMPTS = 200
_SINGLES = 3
"""Blocks that are compiled alone: those worth most."""

_PREFIXES = 6
"""Sets of the blocks that are worth most, from few to all."""


@dataclass(frozen=True)
class Budget:
    """When a search ends.

    Attributes:
        points: Most recipes to try; those known before count, so that an interrupted search ends
            where it would have.
        seconds: Longest time of this run; None is any.
    """

    points: int = 60
    seconds: float | None = None


def search(
    trials: Trials,
    space: Space,
    starts: Sequence[Recipe],
    budget: Budget,
    *,
    seed: int = 0,
    on_point: Callable[[Point, int], None] = lambda point, tried: None,
    clock: Callable[[], float] = time.monotonic,
) -> Found:
    """Search for recipes that are fast and keep the float model's answers.

    Recipes are quantised first, which is cheap, and compiled only if their fidelity is not beaten
    by a compiled recipe that is faster than they are expected to be. The steps are: the recipes
    given, and their parts at 8 bits; other ranges; other rewrites and widths of single operators;
    each block alone at 16 bits, of which the best are compiled; sets of the blocks that gain most
    for each millisecond; then changes of single choices of the recipes on the front, at random.

    The same trials and seed give the same search.

    Args:
        trials: Tries the recipes, and knows those of an earlier run.
        space: What may be changed.
        starts: Recipes to start from, at least one.
        budget: When to end.
        seed: Seed of the random changes.
        on_point: Called with each point and its number, from 1.
        clock: Seconds, for the budget.

    Raises:
        QuantizeError: A recipe given does not fit the model, or none could be quantised.
        Stopped: The trials were stopped; what was finished is kept.
    """
    return _Search(trials, space, budget, seed, on_point, clock).run(starts)


class _Enough(Exception):
    """The budget is spent; the message says which."""


@dataclass
class _Search:
    trials: Trials
    space: Space
    budget: Budget
    seed: int
    on_point: Callable[[Point, int], None]
    clock: Callable[[], float]
    points: dict[str, Point] = field(default_factory=dict)
    worth: dict[str, float] = field(default_factory=dict)
    milliseconds: dict[str, float] = field(default_factory=dict)

    def run(self, starts: Sequence[Recipe]) -> Found:
        self.start = self.clock()
        for each in starts:
            self.trials.key(each)
        try:
            for batch in self.steps(starts):
                self.consider(batch)
            ended = "Nothing is left to try."
        except _Enough as reason:
            ended = str(reason)
        complete = [each for each in self.points.values() if each.score is not None]
        if not complete:
            problem = next((each.problem for each in self.points.values()), "nothing was tried")
            raise QuantizeError(f"no recipe could be tried: {problem}")
        return Found(tuple(self.points.values()), pareto(self.points.values()), ended)

    def steps(self, starts: Sequence[Recipe]) -> Iterator[Mapping[str, list[Recipe]]]:
        """The batches, by why they are tried; each may depend on what came before."""
        space = self.space
        yield {"given": list(starts)}
        yield {"all int8": [with_wide(each, space.parts(each), ()) for each in starts]}
        first = self.base()
        yield {"other rewrites": [with_rewrites(first, each) for each in space.rewrites]}
        first = self.base()
        yield {"other ranges": space.calibrations(first)}
        ranges = max(self.narrow(first), key=_cosine).recipe.calibration
        first = replace(first, calibration=ranges)
        yield {"single operators": space.operators(first)}
        base = replace(self.base(), calibration=ranges)
        yield {"all int8": [base]}
        parts = space.parts(base)
        yield {"all int16": [with_wide(base, parts, parts.groups)]}
        self.share_costs(base)
        yield {"one block": [with_wide(base, parts, (each,)) for each in parts.groups]}
        order = self.learn(base)
        for group in order[:_SINGLES]:
            self.compile(self.points[self.trials.key(with_wide(base, parts, (group,)))])
        order = self.learn(base)  # with the costs of those
        sizes = sorted({max(1, round(len(order) * each / _PREFIXES))
                        for each in range(1, _PREFIXES + 1)})  # fmt: skip
        yield {"best blocks": [with_wide(base, parts, order[:size]) for size in sizes if order]}
        chance = random.Random(self.seed)
        while batch := self.mutations(chance):
            yield {"a change": batch}

    def base(self) -> Recipe:
        """The fastest recipe so far whose parts all have 8 bits; of equally fast ones the best."""
        narrow = [each for each in self.points.values() if each.is_complete
                  and not wide_groups(each.recipe, self.space.parts(each.recipe))]  # fmt: skip
        scored = [each for each in self.points.values() if each.score is not None]
        if narrow:
            return min(narrow, key=lambda each: (each.figures[0], -each.figures[1])).recipe
        if scored:
            return scored[-1].recipe
        problem = next((each.problem for each in self.points.values()), "")
        raise QuantizeError(f"no recipe could be tried: {problem}")

    def narrow(self, like: Recipe) -> list[Point]:
        """The scored points that differ from a recipe in their ranges alone."""
        return [
            each for each in self.points.values()
            if each.score is not None
            and _structure(each.recipe) == _structure(like)
        ]  # fmt: skip

    def consider(self, batch: Mapping[str, list[Recipe]]) -> None:
        """Try the recipes that are new, and compile those that may be on the front."""
        for origin, recipes in batch.items():
            fresh: dict[str, Point] = {}
            for recipe in recipes:
                point = self.point(recipe, origin)
                if point is not None and point.key not in fresh:
                    fresh[point.key] = point
            waiting = list(fresh.values())
            for first in range(0, len(waiting), BATCH):
                self.try_some(waiting[first : first + BATCH], origin)

    def point(self, recipe: Recipe, origin: str) -> Point | None:
        """Make a point; None for a recipe that was tried or does not fit the model."""
        try:
            key = self.trials.key(recipe)
            name = summary(recipe, self.space.parts(recipe))
        except QuantizeError:
            return None
        return None if key in self.points else Point(name, origin, key, recipe)

    def try_some(self, points: Sequence[Point], origin: str) -> None:
        left = self.budget.points - len(self.points)
        if left <= 0:
            raise _Enough(f"The budget of {self.budget.points} recipes is spent.")
        self.check_time()
        points = points[:left]
        outcomes = self.trials.scores([(each.name, each.recipe) for each in points])
        scored = [
            replace(each, score=outcome.value, problem=outcome.problem)
            for each, outcome in zip(points, outcomes, strict=True)
        ]
        for each in scored:
            self.points[each.key] = each
        # The most promising first: once compiled, it may spare the others.
        for each in sorted(scored, key=lambda each: (-_cosine(each), each.key)):
            if each.score is None or origin in _NEVER:
                continue
            if origin in _ALWAYS or not self.is_beaten(each):
                self.compile(each)
        first = len(self.points) - len(scored) + 1
        for number, each in enumerate(scored, first):
            self.on_point(self.points[each.key], number)

    def compile(self, point: Point) -> None:
        """Compile a point that was only quantised."""
        if point.cost is None:
            self.check_time()
            (cost,) = self.trials.costs([(point.name, point.recipe)])
            self.points[point.key] = replace(point, cost=cost.value, problem=cost.problem)

    def check_time(self) -> None:
        limit = self.budget.seconds
        if limit is not None and self.clock() - self.start >= limit:
            raise _Enough(f"The budget of {limit / 60:g} minutes is spent.")

    def is_beaten(self, point: Point) -> bool:
        """Whether a compiled point keeps as much and is faster than this one can be expected."""
        expected = self.expected(point.recipe)
        return expected is not None and any(
            each.figures[0] <= expected and each.figures[1] >= _cosine(point)
            for each in self.points.values()
            if each.is_complete
        )

    def expected(self, recipe: Recipe) -> float | None:
        """Expect a latency, by the compiled recipe that differs in fewest blocks; rather less.

        None where no compiled recipe differs in its blocks and ranges alone.
        """
        parts = self.space.parts(recipe)
        wide = wide_groups(recipe, parts)
        bare = _structure(with_wide(recipe, parts, ()))
        near: list[tuple[int, float]] = []
        for each in self.points.values():
            if each.is_complete and _structure(with_wide(each.recipe, parts, ())) == bare:
                other = wide_groups(each.recipe, parts)
                if wide ^ other <= set(self.milliseconds):
                    more = sum(self.milliseconds[group] for group in sorted(wide - other))
                    less = sum(self.milliseconds[group] for group in sorted(other - wide))
                    near.append((len(wide ^ other), each.figures[0] + more - less))
        if not near:
            return None
        changes, milliseconds = min(near)
        return milliseconds if not changes else _MARGIN * milliseconds

    def share_costs(self, base: Recipe) -> None:
        """Expect what blocks cost by the difference of both ends, and rather less."""
        parts = self.space.parts(base)
        narrow, wide = (self.known(with_wide(base, parts, each)) for each in ((), parts.groups))
        if narrow is None or wide is None or narrow.cost is None or wide.cost is None:
            return
        shared = shared_costs(parts, narrow.cost, wide.cost)
        self.milliseconds = {group: _SHARE * each for group, each in shared.items()}

    def learn(self, base: Recipe) -> list[str]:
        """Learn what blocks gain and cost; return those that gain, the best for its time first."""
        parts = self.space.parts(base)
        narrow = self.known(with_wide(base, parts, ()))
        if narrow is None or narrow.score is None:
            return []
        rows = []
        for group, nodes in parts.groups.items():
            point = self.known(with_wide(base, parts, (group,)))
            if point is not None and point.score is not None:
                if point.cost is not None and narrow.cost is not None:
                    self.milliseconds[group] = point.cost.milliseconds - narrow.cost.milliseconds
                gained = effect(point.score, narrow.score)
                rows.append(
                    Row(group, len(nodes), gained, milliseconds=self.milliseconds.get(group))
                )
        order = by_worth(rows)
        self.worth = {group: 1 / (1 + place) for place, group in enumerate(order)}
        return order

    def known(self, recipe: Recipe) -> Point | None:
        """The point of a recipe that was tried."""
        return self.points.get(self.trials.key(recipe))

    def mutations(self, chance: random.Random) -> list[Recipe]:
        """Change one choice each of some recipes on the front; empty if all was tried."""
        front = pareto(self.points.values())
        found: dict[str, Recipe] = {}
        for _ in range(_ATTEMPTS):
            if not front or len(found) == BATCH:
                break
            parent = front[chance.randrange(len(front))].recipe
            recipe = self.space.mutate(parent, chance, self.worth)
            point = self.point(recipe, "")
            if point is not None:
                found.setdefault(point.key, recipe)
        return list(found.values())


_ALWAYS = ("given", "all int8", "other rewrites", "all int16")
"""Steps whose recipes are compiled whatever they keep: others are judged by them."""


_NEVER = ("one block",)
"""Steps whose recipes are only quantised: they show what is worth compiling."""


def _cosine(point: Point) -> float:
    return point.score.cosine if point.score is not None else -1.0


def _structure(recipe: Recipe) -> tuple[Any, ...]:
    """All of a recipe that its latency depends on; ranges change it by a percent at most."""
    return recipe.rewrites, recipe.all_int16, recipe.nodes, recipe.mode
