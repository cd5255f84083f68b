"""Publishers of results, of what their class ids mean, and of annotated images."""

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

LATENCY, ANNOTATED = "latency", "image_annotated"
"""Topics of what goes with a result, relative to the node's name."""

_SHORT_QUEUE, _LONG_QUEUE = 10, 1000
"""Messages kept for a slow subscriber: few, so that it gets new ones, or all of a bag's part."""

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class ResultPublishers:
    """Lifecycle publishers of everything that follows from a frame.

    Threads may share it, but calls of `publish` and of `publish_annotated` must not overlap.

    Args:
        node: The node to publish with.
        every: Whether subscribers want every result, as of a bag's images, or the newest ones.
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
                Classification, "classification", _LONG_QUEUE if every else _SHORT_QUEUE
            )
            self._vision_info = self._create(VisionInfo, "vision_info", _LATCHED)
            self._label_info = self._create(LabelInfo, "label_info", _LATCHED)
            self._latency = self._create(DiagnosticArray, LATENCY, _LONG_QUEUE)
            self._annotated = self._create(Image, ANNOTATED, qos_profile_sensor_data)
        except BaseException:
            self.destroy()
            raise

    @property
    def active(self) -> bool:
        """Whether the node's lifecycle state lets messages out."""
        activated: bool = self._classification.is_activated
        return activated

    def destroy(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)

    def announce(self, classifier: Classifier) -> None:
        """Publish the model's name and labels, unless they were the last that were published.

        If that fails, the next call tries again.
        """
        model, threshold = classifier.model, classifier.options.score_threshold
        with self._announcing:
            previous = self._announced
            if previous == (model, threshold):
                return
            version = self._labels_version
            if previous is None or previous[0].labels != model.labels:
                version += 1
            stamp = self._node.get_clock().now().to_msg()
            labels_topic = self._label_info.topic_name
            self._label_info.publish(
                conversions.label_info_message(stamp, model.labels, threshold)
            )
            self._vision_info.publish(
                conversions.vision_info_message(stamp, model.name, labels_topic, version)
            )
            self._announced, self._labels_version = (model, threshold), version

    def publish(self, frame: Frame, outcome: Classified) -> None:
        """Publish the result of a frame, after what its class ids mean."""
        self.announce(outcome.classifier)
        self._classification.publish(self._result.fill(frame.header, outcome.prediction))

    def publish_latency(self, header: Header, seconds: Mapping[str, float]) -> None:
        """Publish how long each stage of a frame took, if somebody subscribes.

        Args:
            header: The frame's header.
            seconds: See `stage_durations`.
        """
        if self._latency.get_subscription_count():
            name = self._node.get_fully_qualified_name().lstrip("/")
            self._latency.publish(latency_array(header, name, seconds))

    def publish_annotated(self, frame: Frame, outcome: Classified) -> None:
        """Publish the image with its result drawn on it, if somebody subscribes."""
        if not self._annotated.get_subscription_count():
            return
        picture = self._to_bgr(frame, outcome.classifier.options.max_pixels)
        annotate(picture, outcome.lines())
        self._annotated.publish(self._picture.stamped(frame.header))

    def _create(self, kind: type, name: str, qos: Any) -> LifecyclePublisher:
        publisher = self._node.create_lifecycle_publisher(kind, f"~/{name}", qos)
        self._publishers.append(publisher)
        return publisher
