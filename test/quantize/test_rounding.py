"""Rounding of weights by what their layers compute."""

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from small_cnn import small_cnn

from efv2_ros.quantize.rounding import LARGEST, convolutions_to_round, gptq, round_weights
from efv2_ros.rewrites.graph import Graph
from efv2_ros.toolchain.environment import Stopped


def nearest(weights):
    step = np.abs(weights).max(1, keepdims=True) / LARGEST
    return np.rint(weights / step) * step


def lost(weights, rounded, inputs):
    return np.square((weights - rounded) @ inputs).sum()


@pytest.fixture
def inputs():
    """20 inputs that move together, as the channels of a feature map do, at 2000 places."""
    random = np.random.default_rng(1)
    return random.normal(size=(20, 5)) @ random.normal(size=(5, 2000)) + 0.5


@pytest.fixture
def weights():
    return np.random.default_rng(2).normal(size=(16, 20))


def test_outputs_change_far_less_than_by_rounding_to_the_nearest(weights, inputs):
    rounded = gptq(weights, inputs @ inputs.T)
    assert lost(weights, rounded, inputs) < 0.3 * lost(weights, nearest(weights), inputs)


def test_weights_are_on_the_toolchains_grid(weights, inputs):
    rounded = gptq(weights, inputs @ inputs.T)
    step = np.abs(rounded).max(1, keepdims=True) / LARGEST
    np.testing.assert_allclose(rounded / step, np.rint(rounded / step), atol=1e-9)
    np.testing.assert_allclose(step, np.abs(weights).max(1, keepdims=True) / LARGEST)


def test_independent_inputs_leave_nothing_to_gain(weights):
    np.testing.assert_allclose(gptq(weights, 7 * np.eye(20)), nearest(weights))


@pytest.mark.parametrize("products", [np.zeros((20, 20)), np.ones((20, 20))])
def test_inputs_that_say_little(weights, products):
    """Those of a dead layer, or all alike."""
    weights[3] = 0
    rounded = gptq(weights, products)
    assert np.isfinite(rounded).all()
    assert not rounded[3].any()


def images(count=6, shape=(1, 3, 64, 96)):
    random = np.random.default_rng(3)
    made = [random.normal(size=shape).cumsum(-1).astype(np.float32) / 5 for _ in range(count)]
    return [lambda each=each: each for each in made]


def run(model, image):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {session.get_inputs()[0].name: image})[0]


def convolutions(model):
    constants = {each.name: each for each in model.graph.initializer}
    return [
        numpy_helper.to_array(constants[node.input[1]])
        for node in model.graph.node
        if node.op_type == "Conv"
    ]


def test_a_models_convolutions_are_rounded_and_its_answers_keep(tmp_path):
    model = onnx.load(str(small_cnn(tmp_path / "cnn.onnx")))
    before = model.SerializeToString()
    shares = []
    rounded = round_weights(model, images(), on_progress=shares.append)
    assert model.SerializeToString() == before
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)

    plain = onnx.load(str(small_cnn(tmp_path / "cnn.onnx")))
    for each in plain.graph.initializer:
        array = numpy_helper.to_array(each)
        if array.ndim == 4:
            flat = nearest(array.reshape(len(array), -1).astype(np.float64))
            value = flat.reshape(array.shape).astype(np.float32)
            each.CopyFrom(numpy_helper.from_array(value, each.name))
    assert len(convolutions(rounded)) == 3
    for one, other in zip(convolutions(rounded), convolutions(model), strict=True):
        assert one.shape == other.shape
        flat = one.reshape(len(one), -1)
        step = np.abs(flat).max(1, keepdims=True) / LARGEST
        np.testing.assert_allclose(flat / step, np.rint(flat / step), atol=1e-3)
    errors = {
        name: sum(np.square(run(each, image()) - run(model, image())).sum() for image in images())
        for name, each in (("gptq", rounded), ("nearest", plain))
    }
    assert 0 < errors["gptq"] < 0.5 * errors["nearest"]


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_convolutions_with_groups_strides_and_uneven_pads(groups):
    """What a layer's outputs are computed of."""
    random = np.random.default_rng(4)
    weights = random.normal(size=(12, 6 // groups, 3, 2)).astype(np.float32)
    node = helper.make_node("Conv", ["image", "w"], ["out"], group=groups, strides=[2, 1],
                            pads=[1, 0, 2, 1], kernel_shape=[3, 2], name="/Conv")  # fmt: skip
    model = helper.make_model(
        helper.make_graph(
            [node], "conv",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 6, 11, 13])],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(weights, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 11)], ir_version=6,
    )  # fmt: skip
    (layer,) = convolutions_to_round(Graph(model))
    image = images(1, (1, 6, 11, 13))[0]()
    outputs = layer.weights @ layer.columns(image[0])
    expected = run(model, image)
    np.testing.assert_allclose(outputs.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


def test_weights_that_are_computed_stay(tmp_path):
    node = helper.make_node("Conv", ["image", "image"], ["out"], kernel_shape=[8, 8], name="/Conv")
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("image", [1, 3, 8, 8]), ("out", [1, 1, 1, 1]))
    ]
    graph = helper.make_graph([node], "g", *ends)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    assert list(round_weights(model, images(1, (1, 3, 8, 8))).graph.node) == [node]


@pytest.mark.parametrize("polls", [0, 3, 7])
def test_it_can_be_stopped(tmp_path, polls):
    model = onnx.load(str(small_cnn(tmp_path / "cnn.onnx")))
    asked = []

    def should_stop():
        asked.append(1)
        return len(asked) > polls

    with pytest.raises(Stopped):
        round_weights(model, images(), should_stop=should_stop)
