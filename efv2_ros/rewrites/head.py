"""Rewrites of the classifier's head: everything after the last stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from efv2_ros.rewrites.graph import Array, Graph

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def merge_heads(model: ModelProto) -> int:
    """Make one linear layer of two whose mean or sum is the output."""
    graph, places = Graph(model), 0
    for add in graph.nodes("Add"):
        heads = [graph.producer(value, "Gemm") for value in add.input]
        if len(heads) != 2 or any(
            head is None or graph.only_consumer(head.output[0], "Add") is None for head in heads
        ):
            continue
        first, second = heads
        if first is None or second is None or first.input[0] != second.input[0]:
            continue
        layers = [_linear(graph, head) for head in (first, second)]
        if layers[0] is None or layers[1] is None or layers[0][0].shape != layers[1][0].shape:
            continue
        result, factor = add.output[0], 1.0
        scaling = graph.only_consumer(result, "Div", "Mul")
        parted = graph.with_constant(scaling) if scaling is not None else None
        if scaling is not None and parted is not None and parted[1].size == 1:
            number = float(parted[1].reshape(()))
            factor = 1 / number if scaling.op_type == "Div" else number
            result = scaling.output[0]
        weight, bias = (
            ((a.astype(np.float64) + b) * factor).astype(np.float32)
            for a, b in zip(*layers, strict=True)
        )
        scope = graph.scope(first)
        constants = [
            graph.initializer(f"{scope}/weight", weight),
            graph.initializer(f"{scope}/bias", bias),
        ]
        (merged,) = graph.add("Gemm", scope, [first.input[0], *constants], transB=1)
        graph.replace(result, merged)
        places += 1
    graph.finish()
    return places


def head_as_convolution(model: ModelProto) -> int:
    """Make a GlobalAveragePool and a 1x1 Conv of BatchNorm, pooling and the linear layer."""
    graph, places = Graph(model), 0
    for gemm in graph.nodes("Gemm"):
        layer = _linear(graph, gemm)
        pool = _pooling(graph, gemm.input[0])
        # The output gets two axes more, which nothing but the end of the model can bear.
        if layer is None or pool is None or not graph.is_output(gemm.output[0]):
            continue
        name, value, (weight, bias) = gemm.output[0], pool.input[0], layer
        norm = graph.producer(value, "BatchNormalization")
        if norm is not None and graph.only_consumer(value, *_POOLINGS) is not None:
            affine = batch_norm(graph, norm)
            if affine is not None:
                scale, shift = affine
                value = norm.input[0]
                bias = (bias + weight.astype(np.float64) @ shift).astype(np.float32)
                weight = (weight * scale).astype(np.float32)
        scope = graph.scope(gemm)
        constants = [
            graph.initializer(f"{scope}/weight", weight[:, :, None, None]),
            graph.initializer(f"{scope}/bias", bias),
        ]
        (pooled,) = graph.add("GlobalAveragePool", scope, [value])
        (logits,) = graph.add("Conv", scope, [pooled, *constants], **POINTWISE)
        graph.replace(name, logits)
        for output in model.graph.output:
            if output.name == name:
                for _ in range(2):
                    output.type.tensor_type.shape.dim.add().dim_value = 1
        places += 1
    graph.finish()
    return places


POINTWISE: dict[str, Any] = {
    "dilations": [1, 1], "group": 1, "kernel_shape": [1, 1], "pads": [0] * 4, "strides": [1, 1],
}  # fmt: skip
"""Attributes of a 1x1 Conv."""

_POOLINGS = ("ReduceMean", "GlobalAveragePool")


def batch_norm(graph: Graph, norm: NodeProto) -> tuple[Array, Array] | None:
    """The factor and the shift of each channel that a BatchNormalization applies, in float64."""
    constants = [graph.constant(value) for value in norm.input[1:]]
    if any(each is None for each in constants):
        return None
    gamma, beta, mean, variance = (np.asarray(each, np.float64) for each in constants)
    scale = gamma / np.sqrt(variance + graph.attribute(norm, "epsilon", 1e-5))
    return scale, beta - mean * scale


def _linear(graph: Graph, gemm: NodeProto) -> tuple[Array, Array] | None:
    """A Gemm's weights (outputs x inputs) and biases, if they are constant."""
    weight = graph.constant(gemm.input[1])
    bias = graph.constant(gemm.input[2]) if len(gemm.input) == 3 else np.zeros(1, np.float32)
    if weight is None or bias is None or graph.attribute(gemm, "transA", 0):
        return None
    if not graph.attribute(gemm, "transB", 0):
        weight = weight.T
    alpha, beta = graph.attribute(gemm, "alpha", 1.0), graph.attribute(gemm, "beta", 1.0)
    if bias.size not in (1, len(weight)):
        return None
    return weight * np.float32(alpha), np.broadcast_to(bias.ravel() * beta, len(weight))


def _pooling(graph: Graph, value: str) -> NodeProto | None:
    """The node that averages a feature map to one number a channel, if that makes the value."""
    node = graph.producer(value, "ReduceMean", "Flatten", "Reshape", "Squeeze")
    if node is not None and node.op_type != "ReduceMean":
        if len(graph.shape(value)) != 2:
            return None
        node = graph.producer(node.input[0], *_POOLINGS)
    if node is None or len(shape := graph.shape(node.input[0])) != 4:
        return None
    if graph.shape(node.output[0])[:2] != shape[:2]:
        return None
    if node.op_type == "ReduceMean":
        axes = graph.attribute(node, "axes", None)
        if axes is None and len(node.input) == 2:
            given = graph.constant(node.input[1])
            axes = None if given is None else given.tolist()
        if axes is None or sorted(axis % 4 for axis in axes) != [2, 3]:
            return None
    return node
