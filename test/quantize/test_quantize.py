"""`efv2 quantize` from images to the result's folder, with a recorded compiler."""

import hashlib
import json
import os
import re
import signal
import time
from dataclasses import replace

import bag_maker
import numpy as np
import onnx
import pytest
import yaml
from conftest import failing
from onnx import numpy_helper
from small_cnn import small_cnn

from efv2_ros.models.catalog import Catalog
from efv2_ros.models.modelfile import read_model_file
from efv2_ros.models.store import resolve
from efv2_ros.quantize import rounding
from efv2_ros.resources import cache_dir
from efv2_ros.toolchain.protocol import NodeReport


def tree(folder):
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*"))


def fails(result, sentence):
    assert result.exit_code == 1, result.output
    assert re.search(sentence, " ".join(result.output.split())), result.output
    assert "Traceback" not in result.output
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)


# --- Weights


GPTQ = "{weights: {rounding: gptq}}"


@pytest.fixture
def rounded(monkeypatch):
    """The number of images of each time that weights are rounded."""
    found, work = [], rounding.round_weights

    def round_weights(proto, images, **more):
        found.append(len(images))
        return work(proto, images, **more)

    monkeypatch.setattr(rounding, "round_weights", round_weights)
    return found


@pytest.fixture
def write_recipe(tmp_path):
    def write(name, text=GPTQ):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        return path

    return write


def test_weights_are_rounded_once_for_recipes_with_the_same_rewrites(
    quantize, compiler, model, rounded, write_recipe, tmp_path
):
    """Also where both are made at the same time."""
    other = write_recipe("other", "{weights: {rounding: gptq}, calibration: {type: mse}}")
    words = ("--images", 25, "--jobs", 2, "--recipe", other)
    made = quantize(*words, recipe=write_recipe("one"))
    assert made.exit_code == 0, made.output
    assert rounded == [25]
    assert compiler.models[0] == compiler.models[1]
    assert {each.calibration_type for each in compiler.requests} == {"max", "mse"}
    weights = [
        {each.name: numpy_helper.to_array(each) for each in proto.graph.initializer}
        for proto in (onnx.load_from_string(compiler.models[0]), onnx.load(str(model)))
    ]
    assert np.abs(weights[0]["w1_rounded"] - weights[1]["w1"]).max() < 0.05
    assert (weights[0]["w1_rounded"] != weights[1]["w1"]).any()


@pytest.mark.parametrize(
    "words",
    [("--nv12-range", "limited"), ("--scale", "0.02,0.02,0.02"), ("--mean", "1,2,3"),
     ("--images", 20)],
)  # fmt: skip
def test_weights_are_rounded_anew_for_other_inputs(
    quantize, compiler, rounded, write_recipe, tmp_path, words
):
    recipe = write_recipe("one")
    assert quantize("--images", 25, recipe=recipe, out=tmp_path / "a").exit_code == 0
    made = quantize("--images", 25, *words, recipe=recipe, out=tmp_path / "b")
    assert made.exit_code == 0, made.output
    assert len(rounded) == 2


def test_without_the_cache_no_rounded_weights_are_kept(
    quantize, compiler, rounded, write_recipe, tmp_path
):
    for number in range(2):
        made = quantize("--no-cache", recipe=write_recipe("one"), out=tmp_path / str(number))
        assert made.exit_code == 0, made.output
    assert len(rounded) == 2
    assert not (cache_dir() / "quantize").exists()


def test_a_damaged_cache_of_rounded_weights_is_made_anew(
    quantize, compiler, write_recipe, tmp_path
):
    assert quantize(recipe=write_recipe("one"), out=tmp_path / "a").exit_code == 0
    (kept,) = (cache_dir() / "quantize" / "rounded").iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    other = write_recipe("other", "{weights: {rounding: gptq}, calibration: {type: kl}}")
    assert quantize(recipe=other, out=tmp_path / "b").exit_code == 0
    assert compiler.models[0] == compiler.models[1]


def test_weights_of_a_layer_that_reads_no_numbers(quantize, compiler, model, write_recipe):
    proto = onnx.load(str(model))
    for each in proto.graph.initializer:
        if each.name == "b0":
            each.CopyFrom(numpy_helper.from_array(np.full(8, np.inf, np.float32), "b0"))
    onnx.save(proto, str(model))
    fails(quantize(recipe=write_recipe("one")), "/conv1/Conv cannot be rounded: .* infinite")
    assert not compiler.requests


# --- The result


def test_the_result_is_a_model_for_every_command(quantize, compiler, tmp_path):
    result = quantize("--name", "cnn_plain")
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    assert tree(out) == [
        "catalog.yaml", "cnn_plain.bin", "cnn_plain.quantized.onnx", "recipe.yaml",
        "report.html", "report.json", "report.md",
    ]  # fmt: skip
    spec = Catalog.load(out / "catalog.yaml")["cnn_plain"]
    assert (spec.height, spec.width, spec.classes, spec.nv12_range) == (64, 96, 7, "full")
    assert resolve(spec, "bin").path == out / "cnn_plain.bin"
    quantized = read_model_file(out / "cnn_plain.quantized.onnx", "onnx")
    digest = hashlib.sha256((out / "cnn_plain.bin").read_bytes()).hexdigest()
    assert quantized.metadata["bin_sha256"] == digest
    assert (out / "catalog.yaml").stat().st_mode & 0o444
    assert out.stat().st_mode & 0o777 == 0o777 & ~current_umask()


def current_umask():
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_the_report_says_everything(quantize, compiler, tmp_path, photos):
    assert quantize("--seed", 3, "--images", 25, "--eval-images", 20).exit_code == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["name"] == "cnn_plain"
    calibration = report["calibration"]
    assert (calibration["images"], calibration["images_there"], calibration["seed"]) == (25, 60, 3)
    assert len(calibration["names"]) == 25
    assert report["fidelity"]["images"] == 20
    assert not set(calibration["names"]) & set(report["fidelity"]["cosines"])
    assert len(report["fidelity"]["most_changed"]) == 10
    assert report["fidelity"]["accuracy"]["images"] == 20
    low, high = report["fidelity"]["agreement"]["interval"]
    assert low <= report["fidelity"]["agreement"]["share"] <= high
    assert report["estimate"]["milliseconds"] == pytest.approx(0.0101)
    assert report["recipe"]["name"] == "plain"
    assert report["versions"]["hbdk"] == "3.49.15"
    assert all(each["holds"] is not False for each in report["proof"])
    for name, file in report["files"].items():
        content = (tmp_path / "out" / name).read_bytes()
        assert file == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    model = tmp_path / "cnn.onnx"
    assert report["model"]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()


def test_the_page_needs_nothing_else(quantize, compiler, tmp_path, photos):
    (photos / "0" / "<script>alert(1)</script>&.png").parent.mkdir(exist_ok=True)
    assert quantize().exit_code == 0
    page = (tmp_path / "out/report.html").read_text()
    assert "<script" not in page
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    for heading in ("Proof", "Fidelity", "Where the time goes", "Calibration", "The recipe plain"):
        assert f"<h2>{heading}" in page
    assert page.count("<img ") == 10 + 12
    text = (tmp_path / "out/report.md").read_text()
    assert "| latency | 0.01 ms | estimated |" in text


def test_labels_cannot_break_the_page(quantize, compiler, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"<b>{number}|</b>\n" for number in range(7)))
    assert quantize("--labels", labels).exit_code == 0
    assert "<b>0|" not in (tmp_path / "out/report.html").read_text()
    spec = Catalog.load(tmp_path / "out/catalog.yaml")["cnn_plain"]
    assert spec.labels.read_text() == labels.read_text()


def test_the_recipe_is_part_of_the_result(quantize, compiler, tmp_path):
    assert quantize().exit_code == 0
    assert quantize(recipe=tmp_path / "out/recipe.yaml", out=tmp_path / "again").exit_code == 0
    first, again = (
        yaml.safe_load((tmp_path / each / "recipe.yaml").read_text()) for each in ("out", "again")
    )
    assert first == again


def test_the_compiler_gets_what_the_options_say(quantize, compiler, tmp_path):
    result = quantize(
        "--mean", "1,2,3", "--scale", "0.1,0.2,0.3", "--nv12-range", "limited", "--crop-pct", 0.5,
        "--opt", "O1", "--fit", "crop", "--jobs", 3, "--eval-images", 0,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (request,) = compiler.requests
    assert (request.mean, request.scale) == ((1, 2, 3), (0.1, 0.2, 0.3))
    assert (request.nv12_range, request.optimize_level, request.jobs) == ("limited", "O1", 3)
    assert (request.calibration_type, request.max_percentile) == ("max", 0.9999)
    spec = Catalog.load(tmp_path / "out/catalog.yaml")["cnn_plain"]
    assert (spec.mean, spec.scale) == ((1, 2, 3), (0.1, 0.2, 0.3))
    assert (spec.nv12_range, spec.crop_pct) == ("limited", 0.5)
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["fidelity"] is None


def test_a_bag_serves_as_well(quantize, compiler, tmp_path):
    bag = bag_maker.make(tmp_path / "bag", 60)
    result = quantize("--images", 24, calib=bag)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["calibration"]["topic"] == "/image"
    assert report["calibration"]["images"] == 24
    assert report["fidelity"]["images"] == 36
    assert report["fidelity"]["accuracy"] is None


def test_other_images_to_compare_with_are_none_of_the_calibrated(quantize, compiler, tmp_path):
    result = quantize("--eval", tmp_path / "photos", "--images", 24)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["fidelity"]["images"] == 36


def test_several_recipes_at_once(quantize, compiler, tmp_path):
    result = quantize("--recipe", "zoo_s1", "--jobs", 2)
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    assert sorted(each.name for each in out.iterdir()) == ["plain", "zoo_s1"]
    for name in ("plain", "zoo_s1"):
        assert resolve(Catalog.load(out / name / "catalog.yaml")[f"cnn_{name}"], "bin")
    assert [each.jobs for each in compiler.requests] == [1, 1]


# --- Cache


def test_a_second_run_compiles_and_runs_nothing(quantize, compiler, tmp_path):
    first = quantize()
    second = quantize()
    assert (len(compiler.requests), compiler.runs) == (1, 1)
    assert "compiled before" in second.output
    assert "compiled before" not in first.output
    (kept,) = (cache_dir() / "quantize").iterdir()
    assert [each.name for each in kept.iterdir() if "left_over" in each.name] == []


@pytest.mark.parametrize(
    "arguments",
    [["--seed", 1], ["--images", 20], ["--opt", "O3"], ["--fit", "stretch"], ["--mean", "1,2,3"],
     ["--scale", "1,1,1"], ["--nv12-range", "limited"], ["--crop-pct", "0.9"],
     ["--no-antialias"]],
)  # fmt: skip
def test_every_input_counts_for_the_cache(quantize, compiler, arguments):
    assert quantize().exit_code == 0
    assert quantize(*arguments).exit_code == 0
    assert len(compiler.requests) == 2


def test_other_inputs_of_the_cache(quantize, compiler, model, tmp_path, monkeypatch):
    assert quantize().exit_code == 0
    small_cnn(model, seed=1)
    assert quantize().exit_code == 0
    assert len(compiler.requests) == 2
    recipe = tmp_path / "plain.yaml"
    recipe.write_text("calibration: {percentile: 0.99}")
    assert quantize(recipe=recipe).exit_code == 0
    assert len(compiler.requests) == 3
    packages = tmp_path / "toolchain/lib/python3.10/site-packages"
    (packages / "dgdk-1.0.0.dist-info").rename(packages / "dgdk-1.0.1.dist-info")
    assert quantize(recipe=recipe).exit_code == 0
    assert len(compiler.requests) == 4
    monkeypatch.setattr("efv2_ros.quantize.build.__version__", "9.9.9")
    assert quantize(recipe=recipe).exit_code == 0
    assert len(compiler.requests) == 5


def test_jobs_do_not_count_for_the_cache(quantize, compiler):
    assert quantize("--jobs", 1).exit_code == 0
    assert quantize("--jobs", 2).exit_code == 0
    assert len(compiler.requests) == 1


def test_without_the_cache(quantize, compiler, tmp_path):
    assert quantize("--no-cache").exit_code == 0
    assert quantize("--no-cache").exit_code == 0
    assert len(compiler.requests) == 2
    assert not (cache_dir() / "quantize").exists()
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["model.bin", "model_quantized_model.onnx", "result.json"])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_damaged_cache_is_made_anew(quantize, compiler, name, is_there):
    assert quantize().exit_code == 0
    (kept,) = (cache_dir() / "quantize").iterdir()
    (kept / name).unlink()
    if is_there:
        (kept / name).write_text("{")
    assert quantize().exit_code == 0
    assert len(compiler.requests) == 2


# --- Limits and the proof


def test_limits_decide_the_exit_status(quantize, compiler):
    assert quantize("--max-ms", 1, "--min-agreement", 0.5, "--max-drop", 50).exit_code == 0
    result = quantize("--max-ms", 0.001)
    assert result.exit_code == 1
    assert "not met  The estimated latency is 0.01 ms" in result.output
    compiler.noise = 100
    result = quantize("--min-agreement", 0.9, "--seed", 1)
    assert result.exit_code == 1
    assert "The top-1 agreement is" in result.output
    assert quantize("--max-drop", -100, "--seed", 1).exit_code == 1


def test_limits_that_cannot_be_told_are_refused_before_the_work(quantize, compiler, tmp_path):
    fails(quantize("--min-agreement", 0.5, "--eval-images", 0), "no images to compare the models")
    bag = bag_maker.make(tmp_path / "bag", 60)
    fails(quantize("--max-drop", 1, calib=bag), "the class of no image is known, for --max-drop")
    assert not compiler.requests


def test_a_recipe_without_effect_is_a_failure(quantize, compiler):
    compiler.changes = {"march": "bernoulli2"}
    result = quantize()
    assert result.exit_code == 1
    assert "Compiled for bernoulli2, and the RDK X5's BPU is bayes-e." in result.output
    assert quantize("--allow-unproven").exit_code == 0
    assert quantize("--allow-unproven", "--max-ms", 0.001).exit_code == 1


def test_nodes_on_the_cpu_are_named(quantize, compiler, tmp_path):
    result = quantize()
    assert "the CPU only gives the logits their shape: /head/Gemm" in result.output
    cpu = NodeReport("/conv1/Conv", "Conv", "CPU", "float", "float", 1.0)
    compiler.changes = {"nodes": (cpu, replace(cpu, name="/head/Gemm", unit="BPU"))}
    result = quantize("--seed", 1)
    assert result.exit_code == 1
    assert "1 node runs on the CPU: /conv1/Conv (Conv)." in result.output


# --- Errors: one sentence each, and nothing half-written


def nothing_left(tmp_path):
    hidden = [each.name for each in tmp_path.iterdir() if each.name.startswith(".efv2")]
    cached = list((cache_dir() / "quantize").glob("*")) if cache_dir().exists() else []
    hidden += [each.name for each in cached]
    return not hidden and not (tmp_path / "out").exists()


def test_a_compiler_that_fails(quantize, compiler, tmp_path):
    compiler.error = failing()
    fails(quantize(), "Error: the compiler failed while it was compiling the model: out of luck")
    assert nothing_left(tmp_path)


def test_a_full_disk(quantize, compiler, tmp_path):
    compiler.error = OSError(28, "No space left on device")
    fails(quantize(), "Error: cannot compile into .*: No space left on device")
    assert nothing_left(tmp_path)


def test_an_earlier_result_survives_a_failure_and_is_replaced_by_success(
    quantize, compiler, tmp_path
):
    assert quantize().exit_code == 0
    before = (tmp_path / "out/report.json").read_bytes()
    compiler.error = failing()
    fails(quantize("--seed", 1), "out of luck")
    assert (tmp_path / "out/report.json").read_bytes() == before
    compiler.error = None
    assert quantize("--seed", 1).exit_code == 0
    assert (tmp_path / "out/report.json").read_bytes() != before


def test_a_folder_that_is_something_else(quantize, compiler, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("dear")
    fails(quantize(), "holds something else than a result of efv2 quantize")
    assert (tmp_path / "out/thesis.txt").read_text() == "dear"
    fails(quantize(out=tmp_path / "none/out"), "there is no folder")
    fails(quantize(out=tmp_path / "out/thesis.txt"), "it is there already and no folder")
    assert not compiler.requests


def test_an_empty_folder_may_be_there(quantize, compiler, tmp_path):
    (tmp_path / "out").mkdir()
    assert quantize().exit_code == 0


def test_a_signal_while_it_compiles(quantize, compiler, tmp_path, monkeypatch):
    before = compiler.compile_model

    def interrupted(request, folder, *, on_progress, should_stop):
        os.kill(os.getpid(), signal.SIGINT)
        deadline = time.monotonic() + 20
        while not should_stop() and time.monotonic() < deadline:
            time.sleep(0.01)
        return before(request, folder, on_progress=on_progress, should_stop=should_stop)

    monkeypatch.setattr("efv2_ros.quantize.build.compile_model", interrupted)
    result = quantize()
    assert result.exit_code == 130, result.output
    assert nothing_left(tmp_path)


def test_calibration_images_that_cannot_be_used(quantize, compiler, tmp_path):
    folder = tmp_path / "arrays"
    folder.mkdir()
    for number in range(25):
        array = np.random.default_rng(number).normal(0, 1, (3, 64, 96)).astype(np.float32)
        array.tofile(folder / f"{number}.rgb")
    fails(quantize(calib=folder), "they are normalised already.*--force compiles nevertheless")
    assert not compiler.requests
    assert quantize("--force", calib=folder).exit_code == 0


def test_no_photos_and_no_bag(quantize, compiler, tmp_path):
    fails(quantize(calib=tmp_path / "none"), "does not exist: give a folder of images or a bag")
    (tmp_path / "empty").mkdir()
    fails(quantize(calib=tmp_path / "empty"), "there are no images in")


def edited(model, change):
    proto = onnx.load(str(model))
    change(proto)
    onnx.save(proto, str(model))


def test_a_wrong_opset(quantize, compiler, model):
    edited(model, lambda proto: setattr(proto.opset_import[0], "version", 17))
    fails(quantize(), "has opset 17, and the toolchain reads 10 and 11: export it anew")


def test_dynamic_shapes(quantize, compiler, model):
    small_cnn(model, batch="batch")
    assert quantize().exit_code == 0, "a batch can be made 1"

    def loosen(proto):
        proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"

    edited(model, loosen)
    fails(quantize("--seed", 1), "does not state its height")


def test_a_truncated_file(quantize, compiler, model):
    model.write_bytes(model.read_bytes()[:1000])
    fails(quantize(), "is not a whole .onnx model")


def test_no_such_model(quantize, compiler, tmp_path):
    fails(quantize(given="s7"), "the catalog has no model 's7'")
    fails(quantize(given=tmp_path / "none.onnx"), "is no file")
    fails(quantize(given="s0"), "efficientformerv2_s0_deploy.onnx is not in .* `efv2 models fetch")


def test_a_gelu_that_is_not_fused_is_told(quantize, compiler, model):
    def erf(proto):
        relu = next(node for node in proto.graph.node if node.op_type == "Relu")
        relu.op_type = "Erf"

    edited(model, erf)
    result = quantize()
    assert "1 of 1 GELUs have a form that the compiler does not fuse" in " ".join(
        result.output.split()
    )


def test_without_the_toolchain(quantize, compiler, monkeypatch):
    monkeypatch.delenv("EFV2_TOOLCHAIN_PYTHON")
    fails(quantize(), "the toolchain is not installed: run efv2 toolchain install")


def test_recipes_are_listed_and_explained(quantize):
    from click.testing import CliRunner

    from efv2_ros.cli.main import main

    listed = CliRunner().invoke(main, ["quantize", "--recipes"])
    assert listed.exit_code == 0
    assert "zoo_s0" in listed.output
    shown = CliRunner().invoke(main, ["quantize", "--show-recipe", "zoo_s0"])
    assert shown.exit_code == 0
    assert "all_int16: true" in shown.output
    fails(CliRunner().invoke(main, ["quantize", "--show-recipe", "none"]), "there is no recipe")


def test_wrong_usage(quantize, compiler):
    assert quantize("--recipe", "plain").exit_code == 2
    assert quantize("--recipe", "zoo_s1", "--name", "x").exit_code == 2
    assert quantize("--name", "a/b").exit_code == 2
    assert quantize("--crop-pct", "0").exit_code == 2
