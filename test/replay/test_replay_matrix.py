"""300 images in each storage and encoding: twice the same offline, and live as offline."""

import io
import os
import subprocess
import sys
from contextlib import ExitStack
from fractions import Fraction

import cv2
import pytest
from bag_maker import STORAGES, picture
from tiny_models import projection

from efv2_ros.bags.bag import Bag
from efv2_ros.bags.demo_bag import DemoCamera, record
from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import ModelRequest
from efv2_ros.pictures.encode import ENCODERS, FILE_SUFFIXES
from efv2_ros.replay import offline
from efv2_ros.replay.results import read_run
from efv2_ros.replay.run import write_jsonl

FRAMES = 300
SOON = 120.0  # seconds: only reached when something is broken
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
    model = load_model(request, pipelined=True)
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


@pytest.fixture(scope="module")
def nodes(ros, model_file):
    """The running classifier for a type of image, by the value of `transport`."""
    from efv2_ros.client.process import ClassifierProcess

    running = {}
    with ExitStack() as stack:

        def node(transport):
            if transport not in running:
                namespace = f"/{transport}_{os.getpid()}"
                parameters = {
                    "model_path": str(model_file), "threads": 1, "transport": transport,
                    "queue_policy": "all", "slots": 2, "diagnostics_period": 0.2,
                }  # fmt: skip
                running[transport] = stack.enter_context(
                    ClassifierProcess(parameters, namespace=namespace)
                )
            return running[transport]

        yield node


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("camera", CAMERAS)
def test_live_as_offline(tmp_path, photos, classifier, nodes, camera, storage):
    bag, demo = tmp_path / "bag", CAMERAS[camera]
    record(bag, [photos], demo, storage=storage)
    expected, _ = replay(bag, classifier, slots=1)
    node = nodes(demo.transport)
    topic = f"{node.name.rpartition('/')[0]}/image"
    command = [
        sys.executable, "-m", "efv2_ros.cli", "play", str(bag), "--classifier", node.name,
        "--remap", f"{demo.topic_name}:={topic}", "--reliable", "--wait-for-results",
        "--in-flight", "4", "--results", str(tmp_path / "live"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=SOON, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{node.stop()}"
    live = read_run(tmp_path / "live")
    assert [frame.header for frame in live.frames] == [frame.header for frame in expected.frames]
    assert [each.prediction for each in live.frames] == [
        each.prediction for each in expected.frames
    ]
    assert len(live.frames) == FRAMES
    assert live.drops() == {}
