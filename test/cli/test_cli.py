import json
import platform
from importlib.metadata import PackageNotFoundError

import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from http_server import serving
from tiny_models import mean_colour, projection

import efv2_ros
from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import ModelRequest, ViewOptions
from efv2_ros.cli import doctor
from efv2_ros.cli.main import main
from efv2_ros.pictures.photo import read_photo
from efv2_ros.vision.nv12 import Roi


@pytest.fixture
def run(monkeypatch):
    """Run `efv2` with these arguments."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments, status=0):
        result = CliRunner().invoke(main, [str(each) for each in arguments])
        assert result.exit_code == status, result.output
        return result

    return run


@pytest.fixture
def model(tmp_path):
    return projection(tmp_path / "model.onnx")


def test_json_is_what_the_classifier_says(run, model, photos):
    arguments = ["--fit", "letterbox", "--roi", "10,20,400,250", "--no-antialias", "--top-k", 3]
    reports = json.loads(run("classify", *photos, "--model", model, "--json", *arguments).stdout)
    classifier = Classifier(
        load_model(ModelRequest(model_path=str(model))),
        ViewOptions(fit="letterbox", roi=Roi(10, 20, 400, 250), antialias=False, top_k=3),
    )
    for report, photo in zip(reports, photos, strict=True):
        prediction = classifier.classify(read_photo(photo)).prediction
        assert report["file"] == str(photo)
        assert report["untrained"] is False
        assert [each["class_id"] for each in report["results"]] == list(prediction.class_ids)
        assert [each["score"] for each in report["results"]] == pytest.approx(prediction.scores)
        assert set(report["milliseconds"]) == {"convert", "infer", "postprocess"}


def test_photos_above_the_limit_are_left_out(run, model, photos):
    height, width = cv2.imread(str(photos[0])).shape[:2]
    arguments = ["classify", photos[0], "--model", model, "--max-pixels"]
    run(*arguments, height * width)
    result = run(*arguments, height * width - 1, status=1)
    assert f"declares {width}x{height} pixels" in " ".join(result.stderr.split())


def test_a_table_for_people_and_annotated_photos(run, model, photos, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"thing number {n}" for n in range(1000)))
    out = tmp_path / "out"
    result = run(
        "classify", photos[0].parent, "--model", model, "--labels", labels, "--annotate", out
    )
    assert result.stdout.count("thing number") == 5 * len(photos)
    for photo in photos:
        before, after = cv2.imread(str(photo)), cv2.imread(str(out / photo.name))
        assert before.shape == after.shape
        assert np.abs(before.astype(int) - after).max() > 100


def test_a_model_of_ones_own(run, photos, tmp_path):
    path = mean_colour(tmp_path / "mean.onnx", height=64, width=96)
    (report,) = json.loads(
        run(
            "classify", photos[0], "--model", path, "--mean", "0,0,0", "--scale", "1,1,1", "--json"
        ).stdout
    )
    bgr = cv2.imread(str(photos[0])).reshape(-1, 3).mean(axis=0)
    assert report["results"][0]["class_id"] == int(np.argmax(bgr[::-1]))
    assert report["results"][0]["label"].startswith("class ")


def test_untrained_is_said_with_every_label(run, photos):
    result = run("classify", photos[0], "--untrained")
    assert result.stdout.count("(untrained)") == 5 + 1  # the labels and the model's name
    assert "mean nothing" in " ".join(result.stderr.split())
    (report,) = json.loads(run("classify", photos[0], "--untrained", "--json").stdout)
    assert report["untrained"] is True


def test_errors_are_one_line_with_the_cure(run, photos, model, tmp_path):
    result = run("classify", photos[0], status=1)
    assert "efv2 models fetch s0 --format onnx" in result.stderr
    assert "Traceback" not in result.output
    result = run("classify", tmp_path / "absent.jpg", "--model", model, status=1)
    assert "absent.jpg" in result.stderr
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a photo")
    result = run("classify", broken, photos[0], "--model", model, "--json", status=1)
    assert "broken.jpg" in result.stderr
    assert len(json.loads(result.stdout)) == 1  # the good one is classified all the same
    result = run("classify", photos[0], "--model", model, "--annotate", "x.nothing", status=1)
    assert "x.nothing" in result.stderr
    for roi in ("1,2", "0,0,0,5", "-1,0,5,5"):
        assert "roi" in run("classify", photos[0], "--roi", roi, status=2).stderr


def test_models_are_listed_fetched_and_verified(run, tmp_path, model, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with serving() as server:
        server.behaviour.content = model.read_bytes()
        catalog = tmp_path / "catalog.yaml"
        entry = {
            "input": {"height": 224, "width": 224},
            "classes": 1000,
            "files": {"onnx": server.url("mine.onnx")},
        }
        catalog.write_text(yaml.safe_dump({"models": {"mine": entry}}))
        assert "not here" in run("models", "list", "--catalog", catalog).stdout
        assert "fetched" in run("models", "fetch", "mine", "--catalog", catalog).stdout
        assert "already here" in run("models", "fetch", "mine", "--catalog", catalog).stdout
        assert "good" in run("models", "verify", "--catalog", catalog).stdout
        cached = next((tmp_path / "cache").rglob("mine.onnx"))
        cached.write_bytes(cached.read_bytes()[:-1])
        assert "bad" in run("models", "verify", "--catalog", catalog, status=1).stdout
        assert "fetched" in run("models", "fetch", "mine", "--catalog", catalog).stdout
        server.behaviour.content = b"<html>moved</html>"
        result = run("models", "fetch", "mine", "--catalog", catalog, "--update", status=1)
        assert "web page" in result.stderr
        assert "good" in run("models", "verify", "--catalog", catalog).stdout
    assert "s9" in run("models", "fetch", "s9", status=1).stderr


def test_a_network_is_built_from_seeded_weights(run, tmp_path, photos):
    path = tmp_path / "s0.onnx"
    run("models", "build", "s0", path, "--seed", 3)
    (report,) = json.loads(run("classify", photos[0], "--model", path, "--json").stdout)
    assert report["untrained"] is True
    result = run("models", "build", "s0", path, "--weights", path, status=1)
    assert "s0.onnx" in result.stderr


def test_doctor_as_json(run, tmp_path, monkeypatch):
    monkeypatch.setenv("ROS_DISTRO", "somewhere")
    found = json.loads(run("doctor", "--json").stdout)
    assert set(found) == {"efv2_ros", "platform", "ros", "versions", "findings"}
    assert found["efv2_ros"] == efv2_ros.__version__
    assert found["platform"]["machine"] == platform.machine()
    assert found["platform"]["bpu"] is False
    assert found["ros"]["distro"] == "somewhere"
    versions = found["versions"]
    assert versions["python"] == platform.python_version()
    assert versions["numpy"] == np.__version__
    assert versions["opencv"].startswith(cv2.__version__)
    assert versions["onnxruntime"] == pytest.importorskip("onnxruntime").__version__
    by_subject = {each.pop("subject"): each for each in found["findings"]}
    assert by_subject["Python"]["verdict"] == "ok"
    missing = by_subject["model s0 .onnx"]
    assert missing == {
        "verdict": "missing", "detail": "not on this machine",
        "fix": "efv2 models fetch s0 --format onnx",
    }  # fmt: skip
    # The same as for people, line by line.
    shown = " ".join(run("doctor").stdout.split())
    for subject, each in by_subject.items():
        assert subject in shown
        assert each["detail"] in shown


def test_doctor_asks_libraries_that_pip_does_not_know(run, monkeypatch):
    def unknown(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("efv2_ros.cli.doctor.version", unknown)
    versions = json.loads(run("doctor", "--json").stdout)["versions"]
    assert (versions["numpy"], versions["opencv"]) == (np.__version__, cv2.__version__)
    assert versions["rosbags"] is None


def test_doctor_survives_a_cache_that_cannot_be_read(run, tmp_path, monkeypatch):
    folder = tmp_path / "cache/efv2_ros"
    folder.parent.mkdir(exist_ok=True)
    folder.symlink_to(folder)  # a loop
    found = json.loads(run("doctor", "--json").stdout)["findings"]
    assert [each["verdict"] for each in found if each["subject"].startswith("model")]


@pytest.mark.parametrize("on_board", [False, True])
def test_doctor_tells_which_topics_for_viewers_there_are_not(monkeypatch, on_board):
    """That TROS's messages are missing is of interest on a board only."""
    gone = {"ai_msgs.msg"}

    def run_python(code):
        return None if code.removeprefix("import ") in gone else ""

    monkeypatch.setattr("efv2_ros.cli.doctor._run_python", run_python)
    monkeypatch.setattr("efv2_ros.runtimes.board.has_bpu", lambda: on_board)
    found = {each.subject: each for each in doctor.examine()}
    assert "foxglove_msgs" not in found
    assert ("ai_msgs" in found) == on_board
    gone.add("foxglove_msgs.msg")
    found = {each.subject: each for each in doctor.examine()}
    assert found["foxglove_msgs"].verdict == "info"
    assert "no ~/annotations" in found["foxglove_msgs"].detail
    assert "foxglove-msgs" in found["foxglove_msgs"].fix


def test_doctor_names_what_is_missing_and_the_cure(run):
    shown = run("doctor").stdout
    assert "ONNX Runtime" in shown
    assert "efv2 models fetch s0 --format onnx" in shown
