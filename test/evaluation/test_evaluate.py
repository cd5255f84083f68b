"""`efv2 evaluate`: the right figures, over any number of interruptions."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import standins
from click.testing import CliRunner
from dispositions import SIGINT_DEFAULT, SIGINT_IGNORED
from onnx import numpy_helper
from tiny_models import fails_on_bright, projection, save

from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import ModelRequest
from efv2_ros.cli.main import main
from efv2_ros.evaluation.checkpoint import Answer, Checkpoint, FileVersion
from efv2_ros.evaluation.classes import EvaluationError
from efv2_ros.evaluation.dataset import Dataset, Image
from efv2_ros.evaluation.evaluation import Evaluation, open_evaluation
from efv2_ros.evaluation.inputs import load_models, second_request
from efv2_ros.evaluation.statistics import mcnemar, paired_difference, wilson
from efv2_ros.evaluation.summary import summarize
from efv2_ros.models.catalog import IMAGENET_MEAN, IMAGENET_SCALE

SUPPORT = Path(__file__).parents[1] / "support"
CLASSES = 20


@pytest.fixture
def run(monkeypatch):
    """Run `efv2 evaluate` with these arguments."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments, status=0):
        result = CliRunner().invoke(main, ["evaluate", *map(str, arguments)])
        assert result.exit_code == status, result.output
        assert "Traceback" not in result.output
        return result

    return run


@pytest.fixture
def report(run):
    """Run `efv2 evaluate` and return its JSON."""
    return lambda *arguments, **status: json.loads(run(*arguments, "--json", "-", **status).stdout)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return projection(tmp_path_factory.mktemp("model") / "model.onnx", classes=CLASSES)


def blocks(random):
    """A colour for each block of 32x32 pixels: RGB, uint8, (7, 7, 3)."""
    return random.randint(60, 196, (7, 7, 3)).astype(np.uint8)


def picture(colours, random):
    """224x224 BGR with noise in every block, which leaves the block's mean as it is."""
    half = random.randint(-20, 21, (7, 32, 7, 16, 3))
    noise = np.concatenate([half, -half], axis=3).reshape(224, 224, 3)
    return (np.kron(colours[..., ::-1], np.ones((32, 32, 1))) + noise).astype(np.uint8)


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def ranking(model, colours):
    """The classes, best first, for these blocks; None if two of the best six are close."""
    (weights,) = onnx.load(model).graph.initializer
    features = (colours - np.array(IMAGENET_MEAN)) * IMAGENET_SCALE
    logits = features.transpose(2, 0, 1).reshape(-1) @ numpy_helper.to_array(weights)
    order = np.argsort(-logits)
    return order if np.diff(logits[order[:6]]).max() < -0.15 else None


@pytest.fixture(scope="module")
def photos200(tmp_path_factory, model):
    """200 images in folders by class index, two thirds of them of the model's first choice."""
    folder, random = tmp_path_factory.mktemp("photos200"), np.random.RandomState(1)
    count = 0
    while count < 200:
        colours = blocks(random)
        if ranking(model, colours) is None:
            continue
        path = folder / ("image.png" if count % 2 else "image.JPEG")
        decoded = cv2.imread(str(write(path, picture(colours, random))))
        order = ranking(model, decoded[..., ::-1].reshape(7, 32, 7, 32, 3).mean((1, 3)))
        if order is None:
            path.unlink()
            continue
        place = random.choice([0, random.randint(1, 5), random.randint(5, CLASSES)],
                              p=[0.65, 0.2, 0.15])  # fmt: skip
        target = folder / f"{order[place]:02}/{count:03}{path.suffix}"
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
        count += 1
    return folder


@pytest.fixture(scope="module")
def twelve(tmp_path_factory, model):
    """Four images of each of three classes, of which 3 and 4 are the model's first choice."""
    folder = tmp_path_factory.mktemp("twelve")
    random = np.random.RandomState(2)
    wanted = {4: 4, 7: 4, 9: 4}
    while any(wanted.values()):
        colours = blocks(random)
        order = ranking(model, colours)
        if order is None:
            continue
        for class_id, left in wanted.items():
            if left and class_id == order[0 if left > 2 else 1]:
                write(folder / f"{class_id}/{left}.png", picture(colours, random))
                wanted[class_id] -= 1
                break
    return folder


@pytest.fixture
def few(tmp_path, twelve):
    """Twelve images of a test's own."""
    return shutil.copytree(twelve, tmp_path / "few")


def checkpoints():
    return list(Path(os.environ["XDG_CACHE_HOME"]).glob("efv2_ros/evaluations/*.jsonl"))


# Accuracy


def test_the_same_accuracy_as_a_script_that_shares_no_code(report, model, photos200):
    script = subprocess.run(
        [sys.executable, SUPPORT / "independent_accuracy.py", photos200, model],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    expected = [json.loads(line) for line in script.stdout.splitlines()]
    assert len(expected) == 200
    assert min(each["margin"] for each in expected) > 0.1  # none is left to rounding
    found = report(photos200, "--model", model, "--fit", "stretch")
    answers = {str(photos200 / each["file"]): each for each in found["answers"]}
    top1 = top5 = 0
    for each in expected:
        class_id = int(Path(each["file"]).parent.name)
        assert answers[each["file"]]["best"] == [each["top5"]]
        assert answers[each["file"]]["class_id"] == class_id
        top1 += each["top5"][0] == class_id
        top5 += class_id in each["top5"]
    assert 100 < top1 < 160 < top5 < 190
    assert found["images"] == len(answers) == 200
    (figures,) = found["models"]
    for key, right in (("top1", top1), ("top5", top5)):
        assert figures[key]["right"] == right
        assert figures[key]["images"] == 200
        assert figures[key]["percent"] == right / 2
        assert figures[key]["interval_percent"] == [100 * each for each in wilson(right, 200)]
    assert not checkpoints()


def test_what_is_said_of_each_class(report, run, model, few):
    found = report(few, "--model", model, "--fit", "stretch")
    (figures,) = found["models"]
    assert [(each["class_id"], each["right"], each["images"]) for each in figures["by_class"]] == [
        (4, 2, 4), (7, 2, 4), (9, 2, 4),
    ]  # fmt: skip
    assert figures["by_class"][0]["label"] == "class 4"
    assert figures["mean_of_classes_percent"] == figures["top1"]["percent"] == 50
    assert figures["top5"]["right"] == 12
    wrong = [
        (each["class_id"], each["best"][0][0])
        for each in found["answers"]
        if each["class_id"] != each["best"][0][0]
    ]
    counted = {
        (each["class_id"], each["taken_for"]): each["images"] for each in figures["confusions"]
    }
    assert counted == {pair: wrong.count(pair) for pair in wrong}
    assert list(counted.values()) == sorted(counted.values(), reverse=True)
    assert figures["published_top1_percent"] is None
    shown = run(few, "--model", model, "--fit", "stretch").stdout
    assert "12 images of 3 classes" in shown
    assert "50.00 (25.38 to 74.62)" in shown
    assert shown.count("50.00 (15.00 to 85.00)") == 3


def test_classes_of_different_size_have_a_mean_of_their_own(report, run, model, few):
    for left in (1, 2):
        (few / f"4/{left}.png").unlink()  # the wrong ones
    (figures,) = report(few, "--model", model, "--fit", "stretch")["models"]
    assert figures["top1"]["percent"] == 60
    assert figures["mean_of_classes_percent"] == pytest.approx(200 / 3)
    shown = run(few, "--model", model, "--fit", "stretch").stdout
    assert "66.67" in shown
    assert "classes, lowest top-1 first" in shown
    assert shown.index("class 7") < shown.index("class 4")


def test_published_figures_stand_beside(report, run, tmp_path, few):
    catalogued = projection(tmp_path / "efficientformerv2_s0_deploy.onnx")
    (figures,) = report(few, "--model", catalogued)["models"]
    assert figures["published_top1_percent"] == 74.25
    shown = run(few, "--model", catalogued).stdout
    assert "published" in shown
    assert "74.25" in shown
    result = run(few, "--untrained")
    assert "74.25" not in result.stdout
    assert "chance, 0.1 %" in result.stderr


def test_labels_name_the_folders(report, tmp_path, model, few):
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps([[f"n{n:08}", f"thing {n}"] for n in range(CLASSES)]))
    (few / "4").rename(few / "thing_4")
    (few / "7").rename(few / "n00000007")
    (figures,) = report(few, "--model", model, "--labels", labels)["models"]
    assert [each["label"] for each in figures["by_class"]] == ["thing 4", "thing 7", "thing 9"]


def test_a_label_file_and_images_of_unknown_class(report, run, tmp_path, model, few):
    truth = tmp_path / "truth.csv"
    truth.write_text("file,class_index\n4/1.png,4\n9/2.png,9\ngone.png,1\n")
    result = run(few, "--truth", truth, "--model", model)
    assert "2 images of 2 classes" in result.stdout
    stderr = " ".join(result.stderr.split())
    assert (
        "class is not known: 10 of the folder's images (4/2.png, 4/3.png, 4/4.png, ...)" in stderr
    )
    assert "not in the folder: 1 (gone.png)" in stderr
    found = report(few, "--truth", truth, "--model", model)
    assert len(found["unknown"]) == 10
    assert found["unused"] == ["gone.png"]
    assert found["settings"]["truth"][0] == str(truth)


def test_a_part_of_the_images(report, model, photos200):
    found = report(photos200, "--model", model, "--limit", 40)
    assert found["images"] == 40
    by_class = found["models"][0]["by_class"]
    assert len(by_class) == CLASSES
    assert {each["images"] for each in by_class} == {2}
    everything = report(photos200, "--model", model)
    assert all(each in everything["answers"] for each in found["answers"])


def test_json_in_a_file_stands_beside_the_tables(run, tmp_path, model, few):
    target = tmp_path / "report.json"
    target.write_text("before")
    os.link(target, tmp_path / "link")
    assert "top-1" in run(few, "--model", model, "--json", target).stdout
    assert json.loads(target.read_text())["images"] == 12
    assert (tmp_path / "link").read_text() == "before"  # written beside it, then renamed
    result = run(few, "--model", model, "--json", tmp_path / "none/report.json", status=1)
    assert "cannot write" in result.stderr
    assert result.stdout == ""  # said before the work, not after it


def test_fit_and_antialias_count(report, model, tmp_path):
    wide = np.zeros((448, 1344, 3), np.uint8)
    wide[:, ::2] = 255  # fine detail
    wide[:, :448] = (255, 0, 0)
    write(tmp_path / "wide/0/a.png", wide)
    answers = {
        tuple(arguments): report(
            tmp_path / "wide", "--model", model, "--compare-model",
            projection(tmp_path / "other.onnx", CLASSES, seed=5), *arguments,
        )["answers"][0]["cosine"]
        for arguments in (["--fit", "crop"], ["--fit", "stretch"], ["--fit", "letterbox"],
                          ["--no-antialias"])
    }  # fmt: skip
    assert len(set(answers.values())) == 4


def test_labels_and_names_are_printed_as_they_are(run, tmp_path, model, few):
    labels = tmp_path / "labels.json"
    names = ["[/] shut", "[background]", "a :cat: b", "back\\slash\\"]
    labels.write_text(json.dumps([names[n % 4] + f" {n}" for n in range(CLASSES)]))
    folder = few.rename(tmp_path / "[red]:cat:")
    write(folder / ":dog:[/red].png", np.zeros((8, 8, 3), np.uint8))
    result = run(folder, "--model", model, "--labels", labels, "--fit", "stretch")
    for text in ("[/] shut 4", "back\\slash\\ 7", "[background] 9", "[red]:cat:"):
        assert text in result.stdout, text
    assert ":dog:[/red].png" in result.stderr
    (folder / "4/:cat:[a].png").write_bytes(b"no image")
    result = run(folder, "--model", model, "--labels", labels, "--fit", "stretch", status=1)
    assert "4/:cat:[a].png" in result.stderr


def test_a_name_in_no_encoding_is_printed(run, tmp_path, model, few):
    folder = few.rename(tmp_path / os.fsdecode(b"\xff"))
    assert "12 images of 3 classes in " in run(folder, "--model", model).stdout


@pytest.mark.parametrize("what", ["image", "truth", "model", "labels"])
def test_json_does_not_overwrite_what_is_read(run, tmp_path, model, few, what):
    own = shutil.copy(model, tmp_path / "own.onnx")
    truth, labels = tmp_path / "truth.json", tmp_path / "labels.txt"
    truth.write_text(json.dumps({"4/1.png": 4}))
    labels.write_text("".join(f"thing {n}\n" for n in range(CLASSES)))
    target = {"image": few / "4/1.png", "truth": truth, "model": own, "labels": labels}[what]
    before = target.read_bytes()
    (tmp_path / "link").symlink_to(target)
    for name in [target] if what == "image" else [target, tmp_path / "link"]:
        result = run(few, "--truth", truth, "--model", own, "--labels", labels,
                     "--json", name, status=1)  # fmt: skip
        assert "would overwrite" in result.stderr
        assert result.stdout == ""
    assert target.read_bytes() == before


def test_without_scipy_nothing_is_begun(run, tmp_path, monkeypatch, few):
    for name in ("scipy", "scipy.stats"):
        monkeypatch.setitem(sys.modules, name, None)
    stderr = " ".join(run(few, "--model", tmp_path / "none.onnx", status=1).stderr.split())
    assert "an evaluation needs SciPy" in stderr
    assert "python3-scipy" in stderr


def test_lists_in_the_help_are_lists(run):
    lines = [line.strip() for line in run("--help").stdout.splitlines()]
    assert "a WordNet id in its own name: n01440764_tench.JPEG" in lines
    assert '.json  {"NAME": CLASS, ...}' in lines


def test_names_that_no_file_can_have(run, tmp_path, model, few):
    assert "there is no folder" in run("x" * 5000, "--model", model, status=1).stderr
    assert "cannot write" in run(few, "--model", model, "--json", "x" * 5000, status=1).stderr


# From Python


def test_an_evaluation_from_python(model, few):
    request = ModelRequest(model_path=str(model), slots=2)
    answered = []
    with (
        load_models([request]) as models,
        open_evaluation(few, models, limit=6, fit="stretch") as evaluation,
    ):
        assert not evaluation.run(should_stop=lambda: True)
        assert evaluation.answers == {}
        assert evaluation.run(lambda image, answer: answered.append((image, answer)))
        assert [image for image, _ in answered] == list(evaluation.dataset.images)
        assert {image.name: answer for image, answer in answered} == evaluation.answers
        summary = summarize(evaluation)
        assert summary["images"] == len(answered) == 6
    with load_models([request]) as models, open_evaluation(few, models, limit=6) as other:
        assert other.answers == {}  # another fit
    with pytest.raises(EvaluationError, match="another runtime or another model"):
        second_request(request)


def test_an_error_of_the_callback_ends_the_run(model, few):
    def fail(image, answer):
        raise KeyError(image.name)

    with (
        load_models([ModelRequest(model_path=str(model))]) as models,
        open_evaluation(few, models) as evaluation,
        pytest.raises(KeyError, match="png"),
    ):
        evaluation.run(fail)


# Two models


def best_of(folder, model, report):
    return {each["file"]: each["best"][0] for each in report(folder, "--model", model)["answers"]}


def test_two_models_are_compared_image_by_image(report, run, tmp_path, model, photos200):
    (weights,) = (numpy_helper.to_array(each) for each in onnx.load(model).graph.initializer)
    noise = np.random.RandomState(5).standard_normal(weights.shape) * 0.12
    other = projection(tmp_path / "other.onnx", classes=CLASSES)
    graph = onnx.load(other)
    graph.graph.initializer[0].CopyFrom(
        numpy_helper.from_array((weights + noise).astype(np.float32), "weights")
    )
    onnx.save(graph, other)
    found = report(photos200, "--model", model, "--compare-model", other)
    one, two = (best_of(photos200, each, report) for each in (model, other))
    classes = {each["file"]: each["class_id"] for each in found["answers"]}
    for each in found["answers"]:
        assert each["best"] == [one[each["file"]], two[each["file"]]]
    right = [
        {name for name, best in each.items() if best[0] == classes[name]} for each in (one, two)
    ]
    only_first, only_second = len(right[0] - right[1]), len(right[1] - right[0])
    assert only_first > only_second > 0
    for figures, each in zip(found["models"], right, strict=True):
        assert figures["top1"]["right"] == len(each)
        assert sum(row["right"] for row in figures["by_class"]) == len(each)
    compared = found["comparison"]
    assert compared["difference"] == "first minus second"
    assert compared["top1"] == {
        "percent": (only_first - only_second) / 2,
        "interval_percent": [
            100 * each for each in paired_difference(only_first, only_second, 200)
        ],
        "only_first_right": only_first,
        "only_second_right": only_second,
        "mcnemar_p": mcnemar(only_first, only_second),
    }
    top5 = [sum(classes[name] in best for name, best in each.items()) for each in (one, two)]
    assert compared["top5"]["percent"] == (top5[0] - top5[1]) / 2
    same = sum(one[name][0] == two[name][0] for name in one)
    assert 0 < same < 200
    assert compared["same_top1"]["right"] == same
    cosines = {each["file"]: each["cosine"] for each in found["answers"]}
    lowest = min(cosines, key=cosines.get)
    assert compared["cosine"]["min_file"] == lowest != found["answers"][0]["file"]
    assert compared["cosine"]["min"] == min(cosines.values()) < 0.95
    assert compared["cosine"]["mean"] == pytest.approx(np.mean(list(cosines.values())))
    assert [each["file"] for each in found["models"]] == [str(model), str(other)]
    shown = run(photos200, "--model", model, "--compare-model", other).stdout
    assert f"same top-1: {same} of 200 images" in shown
    assert f"of {compared['cosine']['min_file']}" in shown


def test_the_cosine_is_that_of_the_logits(report, tmp_path):
    """Two models whose logits are known: R, G, B and the same turned by 90 degrees about B."""
    random = np.random.RandomState(0)
    turn = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], np.float32)
    nodes = [
        onnx.helper.make_node("GlobalAveragePool", ["data"], ["means"]),
        onnx.helper.make_node("Flatten", ["means"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "matrix"], ["output"]),
    ]
    models = [
        save(tmp_path / f"{name}.onnx", nodes, [1, 3, 224, 224], [1, 3], {"matrix": matrix})
        for name, matrix in (("as-is", np.eye(3, dtype=np.float32)), ("turned", turn))
    ]
    colour = random.randint(50, 200, 3)
    write(tmp_path / "set/0/a.png", np.full((224, 224, 3), colour[::-1], np.uint8))
    found = report(
        tmp_path / "set", "--model", models[0], "--compare-model", models[1], "--mean", "0,0,0",
        "--scale", "1,1,1",
    )  # fmt: skip
    expected = colour[2] ** 2 / (colour**2).sum()  # R and G turn by 90 degrees
    assert found["comparison"]["cosine"]["min"] == pytest.approx(expected, abs=0.01)


BPU = ["--mean", "128,128,128", "--scale", ",".join([str(1 / 128)] * 3)]


@pytest.fixture
def twins(bpu, tmp_path):
    """The stand-in's network for the BPU and for ONNX Runtime, in a folder; and one image."""
    folder = tmp_path / "twins"
    folder.mkdir()
    standins.onnx_model(folder / "efficientformerv2_s0_deploy.onnx")
    standins.bin_model(folder / "EfficientFormerv2_s0_224x224_nv12.bin")
    random = np.random.RandomState(4)
    for number in range(5):
        write(tmp_path / f"set/{number}/x.png", picture(blocks(random), random))
    return folder, tmp_path / "set"


def test_float_and_quantised_are_told_by_the_format(report, run, twins):
    folder, images = twins
    for arguments in (["--runtime", "onnx", "--compare", "libdnn"],
                      ["--runtime", "libdnn", "--compare", "onnx"]):  # fmt: skip
        found = report(images, "--model", folder, *arguments, *BPU)
        assert [each["runtime"] for each in found["models"]] == ["onnx", "libdnn"]
        assert [each["published_top1_percent"] for each in found["models"]] == [74.25, 68.5]
        assert found["comparison"]["difference"] == "float minus quantised"
        assert found["comparison"]["same_top1"]["right"] == 5
        assert found["comparison"]["cosine"]["min"] > 0.99999
        assert found["comparison"]["top1"]["mcnemar_p"] == 1.0
        assert all(each["best"][0] == each["best"][1] for each in found["answers"])
    shown = run(images, "--model", folder, "--runtime", "onnx", "--compare", "libdnn", *BPU).stdout
    for part in ("float minus quantised", "only quantised", "74.25", "68.50"):
        assert part in shown


def test_another_file_brings_its_runtime(report, twins):
    folder, images = twins
    onnx_file, bin_file = sorted(folder.iterdir(), key=lambda each: each.suffix, reverse=True)
    found = report(images, "--model", onnx_file, "--compare-model", bin_file, *BPU)
    assert [each["runtime"] for each in found["models"]] == ["onnx", "libdnn"]
    second = standins.bin_model(folder / "second.bin", classes=1000)
    found = report(
        images, "--model", bin_file, "--runtime", "hbm", "--compare-model", second, *BPU
    )
    assert [each["runtime"] for each in found["models"]] == ["hbm", "hbm"]
    assert found["comparison"]["difference"] == "first minus second"
    found = report(images, "--model", bin_file, "--compare", "hbm", *BPU)
    assert [each["runtime"] for each in found["models"]] == ["libdnn", "hbm"]


def test_what_cannot_be_compared(run, tmp_path, few, model):
    result = run(few, "--model", model, "--compare", "onnx", status=1)
    assert "both models are" in result.stderr
    other = projection(tmp_path / "other.onnx", classes=3)
    result = run(few, "--model", model, "--compare-model", other, status=1)
    assert "20 and 3 classes" in result.stderr
    result = run(few, "--model", model, "--compare", "libdnn", status=1)
    assert "name one with --compare-model" in " ".join(result.stderr.split())


# What goes wrong


def test_images_that_fail_are_counted_and_the_rest_goes_on(report, run, tmp_path, model, few):
    (few / "4/1.png").write_bytes(b"no image")
    whole = (few / "7/1.png").read_bytes()
    (few / "7/1.png").write_bytes(whole[: len(whole) // 2])
    (few / "9/1.png").unlink()
    (few / "9/1.png").symlink_to("nowhere.png")
    result = run(few, "--model", model, "--fit", "stretch", status=1)
    assert "9 images of 3 classes" in result.stdout
    stderr = " ".join(result.stderr.split())
    assert "could not be classified: decode 2, data 1" in stderr
    assert "4/1.png is not an image OpenCV can decode" in stderr
    assert "7/1.png: the compressed image is cut off" in stderr
    assert "9/1.png cannot be read: No such file" in stderr
    # Only what failed is tried again.
    (few / "9/1.png").unlink()
    for broken in ("4/1.png", "7/1.png", "9/1.png"):
        (few / broken).write_bytes(whole)
    result = run(few, "--model", model, "--fit", "stretch")
    assert "Resuming: 9 of 12 images" in result.stderr
    assert not checkpoints()


def test_an_inference_that_fails_is_the_images_alone(report, tmp_path):
    for name, grey in (("a", 50), ("b", 200), ("c", 90)):
        write(tmp_path / f"set/0/{name}.png", np.full((224, 224, 3), grey, np.uint8))
    path = fails_on_bright(tmp_path / "model.onnx")
    found = report(
        tmp_path / "set", "--model", path, "--mean", "0,0,0", "--scale", "1,1,1", status=1
    )
    assert found["images"] == 2
    assert [(each["file"], each["cause"]) for each in found["failed"]] == [
        ("0/b.png", "inference")
    ]


@pytest.mark.parametrize("stage", ["prepare", "work"])
def test_slots_are_free_again_when_one_of_two_models_fails(tmp_path, stage):
    image = write(tmp_path / "a.png", np.full((224, 224, 3), 200, np.uint8))
    images = [Image(f"{n}", image, 0) for n in range(20)]
    paths = [fails_on_bright(tmp_path / "one.onnx"), fails_on_bright(tmp_path / "two.onnx")]
    request = ModelRequest(mean=(0.0,) * 3, scale=(1.0,) * 3)
    models = [load_model(replace(request, model_path=str(each))) for each in paths]
    if stage == "prepare":
        models[1].close()
    evaluation = Evaluation(
        Dataset(tmp_path, tuple(images)), [Classifier(each) for each in models], Checkpoint({})
    )
    user = threading.Thread(target=evaluation.run, daemon=True)
    user.start()
    user.join(30)
    assert not user.is_alive()
    assert [each.cause for each in evaluation.failures] == ["inference"] * 20


def test_logits_that_are_not_finite_are_a_failure(report, tmp_path):
    write(tmp_path / "set/0/a.png", np.full((224, 224, 3), 50, np.uint8))
    nodes = [
        onnx.helper.make_node("GlobalAveragePool", ["data"], ["means"]),
        onnx.helper.make_node("Flatten", ["means"], ["flat"]),
        onnx.helper.make_node("Sqrt", ["flat"], ["output"]),
    ]
    path = save(tmp_path / "model.onnx", nodes, [1, 3, 224, 224], [1, 3])
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path / "set"), "--model", str(path)])
    assert result.exit_code == 1
    assert "inference 1" in result.stderr
    assert "not finite" in result.stderr
    assert "none of the 1 images could be classified" in result.stderr


def test_a_bpu_that_is_lost_ends_the_run_which_can_go_on(bpu, run, twins):
    folder, images = twins
    arguments = [images, "--model", folder, "--runtime", "libdnn", "--slots", 1,
                 "--infer-timeout", 0.05, *BPU]  # fmt: skip
    bpu.set(dead_at=3)
    result = run(*arguments, status=1)
    assert "The same command resumes" in " ".join(result.stderr.split())
    bpu.reset()
    assert "Resuming: " in run(*arguments).stderr


def test_errors_before_the_first_image(run, tmp_path, model, few):
    assert "there is no folder" in run(tmp_path / "none", "--model", model, status=1).stderr
    (tmp_path / "empty").mkdir()
    assert "no images in" in run(tmp_path / "empty", "--model", model, status=1).stderr
    (few / "4").rename(few / str(CLASSES))
    result = run(few, "--model", model, status=1)
    assert "the folder 20: class index 20 is none of the model's 20 classes" in " ".join(
        result.stderr.split()
    )
    numbers = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    numbers.write_text("490\n361\n")
    assert "bare numbers" in run(few, "--truth", numbers, "--model", model, status=1).stderr


def test_a_cache_that_cannot_be_written_is_said(run, tmp_path, monkeypatch, model, few):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "set XDG_CACHE_HOME" in " ".join(run(few, "--model", model, status=1).stderr.split())


# Interruptions


@pytest.fixture
def begun(twins, tmp_path):
    """`begun(disposition)` starts a slow evaluation and waits until three images are done."""
    folder, images = twins
    random = np.random.RandomState(6)
    for number in range(5, 60):
        write(images / f"{number % 9}/{number}.png", picture(blocks(random), random))
    command = [str(images), "--model", str(folder), "--runtime", "libdnn", *BPU]

    def begun(disposition=SIGINT_DEFAULT):
        process = subprocess.Popen(
            [*disposition, sys.executable, "-m", "efv2_ros.cli", "evaluate", *command],
            env=standins.environment(duration_us=100_000), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        end = time.monotonic() + 60
        while not any(each.read_bytes().count(b"\n") > 3 for each in checkpoints()):
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.005)
        return process, command

    return begun


@pytest.fixture
def interrupted(begun):
    """`interrupted(signal)` runs a slow evaluation and ends it when three images are done."""

    def interrupted(signal_number):
        process, command = begun()
        process.send_signal(signal_number)
        stdout, stderr = process.communicate(timeout=60)
        assert stdout == ""
        (checkpoint,) = checkpoints()
        done = [json.loads(each)["file"] for each in checkpoint.read_text().splitlines()[1:]]
        return process.returncode, stderr, command, [Path(command[0]) / each for each in done]

    return interrupted


def overwrite(path):
    """Other contents for a file that looks unchanged."""
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_the_same_command_again(interrupted, run, report, number):
    status, stderr, command, done = interrupted(number)
    assert status == 130
    assert f"Stopped: {len(done)} of 60 images have answers. The same command resumes" in " ".join(
        stderr.split()
    )
    assert 3 <= len(done) < 50
    whole = report(*command, "--limit", 1000)  # another command: from the start
    for path in done:
        overwrite(path)  # whoever reads it again fails
    result = run(*command, "--json", "-")
    assert f"Resuming: {len(done)} of 60" in result.stderr
    found = json.loads(result.stdout)
    for each in ("images", "models", "answers", "failed"):
        assert found[each] == whole[each]
    assert not checkpoints()


def test_ctrl_c_does_not_reach_a_job_in_the_background(begun):
    process, _ = begun(SIGINT_IGNORED)  # as a shell script starts `efv2 evaluate ... &`
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "60 images" in stdout
    assert not checkpoints()


def test_a_kill_and_an_image_that_changed_meanwhile(interrupted, report, run):
    status, _, command, done = interrupted(signal.SIGKILL)
    assert status == -signal.SIGKILL
    other = next(each for each in done[0].parents[1].rglob("*.png") if each not in done)
    done[0].write_bytes(other.read_bytes())
    found = {each["file"]: each["best"] for each in report(*command)["answers"]}
    images = done[0].parents[1]
    assert (
        found[done[0].relative_to(images).as_posix()]
        == found[other.relative_to(images).as_posix()]
    )


def test_a_torn_line_is_done_anew(interrupted, run):
    _, _, command, done = interrupted(signal.SIGKILL)
    (checkpoint,) = checkpoints()
    checkpoint.write_bytes(checkpoint.read_bytes()[:-20] + b"\x00\xff")
    result = run(*command)
    assert f"Resuming: {len(done) - 1} of 60" in result.stderr
    assert "60 images" in result.stdout


def test_a_file_of_anything_else_is_no_checkpoint(interrupted, run):
    _, _, command, _ = interrupted(signal.SIGKILL)
    (checkpoint,) = checkpoints()
    entries = ['{"file": "a.png"}', "[]", '"x"', "7", '{"file": 3, "size": 1}', "[" * 100_000]
    for name in ("0/x.png", "5/5.png"):
        version = FileVersion.of(Path(command[0]) / name)._asdict()
        for best in ([], [[]], [["a"]], 3, [3]):
            entries.append(json.dumps({"file": name, **version, "best": best, "cosine": None}))
    checkpoint.write_text("\n".join(entries))
    result = run(*command)
    assert "Resuming" not in result.stderr
    assert "60 images" in result.stdout


def test_answers_are_kept_at_once_and_after_a_torn_line(tmp_path):
    image = Image("a.png", tmp_path / "a.png", 3)
    answers = {version: Answer(((version, 1),), version / 2) for version in (1, 2)}
    torn = Checkpoint({"some": "settings"})
    torn.add(image, FileVersion(1, 1), answers[1])
    other = Checkpoint({"some": "settings"})  # as another process sees it
    assert other.answer(image, FileVersion(1, 1)) == answers[1]
    assert other.answer(image, FileVersion(1, 2)) is other.answer(image, FileVersion(2, 1)) is None
    torn.path.write_bytes(torn.path.read_bytes()[:-10])
    again = Checkpoint({"some": "settings"})
    assert again.answer(image, FileVersion(1, 1)) is None
    again.add(image, FileVersion(2, 2), answers[2])
    assert Checkpoint({"some": "settings"}).answer(image, FileVersion(2, 2)) == answers[2]
    assert Checkpoint({"some": "other"}).answer(image, FileVersion(2, 2)) is None
    assert Checkpoint({"some": "settings"}, restart=True).answer(image, FileVersion(2, 2)) is None


def test_restart(interrupted, run):
    _, _, command, _ = interrupted(signal.SIGKILL)
    result = run(*command, "--restart")
    assert "Resuming" not in result.stderr
    assert "60 images" in result.stdout
    assert not checkpoints()


def test_another_option_has_another_checkpoint(interrupted, run, tmp_path):
    _, _, command, _ = interrupted(signal.SIGKILL)
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({f"{n % 9}/{n}.png": n % 9 for n in range(5, 60)}))
    for more in (["--fit", "stretch"], ["--no-antialias"], ["--nv12-range", "limited"],
                 ["--truth", truth], ["--limit", 20], ["--compare", "onnx"],
                 ["--compare", "hbm"]):  # fmt: skip
        assert "Resuming" not in run(*command, *more).stderr
    assert len(checkpoints()) == 1
    assert "Resuming" in run(*command, "--slots", 3).stderr  # the answers are the same
