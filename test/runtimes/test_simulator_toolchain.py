"""The simulator with the real toolchain: both ways of running a model give the same integers."""

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("onnx")

import cv2
import onnx
from click.testing import CliRunner
from compiled_models import compiled, small_cnn
from onnx import helper
from pictures import picture

from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import ModelRequest
from efv2_ros.cli.main import main
from efv2_ros.models.efficientformerv2 import builder
from efv2_ros.runtimes.base import (
    RUNTIMES,
    ImageInput,
    ModelLoadError,
    RunOptions,
    open_runtime,
)
from efv2_ros.vision.frame import Frame, Header

pytestmark = [pytest.mark.toolchain, pytest.mark.usefixtures("toolchain")]

SMALL = ImageInput(64, 96)


@pytest.fixture(scope="module")
def make(installed_toolchain, tmp_path_factory):
    """`make(...)` compiles a small CNN; see `small_cnn` and `compiled`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFV2_TOOLCHAIN_PYTHON", str(installed_toolchain))
        made = {}

        def make(tail="conv", **options):
            key = (tail, *options.items())
            if key not in made:
                folder = tmp_path_factory.mktemp("small")
                model = small_cnn(folder / "model.onnx", 64, 96, tail)
                made[key] = compiled(folder, model, 64, 96, **options)
            return made[key]

        yield make


@pytest.fixture(scope="module")
def s0(installed_toolchain, tmp_path_factory):
    """EfficientFormerV2-S0 with random weights, all of it on the BPU."""
    folder = tmp_path_factory.mktemp("s0")
    builder.write(folder / "s0.onnx", builder.seeded_state("s0"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFV2_TOOLCHAIN_PYTHON", str(installed_toolchain))
        return compiled(folder, folder / "s0.onnx", 224, 224)


def alone(path, folder):
    """A copy without the quantised model beside it."""
    return shutil.copy(path, folder / path.name)


def logits(path, image, frames):
    runtime = open_runtime(path, image, "simulator")
    try:
        return runtime.info, np.stack([runtime.infer(each) for each in frames])
    finally:
        runtime.close()


def noise(image, count):
    random = np.random.RandomState(7)
    return [random.randint(0, 256, image.nv12_shape, np.uint8) for _ in range(count)]


def test_the_executor_and_the_compiled_model_agree_on_s0_to_the_integer(s0, tmp_path):
    frames = noise(ImageInput(), 3)
    executor, quantized = logits(s0, ImageInput(), frames)
    simulator, compiled = logits(alone(s0, tmp_path), ImageInput(), frames)
    assert (executor.version, simulator.version) == ("dg_nn_toolkit 1.0.0", "dgdk 1.0.0")
    assert executor.classes == simulator.classes == 1000
    # Both multiply an integer with the same factor, so equal floats are equal integers.
    np.testing.assert_array_equal(quantized, compiled)
    assert len(np.unique(quantized)) > 100
    assert not np.array_equal(quantized[0], quantized[1])


@pytest.mark.parametrize(
    ("tail", "options"),
    [("conv", {}), ("flatten", {}), ("conv", {"nv12_range": "limited"}),
     ("conv", {"all_int16": True})],
    ids=["conv", "flatten", "limited", "int16"],
)  # fmt: skip
def test_other_classes_sizes_and_ranges(make, tmp_path, tail, options):
    path = make(tail, **options)
    frames = noise(SMALL, 3)
    info, quantized = logits(path, SMALL, frames)
    assert info.classes == 10
    np.testing.assert_array_equal(quantized, logits(alone(path, tmp_path), SMALL, frames)[1])


@pytest.mark.parametrize("nv12_range", ["full", "limited"])
def test_colours_are_converted_by_the_model(make, tmp_path, nv12_range):
    """The quantised models differ from the float model by their rounding only."""
    path = make(nv12_range=nv12_range)
    mean, scale = (123.675, 116.28, 103.53), (0.01712475, 0.017507, 0.01742919)
    image = ImageInput(64, 96, nv12_range, mean, scale)
    luma = np.linspace(60, 190, 96 * 64).reshape(64, 96).astype(np.uint8)
    frame = np.concatenate([luma, np.full((32, 96), 140, np.uint8)])
    expected = open_runtime(path.parent / "model.onnx", image, "onnx").infer(frame)
    other = ImageInput(64, 96, "limited" if nv12_range == "full" else "full", mean, scale)
    wrong = open_runtime(path.parent / "model.onnx", other, "onnx").infer(frame)
    found = logits(path, image, [frame])[1][0]
    assert np.abs(found - expected).max() < 0.25 * np.abs(found - wrong).max()


def test_slots_give_the_results_of_one(make):
    frames = noise(SMALL, 8)
    path = make()
    expected = logits(path, SMALL, frames)[1]
    runtime = open_runtime(path, SMALL, "simulator", RunOptions(slots=3, threads=2))
    np.testing.assert_array_equal(np.stack([runtime.infer(each) for each in frames]), expected)
    runtime.close()


def test_what_the_runtime_is_called():
    assert RUNTIMES["simulator"].probe() == "dg_nn_toolkit 1.0.0, dgdk 1.0.0"


def test_a_quantised_model_of_another_bin(make, tmp_path):
    path = alone(make(), tmp_path)
    beside = path.with_suffix(".quantized.onnx")
    shutil.copy(make("flatten").with_suffix(".quantized.onnx"), beside)
    with pytest.raises(ModelLoadError, match=r"quantized\.onnx belongs to another \.bin"):
        open_runtime(path, SMALL, "simulator")
    model = onnx.load(beside)
    helper.set_model_props(model, {})
    onnx.save(model, beside)
    with pytest.raises(ModelLoadError, match=r"quantized\.onnx names no \.bin"):
        open_runtime(path, SMALL, "simulator")
    beside.write_bytes(beside.read_bytes()[:1000])
    with pytest.raises(ModelLoadError, match=r"quantized\.onnx cannot be loaded"):
        open_runtime(path, SMALL, "simulator")


def test_models_that_are_no_classifiers_of_this_image(make, tmp_path):
    path = make()
    with pytest.raises(ModelLoadError, match=r"takes an image of shape \[1, 64, 96, 3\] and not"):
        open_runtime(path, ImageInput(), "simulator")
    damaged = tmp_path / "damaged.bin"
    damaged.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelLoadError, match=r"damaged\.bin is not a model of the toolchain"):
        open_runtime(damaged, SMALL, "simulator")


def test_nodes_on_the_cpu_need_the_quantised_model(make, tmp_path):
    path = make("softmax")
    info, (scores,) = logits(path, SMALL, noise(SMALL, 1))
    assert info.classes == 10
    assert scores.sum() == pytest.approx(1.0)
    with pytest.raises(ModelLoadError, match=r"runs Softmax on the CPU.*model\.quantized\.onnx"):
        open_runtime(alone(path, tmp_path), SMALL, "simulator")


def test_classifying_a_photo(s0, tmp_path):
    photo, bgr = tmp_path / "photo.png", picture(3, 300, 250)
    cv2.imwrite(str(photo), bgr)
    frame = Frame(Header(), "bgr8", bgr.reshape(-1), 250, 300, 900)
    with load_model(ModelRequest(model_path=str(s0), runtime="simulator")) as model:
        best = Classifier(model).classify(frame).classes[0]
    arguments = ["classify", "--runtime", "simulator", "--model", str(s0), "--json", str(photo)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    (report,) = json.loads(done.stdout)
    assert report["runtime"] == "simulator"
    assert report["results"][0]["class_id"] == best.class_id
