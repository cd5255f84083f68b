"""A small CNN classifier with seeded weights: convolutions, ReLU, pooling, a linear layer."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import TensorProto, helper, numpy_helper


def small_cnn(path: Path, classes=7, height=64, width=96, seed=0, batch: int | str = 1) -> Path:
    """Input `image` (1, 3, height, width), normalised RGB; output `scores` (1, classes)."""
    random = np.random.RandomState(seed)
    constants = {}
    nodes = []
    channels, before = 3, "image"
    for number, out in enumerate((8, 16, 16)):
        weights = random.standard_normal((out, channels, 3, 3)) * np.sqrt(2 / (9 * channels))
        constants[f"w{number}"] = weights.astype(np.float32)
        constants[f"b{number}"] = random.uniform(-0.1, 0.1, out).astype(np.float32)
        nodes += [
            helper.make_node(
                "Conv", [before, f"w{number}", f"b{number}"], [f"c{number}"],
                kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], name=f"/conv{number}/Conv",
            ),
            helper.make_node("Relu", [f"c{number}"], [f"r{number}"], name=f"/conv{number}/Relu"),
        ]  # fmt: skip
        channels, before = out, f"r{number}"
    constants["wl"] = random.standard_normal((classes, channels)).astype(np.float32) * 2
    constants["bl"] = np.zeros(classes, np.float32)
    nodes += [
        helper.make_node("GlobalAveragePool", [before], ["pooled"], name="/pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "wl", "bl"], ["scores"], transB=1, name="/head/Gemm"),
    ]
    graph = helper.make_graph(
        nodes,
        "small_cnn",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, height, width])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
