"""The image subscription, and a word to the user when nothing can come through it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind

from efv2_ros.node.options import Settings
from efv2_ros.node.transports import TRANSPORTS
from efv2_ros.vision.frame import Frame

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

_TOPIC = "image"
_PATIENCE = 3.0  # seconds in which publishers are normally discovered


def image_qos(settings: Settings) -> QoSProfile:
    """The subscription's QoS: for `latest` that of sensor data with a queue of one image."""
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


class ImageSource:
    """Subscribes to the image topic and turns its messages into frames.

    Args:
        node: The node to subscribe with.
        settings: Transport, kind of subscription and QoS.
        received: Called for each message, before it is looked at.
        frame: Called with each frame; what it raises goes to `fault`.
        fault: Called with the reason a message is no frame, or one that cannot be taken.
    """

    def __init__(
        self,
        node: Node,
        settings: Settings,
        *,
        received: Callable[[], None],
        frame: Callable[[Frame], None],
        fault: Callable[[Exception], None],
    ) -> None:
        self._node = node
        self._received, self._frame, self._fault = received, frame, fault
        self._asked_at: float | None = None
        self._warned: set[str] = set()
        transport, serialized = TRANSPORTS[settings.transport], settings.subscription != "typed"
        self._type_name = transport.type.name
        self._view = transport.type.frame if serialized else transport.from_message
        if not transport.type.has_header:
            self._view = partial(self._view, frame_id=settings.frame_id)
        self._subscription = node.create_subscription(
            transport.message_type(),
            _TOPIC,
            self._on_message,
            image_qos(settings),
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible),
            raw=serialized,
        )

    @property
    def topic(self) -> str:
        """The topic's full name, after remapping."""
        name: str = self._subscription.topic_name
        return name

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def watch(self, seconds: float) -> None:
        """Warn, once, when no publisher can serve this subscription.

        Args:
            seconds: A steady time; calls tell by it how long discovery has had.
        """
        self._asked_at = self._asked_at if self._asked_at is not None else seconds
        if seconds - self._asked_at < _PATIENCE:
            return
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        types = {publisher.topic_type for publisher in publishers}
        if not publishers:
            self._warn("no publisher", f"nobody publishes {self.topic}. {self._suggestion()}")
        elif self._type_name not in types:
            self._warn("type", f"{self.topic} carries {', '.join(sorted(types))}, not "
                       f"{self._type_name}. {self._type_cure(types)}")  # fmt: skip

    def _on_message(self, message: Any) -> None:
        self._received()
        try:
            self._frame(self._view(message))
        except Exception as error:  # no message may end the node
            self._fault(error)

    def _on_incompatible(self, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        cure = (
            "start with qos_reliability:=best_effort"
            if "RELIABILITY" in policy
            else f"give the publisher a {policy} that a volatile subscription accepts"
        )
        self._warn("qos", f"a publisher of {self.topic} offers an incompatible {policy}, so none "
                   f"of its images arrive: {cure}")  # fmt: skip

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
        return f"Images are on {', '.join(sorted(seen))}: set image_topic, or remap `{_TOPIC}`"

    def _type_cure(self, types: set[str]) -> str:
        for name, transport in TRANSPORTS.items():
            if transport.type.name in types:
                return f"Start with transport:={name}"
        return f"Remap `{_TOPIC}` to a topic of images"

    def _warn(self, cause: str, sentence: str) -> None:
        if cause not in self._warned:
            self._warned.add(cause)
            self._node.get_logger().warning(sentence)
