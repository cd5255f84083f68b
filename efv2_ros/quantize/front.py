"""A search's front as JSON, and a recipe of it as a file that `--recipe` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from efv2_ros.evaluation.statistics import CONFIDENCE
from efv2_ros.files import open_atomic
from efv2_ros.quantize.recipe import Recipe
from efv2_ros.quantize.search import Found, Point

_SLOWEST = 5


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
