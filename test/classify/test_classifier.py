import dataclasses
import threading

import cv2
import numpy as np
import pytest
import yaml
from bin_files import bin_file
from http_server import serving
from tiny_models import mean_colour, projection

from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.engine import Engine
from efv2_ros.classify.model import Model, check_request, find_model, load_model
from efv2_ros.classify.options import ONLY_CAMERA, ModelRequest, ViewOptions
from efv2_ros.classify.postprocess import TopK
from efv2_ros.classify.smoothing import smoother
from efv2_ros.errors import Efv2Error
from efv2_ros.models.catalog import Catalog, CatalogError
from efv2_ros.models.download import DownloadStoppedError
from efv2_ros.models.labels import LabelsError
from efv2_ros.models.modelfile import ModelError
from efv2_ros.pictures.photo import find_photos, read_photo
from efv2_ros.resources import share_path
from efv2_ros.runtimes.base import (
    InferenceError,
    ModelLoadError,
    RuntimeKind,
    RuntimeUnavailableError,
)
from efv2_ros.vision.frame import Frame, FrameError, Header
from efv2_ros.vision.nv12 import Nv12Converter, Roi

pytestmark = pytest.mark.numpy2

VIEWS = {ONLY_CAMERA: ViewOptions()}


def picture(seed=0, height=48, width=64):
    data = np.random.RandomState(seed).randint(0, 256, height * width * 3, np.uint8)
    return Frame(Header(), "bgr8", data, height, width, 3 * width)


def request(path, **fields):
    return ModelRequest(model_path=str(path), **fields)


def test_a_prediction_is_softmax_of_the_runtime_on_the_converted_frame(tmp_path):
    model = load_model(request(projection(tmp_path / "m.onnx")))
    result = Classifier(model, ViewOptions(top_k=1000)).classify(picture())
    logits = model.runtime.infer(Nv12Converter().convert(picture())).astype(np.float64)
    softmax = np.exp(logits - logits.max())
    softmax /= softmax.sum()
    assert sorted(result.prediction.class_ids) == list(range(1000))
    np.testing.assert_allclose(
        result.prediction.scores, softmax[list(result.prediction.class_ids)], rtol=1e-4, atol=1e-9
    )
    assert list(result.prediction.scores) == sorted(result.prediction.scores, reverse=True)
    assert min(result.convert, result.infer, result.postprocess) > 0


@pytest.mark.parametrize("smoothing", ["ema", "vote"])
def test_smoothing_makes_a_result_of_the_images_so_far(tmp_path, smoothing):
    model = load_model(request(projection(tmp_path / "m.onnx")))
    options = ViewOptions(top_k=1000, smoothing=smoothing, smoothing_time=1.0)
    classifier, plain = Classifier(model, options), Classifier(model, ViewOptions(top_k=1000))
    frames = [
        dataclasses.replace(picture(seed), header=Header(10, seed * 100_000_000))
        for seed in range(4)
    ]
    smooth = smoother(smoothing, 1.0)
    for frame in frames:
        logits = model.runtime.infer(Nv12Converter().convert(frame))
        expected = TopK(1000, 1000)(smooth(logits, frame.header.nanoseconds))
        assert classifier.classify(frame).prediction == expected
    assert expected != plain.classify(frames[-1]).prediction
    photo = dataclasses.replace(frames[0], header=Header())  # photos have no stamp
    for _ in range(2):
        scores = classifier.classify(photo).prediction.scores
    if smoothing == "ema":
        np.testing.assert_allclose(scores, plain.classify(photo).prediction.scores, rtol=1e-4)


def test_a_model_of_another_size_with_own_mean_scale_and_labels(tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("red\ngreen\nblue\n")
    model = load_model(
        request(
            mean_colour(tmp_path / "m.onnx", height=96, width=64),
            mean=(0.0, 0.0, 0.0),
            scale=(0.1, 0.1, 0.1),
            labels_file=str(labels),
        )
    )
    assert model.image.nv12_shape == (144, 64)
    assert model.labels == ("red", "green", "blue")
    blue = np.tile(np.array([250, 10, 10], np.uint8), 100 * 100)
    result = Classifier(model).classify(Frame(Header(), "bgr8", blue, 100, 100, 300))
    assert model.labels[result.prediction.class_ids[0]] == "blue"
    # Logits 25 and 1: softmax of the best is 1 - 2 exp(-24).
    assert result.prediction.scores[0] == pytest.approx(1.0, abs=1e-6)


def test_labels_come_from_the_catalog_where_the_classes_are_the_same(tmp_path):
    assert load_model(request(projection(tmp_path / "a.onnx"))).labels[1] == "goldfish"
    few = load_model(request(projection(tmp_path / "b.onnx", classes=3)))
    assert few.labels == ("class 0", "class 1", "class 2")


def test_errors_are_meant_for_people(tmp_path):
    good = projection(tmp_path / "good.onnx")
    labels = tmp_path / "labels.txt"
    labels.write_text("one\ntwo\n")
    with pytest.raises(LabelsError, match=r"labels\.txt"):
        load_model(request(good, labels_file=str(labels)))
    with pytest.raises(RuntimeUnavailableError, match="gpu"):
        load_model(request(good, runtime="gpu"))
    with pytest.raises(ModelError, match=r"absent\.onnx"):
        find_model(request(tmp_path / "absent.onnx"))
    with pytest.raises(ModelError, match="s7"):
        find_model(ModelRequest("s7"))
    with pytest.raises(ModelError, match="efv2 models fetch s1"):
        find_model(ModelRequest("s1"))
    folder = tmp_path / "folder"
    folder.mkdir()
    projection(folder / "efficientformerv2_s0_deploy.onnx", height=64, width=64)
    with pytest.raises(ModelLoadError, match="takes"):
        load_model(request(folder))
    for error in (LabelsError, RuntimeUnavailableError, ModelError, ModelLoadError):
        assert issubclass(error, Efv2Error)


def test_threads_share_a_classifier(tmp_path):
    model = load_model(request(projection(tmp_path / "m.onnx"), slots=3))
    classifier = Classifier(model)
    pictures = [picture(seed) for seed in range(4)]
    expected = [classifier.classify(each).prediction for each in pictures]
    assert len(set(expected)) == 4
    wrong = []

    def work(offset):
        for n in range(60):
            index = (n + offset) % 4
            if classifier.classify(pictures[index]).prediction != expected[index]:
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_bad_frame_does_not_cost_the_lane(tmp_path):
    classifier = Classifier(load_model(request(projection(tmp_path / "m.onnx"))))
    bad = dataclasses.replace(picture(), encoding="nothing")
    for _ in range(3):
        with pytest.raises(FrameError):
            classifier.classify(bad)
    assert classifier.classify(picture()).prediction.class_ids


def test_untrained_labels_say_so():
    model = load_model(ModelRequest(allow_untrained=True))
    assert model.file.untrained
    assert "untrained" in model.name
    assert all(label.endswith("(untrained)") for label in model.labels)
    answers = {Classifier(model).classify(picture(seed)).prediction.class_ids for seed in range(3)}
    assert len(answers) > 1


def test_an_engine_changes_options_and_reports_what_cannot_be(tmp_path):
    delivered = []
    wanted = request(projection(tmp_path / "m.onnx"))
    engine = Engine(
        wanted,
        VIEWS,
        lambda item, outcome, waited: delivered.append(outcome),
        policy="all",
    )
    outcomes, changed = [], threading.Event()

    def done(error):
        outcomes.append(error)
        changed.set()

    def change(new_request, options):
        changed.clear()
        engine.change(new_request, {ONLY_CAMERA: options}, done)
        assert changed.wait(30)

    engine.submit(picture())
    assert engine.drain(30)
    model = engine.model
    change(wanted, ViewOptions(top_k=1, roi=Roi(0, 0, 8, 8)))
    assert engine.model is model
    engine.submit(picture())
    change(request(tmp_path / "absent.onnx"), ViewOptions())
    engine.submit(picture())
    assert engine.drain(30)
    engine.close()
    assert [len(each.prediction.class_ids) for each in delivered] == [5, 1, 1]
    assert outcomes[0] is None
    assert isinstance(outcomes[1], ModelError)


def test_the_cameras_of_an_engine_share_its_model_and_keep_what_they_are_told(tmp_path):
    delivered = []
    wanted = request(projection(tmp_path / "m.onnx"), slots=2)
    views = {"left": ViewOptions(top_k=1), "right": ViewOptions(roi=Roi(0, 0, 8, 8))}
    engine = Engine(
        wanted, views, lambda item, outcome, waited: delivered.append((item, outcome)),
        policy="all",
    )  # fmt: skip
    left = engine.classifiers["left"]
    assert left.model is engine.classifiers["right"].model is engine.model

    def both():
        for seed in range(3):
            for camera in engine.classifiers:
                engine.submit(picture(seed), camera)
        assert engine.drain(30)

    both()
    changed = threading.Event()
    views = {"left": views["left"], "back": ViewOptions(top_k=3)}
    engine.change(wanted, views, lambda _: changed.set())
    assert changed.wait(30)
    assert engine.classifiers["left"] is left, "nothing of it changed"
    both()
    model, expected = engine.model, []
    for cameras in ("left", "right"), ("left", "back"):
        for seed in range(3):
            for camera in cameras:
                view = {**views, "right": ViewOptions(roi=Roi(0, 0, 8, 8))}[camera]
                expected.append(
                    (camera, Classifier(model, view).classify(picture(seed)).prediction)
                )
    assert [(item.camera, outcome.prediction) for item, outcome in delivered] == expected
    engine.close()


def test_an_engine_frees_each_model_once_it_is_done_with(tmp_path, monkeypatch):
    closed, close = [], Model.close
    monkeypatch.setattr(Model, "close", lambda self: (closed.append(self), close(self)))
    engine = Engine(request(projection(tmp_path / "a.onnx")), VIEWS, lambda *_: None)
    old, changed = engine.model, threading.Event()
    new_request = request(projection(tmp_path / "b.onnx", seed=1))
    engine.change(new_request, VIEWS, lambda _: changed.set())
    assert changed.wait(30)
    assert closed == [old]
    new = engine.model
    engine.close()
    assert closed == [old, new]


def test_an_engine_has_as_many_workers_as_slots(tmp_path):
    both, outcomes = threading.Barrier(2, timeout=10), []
    engine = Engine(
        request(projection(tmp_path / "m.onnx"), slots=2),
        VIEWS,
        lambda item, outcome, waited: outcomes.append(outcome),
        policy="all",
    )
    runtime = engine.model.runtime
    infer = runtime.infer

    def together(nv12):
        both.wait()
        return infer(nv12)

    runtime.infer = together
    for _ in range(2):
        engine.submit(picture())
    assert engine.drain(30)
    engine.close()
    assert not any(isinstance(each, Exception) for each in outcomes)


@pytest.mark.parametrize(
    "options",
    [
        {"fit": "stretch"},
        {"fit": "letterbox"},
        {"roi": Roi(0, 0, 32, 16)},
        {"input_range": "full"},
        {"antialias": False},
    ],
)
@pytest.mark.parametrize("nv12_range", ["full", "limited"])
def test_every_option_reaches_the_pixels(tmp_path, options, nv12_range):
    model = load_model(request(projection(tmp_path / "m.onnx"), nv12_range=nv12_range))
    data = np.random.RandomState(0).randint(0, 256, 640 * 480 * 3 // 2, np.uint8)
    frame = Frame(Header(), "nv12", data, 480, 640, 640)
    prediction = Classifier(model, ViewOptions(top_k=1000, **options)).classify(frame).prediction
    nv12 = Nv12Converter(nv12_range=nv12_range, **options).convert(frame)
    order = np.argsort(-model.runtime.infer(nv12), kind="stable")
    assert list(prediction.class_ids) == list(order)


@pytest.mark.parametrize("asked", ["auto", "full", "limited"])
@pytest.mark.parametrize(("stated", "compiled"), [("bt601_video;", "limited"), ("", "full")])
def test_the_range_is_the_files_unless_it_is_given(tmp_path, stated, compiled, asked):
    path = tmp_path / "m.bin"
    path.write_bytes(bin_file(settings={"INPUT_SPACE_AND_RANGE": stated}))
    found = find_model(request(path, runtime="libdnn", nv12_range=asked))
    assert found.spec.nv12_range == (compiled if asked == "auto" else asked)


def test_the_threshold_reaches_the_results(tmp_path):
    model = load_model(request(projection(tmp_path / "m.onnx")))
    every = Classifier(model).classify(picture()).prediction.scores
    some = Classifier(model, ViewOptions(score_threshold=every[2])).classify(picture()).prediction
    assert some.scores == every[:3]


@pytest.mark.parametrize("end", ["discard", "work", "fail"])
def test_a_slot_is_free_again_however_its_frame_ends(tmp_path, end):
    model = load_model(request(projection(tmp_path / "m.onnx")))
    classifier = Classifier(model)
    bad = Frame(Header(), "bgr8", np.zeros(9, np.uint8), 3, 3, 9)

    def use():
        for _ in range(model.runtime.slots + 1):
            if end == "fail":
                with pytest.raises(FrameError):
                    classifier.prepare(bad)
            else:
                getattr(classifier, end)(classifier.prepare(picture()))

    user = threading.Thread(target=use, daemon=True)
    user.start()
    user.join(30)
    assert not user.is_alive()


def test_the_stages_are_told_apart(tmp_path, monkeypatch):
    classifier = Classifier(load_model(request(projection(tmp_path / "m.onnx"))))
    clock = iter([0.0, 1.0, 1.5, 10.0, 11.5, 20.0, 24.0])
    monkeypatch.setattr("efv2_ros.classify.classifier.time.perf_counter", clock.__next__)
    result = classifier.classify(picture())
    assert (result.convert, result.infer, result.postprocess) == (1.0, 2.0, 4.0)


def test_photos_of_a_folder(tmp_path, photos):
    for photo in photos:
        (tmp_path / photo.name.upper()).write_bytes(photo.read_bytes())
    (tmp_path / "notes.txt").write_text("no photo")
    assert [each.name for each in find_photos([tmp_path])] == [
        "CAT.JPG",
        "COFFEE.JPG",
        "ROCKET.JPG",
    ]
    with pytest.raises(FrameError, match=r"notes\.txt"):
        read_photo(tmp_path / "notes.txt")
    with pytest.raises(FrameError, match="absent"):
        find_photos([tmp_path / "absent"])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FrameError, match="no photos"):
        find_photos([empty])


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_photo_that_is_cut_off_is_none(tmp_path, photos, suffix):
    whole = cv2.imencode(suffix, cv2.imread(str(photos[0])))[1].tobytes()
    path = tmp_path / f"photo{suffix}"
    path.write_bytes(whole)
    assert read_photo(path).height > 0
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FrameError, match="cut off") as caught:
        read_photo(path)
    assert caught.value.fault == "decode"


def test_a_photo_beyond_opencvs_limits_is_none(tmp_path):
    path = tmp_path / "photo.bmp"
    size = (1 << 16).to_bytes(4, "little")
    path.write_bytes(
        b"BM" + bytes(8) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little") + 2 * size
        + (1).to_bytes(2, "little") + (24).to_bytes(2, "little") + bytes(24)
    )  # fmt: skip
    with pytest.raises(FrameError, match="max_pixels") as caught:
        read_photo(path)
    assert caught.value.fault == "size"
    with pytest.raises(FrameError, match="not an image OpenCV can decode"):
        read_photo(path, max_pixels=1 << 40)


def test_closing_an_engine_gives_up_a_download(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with serving() as server:
        server.behaviour.content = b"\x08\x06" + bytes(4_000_000)
        catalog = tmp_path / "catalog.yaml"
        entry = {
            "input": {"height": 224, "width": 224},
            "classes": 1000,
            "files": {"onnx": server.url("big.onnx")},
        }
        catalog.write_text(yaml.safe_dump({"models": {"big": entry}}))
        arrived, go_on = threading.Event(), threading.Event()

        def progress(done, total):
            arrived.set()
            assert go_on.wait(30)

        engine = Engine(
            request(projection(tmp_path / "m.onnx")),
            VIEWS,
            lambda item, outcome, waited: None,
            on_progress=progress,
        )
        errors = []
        engine.change(
            ModelRequest("big", catalog_file=str(catalog), allow_download=True),
            VIEWS,
            errors.append,
        )
        assert arrived.wait(30)
        closing = threading.Thread(target=engine.close)
        closing.start()
        closing.join(0.1)
        go_on.set()
        closing.join(30)
        assert not closing.is_alive()
    (error,) = errors
    assert isinstance(error, DownloadStoppedError)


def test_a_pipelined_model_has_slots_for_what_is_prepared_ahead(tmp_path):
    wanted = request(projection(tmp_path / "m.onnx"), slots=3)
    with load_model(wanted) as plain, load_model(wanted, pipelined=True) as pipelined:
        assert (plain.runtime.slots, pipelined.runtime.slots) == (3, 7)


def test_a_text_means_a_model_size(tmp_path, monkeypatch):
    projection(tmp_path / "model.onnx")
    catalog_files = Catalog.load()["s1"].files
    monkeypatch.setenv("EFV2_MODEL_DIR", str(tmp_path))
    (tmp_path / "model.onnx").rename(tmp_path / catalog_files["onnx"].filename)
    assert find_model("s1").spec.size == "s1"
    with load_model("s1") as model:
        assert model.request == ModelRequest("s1")
    with pytest.raises(InferenceError, match="closed"):
        model.runtime.slot()
    with pytest.raises(CatalogError, match="s9"):
        load_model("s9")


def test_a_home_folder_is_found_once_and_for_all(tmp_path, monkeypatch):
    """`~/mine.onnx` is a file of the user's own, with as many classes and labels as it has."""
    monkeypatch.setenv("HOME", str(tmp_path))
    projection(tmp_path / "mine.onnx", classes=3, height=96, width=64)
    (tmp_path / "mine.txt").write_text("a\nb\nc")
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump({"models": {}}))
    own = request("~/mine.onnx", labels_file="~/mine.txt", catalog_file="~/catalog.yaml")
    assert find_model(own).spec.name == "mine"
    with load_model(own) as model:
        assert (model.name, model.labels) == ("mine", ("a", "b", "c"))
        assert (model.image.height, model.image.width) == (96, 64)


@pytest.mark.parametrize("field", ["model_path", "labels_file", "catalog_file"])
@pytest.mark.parametrize(
    "path", ["~nouser/m.onnx", "a\0b", "x" * 300, "/dev/null", "/", "/etc/shadow/x"]
)
def test_a_path_that_leads_nowhere_is_an_error_with_a_sentence(tmp_path, field, path):
    wanted = dataclasses.replace(request(projection(tmp_path / "m.onnx")), **{field: path})
    with pytest.raises(Efv2Error):
        load_model(wanted)


@pytest.mark.parametrize(
    "numbers", [{"mean": (float("nan"), 0.0, 0.0)}, {"scale": (1.0, 0.0, 1.0)}]
)
@pytest.mark.parametrize("own", [False, True])
def test_a_model_that_could_not_be_fed_is_not_loaded(tmp_path, numbers, own):
    path = projection(tmp_path / "m.onnx")
    wanted = request(path, **numbers) if own else ModelRequest(**numbers)
    with pytest.raises(ModelError, match=next(iter(numbers))):
        find_model(wanted)


@pytest.mark.parametrize("close", [True, False])
def test_an_engine_ends_a_download_that_stalls(tmp_path, monkeypatch, close):
    monkeypatch.setenv("no_proxy", "*")
    catalog, stop, ended = tmp_path / "catalog.yaml", threading.Event(), threading.Event()
    with serving() as server:
        server.behaviour.content = b"\x08\x06" + bytes(4_000_000)
        server.behaviour.stall_after = [1000]
        entry = {
            "input": {"height": 224, "width": 224},
            "classes": 1000,
            "files": {"onnx": server.url("big.onnx")},
        }
        catalog.write_text(yaml.safe_dump({"models": {"big": entry}}))
        engine = Engine(
            request(projection(tmp_path / "m.onnx")),
            VIEWS,
            lambda item, outcome, waited: None,
            should_stop=stop.is_set,
        )
        errors = []
        engine.change(
            ModelRequest("big", catalog_file=str(catalog), allow_download=True),
            VIEWS,
            lambda error: (errors.append(error), ended.set()),
        )
        assert server.asked.wait(30)
        if not close:
            stop.set()
            assert ended.wait(10)  # of the 30 s for which the server stalls
        closing = threading.Thread(target=engine.close)
        closing.start()
        closing.join(10)
        assert not closing.is_alive()
    (error,) = errors
    assert isinstance(error, DownloadStoppedError)


def test_an_engine_that_is_stopped_while_it_loads_its_first_model(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    catalog = tmp_path / "catalog.yaml"
    with serving() as server:
        server.behaviour.content = bytes(4_000_000)
        server.behaviour.stall_after = [1000]
        entry = {
            "input": {"height": 224, "width": 224},
            "classes": 1000,
            "files": {"onnx": server.url("big.onnx")},
        }
        catalog.write_text(yaml.safe_dump({"models": {"big": entry}}))
        with pytest.raises(DownloadStoppedError):
            Engine(
                ModelRequest("big", catalog_file=str(catalog), allow_download=True),
                VIEWS,
                lambda item, outcome, waited: None,
                should_stop=server.asked.is_set,
            )
        assert not server.release.is_set()


DOWNLOADABLE = {"allow_download": True, "allow_untrained": True}


def test_what_may_be_fetched_or_built_passes_the_check():
    check_request(ModelRequest("s0", **DOWNLOADABLE))
    check_request(ModelRequest("s1", allow_download=True))
    check_request(ModelRequest("s1", allow_untrained=True))
    with pytest.raises(ModelError, match="efv2 models fetch s1"):
        check_request(ModelRequest("s1"))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"model_size": "s9"}, "no model 's9'"),
        ({"model_path": "/absent/m.onnx"}, "is no file"),
        ({"catalog_file": "/absent/c.yaml"}, "cannot be read"),
        ({"labels_file": "/absent/labels.txt"}, "cannot read labels file"),
        ({"labels_file": "{few}"}, "2 names, but the model has 1000"),
        ({"runtime": "gpu"}, "no runtime is named 'gpu'"),
        ({"runtime": "libdnn"}, "libdnn.so"),
        ({"mean": (float("nan"), 0.0, 0.0)}, "mean"),
        ({"model_path": "{text}"}, "not a whole"),
    ],
)
def test_what_no_download_can_fix_fails_the_check(tmp_path, fields, complaint):
    (tmp_path / "few.txt").write_text("a\nb")
    (tmp_path / "text.onnx").write_text("no model")
    files = {"few": tmp_path / "few.txt", "text": tmp_path / "text.onnx"}
    fields = {n: v.format(**files) if isinstance(v, str) else v for n, v in fields.items()}
    with pytest.raises(Efv2Error, match=complaint):
        check_request(ModelRequest(**{**DOWNLOADABLE, **fields}))


def test_the_check_reads_a_file_and_loads_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(RuntimeKind, "open", None)
    (tmp_path / "labels.txt").write_text("a\nb\nc")
    path = projection(tmp_path / "m.onnx", classes=3)
    check_request(request(path, labels_file=str(tmp_path / "labels.txt")))
    with pytest.raises(LabelsError, match="1000 names, but the model has 3"):
        check_request(
            request(path, labels_file=str(share_path("models", "labels", "imagenet1k.json")))
        )
