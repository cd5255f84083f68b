"""The GELUs of a graph that the BPU's compiler makes one lookup of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from efv2_ros.rewrites.graph import Graph

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def gelu_count(model: ModelProto) -> int:
    """Count the GELUs in the form that the compiler fuses.

    That form has five nodes: a Div or Mul that brings x / sqrt 2, Erf, Add 1, Mul by x, Mul by
    0.5. A simplifier that folds one of them costs the BPU four passes for each GELU.
    """
    graph = Graph(model)
    return sum(_is_gelu(graph, erf) for erf in graph.nodes("Erf"))


def _is_gelu(graph: Graph, erf: NodeProto) -> bool:
    scaling = graph.producer(erf.input[0], "Div", "Mul")
    scaled = graph.with_constant(scaling) if scaling is not None else None
    if scaling is None or scaled is None or scaled[1].size != 1:
        return False
    value, factor = scaled[0], float(scaled[1].reshape(()))
    if scaling.op_type == "Div":
        factor = 1 / factor if factor else 0
    add = graph.only_consumer(erf.output[0], "Add")
    plus_one = add is not None and _is_by(graph, add, 1)
    product = graph.only_consumer(add.output[0], "Mul") if add is not None else None
    half = graph.only_consumer(product.output[0], "Mul") if product is not None else None
    return (
        math.isclose(factor, math.sqrt(0.5), rel_tol=1e-3)
        and plus_one
        and product is not None
        and value in product.input
        and half is not None
        and _is_by(graph, half, 0.5)
    )


def _is_by(graph: Graph, node: NodeProto, number: float) -> bool:
    """Whether a node's constant operand is this number."""
    parted = graph.with_constant(node)
    return parted is not None and parted[1].size == 1 and float(parted[1].reshape(())) == number
