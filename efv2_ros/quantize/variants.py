"""Variants of a recipe: single parts in 16 bits, other ranges, other rewrites."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from efv2_ros.quantize.recipe import Calibration, Recipe, Rounding, Rule
from efv2_ros.rewrites import blocks

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

SOFTMAX = {
    "int8": (Rule(op="Softmax", on="BPU", input="int8", output="int8"),),
    "int16": (Rule(op="Softmax", on="BPU", input="int16", output="int16"),),
    "int16 in blocks": (
        Rule(op="Softmax", on="BPU", input="int16", output="int16"),
        Rule(op="Softmax", match="*/downsample/*", input="int8", output="int8"),
    ),
}
"""Widths that the Softmax nodes may have: all the same, or those between two stages 8 bits."""

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class Residual(NamedTuple):
    """A node that makes, scales or reads the sum of a skip connection.

    Attributes:
        name: Its name.
        op: Its operator.
        reads: Whether its input is such a sum, or a part of one.
        writes: Whether its output is.
    """

    name: str
    op: str
    reads: bool
    writes: bool


@dataclass(frozen=True)
class Parts:
    """What a model can be divided into, to give each part its own width.

    Attributes:
        groups: Names of nodes by part, in the order of the graph.
        blocks: Whether the parts are blocks that recipes can name.
        residual: The nodes of the sums that skip connections pass on.
        softmax: Names of the Softmax nodes.
        splits: Names of the Split nodes that feed a MatMul: the quantiser fails where they have
            16 bits.
    """

    groups: Mapping[str, tuple[str, ...]]
    blocks: bool
    residual: tuple[Residual, ...]
    softmax: tuple[str, ...]
    splits: tuple[str, ...] = ()

    def group_of(self, layer: str) -> str:
        """Find the part of a layer of the compiled model; empty for the compiler's own.

        The compiler adds to the name of a node, or joins the names of several.
        """
        best, found = "", ""
        for group, nodes in self.groups.items():
            for node in nodes:
                if len(node) > len(best) and node in layer:
                    best, found = node, group
        return found


def parts_of(model: ModelProto) -> Parts:
    """Divide a model into its blocks, or else into one part for each layer with weights.

    Args:
        model: The rewritten model; its nodes have names and are sorted.
    """
    groups = blocks(model)
    named = len(groups) > 1
    if not named:
        groups = _by_layer(model)
    softmax = [node.name for node in model.graph.node if node.op_type == "Softmax"]
    multiplied = {each for node in model.graph.node if node.op_type == "MatMul"
                  for each in node.input}  # fmt: skip
    splits = [node.name for node in model.graph.node
              if node.op_type == "Split" and multiplied.intersection(node.output)]  # fmt: skip
    return Parts(groups, named, tuple(_residual(model)), tuple(softmax), tuple(splits))


def _by_layer(model: ModelProto) -> Mapping[str, tuple[str, ...]]:
    """Part the nodes at each layer with weights; those before the first belong to it."""
    weights = {each.name for each in model.graph.initializer}
    found: list[list[str]] = [[]]
    names: list[str] = []
    for node in model.graph.node:
        if node.op_type == "Constant":
            continue
        if node.op_type in _WEIGHTED and any(each in weights for each in node.input):
            if names:
                found.append([])
            names.append(node.name)
        found[-1].append(node.name)
    return {name: tuple(nodes) for name, nodes in zip(names or ["all"], found, strict=True)}


def _residual(model: ModelProto) -> Iterator[Residual]:
    """Find the sums of skip connections: Add nodes one of whose inputs follows from the other.

    Besides the sums themselves: what scales the branch, the layer that writes it, and the layers
    that read a sum.
    """
    constant = {each.name for each in model.graph.initializer}
    above: dict[str, frozenset[str]] = {}
    maker: dict[str, tuple[NodeProto, list[str]]] = {}
    sums: set[str] = set()
    for node in model.graph.node:
        inputs = [each for each in node.input if each and each not in constant]
        if node.op_type == "Constant" or not inputs:
            constant.update(node.output)
            continue
        above.update(dict.fromkeys(
            node.output, frozenset(inputs).union(*(above.get(each, ()) for each in inputs))
        ))  # fmt: skip
        maker.update(dict.fromkeys(node.output, (node, inputs)))
        if node.op_type in _WEIGHTED and sums.intersection(inputs):
            yield Residual(node.name, node.op_type, reads=True, writes=False)
        if node.op_type == "Add" and len(inputs) == 2:
            one, other = inputs
            if one in above.get(other, ()):
                branch = other
            elif other in above.get(one, ()):
                branch = one
            else:
                continue
            yield Residual(node.name, "Add", reads=True, writes=True)
            sums.update(node.output)
            while branch in maker:
                before, its = maker[branch]
                if before.op_type in _WEIGHTED:
                    yield Residual(before.name, before.op_type, reads=False, writes=True)
                if before.op_type not in ("Mul", "Add") or len(its) > 1:
                    break
                yield Residual(before.name, before.op_type, reads=True, writes=True)
                (branch,) = its


def _is_width(rule: Rule) -> bool:
    """Whether a rule gives 16 bits to blocks, or to one node, whatever the operators are."""
    return (
        not rule.op
        and rule.input == rule.output == "int16"
        and (bool(rule.blocks) != bool(rule.match))
        and not re.search(r"[*?](?!\])", rule.match)
    )


def _means(rule: Rule, group: str, node: str) -> bool:
    """Whether a rule without an operator means a node of a part."""
    by_block = not rule.blocks or any(fnmatch.fnmatchcase(group, each) for each in rule.blocks)
    return by_block and (not rule.match or fnmatch.fnmatchcase(node, rule.match))


def wide_groups(recipe: Recipe, parts: Parts) -> frozenset[str]:
    """The parts that a recipe gives 16 bits as a whole."""
    if recipe.all_int16:
        return frozenset(parts.groups)
    rules = [rule for rule in recipe.nodes if _is_width(rule)]
    return frozenset(
        group
        for group, nodes in parts.groups.items()
        if all(any(_means(rule, group, node) for rule in rules) for node in nodes)
    )


def with_wide(recipe: Recipe, parts: Parts, wide: Collection[str]) -> Recipe:
    """Give exactly these parts 16 bits as a whole.

    Rules for single operators stay as they are and win. A Softmax has the width that its own
    rules give it, since its width is a choice of its own: 8 bits if they say nothing.
    """
    chosen = [group for group in parts.groups if group in wide]
    rules: list[Rule] = []
    if parts.blocks and chosen:
        rules.append(Rule(blocks=tuple(chosen), input="int16", output="int16"))
    elif chosen:
        rules += [
            Rule(match=_exactly(node), input="int16", output="int16")
            for group in chosen
            for node in parts.groups[group]
        ]
    others = [rule for rule in recipe.nodes if not _is_width(rule) and rule not in _NARROW]
    in_chosen = {node for group in chosen for node in parts.groups[group]}
    for rule, nodes in zip(_NARROW, (parts.softmax, parts.splits), strict=True):
        if in_chosen.intersection(nodes):
            rules.append(rule)
    return replace(recipe, all_int16=False, nodes=(*rules, *others), sizes={})


_NARROW = (Rule(op="Softmax", input="int8", output="int8"),
           Rule(op="Split", input="int8", output="int8"))  # fmt: skip
"""What parts of 16 bits leave at 8: what has a width of its own, and what cannot have 16."""


def _exactly(name: str) -> str:
    """The pattern that only this name matches."""
    return re.sub(r"[*?[]", r"[\g<0>]", name)


def with_softmax(recipe: Recipe, width: str) -> Recipe:
    """Give the Softmax nodes a width.

    Args:
        recipe: The recipe.
        width: A key of `SOFTMAX`.
    """
    kept = [rule for rule in recipe.nodes if rule.op != "Softmax" or rule in _NARROW]
    first = [rule for rule in kept if _is_width(rule) or rule in _NARROW]
    rest = [rule for rule in kept if rule not in first]
    return replace(recipe, nodes=(*first, *SOFTMAX[width], *rest), sizes={})


def softmax_width(recipe: Recipe) -> str:
    """The key of `SOFTMAX` that a recipe has; empty for another choice."""
    rules = tuple(rule for rule in recipe.nodes if rule.op == "Softmax" and rule not in _NARROW)
    return next((name for name, each in SOFTMAX.items() if each == rules), "")


def with_residual(recipe: Recipe, parts: Parts, on: bool) -> Recipe:
    """Compute the sums of skip connections in 16 bits, or as the other rules say."""
    rules = _residual_rules(parts)
    others = tuple(rule for rule in recipe.nodes if rule not in rules)
    return replace(recipe, nodes=(*others, *rules) if on else others, sizes={})


def has_residual(recipe: Recipe, parts: Parts) -> bool:
    """Whether `with_residual` has been applied."""
    rules = _residual_rules(parts)
    return bool(rules) and rules[0] in recipe.nodes


def _residual_rules(parts: Parts) -> tuple[Rule, ...]:
    """Rules for the nodes of skip connections, as few as possible."""
    nodes = {node for nodes in parts.groups.values() for node in nodes}
    found: dict[Rule, None] = {}
    kinds = ((True, True), (False, True), (True, False))
    for reads, writes in kinds:
        same = [each for each in parts.residual if (each.reads, each.writes) == (reads, writes)]
        others = nodes - {each.name for each in same}
        for each in same:
            pattern = re.sub(r"\.\d+", ".*", _exactly(each.name))
            if any(fnmatch.fnmatchcase(other, pattern) for other in others):
                pattern = _exactly(each.name)
            rule = Rule(op=each.op, match=pattern, input="int16" if reads else None,
                        output="int16" if writes else None)  # fmt: skip
            found[rule] = None
    return tuple(found)


def with_branches(recipe: Recipe, parts: Parts, share: float) -> Recipe:
    """Have the layers that write what skip connections add read 16 bits.

    They read what an activation function such as GELU makes: mostly small values, with a few that
    are large.

    Args:
        recipe: The recipe.
        parts: Of the model.
        share: Share of these layers, the last ones.
    """
    rules = _branch_rules(parts)
    others = tuple(rule for rule in recipe.nodes if rule not in rules)
    kept = rules[len(rules) - round(share * len(rules)) :]
    return replace(recipe, nodes=(*others, *kept), sizes={})


def branch_share(recipe: Recipe, parts: Parts) -> float:
    """The share that `with_branches` was given."""
    rules = _branch_rules(parts)
    return sum(rule in recipe.nodes for rule in rules) / max(1, len(rules))


def _branch_rules(parts: Parts) -> tuple[Rule, ...]:
    """Rules for the layers that write a branch's result and do not read a sum themselves."""
    read = {each.name for each in parts.residual if each.reads}
    return tuple(
        Rule(op=each.op, match=_exactly(each.name), input="int16")
        for each in parts.residual
        if each.writes and each.op in _WEIGHTED and each.name not in read
    )


def with_calibration(recipe: Recipe, **changes: Any) -> Recipe:
    """Change how ranges are found; a percentile goes with type `max` alone."""
    calibration = replace(recipe.calibration, **changes)
    if calibration.type != "max":
        calibration = replace(calibration, percentile=None)
    return replace(recipe, calibration=calibration, sizes={})


def with_other_rounding(recipe: Recipe) -> Recipe:
    """Round weights to the nearest integers instead of by GPTQ, or the other way round."""
    other: Rounding = "nearest" if recipe.rounding == "gptq" else "gptq"
    return replace(recipe, rounding=other, sizes={})


def with_rewrites(recipe: Recipe, names: Sequence[str]) -> Recipe:
    """Apply other rewrites."""
    return replace(recipe, rewrites=tuple(names), sizes={})


def summary(recipe: Recipe, parts: Parts) -> str:
    """Name a variant by what it does, such as "7 rewrites, max 0.9999, Softmax int8"."""
    rewrites = len(recipe.rewrites)
    texts = [f"{rewrites} rewrite{'' if rewrites == 1 else 's'}"]
    texts.append(_calibration_text(recipe.calibration))
    if recipe.rounding != "nearest":
        texts.append(recipe.rounding)
    if parts.softmax:
        texts.append(f"Softmax {softmax_width(recipe) or 'by rules'}")
    if has_residual(recipe, parts):
        texts.append("residual int16")
    if share := branch_share(recipe, parts):
        texts.append(f"last {share:.0%} of branches int16")
    wide = wide_groups(recipe, parts)
    if wide == frozenset(parts.groups):
        texts.append("all int16")
    elif wide:
        texts.append(f"int16 on {', '.join(each for each in parts.groups if each in wide)}")
    return ", ".join(texts)


def _calibration_text(calibration: Calibration) -> str:
    text = calibration.type
    if calibration.percentile is not None:
        text += f" {calibration.percentile:g}"
    for name in ("per_channel", "asymmetric", "bias_correction"):
        if getattr(calibration, name):
            text += f" {name.replace('_', ' ')}"
    return text
