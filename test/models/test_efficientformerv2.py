"""The network as ONNX: the same as timm's, in the form that the BPU toolchain wants."""

import hashlib
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("safetensors")

import onnx
import onnxruntime
from safetensors.numpy import save_file

from efv2_ros.models.efficientformerv2 import builder as efficientformerv2
from efv2_ros.models.efficientformerv2.builder import (
    SIZES,
    BuilderUnavailableError,
    State,
    WeightsError,
    build,
    load_state,
    parameter_count,
    parameter_shapes,
    seeded_state,
    write,
)
from efv2_ros.models.modelfile import read_model_file

GOLDEN = Path(__file__).parent / "golden" / "efficientformerv2.npz"
SOFTMAXES = {"s0": 5, "s1": 5, "s2": 9, "l": 13}
GELUS = {"s0": 35, "s1": 49, "s2": 67, "l": 85}

every_size = pytest.mark.parametrize("size", SIZES)


@cache
def model_of(size):
    return build(seeded_state(size))


def nodes_of(size, op_type):
    return [node for node in model_of(size).graph.node if node.op_type == op_type]


def logits_of(model, images):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.concatenate([session.run(["output"], {"data": image[None]})[0] for image in images])


def enlarged(coarse):
    """Images of 224x224 from images of a few large pixels."""
    pixels = 224 // coarse.shape[-1]
    return coarse.repeat(pixels, axis=2).repeat(pixels, axis=3)


# --- The same network as timm's


@every_size
def test_parameter_count_is_that_of_timm(size):
    expected = {"s0": 3_600_256, "s1": 6_185_560, "s2": 12_710_112, "l": 26_322_288}
    assert parameter_count(size) == expected[size]


@pytest.mark.numpy2
@every_size
def test_logits_are_those_of_timm(size):
    with np.load(GOLDEN) as golden:
        images, expected = enlarged(golden["coarse"]), golden[size]
    np.testing.assert_allclose(logits_of(model_of(size), images), expected, rtol=0, atol=1e-4)


# --- The form of the graph


@every_size
def test_model_is_valid_onnx_of_opset_11(size):
    model = model_of(size)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 11)]
    assert model.ir_version == 6


@every_size
def test_input_and_output_are_what_recipes_expect(size):
    def described(value):
        tensor = value.type.tensor_type
        return value.name, tensor.elem_type, [d.dim_value for d in tensor.shape.dim]

    graph = model_of(size).graph
    assert [described(v) for v in graph.input] == [
        ("data", onnx.TensorProto.FLOAT, [1, 3, 224, 224])
    ]
    assert [described(v) for v in graph.output] == [("output", onnx.TensorProto.FLOAT, [1, 1000])]


def test_softmax_nodes_have_the_names_that_recipes_use():
    assert [node.name for node in nodes_of("s0", "Softmax")] == [
        "/stages/stages.2/blocks/blocks.4/token_mixer/Softmax",
        "/stages/stages.2/blocks/blocks.5/token_mixer/Softmax",
        "/stages/stages.3/downsample/attn/Softmax",
        "/stages/stages.3/blocks/blocks.2/token_mixer/Softmax",
        "/stages/stages.3/blocks/blocks.3/token_mixer/Softmax",
    ]


@every_size
def test_softmax_nodes_are_as_many_as_attentions(size):
    assert len(nodes_of(size, "Softmax")) == SOFTMAXES[size]


@every_size
def test_node_names_and_values_are_unique(size):
    nodes = model_of(size).graph.node
    names = [node.name for node in nodes]
    outputs = [output for node in nodes for output in node.output]
    assert max(Counter(names).values()) == max(Counter(outputs).values()) == 1


@every_size
def test_every_gelu_is_in_the_five_node_form(size):
    nodes = model_of(size).graph.node
    maker = {node.output[0]: node for node in nodes}
    users = {}
    for node in nodes:
        for name in node.input:
            users.setdefault(name, []).append(node)

    def only_user(node):
        (user,) = users[node.output[0]]
        return user

    def constant(name):
        return onnx.numpy_helper.to_array(maker[name].attribute[0].t)

    erfs = nodes_of(size, "Erf")
    assert len(erfs) == GELUS[size]
    for erf in erfs:
        div = maker[erf.input[0]]
        add = only_user(erf)
        product = only_user(add)
        half = only_user(product)
        assert [n.op_type for n in (div, add, product, half)] == ["Div", "Add", "Mul", "Mul"]
        x, root = div.input
        assert list(product.input) == [x, add.output[0]]
        assert constant(root) == np.float32(np.sqrt(2))
        assert constant(add.input[1]) == 1
        assert constant(half.input[1]) == 0.5


@every_size
def test_batch_norms_are_folded_into_convolutions(size):
    assert [node.name for node in nodes_of(size, "BatchNormalization")] == [
        "/norm/BatchNormalization"  # follows a sum, so there is nothing to fold it into
    ]


@every_size
def test_metadata_names_model_and_weights(size):
    metadata = {entry.key: entry.value for entry in model_of(size).metadata_props}
    assert metadata == {"model": f"efficientformerv2_{size}", "weights": "untrained seed 0"}


# --- Any number of classes


def test_a_network_has_as_many_outputs_as_classes(tmp_path):
    state = seeded_state("s0", classes=7)
    model = build(state)
    onnx.checker.check_model(model, full_check=True)
    images = np.zeros((1, 3, 224, 224), np.float32)
    assert logits_of(model, images).shape == (1, 7)
    save_file(dict(state.tensors), tmp_path / "seven.safetensors")
    assert load_state(tmp_path / "seven.safetensors").classes == 7
    assert parameter_count("s0") - parameter_count("s0", 7) == 2 * 993 * (176 + 1)


def test_heads_for_different_classes_are_refused():
    tensors = dict(seeded_state("s0", classes=7).tensors)
    tensors["head_dist.bias"] = np.zeros(8, np.float32)
    with pytest.raises(WeightsError, match=r"head_dist.bias has shape \[8\], but .* it is \[7\]"):
        State("s0", tensors, "test")


# --- Seeded weights


@pytest.mark.numpy2
def test_seeded_weights_never_change():
    # A change here changes every untrained model, and needs a new golden file.
    digest = hashlib.sha256()
    for name, tensor in seeded_state("s0").tensors.items():
        assert tensor.dtype == np.float32
        digest.update(name.encode() + tensor.tobytes())
    assert digest.hexdigest() == "b555cb4291d5a270c451a2d1dc3b55243f42b584ba8730a5bf8f3f0795a79cfe"


def test_a_tensor_is_random_by_its_name_and_the_seed():
    first, again, other = (seeded_state("s0", seed).tensors for seed in (0, 0, 1))
    name, sibling = "stem.conv1.bn.weight", "stem.conv1.bn.running_var"
    assert np.array_equal(first[name], again[name])
    assert not np.array_equal(first[name], other[name])
    assert abs(np.corrcoef(first[name], first[sibling])[0, 1]) < 0.9


@pytest.mark.parametrize("size", ["s0", "s2"])
def test_seeded_logits_depend_on_the_image_and_have_a_natural_scale(size):
    coarse = np.random.RandomState(1).uniform(-2, 2, (8, 3, 4, 4)).astype(np.float32)
    logits = logits_of(model_of(size), enlarged(coarse))
    assert 0.5 < logits.std() < 10
    assert len(set(logits.argmax(axis=1))) >= 4
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    top = 1 / exponentials.sum(axis=1)
    assert 0.01 < np.median(top) < 0.9  # 0.001 is a pure guess


def test_the_same_bytes_every_time():
    state = seeded_state("s0")
    first, second = (build(state).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


# --- Weights from a file


@pytest.fixture(scope="module")
def weights():
    """What timm's file holds: also the counters of BatchNorm."""
    tensors = dict(seeded_state("s0").tensors)
    for name in list(tensors):
        if name.endswith("running_var"):
            counter = name.replace("running_var", "num_batches_tracked")
            tensors[counter] = np.array(7, np.int64)
    return tensors


@pytest.fixture
def saved(weights, tmp_path):
    """Save the weights, changed: `saved(name=array)`, or None to leave the tensor out."""

    def save(**changes):
        tensors = {**weights, **{name.replace("__", "."): t for name, t in changes.items()}}
        path = tmp_path / "model.safetensors"
        save_file({name: t for name, t in tensors.items() if t is not None}, path)
        return path

    return save


@pytest.mark.numpy2
@pytest.mark.parametrize("size", [None, "s0"])
def test_weights_from_a_file_make_the_same_network(saved, size):
    path = saved()
    model = build(load_state(path, size))
    assert model.graph == model_of("s0").graph
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "model": "efficientformerv2_s0",
        "weights": f"model.safetensors sha256 {digest}",
    }


def test_half_precision_is_widened(saved):
    stored = np.full(1000, 0.1, np.float16)
    bias = load_state(saved(head__bias=stored)).tensors["head.bias"]
    assert bias.dtype == np.float32
    assert np.array_equal(bias, stored)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_dist__bias": None}, "efficientformerv2_s0 needs head_dist.bias"),
        (
            dict.fromkeys(f"stem__conv1__bn__{n}" for n in ("weight", "bias", "running_mean"))
            | dict.fromkeys(("head__weight", "head__bias")),
            r"stem.conv1.bn.weight, stem.conv1.bn.bias, stem.conv1.bn.running_mean and 2 more$",
        ),
        ({"fc__weight": np.zeros(1, np.float32)}, "efficientformerv2_s0 has no fc.weight"),
        (
            {"head__weight": np.zeros((10, 176), np.float32)},
            r"head.weight has shape \[10, 176\], but in efficientformerv2_s0 it is \[1000, 176\]",
        ),
        ({"head__bias": np.zeros(1000, np.int32)}, "head.bias is int32, not floating point"),
        ({"norm__weight": None}, "not of timm's EfficientFormerV2: it has no norm.weight"),
        (
            {"norm__weight": np.zeros(177, np.float32)},
            r"no size of EfficientFormerV2: norm.weight has shape \[177\]",
        ),
    ],
)
def test_foreign_weights_are_refused(saved, changes, message):
    path = saved(**changes)
    with pytest.raises(WeightsError, match=message) as caught:
        load_state(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("size", ["s1", "s2", "l"])
def test_weights_of_another_size_say_which(saved, size):
    path = saved()
    with pytest.raises(WeightsError, match=f"holds efficientformerv2_s0, not .*_{size}"):
        load_state(path, size)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"\x08" + bytes(7) + b"{}", None])
def test_a_file_that_is_not_safetensors_is_refused(saved, content):
    path = saved()
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)
    with pytest.raises(WeightsError, match=r"model\.safetensors is not a safetensors file"):
        load_state(path)


def test_a_file_that_is_not_there_is_an_error_of_the_weights(tmp_path):
    with pytest.raises(WeightsError, match=r"none\.safetensors cannot be read: No such file"):
        load_state(tmp_path / "none.safetensors")


def test_a_state_must_fit_its_network():
    tensors = seeded_state("s0").tensors
    with pytest.raises(WeightsError, match="efficientformerv2_s1"):
        State("s1", tensors, "somewhere")


def test_parameter_shapes_include_statistics_and_omit_counters():
    shapes = parameter_shapes("s0")
    assert shapes["stem.conv1.conv.weight"] == (16, 3, 3, 3)
    assert shapes["stem.conv1.bn.running_var"] == (16,)
    assert not any(name.endswith("num_batches_tracked") for name in shapes)


# --- The file


def test_a_written_file_is_a_good_model_and_says_that_it_is_untrained(tmp_path):
    path = tmp_path / "models" / "s0.onnx"
    write(path, seeded_state("s0"))
    file = read_model_file(path, "onnx")
    assert file.untrained
    assert (file.input_shapes, file.output_shapes) == (((1, 3, 224, 224),), ((1, 1000),))
    assert [entry.name for entry in path.parent.iterdir()] == ["s0.onnx"]


def test_who_has_the_old_file_open_keeps_it_whole(tmp_path):
    path = tmp_path / "s0.onnx"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        write(path, seeded_state("s0"))
        assert reader.read() == b"old"


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "s0.onnx"
    path.write_bytes(b"old")
    monkeypatch.setattr(efficientformerv2, "build", lambda state: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(path, seeded_state("s0"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["s0.onnx"]
    assert path.read_bytes() == b"old"


def test_what_is_missing_for_a_network_is_said(tmp_path, monkeypatch):
    efficientformerv2.parameter_shapes.cache_clear()
    state = seeded_state("s0")
    for name in ("safetensors", "safetensors.numpy", "onnx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BuilderUnavailableError, match="pip install safetensors"):
        load_state(tmp_path / "model.safetensors")
    with pytest.raises(BuilderUnavailableError, match="pip install onnx"):
        build(state)
    efficientformerv2.parameter_shapes.cache_clear()
    with pytest.raises(BuilderUnavailableError, match="pip install onnx"):
        seeded_state("s0")
