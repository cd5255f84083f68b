"""The proof: each demand of a recipe, and what is said where the compiler did otherwise."""

from dataclasses import replace
from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx")
from onnx import helper  # noqa: E402

from efv2_ros.quantize.build import Built, Plan  # noqa: E402
from efv2_ros.quantize.proof import failed, operator, prove  # noqa: E402
from efv2_ros.quantize.recipe import Recipe  # noqa: E402
from efv2_ros.toolchain.protocol import (  # noqa: E402
    CompileResult,
    Estimate,
    NodeReport,
    NodeRule,
)

SOFTMAX = "/stages.2/token_mixer/Softmax"


def nodes(*named):
    made = [helper.make_node(op, [], [], name=name) for name, op in named]
    return helper.make_model(helper.make_graph(made, "g", [], []))


MODEL = nodes(("/stem/Conv", "Conv"), ("/stem/Conv_1", "Conv"), (SOFTMAX, "Softmax"),
              (f"{SOFTMAX}_1", "Softmax"), ("/act/Mul", "Mul"))  # fmt: skip


def softmax_parts(name, width="int16", last="int16", unit="BPU"):
    """What the compiler makes of a Softmax, as recorded."""
    parts = (
        ("exp_FROM_QUANTIZED_SOFTMAX", "HzLut2Layer", width),
        ("mul_FROM_QUANTIZED_SOFTMAX", "HzSElementwiseMul", last),
        ("output_0_calibrated_Requantize", "HzRequantize", "int8"),
    )
    return [NodeReport(f"{name}_{part}", op, unit, width, out, 0.99) for part, op, out in parts]


CONV = NodeReport("/stem/Conv", "HzSQuantizedConv", "BPU", "int8", "int8", 0.99)
CONV_1 = replace(CONV, name="/stem/Conv_1", output_type="int32")


def claims(reports, rules=(), *, recipe=None, rewritten=None, **changes):
    result = CompileResult(
        bin=Path("a.bin"), quantized=Path("q"), original_float=Path("o"), optimized=Path("f"),
        calibrated=Path("c"), nodes=tuple(reports), march="bayes-e", gelus_fused=2, gelus=2,
        estimate=Estimate(1.0, 1000.0, 10, (), 1), log=Path("log"), seconds=1.0, versions={},
    )  # fmt: skip
    plan = Plan(recipe or Recipe("r"), MODEL, rewritten or {}, tuple(rules), "O2", False, "key")
    return prove(Built(plan, replace(result, **changes), cached=False))


def texts(found):
    return [each.text for each in found]


def test_all_is_well():
    found = claims([CONV, CONV_1])
    assert failed(found) == []
    assert texts(found) == [
        "Compiled for bayes-e, the RDK X5's BPU.",
        "All 2 nodes run on the BPU.",
        "The BPU runs the model in one piece.",
        "0 of 1 tensors have 16 bits.",
        "2 of 2 GELUs are one lookup each.",
    ]


def test_softmax_where_it_was_wanted():
    rules = [NodeRule(each, "BPU", "int16", "int16") for each in (SOFTMAX, f"{SOFTMAX}_1")]
    reports = [*softmax_parts(SOFTMAX), *softmax_parts(f"{SOFTMAX}_1", last="int8")]
    found = claims([CONV, *reports], rules)
    assert failed(found) == []
    assert "2 Softmax are on the BPU, int16 in and out, as the recipe wants." in texts(found)


def test_softmax_that_stayed_narrow():
    rules = [NodeRule(each, "BPU", "int16", "int16") for each in (SOFTMAX, f"{SOFTMAX}_1")]
    reports = [*softmax_parts(SOFTMAX), *softmax_parts(f"{SOFTMAX}_1", "int8", "int8")]
    (wrong,) = failed(claims(reports, rules))
    assert wrong.text == (
        "1 of 2 nodes that the recipe wants on the BPU, int16 in and out is not so, such as "
        f"{SOFTMAX}_1 (Softmax): it is on the BPU, int8 in, int8 out."
    )


def test_softmax_on_the_cpu():
    cpu = NodeReport(SOFTMAX, "Softmax", "CPU", "float", "float", 1.0)
    wrong = failed(claims([CONV, cpu, CONV_1], [NodeRule(SOFTMAX, "BPU")]))
    assert texts(wrong) == [
        f"1 node runs on the CPU: {SOFTMAX} (Softmax).",
        f"1 of 1 node that the recipe wants on the BPU is not so, such as {SOFTMAX} (Softmax): it "
        "is on the CPU, float in, float out.",
    ]


def test_many_nodes_on_the_cpu_are_counted():
    cpu = [NodeReport(f"/n{number}", "Erf", "CPU", "float", "float", 1.0) for number in range(5)]
    (wrong,) = failed(claims([*cpu, CONV]))
    assert wrong.text == ("5 nodes run on the CPU: /n0 (Erf), /n1 (Erf), /n2 (Erf) and 2 more.")


def test_the_logits_shape_may_be_given_on_the_cpu():
    last = NodeReport("/Gemm_output_reshape", "Reshape", "CPU", "float", "float", 1.0)
    assert failed(claims([CONV, last])) == []
    assert failed(claims([last, CONV])), "in the middle it costs a transfer"


def test_nodes_that_became_part_of_others_are_told():
    found = claims([CONV], [NodeRule("/act/Mul", None, "int16", "int16")])
    assert failed(found) == []
    assert "1 Mul that the recipe wants int16 in and out became part of other nodes." in texts(
        found
    )


def test_the_last_sum_has_32_bits():
    assert failed(claims([CONV_1], [NodeRule("/stem/Conv_1", None, None, "int16")])) == []
    assert failed(claims([CONV], [NodeRule("/stem/Conv", None, None, "int16")]))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [(("int8", "int8"), ("int16", "int16")), (("int16", "int16"), ("int16", "int8"))],
)
def test_a_width_for_the_sake_of_a_neighbour_is_told(wanted, found):
    node = replace(CONV, input_type=found[0], output_type=found[1])
    made = claims([node], [NodeRule("/stem/Conv", None, *wanted)])
    assert failed(made) == []
    assert any(
        "1 of 1 node" in text and f"(Conv): on the BPU, {found[0]} in, {found[1]} out." in text
        for text in texts(made)
    )


def test_a_name_is_not_that_of_a_longer_one():
    """`/stem/Conv_1` is no part of `/stem/Conv`."""
    wide = replace(CONV_1, input_type="int16")
    assert failed(claims([CONV, wide], [NodeRule("/stem/Conv", None, "int8", None)])) == []


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"march": "bernoulli2"}, "march"),
        ({"gelus_fused": 1}, "gelu"),
        ({"estimate": Estimate(1.0, 1.0, 1, (), 3)}, "pieces"),
    ],
)
def test_other_failures(changes, kind):
    assert [each.kind for each in failed(claims([CONV], **changes))] == [kind]


def test_a_rewrite_without_effect():
    found = claims([CONV], rewritten={"merge_heads": 1, "attention_nhwc": 0})
    (wrong,) = failed(found)
    assert wrong.text == "The rewrite attention_nhwc changed 0 places."


def test_all_int16():
    recipe = Recipe("r", all_int16=True)
    wide = replace(CONV, output_type="int16")
    assert failed(claims([wide, replace(wide, name="x"), CONV], recipe=recipe)) == []
    assert [each.kind for each in failed(claims([CONV], recipe=recipe))] == ["int16"]


def test_only_quantised():
    reports = [replace(CONV, unit=""), *softmax_parts(SOFTMAX, unit="")]
    rules = [NodeRule(SOFTMAX, "BPU", "int16", "int16")]
    found = claims(reports, rules, bin=None, estimate=None)
    assert failed(found) == []
    assert {"cpu", "pieces"}.isdisjoint(each.kind for each in found)


def test_operators_have_plain_names():
    names = {"HzSQuantizedConv": "Conv", "HzLut2Layer": "Lut2Layer", "Transpose": "Transpose",
             "HzQuantizedRoiResize": "RoiResize", "HzSElementwiseAdd": "ElementwiseAdd",
             "HzSquash": "Squash"}  # fmt: skip
    assert {each: operator(each) for each in names} == names
