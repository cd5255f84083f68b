"""300 images in each storage and encoding: twice the same offline, and live as offline."""

import io
from fractions import Fraction

import cv2
import pytest
from bag_maker import STORAGES, picture
from tiny_models import projection

from efv2_ros.classifier import Classifier, ModelRequest, load_model
from efv2_ros.replay import offline
from efv2_ros.replay.bags import Bag
from efv2_ros.replay.demo_bag import DemoCamera, record
from efv2_ros.replay.run import write_jsonl
from efv2_ros.vision.encode import ENCODERS, FILE_SUFFIXES

FRAMES = 300
RATE = Fraction(30)
CAMERAS = {
    **{name: DemoCamera(name, rate=RATE) for name in (*ENCODERS, *FILE_SUFFIXES)},
    "hbmem_480p": DemoCamera("nv12", "480p", rate=RATE),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(FRAMES):
        cv2.imwrite(str(folder / f"{number:03}.png"), picture(number, 48, 64))
    return folder


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    return projection(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="module")
def classifier(model_file):
    request = ModelRequest(model_path=str(model_file), threads=1, slots=2)
    model = load_model(request, spare_slots=offline.SPARE_SLOTS)
    yield Classifier(model)
    model.close()


def replay(path, classifier, slots):
    with Bag(path) as bag:
        run = offline.replay(bag, bag.image_topic(), classifier, slots=slots)
        assert bag.problems == []
    text = io.StringIO()
    write_jsonl(run, text)
    return run, text.getvalue()


@pytest.mark.parametrize(
    ("camera", "storage", "compression"),
    [
        *((camera, storage, "none") for camera in CAMERAS for storage in ("mcap", "sqlite3")),
        *(("bgr8", *storage) for storage in STORAGES if storage[1] != "none"),
    ],
)
def test_offline_twice(tmp_path, photos, classifier, camera, storage, compression):
    made = record(
        tmp_path / "bag", [photos], CAMERAS[camera], storage=storage, compression=compression
    )
    assert made.frames == FRAMES
    run, text = replay(tmp_path / "bag", classifier, slots=1)
    start = CAMERAS[camera].start
    assert [frame.header.nanoseconds for frame in run.frames] == [
        start + round(number * 10**9 / RATE) for number in range(FRAMES)
    ]
    assert run.drops() == {}
    assert len({frame.prediction for frame in run.frames}) == FRAMES
    assert replay(tmp_path / "bag", classifier, slots=2)[1] == text
