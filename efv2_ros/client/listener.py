"""A node that publishes images to a classifier and keeps what comes back."""

from __future__ import annotations

import os
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

from efv2_ros.classify.latency import END_TO_END, STAGES, Percentiles
from efv2_ros.classify.options import NODE_NAME
from efv2_ros.client.process import CLASSIFIER_MODULE, ClassifierProcess
from efv2_ros.client.spinner import Spinner
from efv2_ros.node import conversions
from efv2_ros.node.diagnostics import latency_key
from efv2_ros.node.fastdds import image_profile
from efv2_ros.vision.frame import Frame


class Listener:
    """Publishes images to a classifier and keeps what comes back.

    Everything runs in the thread that calls `spin_until`.

    Args:
        node: The node to listen with.
        classifier: Full name of the classifier node.
        topic: Topic to publish images on.
        message_type: Type of the images.
        reliability: Of the images.
        depth: Of the images.
    """

    def __init__(
        self,
        node: Node,
        classifier: str = f"/{NODE_NAME}",
        *,
        topic: str = "image",
        message_type: type = Image,
        reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE,
        depth: int = 10,
    ) -> None:
        self.node = node
        self.results: list[Classification] = []
        self.arrivals: list[float] = []
        self.vision_info: list[VisionInfo] = []
        self.label_info: list[LabelInfo] = []
        self._statuses: dict[str, DiagnosticStatus] = {}
        self.reported_at = 0.0
        self.classifier = classifier
        self._spinner = Spinner(node)
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
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
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
        """The newest status of the stream."""
        return self._statuses.get("stream")

    @property
    def model(self) -> DiagnosticStatus | None:
        """The newest status of the model."""
        return self._statuses.get("model")

    @property
    def connected(self) -> bool:
        """Whether the classifier is active and takes our images."""
        return bool(self.vision_info and self.label_info and self.images.get_subscription_count())

    def wait_for_classifier(self, timeout: float = 60.0) -> bool:
        """Wait until the classifier is active and both directions are connected."""
        return self.spin_until(lambda: self.connected, timeout)

    def publish(self, frame: Frame) -> None:
        """Publish a frame's pixels as an Image, stamped now."""
        message = conversions.image(frame)
        message.header.stamp = self.node.get_clock().now().to_msg()
        self.images.publish(message)

    def spin_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Handle messages until `condition` holds; False when `timeout` seconds are over."""
        return self._spinner.until(condition, timeout)

    def spin_for(self, seconds: float) -> None:
        """Handle messages for a while."""
        self.spin_until(lambda: False, seconds)

    def wait_for_results(self, count: int, timeout: float = 30.0) -> bool:
        """Handle messages until there are `count` results; False when time is up."""
        return self.spin_until(lambda: len(self.results) >= count, timeout)

    def wait_for_diagnostics(self, timeout: float = 30.0) -> bool:
        """Wait for a report that is made from now on; False when time is up."""
        self._statuses.clear()
        return self.spin_until(lambda: {"stream", "model"} <= set(self._statuses), timeout)

    def _on_result(self, message: Classification) -> None:
        self.results.append(message)
        self.arrivals.append(time.monotonic())

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            name, _, task = status.name.partition(": ")
            if name == self.classifier.lstrip("/"):
                self._statuses[task] = status
                self.reported_at = message.header.stamp.sec + message.header.stamp.nanosec / 1e9


def values(status: DiagnosticStatus) -> dict[str, str]:
    """A status's key-value pairs."""
    return {pair.key: pair.value for pair in status.values}


@contextmanager
def running_classifier(
    name: str, parameters: Mapping[str, Any], *, module: str = CLASSIFIER_MODULE
) -> Iterator[tuple[ClassifierProcess, Listener]]:
    """ROS from start to end, with a classifier and a listener in a namespace of their own.

    Args:
        name: Name of the listener's node, and part of the namespace.
        parameters: Parameters of the classifier.
        module: See `ClassifierProcess`.
    """
    namespace = f"/efv2_{name}_{os.getpid()}"
    os.environ.update(image_profile(os.environ))
    rclpy.init()
    try:
        with ClassifierProcess(parameters, namespace=namespace, module=module) as process:
            listener = Listener(rclpy.create_node(name, namespace=namespace), process.name)
            try:
                yield process, listener
            finally:
                listener.close()
    finally:
        rclpy.try_shutdown()


def stage_latencies(stream: DiagnosticStatus) -> dict[str, Percentiles]:
    """The latency of every stage, as the status of a stream reports it."""
    reported = values(stream)
    return {
        stage: Percentiles(*map(float, reported[latency_key(stage)].split(" / ")))
        for stage in (*STAGES, END_TO_END)
        if latency_key(stage) in reported
    }
