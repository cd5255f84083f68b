"""Recipes: how a model is rewritten, quantised and compiled, read from YAML files."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from efv2_ros.models.efficientformerv2.builder import SIZES
from efv2_ros.models.fields import Fields, key_text, read_yaml
from efv2_ros.models.inputs import expand_user, shorten
from efv2_ros.quantize.errors import RecipeError
from efv2_ros.resources import share_path
from efv2_ros.rewrites import REWRITES, blocks
from efv2_ros.toolchain.jobs import NodeRule

if TYPE_CHECKING:
    from onnx import ModelProto

Unit = Literal["BPU", "CPU"]
Width = Literal["int8", "int16"]
Mode = Literal["latency", "bandwidth"]
Rounding = Literal["nearest", "gptq"]

CALIBRATION_TYPES = ("max", "mse", "kl", "mix", "default")
"""How a tensor's range follows from what it holds for the calibration images."""

_KIND = "a recipe"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Calibration:
    """How the range of each tensor is found.

    Attributes:
        type: `max`: the largest value that occurs; `mse`: the range with the least squared error,
            by this package (see `toolchain/worker/ranges.py`); `kl`: the range whose histogram
            loses least; `mix`: the best of several, by tensor; `default`: the toolchain's search.
        percentile: For `max`, the share of values that the range holds, in (0, 1]; None is 1.
        per_channel: Whether each channel of an activation has its own range.
        asymmetric: Whether ranges may lie unequally about zero.
        bias_correction: Whether biases make up for the rounding of weights.
    """

    type: str = "max"
    percentile: float | None = None
    per_channel: bool = False
    asymmetric: bool = False
    bias_correction: bool = False


@dataclass(frozen=True)
class Rule:
    """Where some nodes run, and how wide their input and output are.

    Attributes:
        match: Pattern of the nodes' names, with `*` and `?`; empty matches all.
        op: Operator of the nodes, such as `Softmax`; empty matches all.
        blocks: Patterns of blocks' names, such as `stages.0.*`; empty matches all.
        on: Where the nodes run; None leaves it to the compiler.
        input: Width of their inputs; None leaves it to the compiler.
        output: Width of their outputs; None leaves it to the compiler.
    """

    match: str = ""
    op: str = ""
    blocks: tuple[str, ...] = ()
    on: Unit | None = None
    input: Width | None = None
    output: Width | None = None


@dataclass(frozen=True)
class Recipe:
    """How a model is rewritten, quantised and compiled.

    Attributes:
        name: Its name, or that of its file.
        description: One line for people.
        rewrites: Names of `rewrites.REWRITES`.
        calibration: How ranges are found.
        rounding: How weights become integers: `nearest`: each the nearest one; `gptq`: so that
            the layers' outputs change least (see `quantize/rounding.py`).
        all_int16: Whether all activations have 16 bits.
        nodes: Rules; every rule that matches a node applies, later ones win, key by key.
        mode: What the compiler saves: time, or traffic to the memory.
        sizes: By size of EfficientFormerV2, the whole recipe for it.
    """

    name: str
    description: str = ""
    rewrites: tuple[str, ...] = ()
    calibration: Calibration = field(default_factory=Calibration)
    rounding: Rounding = "nearest"
    all_int16: bool = False
    nodes: tuple[Rule, ...] = ()
    mode: Mode = "latency"
    sizes: Mapping[str, Recipe] = field(default_factory=dict, hash=False)

    def for_size(self, size: str) -> Recipe:
        """The recipe for a size of EfficientFormerV2, or for another model as it stands."""
        return self.sizes.get(size, self)

    def rules(self, model: ModelProto) -> tuple[NodeRule, ...]:
        """Find the nodes of a rewritten model that the rules mean, in the order of the model.

        Args:
            model: The model; each of its nodes has a name.

        Raises:
            RecipeError: A rule matches no node.
        """
        members = {name: set(nodes) for name, nodes in self._blocks(model).items()}
        found: dict[str, NodeRule] = {}
        for number, rule in enumerate(self.nodes):
            chosen = _chosen_blocks(rule, members)
            count = 0
            for node in model.graph.node:
                if (
                    node.op_type == "Constant"
                    or rule.op not in ("", node.op_type)
                    or (rule.match and not fnmatch.fnmatchcase(node.name, rule.match))
                ):
                    continue
                if chosen is not None and node.name not in chosen:
                    continue
                count += 1
                before = found.get(node.name, NodeRule(node.name))
                found[node.name] = NodeRule(
                    node.name,
                    rule.on or before.on,
                    rule.input or before.input_type,
                    rule.output or before.output_type,
                )
            if not count and (rule.match or rule.blocks):
                raise RecipeError(
                    f"recipe {self.name}, nodes.{number}: no node of the model is meant by "
                    f"{describe_rule(rule)}"
                )
        return tuple(found[node.name] for node in model.graph.node if node.name in found)

    def _blocks(self, model: ModelProto) -> Mapping[str, tuple[str, ...]]:
        return blocks(model) if any(rule.blocks for rule in self.nodes) else {}

    def as_dict(self) -> dict[str, Any]:
        """The recipe as the fields of its YAML file, without those of other sizes."""
        rules = [
            {key: list(value) if isinstance(value, tuple) else value
             for key, value in asdict(rule).items() if value}
            for rule in self.nodes
        ]  # fmt: skip
        calibration = {
            key: value for key, value in asdict(self.calibration).items() if value is not None
        }
        return {
            "description": self.description,
            "rewrites": list(self.rewrites),
            "calibration": calibration,
            "weights": {"rounding": self.rounding},
            "all_int16": self.all_int16,
            "nodes": rules,
            "compile": {"mode": self.mode},
        }


def _chosen_blocks(rule: Rule, members: Mapping[str, set[str]]) -> set[str] | None:
    """Names of the nodes in the blocks of a rule; None where it names none."""
    if not rule.blocks:
        return None
    return {
        node
        for name, nodes in members.items()
        if any(fnmatch.fnmatchcase(name, each) for each in rule.blocks)
        for node in nodes
    }


def recipe_files() -> dict[str, Path]:
    """The shipped recipes by name."""
    try:
        folder = share_path("models", "recipes")
    except FileNotFoundError:
        return {}
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(text: str) -> Recipe:
    """Read a recipe by its name, or from a file.

    Args:
        text: Name of a shipped recipe, or path of a YAML file.

    Raises:
        RecipeError: There is none, or it is wrong.
    """
    shipped = recipe_files()
    if text in shipped:
        return read_recipe(shipped[text])
    path = expand_user(text)
    if path.suffix.lower() in (".yaml", ".yml") or path.is_file():
        return read_recipe(path)
    known = ", ".join(shipped) or "none"
    raise RecipeError(f"there is no recipe {shorten(text)}, only {known}, or a YAML file of yours")


def read_recipe(path: Path) -> Recipe:
    """Read a recipe's file.

    Raises:
        RecipeError: It cannot be read, or a field is wrong.
    """
    where = f"recipe {path}"
    name = path.stem
    if not _NAME.fullmatch(name):
        raise RecipeError(f"{where}: its name must be of letters, digits, '_', '.' and '-'")
    document = read_yaml(path, "recipe", RecipeError)
    top = Fields(document, where, RecipeError, _KIND)
    overrides = top.inner("sizes", default={})
    base = dict(top.remaining)
    recipe = _recipe(top, name)
    sizes: dict[str, Recipe] = {}
    for size in list(overrides.remaining):
        if size not in SIZES:
            raise overrides.error(size, f"is none of {', '.join(SIZES)}")
        changes = overrides.take(size, dict)
        merged = _merged(base, changes)
        sizes[size] = _recipe(Fields(merged, f"{where}.sizes.{size}", RecipeError, _KIND), name)
    return replace(recipe, sizes=sizes)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Replace fields; of a field that has fields itself, those that are given."""
    merged = dict(base)
    for key, value in changes.items():
        before = merged.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            merged[key] = {**before, **value}
        else:
            merged[key] = value
    return merged


def _recipe(top: Fields, name: str) -> Recipe:
    recipe = Recipe(
        name=name,
        description=top.take("description", str, default=""),
        rewrites=_rewrites(top),
        calibration=_calibration(top),
        rounding=_rounding(top),
        all_int16=_flag(top, "all_int16"),
        nodes=tuple(_rules(top)),
        mode=_mode(top),
    )
    top.finish()
    return recipe


def _rewrites(top: Fields) -> tuple[str, ...]:
    names = _texts(top, "rewrites")
    for each in names:
        if each not in REWRITES:
            raise top.error("rewrites", f"{shorten(each)} is none of {', '.join(REWRITES)}")
    return names


def _calibration(top: Fields) -> Calibration:
    fields = top.inner("calibration", default={})
    kind = fields.take("type", str, default="max")
    if kind not in CALIBRATION_TYPES:
        raise fields.error("type", f"{shorten(kind)} is none of {', '.join(CALIBRATION_TYPES)}")
    percentile = None
    if fields.remaining.get("percentile") is not None:
        percentile = fields.number("percentile")
        if not 0.5 < percentile <= 1:
            raise fields.error("percentile", f"must be above 0.5 and at most 1, not {percentile}")
        if kind != "max":
            raise fields.error("percentile", f"goes with type max, not {kind}")
    fields.remaining.pop("percentile", None)
    calibration = Calibration(
        kind,
        percentile,
        per_channel=_flag(fields, "per_channel"),
        asymmetric=_flag(fields, "asymmetric"),
        bias_correction=_flag(fields, "bias_correction"),
    )
    fields.finish()
    return calibration


def _mode(top: Fields) -> Mode:
    return cast("Mode", _choice(top.inner("compile", default={}), "mode", get_args(Mode)))


def _rounding(top: Fields) -> Rounding:
    fields = top.inner("weights", default={})
    return cast("Rounding", _choice(fields, "rounding", get_args(Rounding)))


def _choice(fields: Fields, name: str, choices: Sequence[str]) -> str:
    """Take the only field of a group; the first choice is the default."""
    value: str = fields.take(name, str, default=choices[0])
    if value not in choices:
        raise fields.error(name, f"must be {' or '.join(choices)}, not {shorten(value)}")
    fields.finish()
    return value


def _rules(top: Fields) -> Iterator[Rule]:
    """Read the rules for nodes. YAML takes a bare `on` for the word true."""
    for number, entry in enumerate(top.take("nodes", list, default=[])):
        named = entry
        if isinstance(entry, dict):
            named = {"on" if key is True else key: value for key, value in entry.items()}
        fields = Fields(named, f"{top.where}.nodes.{number}", RecipeError, "a rule for nodes")
        rule = Rule(
            match=fields.take("match", str, default=""),
            op=fields.take("op", str, default=""),
            blocks=_texts(fields, "blocks"),
            on=_one_of(fields, "on", ("BPU", "CPU")),
            input=_one_of(fields, "input", ("int8", "int16")),
            output=_one_of(fields, "output", ("int8", "int16")),
        )
        fields.finish()
        if not (rule.match or rule.op or rule.blocks):
            raise fields.error("match", "is missing: give match, op or blocks")
        if not (rule.on or rule.input or rule.output):
            raise fields.error("on", "is missing: give on, input or output")
        yield rule


def _one_of(fields: Fields, name: str, choices: Sequence[str]) -> Any:
    value = fields.remaining.pop(name, None)
    if value is None:
        return None
    if value not in choices:
        raise fields.error(name, f"must be {' or '.join(choices)}, not {shorten(value)}")
    return value


def _texts(fields: Fields, name: str) -> tuple[str, ...]:
    values = fields.take(name, list, default=[])
    for each in values:
        if not isinstance(each, str) or not each:
            raise fields.error(name, f"expected texts, not {shorten(each)}")
    return tuple(values)


def _flag(fields: Fields, name: str) -> bool:
    value = fields.remaining.pop(name, None)
    if value not in (None, True, False) or isinstance(value, (int, float)) != (
        isinstance(value, bool)
    ):
        raise fields.error(name, f"must be true or false, not {key_text(value)}")
    return bool(value)


def describe_rule(rule: Rule) -> str:
    """Name the nodes that a rule means, such as "Softmax nodes in stages.0.*"."""
    text = f"{rule.op} nodes" if rule.op else "nodes"
    if rule.match:
        text += f" named {rule.match}"
    if rule.blocks:
        text += f" in {', '.join(rule.blocks)}"
    return text
