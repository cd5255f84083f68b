"""A small graph with names as in EfficientFormerV2: convolutions, a Softmax, residual sums."""

import pytest

pytest.importorskip("onnx")

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def small_network(blocks=4):
    """A stem, blocks with a residual sum each, a Softmax in the last block, and a head."""
    weights = numpy_helper.from_array(np.zeros((4, 4, 1, 1), np.float32), "w")
    first = numpy_helper.from_array(np.zeros((4, 3, 1, 1), np.float32), "w0")
    nodes = [helper.make_node("Conv", ["image", "w0"], ["x0"], name="/stem/conv/Conv")]
    for number in range(blocks):
        where = f"/stages/stages.0/blocks/blocks.{number}"
        nodes.append(
            helper.make_node(
                "Conv", [f"x{number}", "w"], [f"c{number}"], name=f"{where}/conv/Conv"
            )
        )
        last = f"c{number}"
        if number == blocks - 1:
            nodes.append(helper.make_node("Softmax", [last], ["s"], name=f"{where}/Softmax"))
            last = "s"
        nodes.append(
            helper.make_node("Add", [f"x{number}", last], [f"x{number + 1}"], name=f"{where}/Add")
        )
    nodes.append(helper.make_node("Conv", [f"x{blocks}", "w"], ["scores"], name="/head/Conv"))
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 4, 8, 8])],
        [first, weights],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
