"""Multi-head attention of EfficientFormerV2 in a graph: finding it, whatever form it has."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from efv2_ros.rewrites.graph import Array, Graph

if TYPE_CHECKING:
    from onnx import NodeProto


@dataclass(frozen=True)
class Scores:
    """How the scores are made: `queries keys`, then scale, bias and talking heads in any order.

    Attributes:
        product: The MatMul of queries and keys; its result has shape 1 x h x n x m.
        steps: The nodes from the MatMul to the Softmax, each a Mul or Div by a constant, an Add
            of a constant, or a 1x1 Conv over the heads (talking heads).
        query: The feature map of the queries, 1 x h d x height x width, before it is split.
        key: The same of the keys.
    """

    product: NodeProto
    steps: tuple[NodeProto, ...]
    query: str
    key: str

    @property
    def talking_heads(self) -> bool:
        """Whether a convolution mixes the heads."""
        return any(step.op_type == "Conv" for step in self.steps)


@dataclass(frozen=True)
class Mixing:
    """How the weights mix the values.

    Attributes:
        product: The MatMul of weights and values; its result has shape 1 x h x n x e.
        value: The feature map of the values, 1 x h e x height x width, before it is split.
        result: The feature map that the attention gives, of the same form.
    """

    product: NodeProto
    value: str
    result: str


@dataclass(frozen=True)
class Attention:
    """One attention: `softmax(queries keys scale + bias) values`, with several heads.

    Attributes:
        scope: The module's name, `/stages/stages.3/blocks/blocks.2/token_mixer`.
        softmax: The Softmax.
        heads: Number of heads, h.
        queries: Number of queries, n.
        keys: Number of keys, m.
        scores: What comes before the Softmax; None if it is of another form.
        mixing: What comes after it; None if it is of another form.
    """

    scope: str
    softmax: NodeProto
    heads: int
    queries: int
    keys: int
    scores: Scores | None
    mixing: Mixing | None


def attentions(graph: Graph) -> Iterator[Attention]:
    """Find each attention of a graph; the graph may change between two of them."""
    for softmax in graph.nodes("Softmax"):
        shape = graph.shape(softmax.output[0])
        default = 1 if graph.opset < 13 else -1
        if len(shape) != 4 or graph.attribute(softmax, "axis", default) not in (3, -1):
            continue
        _, heads, queries, keys = shape
        scores = _scores(graph, softmax, heads, queries, keys)
        mixing = _mixing(graph, softmax, heads, queries, keys)
        if scores is not None or mixing is not None:
            scope = graph.scope(softmax)
            yield Attention(scope, softmax, heads, queries, keys, scores, mixing)


def _scores(
    graph: Graph, softmax: NodeProto, heads: int, queries: int, keys: int
) -> Scores | None:
    value = softmax.input[0]
    steps: list[NodeProto] = []
    while (node := graph.producer(value, "Add", "Mul", "Div", "Conv")) is not None:
        before = _constant_step(graph, node)
        if before is None or graph.only_consumer(value, *_STEPS) is None:
            return None
        value = before
        steps.insert(0, node)
    product = graph.producer(value, "MatMul")
    if product is None or graph.only_consumer(value, *_STEPS) is None:
        return None
    query = _split_map(graph, product.input[0], heads, queries, transposed=True)
    key = _split_map(graph, product.input[1], heads, keys, transposed=False)
    return None if query is None or key is None else Scores(product, tuple(steps), query, key)


_STEPS = ("Add", "Mul", "Div", "Conv", "Softmax")


def _constant_step(graph: Graph, node: NodeProto) -> str | None:
    """The one input that varies of a step from scores to Softmax."""
    if node.op_type == "Conv":
        return node.input[0] if is_pointwise(graph, node) else None
    parted = graph.with_constant(node)
    if parted is None or (node.op_type != "Add" and parted[1].size != 1):
        return None
    return parted[0]


def _mixing(
    graph: Graph, softmax: NodeProto, heads: int, queries: int, keys: int
) -> Mixing | None:
    weights = softmax.output[0]
    talking = graph.only_consumer(weights, "Conv")
    if talking is not None and is_pointwise(graph, talking):
        weights = talking.output[0]
    product = graph.only_consumer(weights, "MatMul")
    if product is None or product.input[0] != weights:
        return None
    value = _split_map(graph, product.input[1], heads, keys, transposed=True)
    result = _merged_map(graph, product.output[0], heads, queries)
    return None if value is None or result is None else Mixing(product, value, result)


def is_pointwise(graph: Graph, conv: NodeProto) -> bool:
    """Whether a Conv has a 1x1 kernel, stride 1, one group, and constant weights."""
    weight = graph.constant(conv.input[1])
    bias = graph.constant(conv.input[2]) if len(conv.input) == 3 else None
    return (
        weight is not None
        and (bias is not None or len(conv.input) == 2)
        and weight.shape[2:] == (1, 1)
        and graph.attribute(conv, "group", 1) == 1
        and list(graph.attribute(conv, "strides", [1, 1])) == [1, 1]
        and not any(graph.attribute(conv, "pads", [0]))
    )


def _moved(graph: Graph, node: NodeProto, array: Array) -> Array:
    """What a Reshape or Transpose does to an array."""
    if node.op_type == "Transpose":
        return array.transpose(graph.attribute(node, "perm", None))
    return array.reshape(graph.shape(node.output[0]))


def _can_follow(graph: Graph, node: NodeProto) -> bool:
    shapes = [graph.shape(value) for value in (node.input[0], node.output[0])]
    return all(shapes) and math.prod(shapes[0]) == math.prod(shapes[1])


def _split_map(
    graph: Graph, value: str, heads: int, pixels: int, *, transposed: bool
) -> str | None:
    """Follow a MatMul's operand back to the feature map whose channels it parts into heads.

    Any chain of Reshape and Transpose will do that moves each element to where it belongs.
    """
    moves: list[NodeProto] = []
    while (node := graph.producer(value, "Reshape", "Transpose")) is not None:
        user = graph.only_consumer(value, "Reshape", "Transpose", "MatMul")
        if user is None or not _can_follow(graph, node):
            return None
        moves.insert(0, node)
        value = node.input[0]
    shape = graph.shape(value)
    if len(shape) != 4 or math.prod(shape[2:]) != pixels or shape[1] % heads:
        return None
    elements = np.arange(math.prod(shape)).reshape(shape)
    expected = elements.reshape(1, heads, -1, pixels)
    if transposed:
        expected = expected.swapaxes(2, 3)
    for move in moves:
        elements = _moved(graph, move, elements)
    return value if np.array_equal(elements, expected) else None


def _merged_map(graph: Graph, value: str, heads: int, pixels: int) -> str | None:
    """Follow a MatMul's result to the feature map that has the heads as channels again."""
    shape = graph.shape(value)
    elements = np.arange(math.prod(shape)).reshape(shape)
    expected = elements.swapaxes(2, 3).reshape(1, heads * shape[3], pixels)
    while (node := graph.only_consumer(value, "Reshape", "Transpose")) is not None:
        if not _can_follow(graph, node):
            return None
        elements, value = _moved(graph, node, elements), node.output[0]
        if elements.ndim == 4 and elements.shape[1] == expected.shape[1]:
            return value if np.array_equal(elements.reshape(expected.shape), expected) else None
    return None
