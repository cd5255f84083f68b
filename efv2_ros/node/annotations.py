"""Messages that let Foxglove draw a result over the camera's own image."""

from __future__ import annotations

from typing import Any

from efv2_ros.node.transports import message_type
from efv2_ros.pictures.overlay import SHADE, WHITE, Overlay, Rgba
from efv2_ros.vision.frame import Header

IMAGE_ANNOTATIONS = "foxglove_msgs/msg/ImageAnnotations"


class AnnotationsMessage:
    """An ImageAnnotations message that is reused; works with foxglove_msgs from 2.2 on.

    Not thread-safe.

    Raises:
        TransportError: foxglove_msgs is not installed.
    """

    def __init__(self) -> None:
        kinds = {name: message_type(f"foxglove_msgs/msg/{name}") for name in _KINDS}
        self._text, self._point, self._color = (kinds[name] for name in _KINDS[2:])
        self._message = kinds["ImageAnnotations"]()
        self._outline = kinds["PointsAnnotation"]()
        self._outline.type = self._outline.LINE_LOOP
        self._outline.outline_color = self._colored(WHITE)
        self._outline.points = [self._point() for _ in range(4)]
        self._texts: list[Any] = []
        self._stamped = [self._outline.timestamp]
        if hasattr(self._message, "timestamp"):  # since 3.4
            self._stamped.append(self._message.timestamp)

    def fill(self, header: Header, overlay: Overlay) -> Any:
        """Fill the message with an overlay of the image that has this header.

        Returns:
            The message, valid until the next call. All its stamps are the image's, by which
            Foxglove finds the image that it belongs to.
        """
        count = len(overlay.labels)
        while len(self._texts) < count:
            self._texts.append(self._new_text())
        for text, label in zip(self._texts, overlay.labels, strict=False):
            text.position.x, text.position.y, text.text = label
            text.font_size = overlay.font_size
        for point, (x, y) in zip(self._outline.points, overlay.outline, strict=False):
            # rclpy converts no integers: their bits would be sent as a float's.
            point.x, point.y = float(x), float(y)
        self._outline.thickness = overlay.thickness
        for stamp in self._stamped:
            stamp.sec, stamp.nanosec = header.sec, header.nanosec
        self._message.texts = self._texts[:count]
        self._message.points = [self._outline] if overlay.outline else []
        return self._message

    def _new_text(self) -> Any:
        text = self._text(text_color=self._colored(WHITE), background_color=self._colored(SHADE))
        self._stamped.append(text.timestamp)
        return text

    def _colored(self, color: Rgba) -> Any:
        return self._color(**dict(zip("rgba", color, strict=True)))


_KINDS = ("ImageAnnotations", "PointsAnnotation", "TextAnnotation", "Point2", "Color")
