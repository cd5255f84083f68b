"""Recipes: reading, errors that name the field, rules, and their explanation."""

import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402

from efv2_ros.quantize.errors import RecipeError  # noqa: E402
from efv2_ros.quantize.explanation import explain  # noqa: E402
from efv2_ros.quantize.recipe import find_recipe, read_recipe, recipe_files  # noqa: E402
from efv2_ros.rewrites import REWRITES  # noqa: E402


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def model():
    """Softmax and Relu nodes under names as in EfficientFormerV2."""
    names = ["/stages.2/downsample/Softmax", "/stages.2/blocks.5/Softmax", "/stages.3/Softmax"]
    nodes = []
    before = "data"
    for number, name in enumerate(names):
        nodes.append(helper.make_node("Relu", [before], [f"r{number}"], name=f"{name}/Relu"))
        nodes.append(helper.make_node("Softmax", [f"r{number}"], [f"s{number}"], name=name))
        before = f"s{number}"
    value = [helper.make_tensor_value_info(each, TensorProto.FLOAT, [1, 4])
             for each in ("data", before)]  # fmt: skip
    return helper.make_model(helper.make_graph(nodes, "g", value[:1], value[1:]))


FULL = f"""
description: Everything
rewrites: [{next(iter(REWRITES))}]
calibration: {{type: max, percentile: 0.9999, per_channel: true, asymmetric: true,
              bias_correction: true}}
all_int16: true
nodes:
  - {{op: Softmax, on: BPU, input: int16, output: int16}}
  - {{match: "*/downsample/*", op: Softmax, input: int8, output: int8}}
compile: {{mode: bandwidth}}
sizes:
  s1:
    calibration: {{percentile: 0.99}}
    all_int16: false
"""


def test_all_fields_are_read(write):
    recipe = read_recipe(write(FULL))
    assert (recipe.name, recipe.description, recipe.mode) == ("mine", "Everything", "bandwidth")
    assert recipe.rewrites == (next(iter(REWRITES)),)
    assert recipe.calibration.percentile == 0.9999
    assert recipe.calibration.per_channel and recipe.calibration.asymmetric
    assert recipe.all_int16


def test_a_size_replaces_what_it_names_and_keeps_the_rest(write):
    recipe = read_recipe(write(FULL))
    s1 = recipe.for_size("s1")
    assert s1.calibration.percentile == 0.99
    assert s1.calibration.bias_correction
    assert not s1.all_int16
    assert s1.nodes == recipe.nodes
    assert recipe.for_size("s0") is recipe
    assert recipe.for_size("") is recipe


def test_later_rules_win_key_by_key(write, model):
    rules = {each.name: each for each in read_recipe(write(FULL)).rules(model)}
    assert list(rules) == [n.name for n in model.graph.node if n.op_type == "Softmax"]
    first = rules["/stages.2/downsample/Softmax"]
    assert (first.on, first.input_type, first.output_type) == ("BPU", "int8", "int8")
    other = rules["/stages.3/Softmax"]
    assert (other.on, other.input_type, other.output_type) == ("BPU", "int16", "int16")


def test_a_rule_for_an_operator_that_a_model_lacks_means_nothing(write, model):
    assert read_recipe(write("nodes: [{op: Erf, on: BPU}]")).rules(model) == ()


def test_a_pattern_that_matches_nothing_is_a_mistake(write, model):
    recipe = read_recipe(write("nodes: [{match: '*/nowhere/*', on: BPU}]"))
    with pytest.raises(RecipeError, match=r"nodes\.0: no node of the model .*named \*/nowhere/\*"):
        recipe.rules(model)


def test_a_recipe_survives_being_written_and_read(write):
    import yaml

    recipe = read_recipe(write(FULL))
    again = read_recipe(write(yaml.safe_dump(recipe.as_dict(), sort_keys=False)))
    assert again.as_dict() == recipe.as_dict()
    assert again.nodes == recipe.nodes


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- a list", "expected fields"),
        ("colour: red", r"mine\.yaml\.colour: is not a field of a recipe"),
        ("rewrites: [nonsense]", r"\.rewrites: 'nonsense' is none of"),
        ("rewrites: all", r"\.rewrites: expected a list"),
        ("calibration: {type: best}", r"\.calibration\.type: 'best' is none of max, mse"),
        ("calibration: {percentile: 99}", r"\.calibration\.percentile: must be above 0\.5"),
        ("calibration: {type: kl, percentile: 0.99}", r"percentile: goes with type max, not kl"),
        ("calibration: {per_channel: 1}", r"per_channel: must be true or false"),
        ("calibration: {colour: 1}", r"\.calibration\.colour: is not a field of a recipe"),
        ("all_int16: maybe", r"\.all_int16: must be true or false, not maybe"),
        ("nodes: [{op: Softmax}]", r"\.nodes\.0\.on: is missing"),
        ("nodes: [{on: BPU}]", r"\.nodes\.0\.match: is missing: give match, op or blocks"),
        ("nodes: [{op: Softmax, on: GPU}]", r"\.nodes\.0\.on: must be BPU or CPU, not 'GPU'"),
        ("nodes: [{op: Softmax, input: 16}]", r"\.nodes\.0\.input: must be int8 or int16, not 16"),
        ("nodes: [{op: Softmax, on: BPU, a: b}]", r"\.a: is not a field of a rule for nodes"),
        ("nodes: [{blocks: [1], on: BPU}]", r"\.blocks: expected texts, not 1"),
        ("compile: {mode: fast}", r"\.compile\.mode: must be latency or bandwidth"),
        ("compile: {level: O2}", r"\.compile\.level: is not a field of a recipe"),
        ("sizes: {s9: {}}", r"\.sizes\.s9: is none of s0, s1, s2"),
        ("sizes: {s1: {all_int16: 3}}", r"\.sizes\.s1\.all_int16: must be true or false"),
        ("sizes: {s1: {sizes: {}}}", r"\.sizes\.s1\.sizes: is not a field of a recipe"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_wrong_field_is_named(write, text, problem):
    with pytest.raises(RecipeError, match=problem) as caught:
        read_recipe(write(text))
    assert "mine.yaml" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_name_that_is_no_recipe_and_no_file(tmp_path):
    with pytest.raises(RecipeError, match=r"there is no recipe 'nonsense', only .*zoo_s0"):
        find_recipe("nonsense")
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        find_recipe(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize("name", sorted(recipe_files()))
def test_shipped_recipes_are_right_and_explained(name):
    recipe = find_recipe(name)
    assert recipe.description
    for size in ("s0", "s1", "s2", ""):
        lines = explain(recipe.for_size(size))
        assert all(line and sentence.endswith(".") for line, sentence in lines)


def test_the_zoos_recipes_are_faithful(model):
    s0, s1, s2 = (find_recipe(f"zoo_{size}") for size in ("s0", "s1", "s2"))
    assert [each.calibration.percentile for each in (s0, s1, s2)] == [0.999, 0.9995, 0.9995]
    assert [each.all_int16 for each in (s0, s1, s2)] == [True, False, False]
    for recipe in (s0, s1, s2):
        rules = recipe.rules(model)
        assert len(rules) == 3
        assert {(r.on, r.input_type, r.output_type) for r in rules} == {("BPU", "int16", "int16")}


def test_an_explanation_speaks_of_each_line(write):
    lines = dict(explain(read_recipe(write(FULL))))
    assert "100 of a million" in lines["calibration.percentile: 0.9999"]
    assert lines["nodes: op: Softmax, on: BPU, input: int16, output: int16"] == (
        "Softmax nodes run on the BPU and read and write int16."
    )
    assert "16 bits" in lines["all_int16: true"]
