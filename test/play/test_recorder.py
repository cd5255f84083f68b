"""What a recording takes, and when it has all of it."""

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("rosbags")
pytest.importorskip("foxglove_msgs.msg")

from foxglove_msgs.msg import ImageAnnotations, TextAnnotation
from message_packages import need_annotations

from efv2_ros.client.status import Counts
from efv2_ros.node.transports import TransportError
from efv2_ros.play import definitions
from efv2_ros.play.definitions import has_our_fields
from efv2_ros.play.recorder import Recorder
from efv2_ros.replay.results import TOPICS

ANNOTATIONS = TOPICS["annotations"]


def without(message, *names):
    """A type of an older version, without some fields."""
    fields = message.get_fields_and_field_types()

    class Older:
        @staticmethod
        def get_fields_and_field_types():
            return {name: kind for name, kind in fields.items() if name not in names}

    return Older


def install(monkeypatch, replaced):
    """Other versions of some types, by name."""
    installed = definitions.message_type

    def message_type(name):
        return replaced.get(name.rpartition("/")[2]) or installed(name)

    monkeypatch.setattr(definitions, "message_type", message_type)


@pytest.fixture(autouse=True)
def ours():
    need_annotations()


def test_an_official_type_is_ours():
    assert has_our_fields("vision_msgs/msg/Classification")
    assert has_our_fields(ANNOTATIONS)


@pytest.mark.parametrize("message", [ImageAnnotations, TextAnnotation])
def test_a_type_with_other_fields_is_another_one(monkeypatch, message):
    install(monkeypatch, {message.__name__: without(message, "metadata")})
    assert not has_our_fields(ANNOTATIONS)


def test_a_type_that_is_not_installed(monkeypatch):
    def message_type(name):
        raise TransportError(f"no {name}")

    monkeypatch.setattr(definitions, "message_type", message_type)
    assert not has_our_fields(ANNOTATIONS)


@pytest.fixture
def recorder(ros):
    """Makes a recorder of /eye."""
    node = ros.create_node("recorder")
    yield lambda: Recorder(node, "/eye")
    node.destroy_node()


def names(recorder):
    return {topic.name for topic in recorder._topics}


def test_annotations_are_taken_if_a_bag_can_say_what_they_are(recorder, monkeypatch):
    assert names(recorder()) == {"/diagnostics", *(f"/eye/{name}" for name in TOPICS)}
    install(monkeypatch, {"ImageAnnotations": without(ImageAnnotations, "timestamp")})
    wanted = {f"/eye/{name}" for name in TOPICS if name != "annotations"}
    assert names(recorder()) == {"/diagnostics", *wanted}


def test_all_has_come_once_every_topic_has_told_of_every_image(ros, recorder):
    node = ros.create_node("eye")
    recording = recorder()
    recording._counts = Counts(2, 2)
    stamp = bytes([0, 1, 0, 0]) + bytes(12)
    for _ in range(2):
        recording._handle_classification(stamp)
        recording._count("latency", stamp)
    assert recording.results == 2
    assert recording.has_all  # no other topic has a publisher
    publisher = node.create_publisher(ImageAnnotations, "/eye/annotations", 10)
    for _ in range(100):
        if not recording.has_all:
            break
        ros.spin_once(node, timeout_sec=0.1)
    assert not recording.has_all
    recording._count("annotations", stamp)
    assert not recording.has_all
    recording._counts = Counts(2, 2, {}, {"annotations": 1})  # the node could not publish it
    assert recording.has_all
    recording._counts = Counts(3, 2, {}, {"annotations": 1})
    assert not recording.has_all
    node.destroy_publisher(publisher)
    node.destroy_node()
