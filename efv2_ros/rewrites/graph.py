"""A graph that can be searched and changed: producers, consumers, constants, shapes."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Array = npt.NDArray[Any]

_CONSTANT_ELEMENTS = 1 << 24
"""Largest array that `constant` works out: 64 MB of float32."""


class Graph:
    """The nodes of a model, to match patterns in and to replace.

    Values are named by strings, as ONNX names them. Changes leave dead nodes behind and the order
    of nodes open; `finish` cleans up.
    """

    def __init__(self, model: ModelProto) -> None:
        """Index a model, which this graph then changes in place."""
        from onnx import shape_inference

        self.model = model
        self.opset = max(
            (each.version for each in model.opset_import if each.domain in ("", "ai.onnx")),
            default=1,
        )
        self.shapes: dict[str, tuple[int, ...]] = {}
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
        for value in (*graph.input, *graph.value_info, *graph.output):
            dimensions = value.type.tensor_type.shape.dim
            if all(each.HasField("dim_value") for each in dimensions):
                self.shapes[value.name] = tuple(each.dim_value for each in dimensions)
        self._initializers = {each.name: each for each in model.graph.initializer}
        self.shapes.update((name, tuple(i.dims)) for name, i in self._initializers.items())
        self._names = {each.name for each in model.graph.node}
        self._values = {value for node in model.graph.node for value in node.output}
        self._values |= {each.name for each in (*model.graph.input, *model.graph.initializer)}
        self._outputs = {each.name for each in model.graph.output}
        self._constants: dict[str, Array | None] = {}
        self._old_nodes = len(model.graph.node)
        self._index()

    def _index(self) -> None:
        self._producers: dict[str, NodeProto] = {}
        self._consumers: dict[str, list[NodeProto]] = {}
        for node in self.model.graph.node:
            self._note(node)

    def _note(self, node: NodeProto) -> None:
        for value in node.output:
            self._producers[value] = node
        for value in dict.fromkeys(node.input):
            self._consumers.setdefault(value, []).append(node)

    # --- Searching

    def nodes(self, *ops: str) -> Iterator[NodeProto]:
        """Iterate over the nodes of some kinds; the graph may change meanwhile."""
        for node in list(self.model.graph.node):
            if node.op_type in ops:
                yield node

    def producer(self, value: str, *ops: str) -> NodeProto | None:
        """The node that makes a value, if there is one and it is of one of these kinds."""
        node = self._producers.get(value)
        return node if node is not None and (not ops or node.op_type in ops) else None

    def only_consumer(self, value: str, *ops: str) -> NodeProto | None:
        """The node that alone uses a value, if it is of one of these kinds.

        None if the value is an output of the model too.
        """
        nodes = self._consumers.get(value, [])
        if len(nodes) != 1 or value in self._outputs or nodes[0].op_type not in ops:
            return None
        return nodes[0]

    def is_output(self, value: str) -> bool:
        """Whether a value is an output of the model."""
        return value in self._outputs

    def shape(self, value: str) -> tuple[int, ...]:
        """The shape of a value; empty where it is unknown."""
        return self.shapes.get(value, ())

    def attribute(self, node: NodeProto, name: str, default: Any) -> Any:
        """The value of an attribute; lists are lists of numbers."""
        from onnx import helper

        for each in node.attribute:
            if each.name == name:
                return helper.get_attribute_value(each)
        return default

    def constant(self, value: str) -> Array | None:
        """The array that a value always has; None if it depends on the model's input.

        Initializers and Constant nodes are constants, and so is all that nodes compute of them:
        an exporter may, for example, gather the attention biases in the graph.
        """
        if value not in self._constants:
            self._constants[value] = self._work_out(value)
        return self._constants[value]

    def _work_out(self, value: str) -> Array | None:
        from onnx import numpy_helper

        if value in self._initializers:
            return np.asarray(numpy_helper.to_array(self._initializers[value]))
        node = self._producers.get(value)
        if node is None or len(node.output) != 1:
            return None
        if node.op_type == "Shape" and self.shape(node.input[0]):
            return np.array(self.shape(node.input[0]), np.int64)
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            return np.asarray(numpy_helper.to_array(node.attribute[0].t))
        if math.prod(self.shape(value)) > _CONSTANT_ELEMENTS or node.domain not in ("", "ai.onnx"):
            return None
        inputs: list[Array | None] = []
        for each in node.input:
            inputs.append(self.constant(each) if each else None)
            if each and inputs[-1] is None:
                return None
        return self._evaluate(node, inputs)

    def _evaluate(self, node: NodeProto, inputs: Sequence[Array | None]) -> Array | None:
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        named = {n: i for n, i in zip(node.input, inputs, strict=True) if i is not None}
        feeds = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(i.dtype), i.shape)
            for n, i in named.items()
        ]
        result = helper.make_empty_tensor_value_info(node.output[0])
        program = helper.make_model(
            helper.make_graph([node], "constant", feeds, [result]),
            opset_imports=list(self.model.opset_import),
        )
        try:
            (array,) = ReferenceEvaluator(program).run(None, named)
            return np.asarray(array)
        except (NotImplementedError, TypeError, ValueError, RuntimeError):
            return None  # then this is no constant that a rewrite could use

    def scalar(self, value: str) -> float | None:
        """The number that a value always is; None if it is no constant of one element."""
        array = self.constant(value)
        return float(array.reshape(())) if array is not None and array.size == 1 else None

    def with_constant(self, node: NodeProto) -> tuple[str, Array] | None:
        """Part a node's two inputs into the variable one and the constant one.

        Returns:
            The variable input and the constant's value, None if not exactly one is constant.
            Of a Div or Sub, only the second may be constant.
        """
        if len(node.input) != 2:
            return None
        first, second = (self.constant(each) for each in node.input)
        if second is not None and first is None:
            return node.input[0], second
        if first is not None and second is None and node.op_type in ("Add", "Mul"):
            return node.input[1], first
        return None

    # --- Changing

    def scope(self, node: NodeProto) -> str:
        """The module that a node belongs to, as torch's exporter names it: `/stem/conv1`."""
        return node.name.rpartition("/")[0]

    def initializer(self, name: str, array: Array) -> str:
        """Add a constant; gives its value's name."""
        from onnx import numpy_helper

        name = _unused(name, self._values)
        tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
        self.model.graph.initializer.append(tensor)
        self._initializers[name] = self.model.graph.initializer[-1]
        self.shapes[name] = array.shape
        return name

    def add(
        self, op: str, scope: str, inputs: Sequence[str], *, outputs: int = 1, **attributes: Any
    ) -> tuple[str, ...]:
        """Add a node, named by its scope and kind; gives its values' names."""
        from onnx import helper

        name = _unused(f"{scope}/{op}", self._names)
        values = tuple(_unused(f"{name}_output_{i}", self._values) for i in range(outputs))
        node = helper.make_node(op, list(inputs), list(values), name=name, **attributes)
        self.model.graph.node.append(node)
        self._note(self.model.graph.node[-1])
        return values

    def transpose(self, scope: str, value: str, *axes: int) -> str:
        """Add a Transpose."""
        return self.add("Transpose", scope, [value], perm=axes)[0]

    def reshape(self, scope: str, value: str, *shape: int) -> str:
        """Add a Reshape."""
        wanted = self.initializer(f"{scope}/shape", np.array(shape, np.int64))
        return self.add("Reshape", scope, [value, wanted])[0]

    def split(self, scope: str, value: str, parts: int, axis: int) -> tuple[str, ...]:
        """Add a Split into equal parts."""
        sizes = [self.shape(value)[axis] // parts] * parts
        if self.opset < 13:
            return self.add("Split", scope, [value], outputs=parts, axis=axis, split=sizes)
        wanted = self.initializer(f"{scope}/sizes", np.array(sizes, np.int64))
        return self.add("Split", scope, [value, wanted], outputs=parts, axis=axis)

    def set_input(self, node: NodeProto, position: int, value: str) -> None:
        """Give a node another input."""
        if position == len(node.input):
            node.input.append(value)
        else:
            node.input[position] = value
        self._index()

    def replace(self, old: str, new: str) -> None:
        """Use a new value wherever an old one was used, also as the model's output."""
        makers = self._producers
        for node in self.model.graph.node:
            for position, value in enumerate(node.input):
                if value == old and new not in node.output:
                    node.input[position] = new
        if old in self._outputs:
            former = makers.get(old)
            if former is not None:
                former.output[list(former.output).index(old)] = _unused(
                    f"{old}_replaced", self._values
                )
            for node in self.model.graph.node:
                for values in (node.input, node.output):
                    for position, value in enumerate(values):
                        if value == new:
                            values[position] = old
        self._index()

    def finish(self) -> None:
        """Remove what nothing uses any more, and put the nodes in an order that can be run.

        New nodes run as early as they can: the compiler loads the weights of what comes next
        meanwhile.
        """
        graph = self.model.graph
        ordered = self._in_order(self._alive())
        used = {value for node in ordered for value in node.input} | self._outputs
        kept = [each for each in graph.initializer if each.name in used]
        # A new node may give a value another shape than the one noted, which anyone can infer.
        del graph.value_info[:]
        nodes, initializers = _copies(ordered), _copies(kept)
        for field, content in ((graph.node, nodes), (graph.initializer, initializers)):
            del field[:]
            field.extend(content)

    def _alive(self) -> set[int]:
        """The positions of the nodes that the model's outputs need."""
        positions = self._positions()
        waiting = [positions[value] for value in self._outputs if value in positions]
        alive: set[int] = set()
        while waiting:
            position = waiting.pop()
            if position not in alive:
                alive.add(position)
                inputs = self.model.graph.node[position].input
                waiting += [positions[value] for value in inputs if value in positions]
        return alive

    def _in_order(self, alive: set[int]) -> list[NodeProto]:
        """Order nodes as they were; new ones, which stand last, come right after their inputs."""
        nodes, positions = self.model.graph.node, self._positions()
        makers = {
            position: {positions[value] for value in nodes[position].input if value in positions}
            for position in alive
        }
        places: dict[int, int] = {}
        for position in sorted(alive):
            is_new = position >= self._old_nodes
            before = (places.get(maker, 0) for maker in makers[position])
            places[position] = max(before, default=0) if is_new else position
        users: dict[int, list[int]] = {}
        for position, needed in makers.items():
            for maker in needed:
                users.setdefault(maker, []).append(position)
        ready = [(places[position], position) for position in alive if not makers[position]]
        heapq.heapify(ready)
        ordered: list[NodeProto] = []
        while ready:
            _, done = heapq.heappop(ready)
            ordered.append(nodes[done])
            for user in users.get(done, ()):
                makers[user].discard(done)
                if not makers[user]:
                    heapq.heappush(ready, (places[user], user))
        return ordered

    def _positions(self) -> dict[str, int]:
        """The position of the node that makes each value."""
        nodes = enumerate(self.model.graph.node)
        return {value: position for position, node in nodes for value in node.output}


def _copies(messages: Sequence[Any]) -> list[Any]:
    """Copy protobuf messages, which die with the list that holds them."""
    copies = []
    for message in messages:
        copy = type(message)()
        copy.CopyFrom(message)
        copies.append(copy)
    return copies


def _unused(name: str, names: set[str]) -> str:
    """Name something by `name`, numbered where it is taken, and note that it is taken now."""
    number, unused = 0, name
    while unused in names:
        number += 1
        unused = f"{name}_{number}"
    names.add(unused)
    return unused
