"""Models that the real toolchain compiles in seconds."""

import hashlib
import shutil

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from pictures import picture

from efv2_ros.toolchain.jobs import CompileRequest, NodeRule, compile_model


def small_cnn(path, height, width, tail="conv"):
    """A classifier of ten classes with two convolutions; `tail` is what comes after its pool."""
    random = np.random.RandomState(0)

    def weights(*shape):
        return (random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    constants = {"w1": weights(16, 3, 3, 3), "w2": weights(32, 16, 3, 3)}
    around = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], "conv1", **around),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2", **around),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"], "pool"),
    ]
    constants["w3"] = weights(10, 32, 1, 1)
    shape, last = [1, 10, 1, 1], "logits" if tail == "conv" else "c3"
    nodes.append(helper.make_node("Conv", ["pooled", "w3"], [last], "head"))
    if tail != "conv":
        shape, flat = [1, 10], "logits" if tail == "flatten" else "flat"
        nodes.append(helper.make_node("Flatten", ["c3"], [flat], "flatten"))
    if tail == "softmax":
        nodes.append(helper.make_node("Softmax", ["flat"], ["logits"], "softmax", axis=1))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, height, width])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 11)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=7), path)
    return path


def compiled(folder, model, height, width, **options):
    """Compile a float model for the X5, with noise as calibration images and little effort.

    Returns:
        `model.bin` in `folder`, with its quantised model beside it.
    """
    images = folder / "images"
    images.mkdir(parents=True)
    for seed in range(3):
        rgb = picture(seed, width, height)[..., ::-1].transpose(2, 0, 1)
        rgb.astype(np.float32).tofile(images / f"{seed}.rgb")
    softmaxes = [each.name for each in onnx.load(model).graph.node if each.op_type == "Softmax"]
    request = CompileRequest(
        model,
        images,
        mean=(123.675, 116.28, 103.53),
        scale=(0.01712475, 0.017507, 0.01742919),
        nodes=tuple(
            NodeRule(name, "BPU", "int16", "int16") for name in softmaxes if name != "softmax"
        ),
        optimize_level="O0",
        **options,
    )
    result = compile_model(request, folder / "toolchain")
    assert result.bin is not None
    bin = folder / "model.bin"
    shutil.copy(result.bin, bin)
    quantized = onnx.load(result.quantized)
    digest = hashlib.sha256(bin.read_bytes()).hexdigest()
    helper.set_model_props(quantized, {"bin_sha256": digest})
    onnx.save(quantized, bin.with_suffix(".quantized.onnx"))
    return bin
