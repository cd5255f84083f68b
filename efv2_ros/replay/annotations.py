"""What the node publishes for Foxglove to draw over an image, as messages of bags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from efv2_ros.classify.classifier import line_of
from efv2_ros.classify.postprocess import Prediction
from efv2_ros.messages.message import message, serialize
from efv2_ros.pictures.overlay import SHADE, WHITE, Label, Overlay, Rgba, overlay
from efv2_ros.vision.frame import Header
from efv2_ros.vision.seen import Seen

IMAGE_ANNOTATIONS = "foxglove_msgs/msg/ImageAnnotations"

_LINE_LOOP = 2
_CLEAR: Rgba = (0.0, 0.0, 0.0, 0.0)


def image_annotations(
    header: Header, seen: Seen, prediction: Prediction, labels: Mapping[int, str]
) -> bytes:
    """Serialize the annotations of an image.

    Args:
        header: The image's header.
        seen: The image's size, and what the network saw of it.
        prediction: The result.
        labels: Names by class id.

    Raises:
        MessageError: rosbags is missing.
    """
    lines = [
        line_of(score, labels.get(class_id, ""))
        for class_id, score in zip(*prediction, strict=True)
    ]
    drawn = overlay(seen, lines)
    stamp = message("builtin_interfaces/msg/Time", sec=header.sec, nanosec=header.nanosec)
    return serialize(
        IMAGE_ANNOTATIONS,
        timestamp=stamp,
        circles=[],
        points=[_outline(stamp, drawn)] if drawn.outline else [],
        texts=[_text(stamp, label, drawn.font_size) for label in drawn.labels],
        metadata=[],
    )


def _text(stamp: Any, label: Label, font_size: float) -> Any:
    return message(
        "foxglove_msgs/msg/TextAnnotation",
        timestamp=stamp,
        position=_point(label.x, label.y),
        text=label.text,
        font_size=font_size,
        text_color=_color(WHITE),
        background_color=_color(SHADE),
        metadata=[],
    )


def _outline(stamp: Any, drawn: Overlay) -> Any:
    return message(
        "foxglove_msgs/msg/PointsAnnotation",
        timestamp=stamp,
        type=_LINE_LOOP,
        points=[_point(*corner) for corner in drawn.outline],
        outline_color=_color(WHITE),
        outline_colors=[],
        fill_color=_color(_CLEAR),
        thickness=drawn.thickness,
        metadata=[],
    )


def _point(x: float, y: float) -> Any:
    return message("foxglove_msgs/msg/Point2", x=x, y=y)


def _color(color: Rgba) -> Any:
    red, green, blue, opacity = color
    return message("foxglove_msgs/msg/Color", r=red, g=green, b=blue, a=opacity)
