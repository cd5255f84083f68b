"""Plots of a sensitivity and of a search's front. Requires matplotlib, an optional dependency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from efv2_ros.figures import matplotlib, save
from efv2_ros.quantize.front import Found, Point
from efv2_ros.quantize.sensitivity import Effect, Sensitivity

_GAINED, _LOST, _COST = "#1f77b4", "#d62728", "#7f7f7f"


def write_sensitivity(found: Sensitivity, title: str, path: Path) -> None:
    """Draw each part's effect on agreement and cosine beside its milliseconds, as a PNG file.

    Raises:
        Efv2Error: There is no matplotlib, or the file cannot be written.
    """
    rows = found.rows[::-1]  # the graph's first part on top
    figure = matplotlib().figure.Figure(
        figsize=(12.0, 1.6 + 0.32 * len(rows)), layout="constrained"
    )
    agreement, cosine, cost = figure.subplots(1, 3, sharey=True)
    series = (
        ("int16 here alone, the rest int8", _GAINED, [each.gained for each in rows]),
        ("int8 here alone, the rest int16", _LOST, [each.lost for each in rows]),
    )
    shown = [each for each in series if any(effect is not None for effect in each[2])]
    height = 0.8 / max(1, len(shown))
    for number, (label, colour, effects) in enumerate(shown):
        places = [place + (number - (len(shown) - 1) / 2) * height for place in range(len(rows))]
        _draw_effects(agreement, cosine, effects, places, height, colour, label)
    agreement.set_yticks(range(len(rows)), [each.group for each in rows])
    agreement.set_xlabel("top-1 agreement, points (95 % interval)")
    cosine.set_xlabel("mean cosine")
    cost.barh(range(len(rows)), [each.milliseconds or 0.0 for each in rows], color=_COST)
    cost.set_xlabel(f"milliseconds that int16 costs\n({COST_NOTES[found.costs]})")
    for axes in (agreement, cosine, cost):
        axes.axvline(0, color="black", linewidth=0.8)
        axes.grid(axis="x", alpha=0.3)
        axes.locator_params(axis="x", nbins=5)
    if shown:
        above = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0)}
        agreement.legend(fontsize="small", **above)
    cost.set_title(title, loc="right", fontsize="medium")
    save(figure, path)


COST_NOTES = {
    "none": "not asked for",
    "shared": "estimated: shared out from two compiled models",
    "compiled": "the compiler's estimate of a model for each",
}
"""Where milliseconds come from, by `sensitivity.Costs`."""


def _draw_effects(
    agreement: Any,
    cosine: Any,
    effects: list[Effect | None],
    places: list[float],
    height: float,
    colour: str,
    label: str,
) -> None:
    for place, effect in zip(places, effects, strict=True):
        if effect is None:
            continue
        value = 100 * effect.agreement
        low, high = (100 * each for each in effect.interval)
        agreement.errorbar(
            value, place, xerr=[[max(0.0, value - low)], [max(0.0, high - value)]], fmt="o",
            color=colour, capsize=2, markersize=4, label=label,
        )  # fmt: skip
        cosine.barh(place, effect.cosine, height=height, color=colour)
        label = ""


def write_front(found: Found, title: str, chosen: Point | None, path: Path) -> None:
    """Draw all compiled recipes by latency and mean cosine, with the front, as a PNG file.

    Raises:
        Efv2Error: There is no matplotlib, or the file cannot be written.
    """
    figure = matplotlib().figure.Figure(figsize=(9.0, 5.5), layout="constrained")
    axes = figure.subplots()
    rest = [each for each in found.points if each.is_complete and each not in found.front]
    axes.scatter(*_columns(rest), color=_COST, alpha=0.6, label="compiled")
    axes.plot(*_columns(list(found.front)), "o-", color=_GAINED, drawstyle="steps-post",
              label="front")  # fmt: skip
    given = [each for each in found.points if each.is_complete and each.origin == "given"]
    axes.scatter(*_columns(given), marker="s", facecolors="none", edgecolors="black", s=70,
                 label="given")  # fmt: skip
    if chosen is not None:
        axes.scatter(*_columns([chosen]), marker="*", color=_LOST, s=160, zorder=3, label="chosen")
    axes.set_xlabel("estimated latency (ms); the compiler's estimate, not a board's")
    axes.set_ylabel("mean cosine of the logits with the float model's")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    save(figure, path)


def _columns(points: list[Point]) -> tuple[list[float], list[float]]:
    figures = [each.figures for each in points]
    return [each[0] for each in figures], [each[1] for each in figures]
