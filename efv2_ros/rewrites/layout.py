"""Rewrites of attention that change the layout of its values, or compute each head alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from efv2_ros.rewrites.attention import Attention, Mixing, Scores, attentions
from efv2_ros.rewrites.graph import Graph

if TYPE_CHECKING:
    from onnx import ModelProto


def attention_nhwc(model: ModelProto) -> int:
    """Split and join the heads in NHWC, where the channels of a pixel lie side by side.

    The keys stay in NCHW, in which the MatMul wants them.
    """
    graph, places = Graph(model), 0
    for attention in attentions(graph):
        scope, scores, mixing = attention.scope, attention.scores, attention.mixing
        if scores is None or mixing is None or _is_nhwc(graph, mixing):
            continue
        queries = _heads_of_pixels(graph, f"{scope}/queries", scores.query, attention.heads)
        graph.set_input(scores.product, 0, queries)
        values = _heads_of_pixels(graph, f"{scope}/values", mixing.value, attention.heads)
        graph.set_input(mixing.product, 1, values)
        value = graph.transpose(f"{scope}/result", mixing.product.output[0], 0, 2, 1, 3)
        graph.replace(mixing.result, _map_of_pixels(graph, f"{scope}/result", value, mixing))
        places += 1
    graph.finish()
    return places


def _is_nhwc(graph: Graph, mixing: Mixing) -> bool:
    last = graph.producer(mixing.product.input[1], "Transpose")
    return last is not None and list(graph.attribute(last, "perm", [])) == [0, 2, 1, 3]


def _heads_of_pixels(graph: Graph, scope: str, value: str, heads: int) -> str:
    """Part a feature map 1 x h d x height x width into 1 x h x pixels x d."""
    _, _, height, width = graph.shape(value)
    value = graph.transpose(scope, value, 0, 2, 3, 1)
    value = graph.reshape(scope, value, 1, height * width, heads, -1)
    return graph.transpose(scope, value, 0, 2, 1, 3)


def _map_of_pixels(graph: Graph, scope: str, value: str, mixing: Mixing) -> str:
    """Make the attention's result of values that have the channels of each pixel side by side."""
    _, channels, height, width = graph.shape(mixing.result)
    value = graph.reshape(scope, value, 1, height, width, channels)
    return graph.transpose(scope, value, 0, 3, 1, 2)


def values_per_head(model: ModelProto) -> int:
    """Multiply weights and values in a MatMul for each head."""
    graph, places = Graph(model), 0
    for attention in attentions(graph):
        if attention.mixing is not None:
            _part_values(graph, attention, attention.mixing)
            places += 1
    graph.finish()
    return places


def _part_values(graph: Graph, attention: Attention, mixing: Mixing) -> None:
    scope, heads = attention.scope, attention.heads
    values = _heads_of_row(graph, f"{scope}/values", mixing.value, heads)
    weights = graph.split(f"{scope}/weights", mixing.product.input[0], heads, axis=1)
    results: list[str] = []
    for head, (value, weight) in enumerate(zip(values, weights, strict=True)):
        of_head = f"{scope}/values/head{head}"
        rows = graph.transpose(of_head, value, 0, 2, 3, 1)
        results += graph.add("MatMul", of_head, [weight, rows])
    (joined,) = graph.add("Concat", f"{scope}/result", results, axis=3)
    graph.replace(mixing.result, _map_of_pixels(graph, f"{scope}/result", joined, mixing))


def _heads_of_row(graph: Graph, scope: str, value: str, heads: int) -> tuple[str, ...]:
    """Part a feature map into heads of 1 x d x 1 x pixels: all pixels in one row.

    It first becomes one row and is then parted: one Reshape for all heads.
    """
    _, channels, height, width = graph.shape(value)
    row = graph.transpose(scope, value, 0, 2, 3, 1)
    row = graph.reshape(scope, row, 1, 1, height * width, channels)
    row = graph.transpose(scope, row, 0, 3, 1, 2)
    graph.shapes[row] = (1, channels, 1, height * width)
    return graph.split(scope, row, heads, axis=1)


def scores_per_head(model: ModelProto) -> int:
    """Multiply queries and keys in a MatMul for each head, where talking heads follow."""
    graph, places = Graph(model), 0
    for attention in attentions(graph):
        if attention.scores is not None and attention.scores.talking_heads:
            _part_scores(graph, attention, attention.scores)
            places += 1
    graph.finish()
    return places


def _part_scores(graph: Graph, attention: Attention, scores: Scores) -> None:
    scope, heads = attention.scope, attention.heads
    queries = _heads_of_row(graph, f"{scope}/queries", scores.query, heads)
    keys = _heads_of_row(graph, f"{scope}/keys", scores.key, heads)
    results: list[str] = []
    for head, (query, key) in enumerate(zip(queries, keys, strict=True)):
        of_head = f"{scope}/scores/head{head}"
        rows = graph.transpose(of_head, query, 0, 2, 3, 1)
        columns = graph.transpose(of_head, key, 0, 2, 1, 3)
        results += graph.add("MatMul", of_head, [rows, columns])
    (joined,) = graph.add("Concat", f"{scope}/scores", results, axis=1)
    graph.replace(scores.product.output[0], joined)


def softmax_rows(model: ModelProto) -> int:
    """Give the Softmax between talking heads all rows of all heads as one matrix.

    In the layout of the convolutions around it, each vector of the BPU would hold the eight heads
    of one score; in a matrix it holds the scores of one row.
    """
    graph, places = Graph(model), 0
    for softmax in graph.nodes("Softmax"):
        scores, weights = softmax.input[0], softmax.output[0]
        shape = graph.shape(weights)
        if (
            len(shape) == 4
            and shape[1] > 1
            and graph.attribute(softmax, "axis", -1) in (3, -1)
            and graph.only_consumer(weights, "Conv") is not None
        ):
            _, heads, queries, keys = shape
            scope = f"{graph.scope(softmax)}/softmax"
            rows = graph.reshape(scope, scores, 1, 1, heads * queries, keys)
            graph.set_input(softmax, 0, rows)
            graph.replace(weights, graph.reshape(scope, weights, 1, heads, queries, keys))
            places += 1
    graph.finish()
    return places
