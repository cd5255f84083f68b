"""The image subscription, with a warning when no image can come through it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind

from efv2_ros.classify.options import ONLY_CAMERA
from efv2_ros.node.options import Settings
from efv2_ros.node.transports import TRANSPORTS
from efv2_ros.node.warn_once import WarnOnce
from efv2_ros.vision.frame import Frame

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

_WATCH_PERIOD_S = 1.0
_DISCOVERY_S = 3.0
"""Time in which publishers are normally discovered."""


def image_qos(settings: Settings) -> QoSProfile:
    """Make the subscription's QoS; for `latest` that of sensor data with a queue of one image."""
    every = settings.queue_policy == "all"
    reliability = settings.qos_reliability
    if reliability == "auto":
        reliability = "reliable" if every else "best_effort"
    depth = settings.qos_depth or (0 if every else 1)
    return QoSProfile(
        reliability=(
            ReliabilityPolicy.RELIABLE
            if reliability == "reliable"
            else ReliabilityPolicy.BEST_EFFORT
        ),
        history=HistoryPolicy.KEEP_LAST if depth else HistoryPolicy.KEEP_ALL,
        depth=depth,
    )


class ImageSubscription:
    """Subscribes to the image topic and turns its messages into frames.

    Args:
        node: The node to subscribe with.
        settings: Transport, kind of subscription and QoS.
        camera: Name of the camera; empty if it is the only one.
        on_message: Called for each message before it is read.
        on_frame: Called with each frame. What it raises is passed to `on_error`.
        on_error: Called with the error for a message that cannot be read, or whose frame cannot
            be handled.
    """

    def __init__(
        self,
        node: Node,
        settings: Settings,
        camera: str = ONLY_CAMERA,
        *,
        on_message: Callable[[], None],
        on_frame: Callable[[Frame], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._node = node
        self._on_message, self._on_frame, self._on_error = on_message, on_frame, on_error
        self._warn = WarnOnce(node.get_logger())
        stream = settings.streams[camera]
        self._base_topic = stream.topic
        transport, serialized = TRANSPORTS[stream.transport], settings.subscription != "typed"
        self._type_name = transport.type.name
        self._read = transport.type.frame if serialized else transport.from_message
        if not transport.type.has_header:
            self._read = partial(self._read, frame_id=stream.frame_id)
        self._subscription = node.create_subscription(
            transport.message_type(),
            stream.topic,
            self._receive,
            image_qos(settings),
            # Another type is told of by the timer below.
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=self._on_incompatible_qos, use_default_callbacks=False
            ),
            raw=serialized,
        )
        # By a steady clock: discovery takes no simulated time.
        self._clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._begin_ns = self._clock.now().nanoseconds
        self._timer = node.create_timer(_WATCH_PERIOD_S, self._watch, clock=self._clock)

    @property
    def topic(self) -> str:
        """The topic's full name, after remapping."""
        name: str = self._subscription.topic_name
        return name

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_subscription(self._subscription)

    def _receive(self, message: Any) -> None:
        self._on_message()
        try:
            self._on_frame(self._read(message))
        except Exception as error:  # no message may end the node
            self._on_error(error)

    def _watch(self) -> None:
        """Warn if no publisher can serve this subscription."""
        if self._clock.now().nanoseconds - self._begin_ns < _DISCOVERY_S * 1e9:
            return
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        types = {publisher.topic_type for publisher in publishers}
        if not publishers:
            self._warn("no publisher", f"nobody publishes {self.topic}. {self._suggestion()}")
        elif self._type_name not in types:
            self._warn("type", f"{self.topic} carries {', '.join(sorted(types))}, not "
                       f"{self._type_name}. {self._type_fix(types)}")  # fmt: skip

    def _on_incompatible_qos(self, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        fix = (
            "start with qos_reliability:=best_effort"
            if "RELIABILITY" in policy
            else f"give the publisher a {policy} that a volatile subscription accepts"
        )
        self._warn("qos", f"a publisher of {self.topic} offers an incompatible {policy}, so none "
                   f"of its images arrive: {fix}")  # fmt: skip

    def _suggestion(self) -> str:
        known = {each.type.name: name for name, each in TRANSPORTS.items()}
        seen = [
            f"{name} (transport:={known[types[0]]})"
            for name, types in self._node.get_topic_names_and_types()
            if types[0] in known
            and name != self.topic
            and self._node.count_publishers(name) > 0
            and not name.startswith(f"{self._node.get_fully_qualified_name()}/")
        ]
        if not seen:
            return "No other topic carries images either: is the camera running?"
        return (
            f"Images are on {', '.join(sorted(seen))}: set image_topic, or remap "
            f"`{self._base_topic}`"
        )

    def _type_fix(self, types: set[str]) -> str:
        for name, transport in TRANSPORTS.items():
            if transport.type.name in types:
                return f"Start with transport:={name}"
        return f"Remap `{self._base_topic}` to a topic of images"
