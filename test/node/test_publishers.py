from functools import partial

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.serialization import deserialize_message
from tiny_models import projection

from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.latency import END_TO_END, STAGES
from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import ModelRequest
from efv2_ros.classify.postprocess import Prediction
from efv2_ros.node import publishers
from efv2_ros.node.publishers import ModelPublishers, ResultPublishers
from efv2_ros.node.statistics import Statistics
from efv2_ros.node.transports import TransportError
from efv2_ros.pictures.annotate import BgrConverter
from efv2_ros.pictures.photo import read_photo
from efv2_ros.replay import results
from efv2_ros.replay.run import FrameResult
from efv2_ros.vision.frame import Header


@pytest.fixture
def node(ros):
    node = LifecycleNode("test_outputs")
    yield node
    node.destroy_node()


def test_what_ids_mean_comes_before_the_first_result(node, tmp_path, photos, monkeypatch):
    published = []
    monkeypatch.setattr(
        LifecyclePublisher, "publish", lambda self, message: published.append(self.topic_name)
    )
    outputs = ResultPublishers(node, ModelPublishers(node))
    frame = read_photo(photos[0])
    for seed in (0, 1):
        path = projection(tmp_path / f"{seed}.onnx", seed=seed)
        result = Classifier(load_model(ModelRequest(model_path=str(path)))).classify(frame)
        for _ in range(2):
            outputs.publish(frame, result)
    first = ["/test_outputs/label_info", "/test_outputs/vision_info"]
    every = ["/test_outputs/classification"]
    assert published == [*first, *every, *every] * 2


def test_an_announcement_that_fails_is_sent_again(node, tmp_path, photos, monkeypatch):
    published, failures = [], ["label_info", "vision_info"]

    def publish(publisher, message):
        name = publisher.topic_name.rpartition("/")[2]
        if failures and failures[0] == name:
            raise RuntimeError(f"no {failures.pop(0)}")
        published.append(name)

    monkeypatch.setattr(LifecyclePublisher, "publish", publish)
    outputs = ResultPublishers(node, ModelPublishers(node))
    frame = read_photo(photos[0])
    path = projection(tmp_path / "m.onnx")
    result = Classifier(load_model(ModelRequest(model_path=str(path)))).classify(frame)
    for name in list(failures):
        with pytest.raises(RuntimeError, match=name):
            outputs.publish(frame, result)
    assert "classification" not in published  # nobody could read it
    outputs.publish(frame, result)
    outputs.publish(frame, result)
    assert published == ["label_info", "label_info", "vision_info", *["classification"] * 2]
    assert outputs._model._labels_version == 1


def test_where_every_result_matters_more_of_them_are_kept(node):
    few, many = (
        ResultPublishers(node, ModelPublishers(node), every=every)._classification
        for every in (False, True)
    )
    assert (few.qos_profile.depth, many.qos_profile.depth) == (10, 1000)


def test_nothing_is_drawn_while_nobody_looks(node, tmp_path, photos, monkeypatch):
    def draw(*_):
        raise AssertionError("drawn for nobody")

    monkeypatch.setattr(BgrConverter, "__call__", draw)
    frame = read_photo(photos[0])
    path = projection(tmp_path / "m.onnx")
    result = Classifier(load_model(ModelRequest(model_path=str(path)))).classify(frame)
    outputs = ResultPublishers(node, ModelPublishers(node))
    outputs.publish_annotated(frame, result)
    monkeypatch.setattr(LifecyclePublisher, "get_subscription_count", lambda self: 1)
    with pytest.raises(AssertionError, match="nobody"):
        outputs.publish_annotated(frame, result)


def test_latencies_are_published_as_bags_of_results_have_them(ros, monkeypatch):
    published, listeners = [], 0

    def publish(publisher, message):
        published.append((publisher.topic_name, message))

    monkeypatch.setattr(LifecyclePublisher, "publish", publish)
    monkeypatch.setattr(LifecyclePublisher, "get_subscription_count", lambda self: listeners)
    node = LifecycleNode("efv2_classifier")
    outputs, header = ResultPublishers(node, ModelPublishers(node)), Header(12, 34, "camera")
    outputs.publish_latency(header, {"wait": 0.001})
    assert not published  # nobody listens
    listeners = 1
    outputs.publish_latency(header, {"wait": 0.0010004, "end_to_end": 2.0})
    node.destroy_node()
    ((topic, message),) = published
    assert topic == "/efv2_classifier/latency"
    frame = FrameResult(header, milliseconds={"wait": 1.0004, "end_to_end": 2000.0})
    assert message == deserialize_message(results._latency(frame), DiagnosticArray)


def test_every_annotated_image_is_drawn_in_the_same_memory(node, tmp_path, photos, monkeypatch):
    published, memories = [], []

    def publish(_, message):
        published.append((message.header.frame_id, message.width, message.data.tobytes()))
        memories.append(message.data)

    monkeypatch.setattr(LifecyclePublisher, "publish", publish)
    monkeypatch.setattr(LifecyclePublisher, "get_subscription_count", lambda self: 1)
    outputs = ResultPublishers(node, ModelPublishers(node))
    path = projection(tmp_path / "m.onnx")
    classifier = Classifier(load_model(ModelRequest(model_path=str(path))))
    frames = [read_photo(photo) for photo in photos]
    frames = [frames[0], frames[0], *frames]
    for frame in frames:
        outputs.publish_annotated(frame, classifier.classify(frame))
    assert memories[0] is memories[1]
    for frame, (frame_id, width, pixels) in zip(frames, published, strict=True):
        assert (frame_id, width) == (frame.header.frame_id, frame.width)
        shown = np.frombuffer(pixels, np.uint8).reshape(frame.height, -1)
        original = frame.data.reshape(frame.height, -1)
        changed = (shown != original).any(axis=1)
        assert changed[: frame.height // 2].any()
        assert not changed[frame.height // 2 :].any()


@pytest.fixture
def result(tmp_path, photos):
    frame = read_photo(photos[0])
    path = projection(tmp_path / "m.onnx")
    with load_model(ModelRequest(model_path=str(path))) as model:
        yield frame, Classifier(model).classify(frame)


def publish_all(outputs, frame, outcome):
    seconds = dict.fromkeys((*STAGES, END_TO_END), 0.001)
    outputs.publish_label(outcome)
    outputs.publish_annotations(frame, outcome)
    outputs.publish_targets(frame, outcome, seconds, 10**18, Statistics())


def test_nothing_is_made_for_nobody(node, result, monkeypatch):
    def make(*_, **__):
        raise AssertionError("made for nobody")

    outputs = ResultPublishers(node, ModelPublishers(node))
    for name in ("String", "overlay", "picture_size"):
        monkeypatch.setattr(publishers, name, make)
    publish_all(outputs, *result)
    monkeypatch.setattr(LifecyclePublisher, "get_subscription_count", lambda self: 1)
    for publish in (outputs.publish_label, partial(outputs.publish_annotations, result[0])):
        with pytest.raises(AssertionError, match="nobody"):
            publish(result[1])
    with pytest.raises(AssertionError, match="nobody"):
        outputs.publish_targets(*result, {}, 0, Statistics())


def test_the_label_is_the_best_class(node, result, monkeypatch):
    published = []
    monkeypatch.setattr(LifecyclePublisher, "publish", lambda _, each: published.append(each.data))
    monkeypatch.setattr(LifecyclePublisher, "get_subscription_count", lambda self: 1)
    outputs = ResultPublishers(node, ModelPublishers(node))
    outcome = result[1]
    outputs.publish_label(outcome)
    outputs.publish_label(outcome._replace(prediction=Prediction((), ())))
    assert published == [outcome.classes[0].label, ""]
    assert published[0]


def test_topics_whose_types_are_not_installed_do_not_exist(node, result, monkeypatch, capfd):
    def message_type(name):
        raise TransportError(f"no {name}")

    monkeypatch.setattr(publishers, "message_type", message_type)
    monkeypatch.setattr(LifecyclePublisher, "get_subscription_count", lambda self: 1)
    published = []
    monkeypatch.setattr(
        LifecyclePublisher, "publish", lambda self, _: published.append(self.topic_name)
    )
    outputs = ResultPublishers(node, ModelPublishers(node))
    publish_all(outputs, *result)
    assert published == ["/test_outputs/label"]
    assert "cannot publish" not in capfd.readouterr().err  # that is no fault


def test_a_type_that_is_broken_is_told_and_left_out(node, result, monkeypatch, capfd):
    monkeypatch.setattr(publishers, "message_type", lambda name: object)
    outputs = ResultPublishers(node, ModelPublishers(node))
    publish_all(outputs, *result)
    log = capfd.readouterr().err
    assert log.count("cannot publish ~/annotations") == 1
    assert log.count("cannot publish ~/ai_targets") == 1


def test_no_publisher_waits_for_events(node):
    # The executor lists the events of each publisher anew for each image.
    model = ModelPublishers(node)
    outputs = ResultPublishers(node, model, camera="left")
    for each in (*model._publishers, *outputs._publishers):
        assert len(each.event_handlers) == 0
