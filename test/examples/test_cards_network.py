"""The network of the cards: its files are the renderer's and a run's, and it knows its cards."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parents[2]

# This folder is called `examples` too, and may be found first.
sys.path.insert(0, str(ROOT))

from efv2_ros import Classifier, Frame, load_model, read_photo  # noqa: E402
from efv2_ros.cli.main import main  # noqa: E402
from efv2_ros.models.catalog import Catalog  # noqa: E402
from efv2_ros.models.labels import load_class_names, load_labels  # noqa: E402
from examples.cards import stream  # noqa: E402
from examples.cards.classes import CLASSES  # noqa: E402
from examples.cards.render import render, render_folder  # noqa: E402

pytest.importorskip("onnx")
safetensors = pytest.importorskip("safetensors.numpy")
pytest.importorskip("onnxruntime")

CARDS = sorted((ROOT / "photos/cards").glob("*.jpg"))


@pytest.fixture(scope="module")
def classifier():
    with load_model("cards") as model:
        yield Classifier(model)


def test_the_labels_are_the_renderers():
    labels = Catalog.load()["cards"].labels
    english = [(each.folder, each.name_cn, each.name) for each in CLASSES]
    assert list(load_class_names(labels, 100)) == english
    chinese = load_labels(labels.with_name("cards_cn.json"), 100)
    assert list(chinese) == [each.name_cn for each in CLASSES]


def test_the_weights_are_small_and_of_100_classes():
    path = Catalog.load()["cards"].weights
    assert path.stat().st_size < 8e6
    tensors = safetensors.load(path.read_bytes())
    assert {each.dtype for each in tensors.values()} == {np.dtype(np.float16)}
    assert all(np.isfinite(each).all() for each in tensors.values())
    assert tensors["head.weight"].shape[0] == tensors["head_dist.weight"].shape[0] == 100


def test_the_shipped_cards_are_the_renderers(tmp_path):
    made = stream.write_stream(tmp_path)
    assert [each.name for each in made] == [each.name for each in CARDS]
    assert [each.name for each in made] == [f"{each.folder}.jpg" for each in CLASSES[::2]]
    for new, shipped in zip(made, CARDS, strict=True):
        # Another OpenCV may round elsewhere.
        pixels = [cv2.imread(str(each)).astype(int) for each in (new, shipped)]
        assert abs(pixels[0] - pixels[1]).mean() < 2


def test_it_knows_the_shipped_cards(classifier):
    said = [classifier.classify(read_photo(card)).classes[0].label for card in CARDS]
    assert sum(a == b.name for a, b in zip(said, CLASSES[::2], strict=True)) >= 45


def test_it_knows_cards_that_were_never_used(classifier):
    """Rendered now, of a seed of their own: no file that is shipped can stand for them."""
    right = 0
    for class_index, each in enumerate(CLASSES):
        image = render(class_index, 4711, "test", (224, 224), difficulty=stream.DIFFICULTY)
        right += classifier.classify(Frame.from_bgr(image)).classes[0].label == each.name
    assert right >= 80


@pytest.mark.toolchain
def test_quantised_it_answers_as_the_float_network(toolchain, tmp_path):
    """Compiled and simulated by the real toolchain, on images of seeds of their own."""
    for split in ("calibration", "test"):
        render_folder(tmp_path / split, 100, 4711, split, (224, 224), stream.DIFFICULTY)
    out = tmp_path / "out"
    words = ["quantize", "cards", "--calib", tmp_path / "calibration", "--eval", tmp_path / "test",
             "--recipe", "accurate", "--opt", "O0", "--out", out]  # fmt: skip
    made = CliRunner().invoke(main, [*map(str, words)])
    assert made.exit_code == 0, made.output
    fidelity = json.loads((out / "report.json").read_text())["fidelity"]
    assert fidelity["images"] == 100
    assert fidelity["agreement"]["share"] >= 0.97
    assert fidelity["accuracy"]["quantised"]["share"] >= 0.8
    assert (out / "cards_accurate.bin").is_file()


# --- From a run to the files


def run_folder(folder, names, classes=100):
    builder = importlib.import_module("efv2_ros.models.efficientformerv2.builder")
    folder.mkdir()
    tensors = dict(builder.seeded_state("s0", classes=classes).tensors)
    content = safetensors.save(tensors, {"classes": json.dumps(names)})
    (folder / "model.safetensors").write_bytes(content)
    return folder, tensors


def ship(run, models):
    command = [sys.executable, "-m", "examples.cards.ship", str(run), str(models)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_run_becomes_the_files(tmp_path):
    run, tensors = run_folder(tmp_path / "run", [each.folder for each in CLASSES])
    (tmp_path / "labels").mkdir()
    done = ship(run, tmp_path)
    assert done.returncode == 0, done.stderr
    made = safetensors.load((tmp_path / "efficientformerv2_s0_cards.safetensors").read_bytes())
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(made[name], tensor.astype(np.float16))
    for name in ("cards.json", "cards_cn.json"):
        shipped = ROOT / "models/labels" / name
        assert (tmp_path / "labels" / name).read_bytes() == shipped.read_bytes()


@pytest.mark.parametrize(
    ("names", "classes"), [(["cat", "dog"], 2), ([str(n) for n in range(100)], 100)]
)
def test_another_run_is_refused(tmp_path, names, classes):
    run, _ = run_folder(tmp_path / "run", names, classes)
    done = ship(run, tmp_path)
    assert done.returncode == 2
    assert "not a run of the 100 cards" in done.stderr
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_folder_without_weights_is_refused(tmp_path):
    done = ship(tmp_path, tmp_path)
    assert done.returncode == 2
    assert "model.safetensors" in done.stderr
    assert "Traceback" not in done.stderr
