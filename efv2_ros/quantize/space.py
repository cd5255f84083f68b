"""What a search may change in a recipe."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from efv2_ros.quantize.recipe import Recipe
from efv2_ros.quantize.variants import (
    SOFTMAX,
    Parts,
    has_residual,
    parts_of,
    wide_groups,
    with_branches,
    with_calibration,
    with_other_rounding,
    with_residual,
    with_rewrites,
    with_softmax,
    with_wide,
)
from efv2_ros.rewrites import REWRITES, rewrite

if TYPE_CHECKING:
    from onnx import ModelProto

PERCENTILES = (0.999, 0.9995, 0.9999, 0.99995, 0.99999, 1.0)
"""Shares of the values that ranges may hold, for calibration of type `max`."""

SHARES = (0.0, 0.5, 1.0)
"""Shares of the branches of skip connections whose last layer may read 16 bits."""

_LEAST_WORTH = 0.05


class Space:
    """The choices that recipes for a model have.

    Args:
        model: The float model; its nodes have names.
        rewrites: Names of the rewrites to choose among; None is all that change this model.
    """

    def __init__(self, model: ModelProto, rewrites: Sequence[str] | None = None) -> None:
        self._model = model
        self._chosen = rewrites
        self._parts: dict[tuple[str, ...], Parts] = {}

    def parts(self, recipe: Recipe) -> Parts:
        """The parts of the model as a recipe rewrites it."""
        names = tuple(sorted(recipe.rewrites))
        if names not in self._parts:
            self._parts[names] = parts_of(rewrite(self._model, names)[0])
        return self._parts[names]

    @cached_property
    def useful(self) -> tuple[str, ...]:
        """The rewrites that change this model, all applied one after the other."""
        _, changed = rewrite(self._model, self._chosen or tuple(REWRITES))
        return tuple(name for name, places in changed.items() if places)

    @cached_property
    def rewrites(self) -> list[tuple[str, ...]]:
        """All rewrites, none, and all but one."""
        useful = self.useful
        if not useful:
            return [()]
        without = [tuple(each for each in useful if each != left) for left in useful]
        return list(dict.fromkeys([useful, (), *without]))

    def calibrations(self, recipe: Recipe) -> list[Recipe]:
        """A recipe with each other way to find ranges."""
        found = [with_calibration(recipe, type="max", percentile=each) for each in PERCENTILES]
        found += [with_calibration(recipe, type=each) for each in ("mse", "mix")]
        turned = not recipe.calibration.asymmetric
        return [*found, with_calibration(recipe, asymmetric=turned)]

    def operators(self, recipe: Recipe) -> list[Recipe]:
        """A recipe with other widths of the Softmax nodes, the residual sums, and the branches."""
        parts = self.parts(recipe)
        found = [with_softmax(recipe, each) for each in self._softmax(parts)]
        if parts.residual:
            found.append(with_residual(recipe, parts, not has_residual(recipe, parts)))
        changed = (with_branches(recipe, parts, each) for each in SHARES)
        found += [each for each in changed if each.nodes != recipe.nodes]
        return found

    def mutate(self, recipe: Recipe, chance: random.Random, worth: Mapping[str, float]) -> Recipe:
        """Change one choice of a recipe at random.

        Args:
            recipe: The recipe.
            chance: Where chance comes from.
            worth: How much each part is worth 16 bits, up to 1; others are worth little.
        """
        changes: list[Callable[[], Recipe]] = [
            lambda: self._toggle(recipe, chance, worth),
            lambda: self._toggle(recipe, chance, worth),
            lambda: self._toggle(recipe, chance, worth),
            lambda: chance.choice(self.calibrations(recipe)),
            lambda: with_other_rounding(recipe),
        ]
        if operators := self.operators(recipe):
            changes.append(lambda: chance.choice(operators))
        if self.useful:
            changes.append(lambda: self._other_rewrite(recipe, chance))
        return chance.choice(changes)()

    def _toggle(self, recipe: Recipe, chance: random.Random, worth: Mapping[str, float]) -> Recipe:
        """Give a part another width: a part at 8 bits the more likely the more it is worth."""
        parts = self.parts(recipe)
        wide = wide_groups(recipe, parts)
        groups = list(parts.groups)
        weights = [
            max(1 - worth.get(each, 0.0) if each in wide else worth.get(each, 0.0), _LEAST_WORTH)
            for each in groups
        ]
        (chosen,) = chance.choices(groups, weights)
        return with_wide(recipe, parts, wide ^ {chosen})

    def _other_rewrite(self, recipe: Recipe, chance: random.Random) -> Recipe:
        chosen = chance.choice(self.useful)
        kept = set(recipe.rewrites) ^ {chosen}
        wide = wide_groups(recipe, self.parts(recipe))
        other = with_rewrites(recipe, [each for each in REWRITES if each in kept])
        return with_wide(other, self.parts(other), wide)

    def _softmax(self, parts: Parts) -> list[str]:
        """The widths that differ for this model."""
        if not parts.softmax:
            return []
        inside = ["/downsample/" not in each for each in parts.softmax]
        return [each for each in SOFTMAX if each != "int16 in blocks" or len(set(inside)) > 1]
