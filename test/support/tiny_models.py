"""Small ONNX classifiers whose logits can be worked out by hand."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, helper, numpy_helper


def save(path: Path, nodes, shape_in, shape_out, constants=(), *, extra_outputs=()) -> Path:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, shape_in)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape_out), *extra_outputs],
        [numpy_helper.from_array(value, name) for name, value in dict(constants).items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), path
    )
    return path


def mean_colour(path: Path, height=224, width=224, batch: int | str = 1) -> Path:
    """Three classes; the logits are the mean of each input plane."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["data"], ["means"]),
        helper.make_node("Flatten", ["means"], ["output"]),
    ]
    return save(path, nodes, [batch, 3, height, width], [batch, 3])


def projection(path: Path, classes=1000, height=224, width=224, seed=0) -> Path:
    """Logits that depend on a coarse view of every part of the image."""
    random = np.random.RandomState(seed)
    features = 3 * (height // 32) * (width // 32)
    weights = random.standard_normal((features, classes)).astype(np.float32) * 0.3
    nodes = [
        helper.make_node(
            "AveragePool", ["data"], ["coarse"], kernel_shape=[32, 32], strides=[32, 32]
        ),
        helper.make_node("Flatten", ["coarse"], ["features"]),
        helper.make_node("MatMul", ["features", "weights"], ["output"]),
    ]
    return save(path, nodes, [1, 3, height, width], [1, classes], {"weights": weights})


def fails_on_bright(path: Path) -> Path:
    """One class, whose logit is the mean brightness; above 99, inference fails."""
    constants = {"table": np.arange(100, dtype=np.float32).reshape(1, 100)}
    nodes = [
        helper.make_node("ReduceMean", ["data"], ["mean"], axes=[0, 1, 2, 3], keepdims=0),
        helper.make_node("Cast", ["mean"], ["number"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["number"], ["index"], axes=[0]),
        helper.make_node("Gather", ["table", "index"], ["output"], axis=1),
    ]
    return save(path, nodes, [1, 3, 224, 224], [1, 1], constants)
