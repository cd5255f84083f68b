"""Rewrites of attention that fold its constants into convolutions."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from efv2_ros.rewrites.attention import Scores, attentions
from efv2_ros.rewrites.graph import Array, Graph

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def fold_attention_bias(model: ModelProto) -> int:
    """Move an attention's bias behind the talking heads, and add their own bias to it."""
    graph, places = Graph(model), 0
    for attention in attentions(graph):
        for bias, mix in _neighbours(attention.scores):
            parted = graph.with_constant(bias)
            if bias.op_type == "Add" and mix.op_type == "Conv" and parted is not None:
                _swap(graph, *parted, mix)
                places += 1
    graph.finish()
    return places


def _neighbours(scores: Scores | None) -> list[tuple[NodeProto, NodeProto]]:
    """The steps from scores to Softmax in pairs of one and the next."""
    steps = () if scores is None else scores.steps
    return list(itertools.pairwise(steps))


def _swap(graph: Graph, value: str, bias: Array, mix: NodeProto) -> None:
    weight, scope = graph.constant(mix.input[1]), graph.scope(mix)
    assert weight is not None
    own = graph.constant(mix.input[2]) if len(mix.input) == 3 else None
    full = np.broadcast_to(bias, graph.shape(mix.output[0])).astype(np.float64)
    mixed = np.einsum("oi,bixy->boxy", weight[:, :, 0, 0], full)
    if own is not None:
        mixed += own[:, None, None]
    graph.set_input(mix, 0, value)
    zeros = np.zeros(len(weight), np.float32)
    graph.set_input(mix, 2, graph.initializer(f"{scope}/bias", zeros))
    biases = graph.initializer(f"{scope}/attention_biases", mixed.astype(np.float32))
    (biased,) = graph.add("Add", scope, [mix.output[0], biases])
    graph.replace(mix.output[0], biased)


def fold_attention_scale(model: ModelProto) -> int:
    """Multiply an attention's scale into the weights that mix its heads or make its queries."""
    graph, places = Graph(model), 0
    for attention in attentions(graph):
        scores = attention.scores
        if scores is None or not scores.steps or scores.steps[0].op_type not in ("Mul", "Div"):
            continue
        scaling = scores.steps[0]
        parted = graph.with_constant(scaling)
        after = scores.steps[1] if len(scores.steps) > 1 else None
        if parted is None:
            continue
        value, number = parted
        factor = float(number.reshape(()))
        factor = 1 / factor if scaling.op_type == "Div" else factor
        if after is not None and after.op_type == "Conv":
            folded = _multiply(graph, after, [1], factor)
        else:
            folded = _scale_queries(graph, scores.query, factor)
        if folded:
            graph.replace(scaling.output[0], value)
            places += 1
    graph.finish()
    return places


def _scale_queries(graph: Graph, query: str, factor: float) -> bool:
    """Scale the weights and biases of the Conv or BatchNormalization that makes the queries."""
    maker = graph.producer(query, "Conv", "BatchNormalization")
    if maker is None or graph.only_consumer(query, "Reshape", "Transpose") is None:
        return False
    return _multiply(graph, maker, [1, 2][: len(maker.input) - 1], factor)


def _multiply(graph: Graph, node: NodeProto, positions: list[int], factor: float) -> bool:
    """Multiply some inputs of a node, if all of them are constant."""
    arrays = [graph.constant(node.input[position]) for position in positions]
    for position, array in zip(positions, arrays, strict=True):
        if array is None:
            return False
        scaled = (array.astype(np.float64) * factor).astype(np.float32)
        name = graph.initializer(f"{node.input[position]}_scaled", scaled)
        graph.set_input(node, position, name)
    return True
