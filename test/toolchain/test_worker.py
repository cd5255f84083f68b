"""Parts of the toolchain's programs that need no toolchain."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from efv2_ros.toolchain.environment import WORKER


@pytest.fixture
def load(monkeypatch):
    """Import a program of the worker's folder, as it imports its neighbours."""
    monkeypatch.syspath_prepend(str(WORKER))
    before = set(sys.modules)

    def load(name):
        spec = importlib.util.spec_from_file_location(f"worker_{name}", WORKER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in set(sys.modules) - before:
        if str(WORKER) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


SUMMARY = {
    "latency (us)": 500.0,
    "FPS": 2000.0,
    "DDR bytes per frame": 1000,
    "layer details": [
        ["layer", "ops", "computing cost (no DDR)", "load/store cost"],
        ["/stem/Conv", "1,024", "60 us (12% of model)", "20 us (4% of model)"],
        ["/a/Reshape", "0", "180 us (36% of model)", "300 us (60% of model)"],
        ["post_trans_/a/Softmax_max", "0", "8 us (2% of model)", "0"],
        ["max./a/Softmax_max", "10", "4 us (1% of model)", "0 us (0% of model)"],
        ["/head/Conv", "10", "1 us (0.2% of model)", "80 us (16% of model)"],
        ["/free", "0", "", "0"],
    ],
}
KINDS = {"/stem/Conv": "Conv", "/a/Reshape": "Reshape", "/a/Softmax_max": "Max"}


def test_layers_and_what_they_wait_for(load):
    layers = load("results").layers(SUMMARY, KINDS)
    assert [(each["kind"], each["waits_for"], each["microseconds"]) for each in layers] == [
        ("Conv", "compute", 60.0),
        ("Reshape", "layout", 300.0),
        ("Max", "layout", 8.0),
        ("Max", "compute", 4.0),
        ("", "ddr", 80.0),
        ("", "", 0.0),
    ]
    assert [each["ddr_bytes"] for each in layers] == [50, 750, 0, 0, 200, 0]


def test_subgraphs_add_up_in_their_order(load, tmp_path):
    for number in (10, 2):
        summary = {**SUMMARY, "layer details": SUMMARY["layer details"][:2]}
        summary["layer details"] = [summary["layer details"][0], [f"/{number}", "", "1 us", "0"]]
        (tmp_path / f"m_subgraph_{number}.json").write_text(json.dumps({"summary": summary}))
    builder = SimpleNamespace(quantized_model=SimpleNamespace(graph=SimpleNamespace(nodes=[])))
    found = load("results").estimate(tmp_path, builder, str)
    assert found["milliseconds"] == 1.0 and found["fps"] == 1000.0
    assert found["ddr_bytes"] == 2000 and found["subgraphs"] == 2
    assert [each["name"] for each in found["layers"]] == ["/2", "/10"]


def test_a_model_with_nothing_on_the_bpu_is_refused(load, tmp_path):
    builder = SimpleNamespace(quantized_model=SimpleNamespace(graph=SimpleNamespace(nodes=[])))
    with pytest.raises(ValueError, match="no part of the model runs on the BPU"):
        load("results").estimate(tmp_path, builder, str)


def test_the_quantised_model_gets_yuv444_with_replicated_chroma(load):
    nv12 = np.arange(6 * 4, dtype=np.uint8).reshape(6, 4)
    image = np.empty((1, 4, 4, 3), np.int8)
    load("quantized_input").fill(image, nv12)
    for row in range(4):
        for column in range(4):
            chroma = nv12[4 + row // 2, column // 2 * 2 : column // 2 * 2 + 2]
            wanted = [nv12[row, column], *chroma]
            assert image[0, row, column].tolist() == [int(each) - 128 for each in wanted]


def test_names_that_the_vendor_numbered_are_numbered_anew(load):
    pytest.importorskip("onnx")
    names = load("onnx_file").Names(["/a", "variable_71_out", "variable_7", "variable_71"])
    assert names("variable_7_x") == "variable_1_x"
    assert names("variable_71") == "variable_0"
    assert names("variable_8") == "variable_8"
    assert names("/a/my_variable_7") == "/a/my_variable_7"


def test_one_form_of_a_model(load, tmp_path):
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    def write(path, numbers, flip):
        first, second = (f"variable_{each}" for each in numbers)
        nodes = [
            helper.make_node("Add", ["x", first], [second], name=f"{second}_node"),
            helper.make_node("Add", [second, "z"], ["y"]),
        ]
        tables = [numpy_helper.from_array(np.float32([value]), name)
                  for value, name in ((1, first), (2, "z"))]  # fmt: skip
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
        graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tables[:: -1 if flip else 1])
        onnx.save(helper.make_model(graph), path)

    unify = load("onnx_file").unify
    for name, numbers, flip in (("a", (3, 4), False), ("b", (9, 2), True)):
        write(tmp_path / name, numbers, flip)
        unify(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    onnx.checker.check_model(onnx.load(tmp_path / "a"))
    assert len(list(tmp_path.iterdir())) == 2


def test_stand_ins_leave_installed_packages_alone():
    code = (
        "import numpy, torch, skimage.io as io; from torch.nn import Module, functional as f\n"
        "class Net(Module): pass\n"
        "assert not isinstance(3, torch.Tensor) and Net() and torch.is_stand_in\n"
        "assert numpy.zeros(1).sum() == 0 and not hasattr(numpy, 'is_stand_in')\n"
        "@torch.jit.script\n"
        "def same(x): return x\n"
        "try: import nowhere\n"
        "except ModuleNotFoundError: print('good', same)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(WORKER / "standins")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("good"), done.stderr


def test_the_request_in_the_vendors_terms(load):
    request = json.loads(
        Path(__file__).with_name("recorded").joinpath("compile_request.json").read_text()
    )
    request.update(nv12_range="limited", all_int16=True, asymmetric=True)
    pytest.importorskip("onnx")
    settings = load("compile").configuration(request)
    assert settings["model_parameters"]["node_info"] == {
        "/a/Softmax": {"ON": "BPU", "InputType": "int16"}
    }
    assert settings["input_parameters"]["input_space_and_range"] == "bt601_video"
    assert settings["input_parameters"]["mean_value"] == "123.675 116.28 103.53"
    assert settings["calibration_parameters"]["optimization"] == "set_all_nodes_int16;asymmetric"
    assert settings["compiler_parameters"]["jobs"] >= 1


@pytest.fixture
def ranges(load):
    return load("ranges")


def test_a_range_leaves_out_what_is_rare_and_far(ranges, monkeypatch):
    monkeypatch.setattr(ranges, "SAMPLES", 200_000)
    values = np.random.default_rng(0).laplace(size=400_000).astype(np.float32)
    tensors = ranges.Tensors([], [], 8)
    for part in np.split(values, 2):
        tensors.look_at([part], np.random.default_rng(0))
    assert tensors.largest == np.abs(values).max() > 12
    assert tensors.best() < 0.85 * tensors.largest
    best, whole, half = (
        ranges.error(values, each)
        for each in (tensors.best(), tensors.largest, tensors.best() / 2)
    )
    assert best < 0.9 * min(whole, half)


def test_sixteen_bits_keep_everything(ranges):
    tensors = ranges.Tensors([], [], 16)
    tensors.look_at([np.array([[0, -3, 50]], np.float32)], np.random.default_rng(0))
    assert tensors.best() == 50


def test_a_tensor_of_zeros_has_no_range(ranges):
    tensors = ranges.Tensors([], [], 8)
    tensors.look_at([np.zeros((1, 4), np.float32)], np.random.default_rng(0))
    assert tensors.best() == 0


def test_weights_of_an_attention_get_a_fine_range(ranges):
    """Many small weights that sum up to 1 must not all be rounded to 0 for the sake of one."""
    random = np.random.default_rng(0)
    scores = random.normal(size=(49, 196)).astype(np.float32)
    scores[0, 0] = 8
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    tensors = ranges.Tensors([], [], 8, "rows")
    tensors.look_at([weights[None, None]], np.random.default_rng(0))
    step = np.float32(tensors.best() / 127)
    sums = (np.rint(weights[1:] / step) * step).sum(-1)
    assert np.abs(sums - 1).max() < 0.1
    coarse = (np.rint(weights[1:] * 127) / 127).sum(-1)
    assert np.abs(coarse - 1).max() > 0.15


def test_what_multiplies_a_row_counts_by_its_share(ranges):
    values = np.full(20_000, 0.02, np.float32) + np.linspace(0, 0.01, 20_000, dtype=np.float32)
    values[::500] = 0.45
    best = {}
    for kind in ("plain", "relative"):
        tensors = ranges.Tensors([], [], 8, kind)
        tensors.look_at([values], np.random.default_rng(0))
        best[kind] = tensors.best()
    assert best["relative"] < 0.5 * best["plain"]


def node(op, inputs, outputs, thresholds=None, qtype="int8"):
    """A node as the vendor's graphs have them."""
    values = [[SimpleNamespace(name=each) for each in names] for names in (inputs, outputs)]
    return SimpleNamespace(
        op_type=op, name=f"{op}_{outputs[0]}", inputs=values[0], outputs=values[1],
        thresholds=thresholds, qtype=qtype, tensor_type="feature",
    )  # fmt: skip


def calibration(value, threshold, qtype="int8"):
    return node("HzCalibration", [value], [f"{value}_c"], [threshold], qtype)


def test_tensors_that_share_a_range(ranges):
    graph = SimpleNamespace(nodes=[
        calibration("image", 127.0),
        node("Conv", ["image_c"], ["a"]), calibration("a", 3.0),
        node("Split", ["a_c"], ["b", "c"]), calibration("b", 3.0), calibration("c", 3.0),
        node("MatMul", ["b_c"], ["d"]), calibration("d", 3.0),
        node("Concat", ["c_c", "d_c"], ["e"]), calibration("e", 3.0, "int16"),
        node("Sub", ["e_c"], ["f"]), calibration("f", 5.6),
        node("Exp", ["f_c"], ["g"]), calibration("g", 1.0),
        node("ReduceSum", ["g_c"], ["h"]), calibration("h", 90.0),
        node("Reciprocal", ["h_c"], ["i"]), calibration("i", 1.0),
        node("Mul", ["g_c", "i_c"], ["j"]), calibration("j", 1.0),
        node("Reshape", ["j_c", "shape"], ["between"]),
        node("Transpose", ["between"], ["k"]), calibration("k", 1.0),
    ])  # fmt: skip
    found = {
        tuple(sorted(each.inputs[0].name for each in tensors.nodes)): tensors
        for tensors in ranges.shared(graph)
    }
    assert set(found) == {("a", "b", "c", "d"), ("e",), ("h",), ("i",), ("j", "k")}
    assert {names: each.kind for names, each in found.items() if each.kind != "plain"} == {
        ("i",): "relative", ("j", "k"): "rows",
    }  # fmt: skip
    assert [each.inputs[0].name for each in found["j", "k"].looked_at] == ["j"]
    assert found[("e",)].bits == 16


def test_a_model_without_the_rounding_of_its_activations(ranges):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    def calibrate(value, name):
        return helper.make_node("HzCalibration", [value], [name], domain="horizon")

    graph = helper.make_graph(
        [
            calibrate("x", "x1"), calibrate("x1", "x2"),
            helper.make_node("Add", ["x2", "w"], ["y"]),
            calibrate("y", "out"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.array([1, 2], np.float32), "w")],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    names = ["x1", "y"]
    plain = ranges.unquantized(proto, names)
    session = onnxruntime.InferenceSession(plain.SerializeToString())
    found = session.run(["out", *names], {"x": np.array([10, 20], np.float32)})
    assert [each.tolist() for each in found] == [[11, 22], [10, 20], [11, 22]]
    assert len(proto.graph.node) == 4
