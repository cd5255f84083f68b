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
    layers = load("findings").layers(SUMMARY, KINDS)
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
    found = load("findings").estimate(tmp_path, builder, str)
    assert found["milliseconds"] == 1.0 and found["fps"] == 1000.0
    assert found["ddr_bytes"] == 2000 and found["subgraphs"] == 2
    assert [each["name"] for each in found["layers"]] == ["/2", "/10"]


def test_a_model_with_nothing_on_the_bpu_is_refused(load, tmp_path):
    builder = SimpleNamespace(quantized_model=SimpleNamespace(graph=SimpleNamespace(nodes=[])))
    with pytest.raises(ValueError, match="no part of the model runs on the BPU"):
        load("findings").estimate(tmp_path, builder, str)


def test_the_quantised_model_gets_yuv444_with_replicated_chroma(load):
    nv12 = np.arange(6 * 4, dtype=np.uint8).reshape(6, 4)
    image = load("run_quantized").model_input(nv12)
    assert image.shape == (1, 4, 4, 3) and image.dtype == np.int8
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
