"""Proof, from the compiler's own output, that a recipe took effect."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from efv2_ros.quantize.build import Built
from efv2_ros.toolchain.jobs import CompileResult, NodeReport, NodeRule

MARCH = "bayes-e"
"""The architecture of the RDK X5's BPU."""

_EXAMPLES = 3

_BORDERS = ("Transpose", "Reshape", "HzRequantize")
"""Operators that the compiler puts between nodes."""

_SHAPES = ("Reshape", "Flatten", "Squeeze", "HzDequantize")
"""Operators after the last computing one, of the logits alone."""

_PREFIX = re.compile(r"^Hz(S(?=Quantized|Elementwise))?(Quantized)?")

_WIDTHS = ("", "int8", "int16", "int32", "float")
"""Types of tensors, the widest last."""


class Claim(NamedTuple):
    """Something that the recipe demands, and whether the compiled model has it.

    Attributes:
        holds: Whether it is so; None for a statement that nothing demands.
        kind: One word for programs.
        text: A sentence for people.
    """

    holds: bool | None
    kind: str
    text: str


def prove(built: Built) -> list[Claim]:
    """Compare the compiled model with its recipe."""
    result, plan = built.result, built.plan
    return [
        _march(result),
        *_units(result),
        *_rewrites(plan.rewritten),
        *_rules(built),
        _widths(result, plan.recipe.all_int16),
        *_gelus(result),
    ]


def failed(claims: Sequence[Claim]) -> list[Claim]:
    """The claims that do not hold."""
    return [each for each in claims if each.holds is False]


def operator(text: str) -> str:
    """Name a compiler's operator without its prefixes, such as Conv for HzSQuantizedConv."""
    return _PREFIX.sub("", text)


def _march(result: CompileResult) -> Claim:
    if result.march == MARCH:
        return Claim(True, "march", f"Compiled for {MARCH}, the RDK X5's BPU.")
    text = f"Compiled for {result.march}, and the RDK X5's BPU is {MARCH}."
    return Claim(False, "march", text)


def _units(result: CompileResult) -> Iterator[Claim]:
    on_cpu = [each for each in result.nodes if each.unit == "CPU"]
    on_bpu = sum(each.unit == "BPU" for each in result.nodes)
    shown = ", ".join(f"{each.name} ({operator(each.op)})" for each in on_cpu[:_EXAMPLES])
    if len(on_cpu) > _EXAMPLES:
        shown += f" and {len(on_cpu) - _EXAMPLES} more"
    if on_cpu and on_cpu == list(result.nodes[-len(on_cpu) :]) and _only_name(on_cpu):
        yield Claim(
            True, "cpu",
            f"All nodes that compute run on the BPU, {on_bpu:,}; the CPU only gives the logits "
            f"their shape: {shown}.",
        )  # fmt: skip
    elif on_cpu:
        runs = _count(len(on_cpu), "node runs", "nodes run")
        yield Claim(False, "cpu", f"{runs} on the CPU: {shown}.")
    elif on_bpu:
        yield Claim(True, "cpu", f"All {on_bpu:,} nodes run on the BPU.")
    if result.estimate is not None:
        pieces = result.estimate.subgraphs
        if pieces == 1:
            yield Claim(True, "pieces", "The BPU runs the model in one piece.")
        else:
            yield Claim(False, "pieces", f"The model is cut into {pieces} pieces.")


def _only_name(nodes: Sequence[NodeReport]) -> bool:
    """Whether nodes only name the shape of the logits anew, which takes next to no time."""
    return all(each.op in _SHAPES for each in nodes)


def _rewrites(rewritten: Mapping[str, int]) -> Iterator[Claim]:
    for name, places in rewritten.items():
        text = f"The rewrite {name} changed {_count(places, 'place')}."
        yield Claim(places > 0, "rewrite", text)


def _rules(built: Built) -> Iterator[Claim]:
    """Compare each rule's nodes with what became of them, those with equal wishes together."""
    parts = _parts(built)
    ops = {node.name: node.op_type for node in built.plan.proto.graph.node}
    groups: dict[tuple[str | None, ...], list[NodeRule]] = {}
    for rule in built.plan.rules:
        groups.setdefault((rule.on, rule.input_type, rule.output_type), []).append(rule)
    for wish, members in groups.items():
        seen = [rule for rule in members if parts.get(rule.name)]
        other = [rule for rule in seen if _differs(rule, parts[rule.name])]
        wrong = [rule for rule in other if not _is_adapted(rule, parts[rule.name])]
        adapted = [rule for rule in other if rule not in wrong]
        wanted = _wish(wish)
        if wrong:
            example = wrong[0].name
            yield Claim(
                False, "rule",
                f"{len(wrong)} of {_count(len(seen), 'node')} that the recipe wants {wanted} "
                f"{'is' if len(wrong) == 1 else 'are'} not so, such as {example} "
                f"({ops[example]}): it is {_state(parts[example])}.",
            )  # fmt: skip
        if adapted:
            example = adapted[0].name
            yield Claim(
                None, "rule",
                f"{len(adapted)} of {_count(len(seen), 'node')} that the recipe wants {wanted} "
                f"{'has' if len(adapted) == 1 else 'have'} the width of a neighbour, such as "
                f"{example} ({ops[example]}): {_state(parts[example])}.",
            )  # fmt: skip
        if seen and not other:
            kinds = _kinds(ops[each.name] for each in seen)
            is_one = len(seen) == 1
            yield Claim(
                True, "rule", f"{kinds} {'is' if is_one else 'are'} {wanted}, as the recipe wants."
            )
        gone = [each for each in members if not parts.get(each.name)]
        if gone:
            yield Claim(
                None, "rule",
                f"{_kinds(ops[each.name] for each in gone)} that the recipe wants {wanted} became "
                "part of other nodes.",
            )  # fmt: skip


def _parts(built: Built) -> dict[str, list[NodeReport]]:
    """The compiled nodes that each node of the model became.

    The compiler adds to a node's name where it makes several of it, as of Softmax. Conversions
    at its borders do not count.
    """
    names = {node.name for node in built.plan.proto.graph.node}
    found: dict[str, list[NodeReport]] = {}
    for each in built.result.nodes:
        name = each.name
        while name and name not in names:
            name = name.rpartition("_")[0]
        if name and (name == each.name or each.op not in _BORDERS):
            found.setdefault(name, []).append(each)
    return found


def _differs(rule: NodeRule, parts: Sequence[NodeReport]) -> bool:
    return (
        (rule.on is not None and any(each.unit not in ("", rule.on) for each in parts))
        or _is_other(rule.input_type, [each.input_type for each in parts])
        or _is_other(rule.output_type, [each.output_type for each in parts])
    )


def _is_other(wanted: str | None, found: Sequence[str]) -> bool:
    """Whether the widest of some types is another than wanted; sums of 32 bits are wide enough."""
    if wanted is None:
        return False
    widest = max(found, key=_WIDTHS.index)
    return widest != wanted and not (wanted == "int16" and widest == "int32")


def _is_adapted(rule: NodeRule, parts: Sequence[NodeReport]) -> bool:
    """Whether a node is only as wide as a neighbour makes it.

    It may be wider than wanted, because the tensor is shared with a wide node. And what it
    computes from wide inputs may be written narrow, because its readers take no more.
    """
    if rule.on is not None and any(each.unit not in ("", rule.on) for each in parts):
        return False
    read, write = _widest(parts, "input_type"), _widest(parts, "output_type")
    reads_enough = rule.input_type is None or not _is_narrower(read, rule.input_type)
    writes_enough = rule.output_type is None or not _is_narrower(write, rule.output_type)
    return reads_enough and (writes_enough or rule.input_type is not None)


def _is_narrower(found: str, wanted: str) -> bool:
    return _WIDTHS.index(found) < _WIDTHS.index(wanted)


def _widest(parts: Sequence[NodeReport], name: str) -> str:
    return max((str(getattr(each, name)) for each in parts), key=_WIDTHS.index)


def _wish(wish: tuple[str | None, ...]) -> str:
    on, read, write = wish
    parts = [f"on the {on}"] if on else []
    if read and read == write:
        parts.append(f"{read} in and out")
    else:
        parts += [f"{width} {side}" for width, side in ((read, "in"), (write, "out")) if width]
    return ", ".join(parts)


def _state(parts: Sequence[NodeReport]) -> str:
    unit = next((each.unit for each in parts if each.unit == "CPU"), parts[0].unit)
    read, write = (_widest(parts, name) for name in ("input_type", "output_type"))
    where = f"on the {unit}, " if unit else ""
    return f"{where}{read or 'nothing'} in, {write or 'nothing'} out"


def _kinds(ops: Iterable[str]) -> str:
    kinds = Counter(ops)
    if len(kinds) > _EXAMPLES:
        return _count(sum(kinds.values()), "node")
    return ", ".join(f"{count} {op}" for op, count in kinds.most_common())


def _widths(result: CompileResult, all_int16: bool) -> Claim:
    """Say which tensors have 16 bits, by the operators that write them."""
    outputs = Counter(each.output_type for each in result.nodes)
    wide = Counter(operator(each.op) for each in result.nodes if each.output_type == "int16")
    total = outputs["int16"] + outputs["int8"]
    text = f"{outputs['int16']:,} of {total:,} tensors have 16 bits"
    if wide and len(wide) <= 6:
        text += f": those of {', '.join(f'{n} {op}' for op, n in wide.most_common())}"
    if all_int16:
        # Some operators exist in 8 bits only.
        return Claim(outputs["int16"] > outputs["int8"], "int16", f"{text}; all were wanted.")
    return Claim(None, "int16", f"{text}.")


def _gelus(result: CompileResult) -> Iterator[Claim]:
    if not result.gelus:
        return
    text = f"{result.gelus_fused} of {result.gelus} GELUs are one lookup each."
    yield Claim(result.gelus_fused == result.gelus, "gelu", text)


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
