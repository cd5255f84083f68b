"""Chooses the range of each activation that keeps what the network computes best.

The vendor's calibration cuts every tensor at the same share of its values, and gives all parts of
a Softmax the range 1. Of the weights of an attention over 196 keys, most are then less than one
step of eight bits. Here each tensor gets the range whose rounding and clipping err least.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
Kind = Literal["plain", "relative", "rows"]

FACTORS = np.geomspace(0.02, 1.0, 40)
"""Ranges that are tried, as shares of the largest value."""

SAMPLES = 3000
"""Values of a tensor that are looked at, of each image."""

ROWS = 200
"""Rows that are looked at of each image, where rows count."""

_CALIBRATION = "HzCalibration"

_MOVES = {"Concat", "Expand", "Flatten", "MaxPool", "Reshape", "Resize", "Slice", "Split",
          "Squeeze", "Transpose", "Unsqueeze"}  # fmt: skip
"""Operators that the quantiser gives one range for what they read and write."""


@dataclass(eq=False)
class Tensors:
    """Activations that share a range.

    Attributes:
        nodes: The calibration nodes that hold it.
        looked_at: Those of them whose values are looked at.
        bits: 8 or 16.
        kind: How an error counts: `plain`, squared; `relative`, as a share of the value, squared,
            for what everything in a row is multiplied with; `rows`, squared, and the sum of a row
            squared too, since what is summed up by these weights has a mean. A row is the last
            axis.
        largest: Largest absolute value.
        samples: Some values of each image; whole rows for `rows`.
    """

    nodes: list[Any]
    looked_at: list[Any]
    bits: int
    kind: Kind = "plain"
    largest: float = 0.0
    samples: list[Values] = field(default_factory=list)

    def look_at(self, values: Sequence[Values], random: np.random.Generator) -> None:
        """Take note of an image's values, one array for each of `looked_at`."""
        count = max(1, SAMPLES // len(values))
        for each in values:
            self.largest = max(self.largest, float(np.abs(each).max()))
            by_row = self.kind == "rows"
            parts = each.reshape(-1, each.shape[-1]) if by_row else each.reshape(-1)
            number = ROWS if by_row else count
            if len(parts) > number:
                parts = parts[random.integers(0, len(parts), number)]
            self.samples.append(parts.copy())

    def best(self) -> float:
        """Find the largest absolute value to represent; 0 where all values are 0."""
        if self.bits > 8 or not self.largest:
            return self.largest  # 16 bits have steps to spare: nothing is clipped
        values = np.concatenate(self.samples)
        candidates = self.largest * FACTORS
        errors = [error(values, float(each), self.kind) for each in candidates]
        return float(candidates[int(np.argmin(errors))])


def error(values: Values, largest: float, kind: Kind = "plain") -> float:
    """Error of eight bits for some values.

    Args:
        values: The values; the last axis is the row for `rows`.
        largest: The largest absolute value that is represented.
        kind: See `Tensors`.
    """
    step = np.float32(largest / 127)
    lost = np.clip(np.rint(values / step), -128, 127) * step - values
    if kind == "relative":
        lost = np.divide(lost, values, out=np.zeros_like(lost), where=values != 0)
    squares = float(np.square(lost, dtype=np.float64).sum())
    if kind == "rows":
        squares += float(np.square(lost.sum(-1, dtype=np.float64)).sum())
    return squares


def choose_ranges(model: Any, dataset: Any, progress: Callable[[float], None]) -> None:
    """Give the activations of a calibrated model better ranges.

    Args:
        model: The vendor's model, which is changed.
        dataset: The vendor's calibration images.
        progress: Called with the share that is done.
    """
    tensors = shared(model.graph)
    if not tensors:
        return
    from horizon_nn.executor import ORTExecutor

    names = [node.inputs[0].name for each in tensors for node in each.looked_at]
    session = ORTExecutor(unquantized(model.proto, names)).create_session()
    inputs = [each.name for each in session.get_inputs()]
    random = np.random.default_rng(0)
    count = dataset.number_of_samples
    for index in range(count):
        found = session.forward(dataset.get_data(inputs, index, index + 1), names)
        for each in tensors:
            each.look_at([found[node.inputs[0].name] for node in each.looked_at], random)
        progress(0.6 * (index + 1) / count)
    for number, each in enumerate(tensors):
        largest = each.best()
        if largest:
            for node in each.nodes:
                node.thresholds = [largest]
        progress(0.6 + 0.4 * (number + 1) / len(tensors))


def shared(graph: Any) -> list[Tensors]:
    """Find the activations of a calibrated graph whose range is to be chosen.

    Left as they are: the model's input, whose range is the image's, and what an Exp reads and
    writes, which is known without looking.
    """
    makers = {value.name: node for node in graph.nodes for value in node.outputs}
    readers: dict[str, list[Any]] = {}
    for node in graph.nodes:
        for value in node.inputs:
            readers.setdefault(value.name, []).append(node)
    activations = [
        node
        for node in graph.nodes
        if node.op_type == _CALIBRATION and node.tensor_type == "feature"
        and node.thresholds and len(node.thresholds) == 1
        and node.inputs[0].name in makers
        and makers[node.inputs[0].name].op_type != "Exp"
        and all(each.op_type != "Exp" for each in readers.get(node.outputs[0].name, ()))
    ]  # fmt: skip
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while parents.get(name, name) != name:
            name = parents[name]
        return name

    for node in graph.nodes:
        if node.op_type in _MOVES or node.op_type == _CALIBRATION:
            moved = [each.name for each in node.inputs if each.name in makers]
            for one, other in itertools.pairwise([*moved, *(each.name for each in node.outputs)]):
                parents[root(one)] = root(other)
    groups: dict[tuple[str, float, str], list[Any]] = {}
    for node in activations:
        key = root(node.inputs[0].name), node.thresholds[0], node.qtype
        groups.setdefault(key, []).append(node)
    return [_described(nodes, makers) for nodes in groups.values()]


def _described(nodes: list[Any], makers: Mapping[str, Any]) -> Tensors:
    """Find out how the errors of some tensors count."""
    bits = 16 if nodes[0].qtype == "int16" else 8
    for node in nodes:
        maker = makers[node.inputs[0].name]
        if maker.op_type == "Reciprocal":
            return Tensors(nodes, [node], bits, "relative")
        if maker.op_type == "Mul" and any(_is_reciprocal(each, makers) for each in maker.inputs):
            # The other tensors only move the same values about.
            return Tensors(nodes, [node], bits, "rows")
    return Tensors(nodes, nodes, bits)


def _is_reciprocal(value: Any, makers: Mapping[str, Any]) -> bool:
    maker = makers.get(value.name)
    if maker is not None and maker.op_type == _CALIBRATION:
        maker = makers.get(maker.inputs[0].name)
    return maker is not None and maker.op_type == "Reciprocal"


def unquantized(proto: Any, names: Sequence[str]) -> Any:
    """Copy a calibrated model without the rounding of its activations.

    Args:
        proto: The model, ONNX.
        names: Values that become outputs of the copy.
    """
    from onnx import helper

    model = type(proto)()
    model.CopyFrom(proto)
    graph = model.graph
    constants = {each.name for each in graph.initializer}
    passed: dict[str, str] = {}
    kept = []
    for node in proto.graph.node:  # in the order in which they run
        if node.op_type == _CALIBRATION and node.input[0] not in constants:
            passed[node.output[0]] = passed.get(node.input[0], node.input[0])
            continue
        kept.append(type(node)())
        kept[-1].CopyFrom(node)
        for position, value in enumerate(node.input):
            kept[-1].input[position] = passed.get(value, value)
    given = {each.name for each in graph.output}
    wanted = [name for name in dict.fromkeys(names) if name not in given]
    kept += [helper.make_node("Identity", [passed[name]], [name])
             for name in (*wanted, *given) if name in passed]  # fmt: skip
    del graph.node[:]
    graph.node.extend(kept)
    graph.output.extend(helper.make_tensor_value_info(name, 1, None) for name in wanted)
    return model
