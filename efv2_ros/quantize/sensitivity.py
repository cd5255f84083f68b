"""Sensitivity of each part of a network: what its width does to the answers, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from efv2_ros.evaluation.statistics import CONFIDENCE, Interval
from efv2_ros.quantize.errors import QuantizeError
from efv2_ros.quantize.recipe import Recipe
from efv2_ros.quantize.trials import Cost, Outcome, Score, Trials
from efv2_ros.quantize.variants import Parts, with_wide

_Value = TypeVar("_Value")

Costs = Literal["none", "shared", "compiled"]
"""Where the milliseconds of a part come from: nowhere; the difference of two compiled models,
shared out by their layers' times; or a compiled model for each part."""


@dataclass(frozen=True)
class Effect:
    """What changes when one part has another width than the rest.

    Attributes:
        cosine: Change of the mean cosine.
        agreement: Change of the agreement, a share of 1.
        interval: The interval of `agreement`.
    """

    cosine: float
    agreement: float
    interval: Interval


@dataclass(frozen=True)
class Row:
    """The sensitivity of one part.

    Attributes:
        group: The part.
        nodes: Number of its nodes.
        gained: What 16 bits here alone gain, the rest at 8; None if that was not measured.
        lost: What 8 bits here alone change, the rest at 16; None if that was not measured.
        milliseconds: What 16 bits here cost; None if that is not known.
        problem: Why something is missing; may be empty.
    """

    group: str
    nodes: int
    gained: Effect | None = None
    lost: Effect | None = None
    milliseconds: float | None = None
    problem: str = ""

    @property
    def worth(self) -> float | None:
        """Cosine gained for each millisecond; None where either is unknown or it costs nothing."""
        if self.gained is None or self.milliseconds is None or self.milliseconds <= 0:
            return None
        return self.gained.cosine / self.milliseconds


@dataclass(frozen=True)
class Sensitivity:
    """The sensitivity of all parts of a network.

    Attributes:
        narrow: All parts at 8 bits.
        wide: All parts at 16 bits; None if that was not needed.
        narrow_cost: The compiler's estimate of `narrow`; None without costs.
        wide_cost: The compiler's estimate of `wide`; None without costs.
        costs: Where the rows' milliseconds come from.
        rows: All parts, in the graph's order.
        problem: Why there are no costs although they were asked for; may be empty.
    """

    narrow: Score
    wide: Score | None
    narrow_cost: Cost | None
    wide_cost: Cost | None
    costs: Costs
    rows: tuple[Row, ...]
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        """All figures as plain values for JSON."""
        return {
            "images": len(self.narrow.cosines),
            "confidence": CONFIDENCE,
            "int8": _totals(self.narrow, self.narrow_cost),
            "int16": _totals(self.wide, self.wide_cost),
            "milliseconds_from": self.costs,
            "problem": self.problem,
            "blocks": [
                {
                    "name": row.group,
                    "nodes": row.nodes,
                    "int16_here_alone": _effect(row.gained),
                    "int8_here_alone": _effect(row.lost),
                    "milliseconds": row.milliseconds,
                    "cosine_per_millisecond": row.worth,
                    "problem": row.problem,
                }
                for row in self.rows
            ],
        }


def _totals(score: Score | None, cost: Cost | None) -> dict[str, Any] | None:
    if score is None and cost is None:
        return None
    found: dict[str, Any] = {}
    if score is not None:
        found |= {"cosine": score.cosine, "agreement": score.agreement,
                  "agreement_interval": list(score.agreement_interval)}  # fmt: skip
    if cost is not None:
        found |= {"milliseconds": cost.milliseconds, "level": cost.level}
    return found


def _effect(effect: Effect | None) -> dict[str, Any] | None:
    if effect is None:
        return None
    return {"cosine": effect.cosine, "agreement": effect.agreement,
            "agreement_interval": list(effect.interval)}  # fmt: skip


def measure_sensitivity(
    trials: Trials,
    recipe: Recipe,
    parts: Parts,
    *,
    gained: bool = True,
    lost: bool = False,
    costs: Costs = "shared",
) -> Sensitivity:
    """Measure what each part's width does.

    Args:
        trials: Tries the recipes.
        recipe: The recipe, whose parts are first all brought to 8 bits.
        parts: The parts of its rewritten model.
        gained: Whether each part alone is tried with 16 bits.
        lost: Whether each part alone is tried with 8 bits.
        costs: Where the milliseconds come from.

    Raises:
        QuantizeError: The recipe cannot be tried at 8 bits, or, for `lost`, at 16.
        Stopped: The trials were stopped; what was finished is kept.
    """
    ends = {"all int8": with_wide(recipe, parts, ()),
            "all int16": with_wide(recipe, parts, parts.groups)}  # fmt: skip
    wanted = list(ends.items())[: 2 if lost else 1]
    base = [_needed(each) for each in trials.scores(wanted)]
    estimates: list[Cost] = []
    problem = ""
    if costs != "none":
        compiled = trials.costs(list(ends.items()))
        estimates = [each.value for each in compiled if each.value is not None]
        if len(estimates) < len(compiled):
            costs, estimates = "none", []
            problem = next(each.problem for each in compiled if each.problem)
    groups = list(parts.groups)
    problems: dict[str, str] = {}
    alone = [(f"{group} in int16", with_wide(recipe, parts, (group,))) for group in groups]
    gains: Mapping[str, Effect] = {}
    if gained:
        gains = _effects(trials.scores(alone), groups, base[0], problems)
    losses: Mapping[str, Effect] = {}
    if lost:
        others = [
            (f"{group} in int8", with_wide(recipe, parts, set(groups) - {group}))
            for group in groups
        ]
        losses = _effects(trials.scores(others), groups, base[1], problems)
    milliseconds: Mapping[str, float] = {}
    if costs == "shared":
        milliseconds = shared_costs(parts, *estimates)
    elif costs == "compiled":
        found = _known(trials.costs(alone), groups, problems)
        before = estimates[0].milliseconds
        milliseconds = {group: each.milliseconds - before for group, each in found.items()}
    rows = tuple(
        Row(group, len(nodes), gains.get(group), losses.get(group), milliseconds.get(group),
            problems.get(group, ""))
        for group, nodes in parts.groups.items()
    )  # fmt: skip
    narrow_cost, wide_cost = estimates or (None, None)
    return Sensitivity(
        base[0], base[1] if lost else None, narrow_cost, wide_cost, costs, rows, problem
    )


def _needed(outcome: Outcome[_Value]) -> _Value:
    if outcome.value is None:
        raise QuantizeError(outcome.problem)
    return outcome.value


def _known(
    outcomes: Sequence[Outcome[_Value]], groups: Sequence[str], problems: dict[str, str]
) -> dict[str, _Value]:
    """The results by part; why one is missing goes into `problems`."""
    found: dict[str, _Value] = {}
    for group, outcome in zip(groups, outcomes, strict=True):
        if outcome.value is None:
            problems.setdefault(group, outcome.problem)
        else:
            found[group] = outcome.value
    return found


def _effects(
    outcomes: Sequence[Outcome[Score]],
    groups: Sequence[str],
    base: Score,
    problems: dict[str, str],
) -> dict[str, Effect]:
    scores = _known(outcomes, groups, problems)
    return {group: effect(score, base) for group, score in scores.items()}


def effect(score: Score, base: Score) -> Effect:
    """Compare two quantised models on the same images."""
    agreement, interval = score.agreement_beyond(base)
    return Effect(score.cosine - base.cosine, agreement, interval)


def shared_costs(parts: Parts, narrow: Cost, wide: Cost) -> dict[str, float]:
    """Share out what 16 bits everywhere cost, in milliseconds, by what they cost in each part.

    The layers of a model overlap, so that their times add up to more than its latency; the parts
    here add up to the difference of both latencies.

    Args:
        parts: The parts.
        narrow: The estimate with all parts at 8 bits.
        wide: The estimate with all parts at 16 bits.
    """
    before, after = _microseconds(parts, narrow), _microseconds(parts, wide)
    more = {each: after.get(each, 0.0) - before.get(each, 0.0) for each in parts.groups}
    whole = sum(more.values())
    difference = wide.milliseconds - narrow.milliseconds
    if whole <= 0:
        return dict.fromkeys(more, difference / max(1, len(more)))
    return {group: difference * each / whole for group, each in more.items()}


def _microseconds(parts: Parts, cost: Cost) -> dict[str, float]:
    found: dict[str, float] = {}
    for layer in cost.layers:
        group = parts.group_of(layer.name)
        found[group] = found.get(group, 0.0) + layer.microseconds
    return found


def by_worth(rows: Sequence[Row]) -> list[str]:
    """Order the parts that gain something by the cosine gained for each millisecond, best first.

    A part that costs nothing comes first; without milliseconds the order is that of the gain.
    """
    gaining = [row for row in rows if row.gained is not None and row.gained.cosine > 0]

    def rank(row: Row) -> tuple[bool, float, str]:
        gain = row.gained.cosine if row.gained is not None else 0.0
        free = row.milliseconds is not None and row.milliseconds <= 0
        return (not free, -(gain if row.worth is None else row.worth), row.group)

    return [row.group for row in sorted(gaining, key=rank)]
