"""Results and latencies of one camera, read only as far as the page shows them."""

from __future__ import annotations

import math
import statistics
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from vision_msgs.msg import Classification

from efv2_ros.client.status import values
from efv2_ros.web.hub import Interval

_SHOWN = 5
"""Best classes that the page shows."""

_LATENCIES = 8
"""Newest latencies whose median is a point of the page."""

_DEPTH = 10
_LONGEST_NAME = 200


class Results:
    """Subscribes to a camera's results and latencies, and keeps the newest as they came.

    Most results of a fast stream are only counted: a page shows five a second. Messages come in
    the thread that spins the node; `collect` may be called in another.

    Args:
        node: The node to subscribe with.
        prefix: What the camera's topics begin with: `/efv2_classifier`, or with several cameras
            `/efv2_classifier/left`.
    """

    def __init__(self, node: Node, prefix: str) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._count = 0
        self._newest = b""
        self._latencies: deque[bytes] = deque(maxlen=_LATENCIES)
        qos = QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._subscriptions: list[Subscription] = [
            node.create_subscription(kind, f"{prefix}/{name}", receive, qos, raw=True)
            for kind, name, receive in (
                (Classification, "classification", self._on_result),
                (DiagnosticArray, "latency", self._on_latency),
            )
        ]

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def collect(self, names: Mapping[str, str]) -> Interval:
        """What has come since the last call.

        Args:
            names: Name of each class, by its id.
        """
        with self._lock:
            count, newest = self._count, self._newest
            latencies = list(self._latencies)
            self._count, self._newest = 0, b""
            self._latencies.clear()
        return Interval(count, _classes(newest, names), _medians(latencies))

    def _on_result(self, data: bytes) -> None:
        with self._lock:
            self._count += 1
            self._newest = data

    def _on_latency(self, data: bytes) -> None:
        with self._lock:
            self._latencies.append(data)


def _read(data: bytes, kind: Any) -> Any:
    """Read a message; None if that fails, as with text that is no UTF-8: it is of another node."""
    try:
        return deserialize_message(data, kind)
    except Exception:  # rclpy's own have no common class
        return None


def _classes(data: bytes, names: Mapping[str, str]) -> tuple[tuple[str, float], ...]:
    if not data:
        return ()
    message = _read(data, Classification)
    results = message.results[:_SHOWN] if message is not None else ()
    return tuple(
        (
            names.get(each.class_id, each.class_id)[:_LONGEST_NAME],
            each.score if math.isfinite(each.score) else 0.0,  # JSON has no other numbers
        )
        for each in results
    )


def _medians(messages: list[bytes]) -> dict[str, float]:
    """The median of each stage's milliseconds."""
    stages: dict[str, list[float]] = {}
    for data in messages:
        message = _read(data, DiagnosticArray)
        for status in message.status if message is not None else ():
            for stage, text in values(status).items():
                try:
                    milliseconds = float(text)
                except ValueError:
                    continue
                if math.isfinite(milliseconds):
                    stages.setdefault(stage, []).append(milliseconds)
    return {stage: statistics.median(each) for stage, each in stages.items()}
