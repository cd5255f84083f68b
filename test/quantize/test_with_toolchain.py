"""`efv2 quantize` with D-Robotics' toolchain itself, on a small CNN."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper

from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import ModelRequest, ViewOptions
from efv2_ros.cli.main import main
from efv2_ros.pictures.photo import find_photos, read_photo
from efv2_ros.toolchain.jobs import run_quantized

pytestmark = pytest.mark.toolchain


def words(model, photos, out, *more, recipe="plain", level="O1"):
    return [*map(str, ("quantize", model, "--calib", photos, "--recipe", recipe, "--opt", level,
                       "--images", 24, "--eval-images", 12, "--out", out, *more))]  # fmt: skip


def test_from_images_to_a_simulated_board(toolchain, model, photos, tmp_path):
    out = tmp_path / "out"
    made = CliRunner().invoke(main, words(model, photos, out, "--min-agreement", 0.5))
    assert made.exit_code == 0, made.output
    report = json.loads((out / "report.json").read_text())
    assert all(each["holds"] is not False for each in report["proof"])
    assert report["fidelity"]["cosine"]["mean"] > 0.99
    assert report["estimate"]["layers"]

    arguments = ["classify", str(photos / "0"), "--catalog", str(out / "catalog.yaml"),
                 "--size", "cnn_plain", "--runtime", "simulator", "--json"]  # fmt: skip
    answered = CliRunner().invoke(main, arguments)
    assert answered.exit_code == 0, answered.output
    answers = json.loads(answered.stdout)
    assert len(answers) == 20
    assert {each["runtime"] for each in answers} == {"simulator"}

    request = ModelRequest(
        "cnn_plain", catalog_file=str(out / "catalog.yaml"), runtime="simulator"
    )
    with load_model(request) as simulated:
        classifier = Classifier(simulated, ViewOptions(top_k=7))
        frames, logits = [], []
        for path in find_photos([photos / "0"])[:3]:
            prepared = classifier.prepare(read_photo(path))
            planes = prepared.slot.nv12
            frames.append(np.concatenate([planes.y, planes.uv.reshape(32, 96)]))
            logits.append(classifier.work(prepared).logits)
    executed = run_quantized(out / "cnn_plain.quantized.onnx", np.stack(frames))
    np.testing.assert_array_equal(np.stack(logits), executed)

    again = CliRunner().invoke(main, words(model, photos, out))
    assert "compiled before" in again.output


def test_ranges_and_weights_of_our_own(toolchain, model, photos, tmp_path):
    """The toolchain takes the ranges, and keeps more of the float model's answers with them."""
    cosines = {}
    for name, text in {
        "clipped": "{calibration: {type: max, percentile: 0.9}}",
        "own": "{calibration: {type: mse}, weights: {rounding: gptq}}",
    }.items():
        recipe = tmp_path / f"{name}.yaml"
        recipe.write_text(text)
        out = tmp_path / name
        made = CliRunner().invoke(main, words(model, photos, out, recipe=recipe, level="O0"))
        assert made.exit_code == 0, made.output
        cosines[name] = json.loads((out / "report.json").read_text())["fidelity"]["cosine"]
    assert cosines["own"]["mean"] > 0.999
    assert 1 - cosines["own"]["mean"] < 0.5 * (1 - cosines["clipped"]["mean"])


def test_limited_range(toolchain, model, photos, tmp_path):
    """The float model and the compiled one both take the range."""
    out = tmp_path / "out"
    made = CliRunner().invoke(main, words(model, photos, out, "--nv12-range", "limited"))
    assert made.exit_code == 0, made.output
    report = json.loads((out / "report.json").read_text())
    assert report["fidelity"]["cosine"]["mean"] > 0.99


def compiling(model, photos, out, tmp_path):
    """Start the command and wait until it compiles; its process and its cache."""
    process = subprocess.Popen(
        [sys.executable, "-m", "efv2_ros.cli", *words(model, photos, out)],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    folder = tmp_path / "cache" / "efv2_ros" / "quantize"
    deadline = time.monotonic() + 60
    while not list(folder.glob(".efv2_*/toolchain.log")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    return process, folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once_and_leaves_nothing(toolchain, model, photos, tmp_path, number):
    out = tmp_path / "out"
    process, folder = compiling(model, photos, out, tmp_path)
    start = time.monotonic()
    process.send_signal(number)
    said = "".join(process.communicate(timeout=30))
    assert time.monotonic() - start < 5  # a second where the machine is idle
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert list(folder.iterdir()) == []
    assert not out.exists()


def test_a_killed_compiler_is_one_sentence(toolchain, model, photos, tmp_path):
    out = tmp_path / "out"
    process, folder = compiling(model, photos, out, tmp_path)
    for child in children(process.pid):
        os.kill(child, signal.SIGKILL)
    said = "".join(process.communicate(timeout=30))
    assert process.returncode == 1, said
    assert "Traceback" not in said
    assert "Error: " in said
    (log,) = folder.iterdir()
    assert log.name.startswith("failed-")
    assert not out.exists()


def test_an_operator_that_the_toolchain_does_not_know(toolchain, model, photos, tmp_path):
    proto = onnx.load(str(model))
    linear = next(node for node in proto.graph.node if node.op_type == "Gemm")
    proto.graph.node.append(helper.make_node("Det", ["image"], ["det"], name="/det"))
    proto.graph.node.append(helper.make_node("Add", ["sum", "det_mean"], [linear.output[0]]))
    linear.output[0] = "sum"
    proto.graph.node.append(
        helper.make_node("ReduceMean", ["det"], ["det_mean"], axes=[1], keepdims=1)
    )
    nodes = sorted(proto.graph.node, key=lambda node: node.op_type == "Add")
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    proto.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 64
    onnx.save(proto, str(model))
    out = tmp_path / "out"
    made = CliRunner().invoke(main, words(model, photos, out))
    assert made.exit_code == 1
    assert "Det" in made.output
    (log,) = (tmp_path / "cache/efv2_ros/quantize").iterdir()
    assert f"log is {log}" in made.output
    assert not out.exists()


def children(pid):
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(each) for each in found.stdout.split()]
