"""Publishers of results, of what their class ids mean, and of what viewers show of them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher, LifecycleState
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String
from vision_msgs.msg import Classification, LabelInfo, VisionInfo

from efv2_ros.classify.classifier import Classified, Classifier
from efv2_ros.classify.model import Model
from efv2_ros.classify.options import ONLY_CAMERA
from efv2_ros.classify.seen import seen
from efv2_ros.node import conversions
from efv2_ros.node.annotations import IMAGE_ANNOTATIONS, AnnotationsMessage
from efv2_ros.node.diagnostics import latency_array
from efv2_ros.node.statistics import Statistics
from efv2_ros.node.targets import PERCEPTION_TARGETS, TargetsMessage
from efv2_ros.node.transports import TransportError, message_type
from efv2_ros.pictures.annotate import BgrConverter, annotate
from efv2_ros.pictures.overlay import overlay
from efv2_ros.vision.frame import Frame, Header
from efv2_ros.vision.upright import picture_size

try:
    from rclpy.event_handler import PublisherEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks

LATENCY, LABEL, ANNOTATIONS = "latency", "label", "annotations"
TARGETS, ANNOTATED = "ai_targets", "image_annotated"
"""Topics of what goes with a result, relative to the node's name."""

_SHORT_QUEUE, _LONG_QUEUE = 10, 1000
"""Messages kept for a slow subscriber: few, so that it gets new ones, or all of a bag's part."""

_INACTIVE = LifecycleState("inactive", 2)
"""State from which a publisher becomes active; the number is lifecycle_msgs'."""

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

_NO_EVENTS = PublisherEventCallbacks(use_default_callbacks=False)
"""rclpy's executor lists the events of each publisher anew for each image, which is most of what a
further camera costs. A subscriber whose QoS does not fit is told of it by its own node."""


class _Publishers:
    """Lifecycle publishers that are destroyed together."""

    def __init__(self, node: LifecycleNode, camera: str = ONLY_CAMERA) -> None:
        self._node, self._camera = node, camera
        self._publishers: list[LifecyclePublisher] = []

    def destroy(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)

    def activate(self) -> None:
        """Let messages out, for publishers that were made after the node's own transition."""
        for publisher in self._publishers:
            publisher.on_activate(_INACTIVE)

    def _create(self, kind: type, name: str, qos: Any) -> LifecyclePublisher:
        publisher = self._node.create_lifecycle_publisher(
            kind, self._topic(name), qos, event_callbacks=_NO_EVENTS
        )
        self._publishers.append(publisher)
        return publisher

    def _topic(self, name: str) -> str:
        """A topic's name, which starts with the node's."""
        return f"~/{self._camera}/{name}" if self._camera else f"~/{name}"


class ModelPublishers(_Publishers):
    """Publishers of which model runs, and of the names of its classes. Threads may share it.

    Args:
        node: The node to publish with.
    """

    def __init__(self, node: LifecycleNode) -> None:
        super().__init__(node)
        self._announced: tuple[Model, float] | None = None
        self._labels_version = 0
        self._announcing = threading.Lock()
        try:
            self._vision_info = self._create(VisionInfo, "vision_info", _LATCHED)
            self._label_info = self._create(LabelInfo, "label_info", _LATCHED)
        except BaseException:
            self.destroy()
            raise

    @property
    def active(self) -> bool:
        """Whether the node's lifecycle state lets messages out."""
        activated: bool = self._label_info.is_activated
        return activated

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


class ResultPublishers(_Publishers):
    """Lifecycle publishers of everything that follows from a camera's frame.

    Threads may share it, but calls of `publish` must not overlap, nor calls of the same method
    `publish_...`. Topics whose message type is not installed do not exist.

    Args:
        node: The node to publish with.
        model: Publishers of what the class ids mean.
        camera: Name of the camera; empty if it is the only one.
        every: Whether subscribers want every result, as of a bag's images, or the newest ones.
    """

    def __init__(
        self,
        node: LifecycleNode,
        model: ModelPublishers,
        *,
        camera: str = ONLY_CAMERA,
        every: bool = False,
    ) -> None:
        super().__init__(node, camera)
        self._model = model
        self._result = conversions.ClassificationMessage()
        self._picture = conversions.PictureMessage()
        self._to_bgr = BgrConverter(self._picture.allocate)
        self._annotations_message: AnnotationsMessage | None = None
        self._targets_message: TargetsMessage | None = None
        queue = _LONG_QUEUE if every else _SHORT_QUEUE
        try:
            self._classification = self._create(Classification, "classification", queue)
            self._latency = self._create(DiagnosticArray, LATENCY, _LONG_QUEUE)
            self._annotated = self._create(Image, ANNOTATED, qos_profile_sensor_data)
            self._label = self._create(String, LABEL, queue)
            self._annotations = self._create_optional(IMAGE_ANNOTATIONS, ANNOTATIONS, queue)
            self._targets = self._create_optional(PERCEPTION_TARGETS, TARGETS, queue)
        except BaseException:
            self.destroy()
            raise

    @property
    def active(self) -> bool:
        """Whether the node's lifecycle state lets messages out."""
        activated: bool = self._classification.is_activated
        return activated

    def publish(self, frame: Frame, outcome: Classified) -> None:
        """Publish the result of a frame, after what its class ids mean."""
        self._model.announce(outcome.classifier)
        self._classification.publish(self._result.fill(frame.header, outcome.prediction))

    def publish_latency(self, header: Header, seconds: Mapping[str, float]) -> None:
        """Publish how long each stage of a frame took, if somebody subscribes.

        Args:
            header: The frame's header.
            seconds: See `stage_durations`.
        """
        if self._latency.get_subscription_count():
            name = self._node.get_fully_qualified_name().lstrip("/")
            self._latency.publish(latency_array(header, name, seconds, self._camera))

    def publish_annotated(self, frame: Frame, outcome: Classified) -> None:
        """Publish the image with its result drawn on it, if somebody subscribes."""
        if not self._annotated.get_subscription_count():
            return
        picture = self._to_bgr(frame, outcome.classifier.options.max_pixels)
        annotate(picture, outcome.lines())
        self._annotated.publish(self._picture.stamped(frame.header))

    def publish_label(self, outcome: Classified) -> None:
        """Publish the name of the best class, if somebody subscribes; empty if there is none."""
        if self._label.get_subscription_count():
            classes = outcome.classes
            self._label.publish(String(data=classes[0].label if classes else ""))

    def publish_annotations(self, frame: Frame, outcome: Classified) -> None:
        """Publish what a viewer draws over the image, if somebody subscribes."""
        if self._annotations is None or not self._annotations.get_subscription_count():
            return
        if self._annotations_message is None:
            self._annotations_message = AnnotationsMessage()
        drawn = overlay(seen(frame, outcome.classifier), outcome.lines())
        self._annotations.publish(self._annotations_message.fill(frame.header, drawn))

    def publish_targets(
        self,
        frame: Frame,
        outcome: Classified,
        seconds: Mapping[str, float],
        now_ns: int,
        statistics: Statistics,
    ) -> None:
        """Publish the result as TROS's nodes exchange them, if somebody subscribes.

        Args:
            frame: The frame.
            outcome: Its result.
            seconds: See `stage_durations`.
            now_ns: When the last stage ended, by the node's clock.
            statistics: Knows the rate of the results.
        """
        if self._targets is None or not self._targets.get_subscription_count():
            return
        if self._targets_message is None:
            self._targets_message = TargetsMessage()
        size = picture_size(frame, outcome.classifier.options.max_pixels)
        rate_hz = statistics.snapshot(now_ns).classified_hz
        self._targets.publish(
            self._targets_message.make(frame.header, size, outcome, seconds, now_ns, rate_hz)
        )

    def _create_optional(self, type_name: str, name: str, qos: Any) -> LifecyclePublisher | None:
        """Create a publisher; return None if its message type is not installed, or is broken."""
        try:
            return self._create(message_type(type_name), name, qos)
        except TransportError:
            return None
        except Exception as error:  # of a type's library, which may raise anything
            self._node.get_logger().warning(f"cannot publish {self._topic(name)}: {error}")
            return None
