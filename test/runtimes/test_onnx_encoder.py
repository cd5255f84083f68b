"""The encoder against the onnx package: equal messages, and equal preprocessing to the bit."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tiny_models import mean_colour

from efv2_ros.runtimes import onnx_encoder as encoder
from efv2_ros.runtimes.base import ImageInput
from efv2_ros.runtimes.onnx import preprocessing_model, rgb_from_yuv

names = st.text(st.characters(blacklist_categories=["Cs"]), max_size=200)
int64s = st.integers(-(2**63), 2**63 - 1)


@given(
    operator=names,
    inputs=st.lists(names),
    outputs=st.lists(names),
    attributes=st.dictionaries(
        st.sampled_from(["axis", "mode", "perm"]),
        st.one_of(int64s, names.filter(bool), st.lists(int64s, min_size=1)),
    ),
)
def test_any_node(operator, inputs, outputs, attributes):
    message = onnx.NodeProto.FromString(encoder.node(operator, inputs, outputs, **attributes))
    assert message == helper.make_node(operator, inputs, outputs, **attributes)


@given(names, st.sampled_from([np.float32, np.uint8, np.int64]), st.lists(st.integers(0, 2**62)))
def test_any_value_info(name, dtype, shape):
    message = onnx.ValueInfoProto.FromString(encoder.value_info(name, dtype, shape))
    assert message == helper.make_tensor_value_info(name, encoder.data_type(dtype), shape)


@given(
    names.filter(bool),
    st.sampled_from(["<f4", ">f4", "u1", "<i8", ">i8"]),
    st.lists(st.integers(0, 3), max_size=5),
)
def test_any_constant(name, dtype, shape):
    value = (np.random.default_rng(0).standard_normal(shape) * 100).astype(dtype)
    graph = onnx.GraphProto.FromString(encoder.graph("g", [], [], [], {name: value}))
    native = value.astype(value.dtype.newbyteorder("="))
    assert list(graph.initializer) == [numpy_helper.from_array(native, name)]


def test_a_type_that_it_does_not_know():
    with pytest.raises(KeyError):
        encoder.value_info("x", np.complex64, [1])


IMAGES = [
    ImageInput(),
    ImageInput(2, 2, "limited"),
    ImageInput(96, 130, "limited", (123.675, 116.28, 103.53), (0.0171, 0.0175, 0.0174)),
    ImageInput(224, 224, "full", (123.675, 116.28, 103.53), (-0.0171, 0.0175, 1e-9)),
]


def reference(image):
    """The preprocessing model as the onnx package makes it."""
    height, width = image.height, image.width
    matrix, offset = rgb_from_yuv(image)
    constants = {
        "rows": np.array([height, height // 2], np.int64),
        "y_shape": np.array([1, 1, height, width], np.int64),
        "uv_shape": np.array([1, height // 2, width // 2, 2], np.int64),
        "rgb_from_y": matrix[:, 0].astype(np.float32).reshape(1, 3, 1, 1),
        "rgb_from_uv": matrix[:, 1:].astype(np.float32).reshape(3, 2, 1, 1),
        "offset": offset.astype(np.float32),
        "no_roi": np.empty(0, np.float32),
        "twice": np.array([1, 1, 2, 2], np.float32),
    }
    resize = {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    nodes = [
        helper.make_node("Split", ["nv12", "rows"], ["y_rows", "uv_rows"], axis=0),
        helper.make_node("Reshape", ["y_rows", "y_shape"], ["y_bytes"]),
        helper.make_node("Cast", ["y_bytes"], ["y"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["y", "rgb_from_y"], ["luma"]),
        helper.make_node("Reshape", ["uv_rows", "uv_shape"], ["uv_pairs"]),
        helper.make_node("Transpose", ["uv_pairs"], ["uv_bytes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["uv_bytes"], ["uv"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["uv", "rgb_from_uv", "offset"], ["chroma_samples"]),
        helper.make_node("Resize", ["chroma_samples", "no_roi", "twice"], ["chroma"], **resize),
        helper.make_node("Add", ["luma", "chroma"], ["data"]),
    ]
    graph = helper.make_graph(
        nodes,
        "nv12_to_rgb",
        [helper.make_tensor_value_info("nv12", TensorProto.UINT8, image.nv12_shape)],
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, (1, 3, height, width))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


def run(model, nv12):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"nv12": nv12})[0]


@pytest.mark.parametrize("image", IMAGES)
def test_the_preprocessing_is_what_the_onnx_package_makes(image):
    made, expected = preprocessing_model(image), reference(image)
    assert onnx.ModelProto.FromString(made) == expected
    onnx.checker.check_model(onnx.ModelProto.FromString(made), full_check=True)
    nv12 = np.random.RandomState(0).randint(0, 256, image.nv12_shape, np.uint8)
    outputs = [run(model, nv12) for model in (made, expected.SerializeToString())]
    np.testing.assert_array_equal(*outputs)


def test_a_model_runs_without_the_onnx_package(tmp_path):
    path = mean_colour(tmp_path / "mean.onnx")
    code = (
        "import sys; sys.modules['onnx'] = None;"
        "import numpy as np;"
        "from efv2_ros.classify.model import load_model;"
        "from efv2_ros.classify.options import ModelRequest;"
        "request = ModelRequest(model_path=sys.argv[1], mean=(0, 0, 0), scale=(1, 1, 1));"
        "model = load_model(request);"
        "print(*model.runtime.infer(np.full((336, 224), 128, np.uint8)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(list(map(float, done.stdout.split())), [128] * 3, rtol=1e-5)
