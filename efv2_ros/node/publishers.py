"""What the node says: results, what their ids mean, images with the results drawn in."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image
from vision_msgs.msg import Classification, LabelInfo, VisionInfo

from efv2_ros.classify.classifier import Classified, Classifier
from efv2_ros.classify.model import Model
from efv2_ros.node import conversions
from efv2_ros.node.diagnostics import latency_array
from efv2_ros.pictures.annotate import BgrConverter, annotate
from efv2_ros.vision.frame import Frame, Header

_FEW, _ALL = 10, 1000
"""Messages kept for who is slow: so few that what comes is new, or so many that none is missed."""

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Outputs:
    """The node's lifecycle publishers. Threads may call it, `publish` one at a time.

    Args:
        node: The node.
        every: Whether every result matters, as those of a bag's images, or the newest.
    """

    def __init__(self, node: LifecycleNode, *, every: bool = False) -> None:
        self._node = node
        self._publishers: list[LifecyclePublisher] = []
        self._result = conversions.ClassificationMessage()
        self._picture = conversions.PictureMessage()
        self._to_bgr = BgrConverter(self._picture.allocate)
        self._announced: tuple[Model, float] | None = None
        self._labels_version = 0
        self._announcing = threading.Lock()
        try:
            self._classification = self._create(
                Classification, "classification", _ALL if every else _FEW
            )
            self._vision_info = self._create(VisionInfo, "vision_info", _LATCHED)
            self._label_info = self._create(LabelInfo, "label_info", _LATCHED)
            self._latency = self._create(DiagnosticArray, "latency", _ALL)
            self._annotated = self._create(Image, "image_annotated", qos_profile_sensor_data)
        except BaseException:
            self.destroy()
            raise

    @property
    def active(self) -> bool:
        """Whether the lifecycle lets anything out."""
        activated: bool = self._classification.is_activated
        return activated

    def destroy(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)

    def announce(self, classifier: Classifier) -> None:
        """Publish what class ids mean, when that is not what was said last."""
        model, threshold = classifier.model, classifier.options.score_threshold
        with self._announcing:
            previous = self._announced
            if previous == (model, threshold):
                return
            self._announced = (model, threshold)
            if previous is None or previous[0].labels != model.labels:
                self._labels_version += 1
            stamp = self._node.get_clock().now().to_msg()
            labels_topic = self._label_info.topic_name
            self._label_info.publish(conversions.label_info(stamp, model.labels, threshold))
            self._vision_info.publish(
                conversions.vision_info(stamp, model.name, labels_topic, self._labels_version)
            )

    def publish(self, frame: Frame, outcome: Classified) -> None:
        """Publish the result for an image, after what its ids mean."""
        self.announce(outcome.classifier)
        self._classification.publish(self._result.fill(frame.header, outcome.prediction))

    def publish_latency(self, header: Header, seconds: Mapping[str, float]) -> None:
        """Publish how long each stage of an image took, if anybody listens."""
        if self._latency.get_subscription_count():
            name = self._node.get_fully_qualified_name().lstrip("/")
            self._latency.publish(latency_array(header, name, seconds))

    def publish_annotated(self, frame: Frame, outcome: Classified) -> None:
        """Publish the image with its results drawn in, if anybody looks."""
        if not self._annotated.get_subscription_count():
            return
        picture = self._to_bgr(frame, outcome.classifier.options.max_pixels)
        annotate(picture, outcome.lines())
        self._annotated.publish(self._picture.stamped(frame.header))

    def _create(self, kind: type, name: str, qos: Any) -> LifecyclePublisher:
        publisher = self._node.create_lifecycle_publisher(kind, f"~/{name}", qos)
        self._publishers.append(publisher)
        return publisher
