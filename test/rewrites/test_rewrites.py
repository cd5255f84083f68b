"""Rewrites keep what a network computes, on every size and every form of export."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from tiny_models import projection

from efv2_ros.models.efficientformerv2.builder import SIZES, build, seeded_state
from efv2_ros.rewrites import REWRITES, RewriteError, blocks, gelu_count, rewrite

ATTENTIONS = {"s0": 5, "s1": 5, "s2": 9, "l": 13}
GELUS = {"s0": 35, "s1": 49, "s2": 67, "l": 85}
PHOTO = Path(__file__).parents[2] / "photos" / "coffee.jpg"

every_size = pytest.mark.parametrize("size", SIZES)
every_rewrite = pytest.mark.parametrize("name", REWRITES)


@cache
def model_of(size):
    return build(seeded_state(size))


@cache
def images():
    """A random image, and one with the edges, shades and colours of a photo."""
    random = np.random.RandomState(0)
    noise = random.standard_normal((3, 224, 224))
    y, x = np.mgrid[:224, :224] / 224
    scene = np.stack([x + y, np.sin(9 * x * y), (x - 0.5) ** 2 + (y - 0.6) ** 2 < 0.1])
    return np.stack([noise, 2 * scene - 1 + 0.05 * noise]).astype(np.float32)


def logits_of(model):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.stack([session.run(None, {"data": x[None]})[0].reshape(-1) for x in images()])


@cache
def expected(size):
    return logits_of(model_of(size))


def assert_equal(model, size):
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(logits_of(model), expected(size), rtol=0, atol=1e-4)


def ops(model):
    return [node.op_type for node in model.graph.node]


def count_of(name, size):
    """How many places of a network a rewrite changes."""
    if name in ("merge_heads", "head_as_convolution"):
        return 1
    talking = ATTENTIONS[size] - 1  # all but the one that downsamples
    only_talking = ("fold_attention_bias", "scores_per_head", "softmax_rows")
    return talking if name in only_talking else ATTENTIONS[size]


def prerequisites(name):
    return ["merge_heads"] if name == "head_as_convolution" else []


# --- The same function


@every_size
@every_rewrite
def test_each_rewrite_keeps_the_logits(name, size):
    changed, counts = rewrite(model_of(size), [*prerequisites(name), name])
    assert counts[name] == count_of(name, size)
    assert_equal(changed, size)


@every_size
def test_all_rewrites_together_keep_the_logits(size):
    changed, counts = rewrite(model_of(size), list(REWRITES))
    assert counts == {name: count_of(name, size) for name in REWRITES}
    assert_equal(changed, size)


@every_rewrite
def test_a_rewrite_finds_its_own_result_finished(name):
    names = [*prerequisites(name), name]
    once, _ = rewrite(model_of("s0"), names)
    twice, counts = rewrite(once, names)
    assert set(counts.values()) == {0}
    assert [node.name for node in twice.graph.node] == [node.name for node in once.graph.node]


def test_the_model_given_stays_as_it_is():
    model = build(seeded_state("s0"))
    before = model.SerializeToString(deterministic=True)
    rewrite(model, list(REWRITES))
    assert model.SerializeToString(deterministic=True) == before


def test_rewrites_are_applied_in_their_own_order():
    names = list(REWRITES)
    forward, _ = rewrite(model_of("s0"), names)
    backward, _ = rewrite(model_of("s0"), names[::-1])
    assert forward == backward


def test_an_unknown_rewrite_is_refused_by_name():
    with pytest.raises(RewriteError, match=r"no rewrite 'faster'.*merge_heads"):
        rewrite(model_of("s0"), ["merge_heads", "faster"])


@every_rewrite
def test_descriptions_are_one_sentence(name):
    assert REWRITES[name].name == name
    assert REWRITES[name].description.endswith(".")
    assert REWRITES[name].description.count(". ") == 0


# --- What each brings


def test_merged_heads_are_one_linear_layer():
    changed, _ = rewrite(model_of("s0"), ["merge_heads"])
    assert ops(changed).count("Gemm") == 1
    assert changed.graph.output[0].name == changed.graph.node[-1].output[0] == "output"


def test_the_head_becomes_a_convolution_with_the_batch_norm_in_it():
    changed, _ = rewrite(model_of("s0"), ["merge_heads", "head_as_convolution"])
    assert not {"Gemm", "BatchNormalization", "ReduceMean"} & set(ops(changed))
    assert ops(changed)[-2:] == ["GlobalAveragePool", "Conv"]
    output = changed.graph.output[0]
    assert [each.dim_value for each in output.type.tensor_type.shape.dim] == [1, 1000, 1, 1]


def test_the_head_stays_if_it_is_not_the_end():
    _, counts = rewrite(model_of("s0"), ["head_as_convolution"])
    assert counts == {"head_as_convolution": 0}


def test_folding_leaves_no_scale_between_scores_and_softmax():
    names = ["fold_attention_bias", "fold_attention_scale"]
    changed, _ = rewrite(model_of("s0"), names)
    makers = {value: node for node in changed.graph.node for value in node.output}
    for softmax in (node for node in changed.graph.node if node.op_type == "Softmax"):
        steps, node = [], makers[softmax.input[0]]
        while node.op_type != "MatMul":
            steps.append(node.op_type)
            node = makers[node.input[0]]
        downsample = "downsample" in softmax.name
        assert steps == (["Add"] if downsample else ["Add", "Conv"])


def test_nhwc_attention_moves_channels_last_before_it_parts_them():
    changed, _ = rewrite(model_of("s0"), ["attention_nhwc"])
    perms = [
        list(node.attribute[0].ints) for node in changed.graph.node if node.op_type == "Transpose"
    ]
    assert perms.count([0, 2, 3, 1]) == 10
    assert perms.count([0, 2, 1, 3]) == 15
    assert perms.count([0, 3, 1, 2]) == 5
    assert [0, 1, 3, 2] not in perms


def test_per_head_products_are_one_matmul_for_each_of_eight_heads():
    changed, _ = rewrite(model_of("s0"), ["values_per_head", "scores_per_head"])
    # The attention that downsamples keeps one MatMul for its scores.
    assert ops(changed).count("MatMul") == 5 * 8 + 4 * 8 + 1


@every_rewrite
def test_new_nodes_have_names_of_their_module(name):
    changed, _ = rewrite(model_of("s0"), [*prerequisites(name), name])
    names = [node.name for node in changed.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    modules = ("/stem", "/stages", "/norm", "/head", "/ReduceMean", "/Add", "/Div", "/Constant")
    assert [each for each in names if not each.startswith(modules)] == []


# --- Other exports of the same network


def as_constant_nodes(model):
    """Every weight in a Constant node, as some exporters write them."""
    nodes = [
        helper.make_node("Constant", [], [each.name], name=f"c_{each.name}", value=each)
        for each in model.graph.initializer
    ]
    nodes += model.graph.node
    copies = [type(each).FromString(each.SerializeToString()) for each in nodes]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(copies)


def with_gathered_biases(model):
    """Attention biases gathered when the graph runs, as timm's model exports them."""
    biases = [each for each in model.graph.initializer if each.name.endswith("attention_biases")]
    tensors = seeded_state("s0").tensors
    for bias in biases:
        by_distance, gathered = tensors[bias.name], numpy_helper.to_array(bias)
        index = (gathered[0][..., None] == by_distance[0]).argmax(-1)
        assert np.array_equal(by_distance[:, index], gathered)
        name = bias.name
        bias.CopyFrom(numpy_helper.from_array(by_distance, f"{name}_by_distance"))
        model.graph.initializer.append(numpy_helper.from_array(index, f"{name}_index"))
        gather = helper.make_node(
            "Gather",
            [f"{name}_by_distance", f"{name}_index"],
            [name],
            name=f"g_{name}",
            axis=1,
        )
        model.graph.node.insert(0, gather)


def with_batch_norms(model):
    """A BatchNormalization of its own behind each Conv of the attentions."""
    constants = {each.name: each for each in model.graph.initializer}
    convs = [n for n in model.graph.node if n.op_type == "Conv" and n.name.endswith("/conv/Conv")]
    random = np.random.RandomState(1)
    for conv in convs:
        weights, biases = (constants[each] for each in conv.input[1:])
        bias = numpy_helper.to_array(biases)
        gamma, variance = random.uniform(0.5, 2, (2, len(bias))).astype(np.float32)
        mean = random.standard_normal(len(bias)).astype(np.float32)
        scale = gamma / np.sqrt(variance + np.float32(1e-5))
        weight = numpy_helper.to_array(weights) / scale[:, None, None, None]
        weights.CopyFrom(numpy_helper.from_array(weight, weights.name))
        biases.CopyFrom(numpy_helper.from_array(np.zeros_like(bias), biases.name))
        parts = {"gamma": gamma, "beta": bias + mean * scale, "mean": mean, "variance": variance}
        names = [f"{conv.name}_{part}" for part in parts]
        tensors = map(numpy_helper.from_array, parts.values(), names)
        model.graph.initializer.extend(tensors)
        output = conv.output[0]
        conv.output[0] = f"{output}_unnormalized"
        norm = helper.make_node(
            "BatchNormalization", [conv.output[0], *names], [output], name=f"{conv.name}_norm"
        )
        nodes = list(model.graph.node)
        model.graph.node.insert(nodes.index(conv) + 1, norm)


def with_other_names(model):
    """Nodes without a name, and values numbered, as older exporters do."""
    values = {}
    for node in model.graph.node:
        node.name = ""
        for field in (node.input, node.output):
            for position, value in enumerate(field):
                if value not in ("data", "output", ""):
                    field[position] = values.setdefault(value, str(len(values)))
    for initializer in model.graph.initializer:
        initializer.name = values[initializer.name]


def with_other_scales(model):
    """The mean of the heads as a Mul from the left, the attention's scale as a Div."""
    constants = {node.output[0]: node for node in model.graph.node if node.op_type == "Constant"}
    for node in model.graph.node:
        if node.name == "/Div" or node.name.endswith(("token_mixer/Mul", "attn/Mul")):
            tensor = constants[node.input[1]].attribute[0].t
            tensor.CopyFrom(numpy_helper.from_array(np.float32(1) / numpy_helper.to_array(tensor)))
            if node.op_type == "Div":
                node.op_type = "Mul"
                node.input[:] = reversed(node.input)
            else:
                node.op_type = "Div"


@pytest.mark.parametrize(
    "change",
    [
        as_constant_nodes,
        with_gathered_biases,
        with_batch_norms,
        with_other_names,
        with_other_scales,
    ],
)
def test_other_forms_of_export_are_rewritten_too(change):
    model = build(seeded_state("s0"))
    change(model)
    np.testing.assert_allclose(logits_of(model), expected("s0"), rtol=0, atol=1e-4)
    for names in (*([name] for name in REWRITES if not prerequisites(name)), list(REWRITES)):
        changed, counts = rewrite(model, names)
        assert counts == {name: count_of(name, "s0") for name in names}
        assert_equal(changed, "s0")


def test_a_newer_opset_is_rewritten_too():
    model = onnx.version_converter.convert_version(model_of("s0"), 17)
    changed, counts = rewrite(model, list(REWRITES))
    assert counts == {name: count_of(name, "s0") for name in REWRITES}
    assert_equal(changed, "s0")


# --- Other networks


def test_a_network_without_the_patterns_is_left_alone(tmp_path):
    model = onnx.load(projection(tmp_path / "plain.onnx"))
    changed, counts = rewrite(model, list(REWRITES))
    assert set(counts.values()) == {0}
    assert changed.graph.node == model.graph.node


def plain_cnn():
    """A small convolutional network that ends in a linear layer, as ResNet does."""
    random = np.random.RandomState(2)
    weights = {
        "w1": random.standard_normal((8, 3, 3, 3)),
        "w2": random.standard_normal((10, 8)),
        "b2": random.standard_normal(10),
    }
    nodes = [
        helper.make_node("Conv", ["data", "w1"], ["c"], name="/layer1/layer1.0/conv1/Conv"),
        helper.make_node("Relu", ["c"], ["r"], name="/layer1/layer1.0/relu/Relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="/avgpool/GlobalAveragePool"),
        helper.make_node("Flatten", ["p"], ["f"], name="/Flatten"),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["output"], name="/fc/Gemm", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


def test_a_single_head_becomes_a_convolution_too():
    changed, counts = rewrite(plain_cnn(), list(REWRITES))
    assert {name for name, places in counts.items() if places} == {"head_as_convolution"}
    np.testing.assert_allclose(logits_of(changed), logits_of(plain_cnn()), rtol=0, atol=1e-4)


# --- GELUs and blocks


@every_size
def test_every_gelu_is_counted(size):
    assert gelu_count(model_of(size)) == GELUS[size]
    assert gelu_count(rewrite(model_of(size), list(REWRITES))[0]) == GELUS[size]


def test_a_gelu_in_another_form_is_not_counted():
    model = build(seeded_state("s0"))
    halves = [node for node in model.graph.node if node.name.endswith("mlp/mid/bn/act/Mul_1")]
    for half in halves:
        half.op_type = "Div"
    assert gelu_count(model) == GELUS["s0"] - len(halves)


def test_blocks_part_a_network_as_timm_names_it():
    found = blocks(model_of("s0"))
    assert list(found)[:2] == ["stem", "stages.0.blocks.0"]
    assert list(found)[-2:] == ["stages.3.blocks.3", "head"]
    assert "stages.3.downsample" in found
    assert len(found) == 1 + (2 + 2 + 6 + 4) + 3 + 1
    names = [name for block in found.values() for name in block]
    assert sorted(names) == sorted(
        node.name for node in model_of("s0").graph.node if node.op_type != "Constant"
    )


def test_blocks_are_the_same_after_rewriting():
    changed, _ = rewrite(model_of("s0"), list(REWRITES))
    assert set(blocks(changed)) == set(blocks(model_of("s0")))


def test_blocks_of_another_network_are_its_numbered_modules():
    assert set(blocks(plain_cnn())) == {"layer1.0", "head"}
