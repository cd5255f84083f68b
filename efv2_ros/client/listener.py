"""A node that publishes images to a classifier and keeps what comes back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from vision_msgs.msg import Classification, LabelInfo, VisionInfo

from efv2_ros.classify.options import NODE
from efv2_ros.client.process import CLASSIFIER_MODULE, ClassifierProcess
from efv2_ros.client.ros import ros_context
from efv2_ros.client.spinner import Spinner
from efv2_ros.client.status import ClassifierStatus
from efv2_ros.node import conversions
from efv2_ros.signals import catch_stop
from efv2_ros.vision.frame import Frame


class Listener:
    """Publishes images to a classifier and keeps what comes back.

    Callbacks run in the thread that calls `spin_until`, while it does.

    Args:
        node: The node to listen with; it is destroyed with the listener.
        classifier: Full name of the classifier node.
        topic: Topic to publish images on.
        message_type: Type of the images.
        reliability: Reliability of the images.
        depth: Depth of the images' queue.
        should_stop: See `Spinner`.

    Attributes:
        node: As given.
        classifier: As given.
        images: The publisher of the images.
        results: All results, in the order of their arrival.
        arrivals: When each result arrived, in seconds of `time.monotonic`.
        vision_info: All messages that say which model runs.
        label_info: All messages that name the classes.
    """

    def __init__(
        self,
        node: Node,
        classifier: str = NODE,
        *,
        topic: str = "image",
        message_type: type = Image,
        reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE,
        depth: int = 10,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self.node = node
        self.classifier = classifier
        self.results: list[Classification] = []
        self.arrivals: list[float] = []
        self.vision_info: list[VisionInfo] = []
        self.label_info: list[LabelInfo] = []
        self._status = ClassifierStatus(classifier)
        self._spinner = Spinner(node, should_stop)
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(
            Classification, f"{classifier}/classification", self._on_result, 1000
        )
        node.create_subscription(
            VisionInfo, f"{classifier}/vision_info", self.vision_info.append, latched
        )
        node.create_subscription(
            LabelInfo, f"{classifier}/label_info", self.label_info.append, latched
        )
        node.create_subscription(DiagnosticArray, "/diagnostics", self._status.update, 10)
        self.images = node.create_publisher(
            message_type,
            topic,
            QoSProfile(depth=depth, reliability=reliability),
        )

    def close(self) -> None:
        """Destroy the node."""
        self._spinner.close()

    @property
    def stream(self) -> DiagnosticStatus | None:
        """The newest status of the image stream; None before the first."""
        return self._status.stream

    @property
    def model(self) -> DiagnosticStatus | None:
        """The newest status of the model; None before the first."""
        return self._status.model

    @property
    def reported_at(self) -> float:
        """Time of the newest report by the classifier's clock, in seconds."""
        return self._status.stamp_ns / 1e9

    @property
    def connected(self) -> bool:
        """Whether the classifier is active and subscribes to our images."""
        return bool(self.vision_info and self.label_info and self.images.get_subscription_count())

    def wait_for_classifier(self, timeout_s: float = 60.0) -> bool:
        """Handle messages until the classifier is connected; False when time is up."""
        return self.spin_until(lambda: self.connected, timeout_s)

    def publish(self, frame: Frame) -> None:
        """Publish a frame's pixels as an Image, stamped now."""
        message = conversions.image_message(frame)
        message.header.stamp = self.node.get_clock().now().to_msg()
        self.images.publish(message)

    def spin_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Handle messages until `condition` holds; False when `timeout_s` are over."""
        return self._spinner.spin_until(condition, timeout_s)

    def spin_for(self, duration_s: float) -> None:
        """Handle messages for a while."""
        self._spinner.spin_for(duration_s)

    def wait_for_results(self, count: int, timeout_s: float = 30.0) -> bool:
        """Handle messages until there are `count` results; False when time is up."""
        return self.spin_until(lambda: len(self.results) >= count, timeout_s)

    def wait_for_diagnostics(self, timeout_s: float = 30.0) -> bool:
        """Forget the newest report and wait for the next; False when time is up."""
        self._status.clear()
        return self.spin_until(
            lambda: self.stream is not None and self.model is not None, timeout_s
        )

    def _on_result(self, message: Classification) -> None:
        self.results.append(message)
        self.arrivals.append(time.monotonic())


@contextmanager
def running_classifier(
    name: str, parameters: Mapping[str, Any], *, module: str = CLASSIFIER_MODULE
) -> Iterator[tuple[ClassifierProcess, Listener]]:
    """Start a classifier and a listener in a namespace of their own; end both after the block.

    After SIGINT or SIGTERM, whatever the listener waits for ends with KeyboardInterrupt.

    Args:
        name: Name of the listener's node, and part of the namespace.
        parameters: Parameters of the classifier.
        module: See `ClassifierProcess`.
    """
    namespace = f"/efv2_{name}_{os.getpid()}"
    # The listener publishes images; nobody looks at the classifier's annotated ones.
    environment = dict(os.environ)
    with (
        catch_stop(again=signal.SIG_IGN) as should_stop,
        ros_context() as context,
        ClassifierProcess(
            parameters, namespace=namespace, environment=environment, module=module
        ) as process,
    ):
        node = rclpy.create_node(name, namespace=namespace, context=context)
        listener = Listener(node, process.name, should_stop=should_stop)
        try:
            yield process, listener
        finally:
            listener.close()
