"""The sensitivity of blocks, and the variants of recipes that it is measured with."""

import json

import pytest

pytest.importorskip("onnx")
from analytic_bench import IMAGES, NOISE, PRICE, AnalyticBench
from click.testing import CliRunner
from onnx import load
from small_cnn import small_cnn
from small_network import small_network

from efv2_ros.cli.main import main
from efv2_ros.models.efficientformerv2.builder import seeded_state, write
from efv2_ros.quantize import plots
from efv2_ros.quantize.errors import QuantizeError
from efv2_ros.quantize.recipe import Calibration, Recipe, Rule
from efv2_ros.quantize.sensitivity import by_worth, measure_sensitivity
from efv2_ros.quantize.space import Space
from efv2_ros.quantize.trials import Score, Trials
from efv2_ros.quantize.variants import (
    SOFTMAX,
    branch_share,
    has_residual,
    parts_of,
    softmax_width,
    summary,
    wide_groups,
    with_branches,
    with_residual,
    with_softmax,
    with_wide,
)
from efv2_ros.rewrites import REWRITES, rewrite

PLAIN = Recipe("plain", calibration=Calibration(percentile=0.9999))


@pytest.fixture(scope="module")
def s0(tmp_path_factory):
    path = tmp_path_factory.mktemp("s0") / "s0.onnx"
    write(path, seeded_state("s0", 0))
    return load(str(path))


@pytest.fixture
def bench():
    return AnalyticBench(Space(small_network()))


def measured(bench, folder, **options):
    parts = bench.space.parts(PLAIN)
    return measure_sensitivity(Trials(bench, folder), PLAIN, parts, **options)


@pytest.mark.parametrize("costs", ["shared", "compiled"])
def test_each_block_gains_and_costs_its_own(bench, tmp_path, costs):
    found = measured(bench, tmp_path, lost=True, costs=costs)
    assert [row.group for row in found.rows] == list(NOISE)
    for row in found.rows:
        assert row.gained.cosine == pytest.approx(NOISE[row.group])
        assert row.lost.cosine == pytest.approx(-NOISE[row.group])
        assert row.milliseconds == pytest.approx(PRICE[row.group])
        assert row.gained.interval.low <= row.gained.agreement <= row.gained.interval.high
        assert row.gained.agreement >= 0 >= row.lost.agreement
    stem = found.rows[0]
    assert stem.gained.agreement == 2 / IMAGES
    assert stem.worth == pytest.approx(0.04)
    assert by_worth(found.rows) == [
        "stem", "stages.0.blocks.1", "stages.0.blocks.0", "stages.0.blocks.3",
        "stages.0.blocks.2",
    ]  # fmt: skip
    compiled = 2 if costs == "shared" else 2 + len(NOISE)
    assert len(bench.asked["cost"]) == compiled


def test_without_costs_nothing_is_compiled(bench, tmp_path):
    found = measured(bench, tmp_path, costs="none")
    assert not bench.asked["cost"]
    assert all(row.milliseconds is None and row.worth is None for row in found.rows)
    assert by_worth(found.rows)[0] == "stem"


def test_a_second_run_measures_nothing(bench, tmp_path):
    first = measured(bench, tmp_path)
    again = AnalyticBench(bench.space)
    assert measured(again, tmp_path) == first
    assert again.asked == {"score": [], "cost": []}


def test_a_block_that_cannot_be_wide_says_why(bench, tmp_path):
    parts = bench.space.parts(PLAIN)
    bench.fails = lambda recipe: wide_groups(recipe, parts) == {"head"}
    found = measured(bench, tmp_path)
    head = found.rows[-1]
    assert (head.group, head.gained, head.problem) == ("head", None, "the compiler failed")
    assert all(row.gained for row in found.rows[:-1])

    other = AnalyticBench(bench.space, lambda recipe: len(wide_groups(recipe, parts)) > 1)
    found = measured(other, tmp_path / "narrow")
    assert (found.costs, found.problem) == ("none", "the compiler failed")
    assert all(row.gained and row.milliseconds is None for row in found.rows)
    with pytest.raises(QuantizeError, match="the compiler failed"):
        measured(other, tmp_path / "narrow", lost=True)
    bench.fails = lambda recipe: True
    with pytest.raises(QuantizeError, match="the compiler failed"):
        measured(bench, tmp_path / "other")


def test_figures_and_plot(bench, tmp_path):
    found = measured(bench, tmp_path, lost=True)
    document = json.loads(json.dumps(found.as_dict()))
    assert document["milliseconds_from"] == "shared"
    assert document["images"] == IMAGES
    assert document["int8"]["milliseconds"] == pytest.approx(2.0)
    assert document["blocks"][0]["int16_here_alone"]["cosine"] == pytest.approx(0.004)
    pytest.importorskip("matplotlib")
    plots.write_sensitivity(found, "small", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_agreement_is_compared_image_by_image():
    one = Score((1.0,) * 4, (True, True, True, False), ((True, True), (True, False)))
    other = Score((1.0,) * 4, (False, False, True, True))
    value, interval = one.agreement_beyond(other)
    assert value == 0.25
    assert interval.low < 0 < interval.high
    assert (one.drop, other.drop) == (0.5, 0.5)
    assert one.agreement_interval.low < 0.75 < one.agreement_interval.high


def test_blocks_of_efficientformerv2(s0):
    plain = parts_of(s0)
    assert plain.blocks
    assert list(plain.groups)[:2] == ["stem", "stages.0.blocks.0"]
    assert len(plain.softmax) == 5
    sums = [each.name for each in plain.residual if each.op == "Add"]
    assert "/stages/stages.0/blocks/blocks.0/Add" in sums
    assert not any("token_mixer" in each or "downsample" in each for each in sums)
    rules = {rule.name: rule for rule in with_residual(PLAIN, plain, True).rules(s0)}
    block = "/stages/stages.0/blocks/blocks.0"
    assert rules[f"{block}/mlp/fc2/conv/Conv"].output_type == "int16"
    assert rules[f"{block}/mlp/fc2/conv/Conv"].input_type is None
    assert rules[f"{block}/ls2/Mul"].input_type == "int16"
    assert rules["/stages/stages.0/blocks/blocks.1/mlp/fc1/conv/Conv"].input_type == "int16"
    assert "/stem/conv1/conv/Conv" not in rules
    layer = "/stages/stages.2/blocks/blocks.4/token_mixer/Softmax_exp_FROM_QUANTIZED_SOFTMAX"
    assert plain.group_of(layer) == "stages.2.blocks.4"
    assert plain.group_of("HZ_PREPROCESS_FOR_data") == ""

    rewritten = parts_of(rewrite(s0, tuple(REWRITES))[0])
    assert set(rewritten.groups) == set(plain.groups)
    fast = with_softmax(Recipe("fast", rewrites=tuple(REWRITES)), "int16 in blocks")
    assert wide_groups(fast, rewritten) == frozenset()
    names = ["stages.3.downsample", "stem"]
    wide = with_wide(fast, rewritten, names)
    assert wide_groups(wide, rewritten) == set(names)
    rules = {rule.name: rule for rule in wide.rules(rewrite(s0, fast.rewrites)[0])}
    assert rules["/stem/conv1/conv/Conv"].input_type == "int16"
    softmax = [rules[each].input_type for each in rewritten.softmax]
    assert sorted(softmax) == ["int16"] * 4 + ["int8"]
    assert with_wide(wide, rewritten, ()).nodes == with_wide(fast, rewritten, ()).nodes


def test_layers_that_write_a_branch(s0):
    parts = parts_of(s0)
    layers = [name for name in (node.name for node in s0.graph.node)
              if name.endswith(("fc2/conv/Conv", "token_mixer/proj/conv/Conv"))]  # fmt: skip
    for share in (0.0, 0.5, 1.0):
        recipe = with_branches(PLAIN, parts, share)
        rules = recipe.rules(s0)
        assert [each.name for each in rules] == layers[len(layers) - round(share * len(layers)) :]
        assert {each.input_type for each in rules} <= {"int16"}
        assert {each.output_type for each in rules} <= {None}
        assert branch_share(recipe, parts) == pytest.approx(share, abs=0.03)
        assert with_branches(recipe, parts, 0.0) == PLAIN
        both = with_residual(recipe, parts, True)
        assert branch_share(both, parts) == branch_share(recipe, parts)
        assert with_residual(both, parts, False) == recipe
    assert "last 50% of branches" in summary(with_branches(PLAIN, parts, 0.5), parts)


def test_widths_of_single_operators():
    parts = parts_of(small_network())
    for width, rules in SOFTMAX.items():
        recipe = with_softmax(with_wide(PLAIN, parts, ["stages.0.blocks.3"]), width)
        assert softmax_width(recipe) == width
        assert recipe.nodes[-len(rules) :] == rules
        assert wide_groups(recipe, parts) == {"stages.0.blocks.3"}
    wide = with_residual(PLAIN, parts, True)
    rules = {rule.name: rule for rule in wide.rules(small_network())}
    block = "/stages/stages.0/blocks/blocks"
    assert set(rules) == {"/head/Conv"} | {
        f"{block}.{each}" for each in ("0/conv/Conv", "1/conv/Conv", "2/conv/Conv", "3/conv/Conv",
                                       "0/Add", "1/Add", "2/Add", "3/Add")
    }  # fmt: skip
    assert (rules[f"{block}.0/Add"].input_type, rules[f"{block}.0/Add"].output_type) == (
        "int16", "int16",
    )  # fmt: skip
    assert (rules[f"{block}.0/conv/Conv"].input_type, rules["/head/Conv"].input_type) == (
        None, "int16",
    )  # fmt: skip
    assert rules[f"{block}.1/conv/Conv"].output_type == "int16"
    assert rules[f"{block}.3/conv/Conv"].output_type is None
    assert has_residual(wide, parts)
    assert with_residual(wide, parts, False) == PLAIN


def test_rules_for_single_nodes_stay():
    parts = parts_of(small_network())
    own = Rule(match="*/Add", op="Add", input="int16", output="int16")
    pattern = Rule(match="*conv*", input="int16", output="int16")
    block = Rule(blocks=("stages.0.*",), input="int16", output="int16")
    recipe = Recipe("mine", all_int16=True, nodes=(own, pattern, block))
    narrow = with_wide(recipe, parts, ())
    assert narrow.nodes == (own, pattern)
    assert not narrow.all_int16


def test_another_network_is_divided_at_its_layers(tmp_path):
    model = load(str(small_cnn(tmp_path / "cnn.onnx")))
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"unnamed_{number}"
    parts = parts_of(model)
    assert not parts.blocks
    assert list(parts.groups) == ["/conv0/Conv", "/conv1/Conv", "/conv2/Conv", "/head/Gemm"]
    assert parts.groups["/conv0/Conv"] == ("/conv0/Conv", "/conv0/Relu")
    recipe = with_wide(PLAIN, parts, ["/conv1/Conv", "/head/Gemm"])
    assert wide_groups(recipe, parts) == {"/conv1/Conv", "/head/Gemm"}
    names = [each.name for each in recipe.rules(model)]
    assert names == ["/conv1/Conv", "/conv1/Relu", "/head/Gemm"]


def test_the_command(quantize, compiler, tmp_path):
    out = tmp_path / "out"
    made = quantize("--explain", "--explain-in", "both", "--costs", "compiled")
    assert made.exit_code == 0, made.output
    document = json.loads((out / "sensitivity.json").read_text())
    assert [each["name"] for each in document["blocks"]] == [
        "/conv0/Conv", "/conv1/Conv", "/conv2/Conv", "/head/Gemm"
    ]  # fmt: skip
    assert "a model that was compiled for it" in made.stdout
    asked = len(compiler.requests)
    assert asked == 2 + 4 + 4 + 2 + 4

    again = quantize("--explain")
    assert again.exit_code == 0, again.output
    assert len(compiler.requests) == asked


@pytest.mark.toolchain
def test_with_the_toolchain(toolchain, model, photos, tmp_path):
    out = tmp_path / "out"
    words = ["quantize", model, "--calib", photos, "--recipe", "plain", "--opt", "O0",
             "--images", 20, "--eval-images", 12, "--out", out]  # fmt: skip
    explained = CliRunner().invoke(main, [*map(str, words), "--explain"])
    assert explained.exit_code == 0, explained.output
    document = json.loads((out / "sensitivity.json").read_text())
    assert document["blocks"][0]["name"] == "/conv0/Conv"
    assert not any(each["problem"] for each in document["blocks"])
    assert document["int16"]["milliseconds"] > document["int8"]["milliseconds"]
