"""Annotations as messages of the node, against those that bags of results hold."""

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("foxglove_msgs.msg")

from foxglove_msgs.msg import ImageAnnotations, PointsAnnotation
from message_packages import need_annotations
from rclpy.serialization import deserialize_message, serialize_message

from efv2_ros.classify.postprocess import Prediction
from efv2_ros.node import annotations
from efv2_ros.node.annotations import AnnotationsMessage
from efv2_ros.node.transports import TransportError
from efv2_ros.pictures.overlay import overlay
from efv2_ros.replay.annotations import image_annotations
from efv2_ros.vision.frame import Header
from efv2_ros.vision.seen import Seen

HEADER = Header(12, 34, "camera")
WHOLE = Seen(640, 480, 0, 0, 640, 480)
CROP = Seen(640, 480, 100, 8, 540, 470)
LABELS = {1: "goldfish", 2: "金鱼 (Carassius auratus)", 3: ""}


@pytest.mark.parametrize("seen", [WHOLE, CROP], ids=["whole", "crop"])
@pytest.mark.parametrize("scores", [(), (0.875,), (0.75, 0.2, 0.0123)], ids=len)
def test_the_message_is_that_of_a_bag_of_results(seen, scores):
    need_annotations()
    prediction = Prediction((2, 3, 1)[: len(scores)], scores)
    recorded = deserialize_message(
        image_annotations(HEADER, seen, prediction, LABELS), ImageAnnotations
    )
    lines = [
        f"{score:6.1%} {LABELS[class_id]}" for class_id, score in zip(*prediction, strict=True)
    ]
    message = AnnotationsMessage().fill(HEADER, overlay(seen, lines))
    assert message == recorded
    assert deserialize_message(serialize_message(message), ImageAnnotations) == message


def test_the_content():
    need_annotations()
    message = AnnotationsMessage().fill(HEADER, overlay(CROP, [" 75.0% 金鱼", "  2.0% tench"]))
    assert (message.timestamp.sec, message.timestamp.nanosec) == (12, 34)
    assert [each.text for each in message.texts] == [" 75.0% 金鱼", "  2.0% tench"]
    assert [(each.position.x, each.position.y) for each in message.texts] == [(12, 36), (12, 60)]
    for text in message.texts:
        assert (text.timestamp.sec, text.timestamp.nanosec) == (12, 34)
        assert text.font_size == 24
        assert [getattr(text.text_color, each) for each in "rgba"] == [1, 1, 1, 1]
        assert [getattr(text.background_color, each) for each in "rgba"] == [0, 0, 0, 0.5]
    (outline,) = message.points
    assert outline.type == PointsAnnotation.LINE_LOOP
    assert (outline.timestamp.sec, outline.timestamp.nanosec) == (12, 34)
    corners = [(each.x, each.y) for each in outline.points]
    assert corners == [(100, 8), (540, 8), (540, 470), (100, 470)]
    assert outline.outline_color.a == 1
    assert outline.fill_color.a == 0


def test_nothing_of_the_image_before_is_left():
    reused = AnnotationsMessage()
    reused.fill(HEADER, overlay(CROP, ["a", "b", "c"]))
    for header, seen, lines in (
        (Header(13, 0, ""), WHOLE, ["d"]),
        (Header(14, 1, ""), CROP, []),
        (Header(15, 2, ""), Seen(100, 50, 1, 1, 9, 9), ["e", "f", "g", "h"]),
    ):
        drawn = overlay(seen, lines)
        assert reused.fill(header, drawn) == AnnotationsMessage().fill(header, drawn)


def test_older_versions_of_foxglove_msgs(monkeypatch):
    """ImageAnnotations had no stamp of its own, and nothing had metadata."""

    class Older:
        LINE_LOOP = 2

        def __init__(self, **fields):
            self.timestamp = SimpleNamespace(sec=0, nanosec=0)
            self.position = SimpleNamespace(x=0.0, y=0.0)
            vars(self).update(fields)

    class OlderAnnotations:
        __slots__ = ("circles", "points", "texts")

    def message_type(name):
        return OlderAnnotations if name.endswith("/ImageAnnotations") else Older

    monkeypatch.setattr(annotations, "message_type", message_type)
    message = AnnotationsMessage().fill(HEADER, overlay(CROP, ["a", "b"]))
    stamps = [each.timestamp for each in (*message.texts, *message.points)]
    assert [(each.sec, each.nanosec) for each in stamps] == [(12, 34)] * 3
    assert [each.text for each in message.texts] == ["a", "b"]


def test_without_foxglove_msgs(monkeypatch):
    def message_type(name):
        raise TransportError(f"no {name}")

    monkeypatch.setattr(annotations, "message_type", message_type)
    with pytest.raises(TransportError, match="no foxglove_msgs"):
        AnnotationsMessage()
