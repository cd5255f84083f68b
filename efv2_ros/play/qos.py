"""Publishers for a bag's topics: name, QoS, compatibility with subscribers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)

from efv2_ros.bags.bag import Topic

_DEPTH = 10
"""Depth of a topic whose history is not known, which is the usual case: DDS does not send it."""

_FOREVER_NS = (1 << 63) - 1
"""RMW_DURATION_INFINITE of rmw/types.h. A recorded 0, RMW_DURATION_UNSPECIFIED, means the same."""


class PublishedTopic(NamedTuple):
    """A topic of a bag as it is published.

    Attributes:
        recorded: The topic in the bag.
        name: Full name under which it is published.
        qos: QoS with which it is published.
    """

    recorded: Topic
    name: str
    qos: QoSProfile

    @property
    def is_image(self) -> bool:
        """Whether it carries images."""
        return self.recorded.transport is not None

    @property
    def is_reliable(self) -> bool:
        """Whether lost messages are sent again."""
        reliable: bool = self.qos.reliability == ReliabilityPolicy.RELIABLE
        return reliable


def published_topics(
    topics: Sequence[Topic], renamed: Mapping[str, str], *, lossless: bool = False
) -> list[PublishedTopic]:
    """Choose name and QoS for the topics of a bag.

    Args:
        topics: Topics of the bag.
        renamed: New names of topics, by their name in the bag.
        lossless: Whether images are published reliably, whatever QoS was recorded.
    """
    return [
        PublishedTopic(
            topic,
            f"/{renamed.get(topic.name, topic.name).removeprefix('/')}",
            publisher_qos(topic.qos, lossless=lossless and topic.transport is not None),
        )
        for topic in topics
    ]


def is_received(node: Node, topic: PublishedTopic, subscriber: str = "") -> bool:
    """Whether a subscription fits what is published, by type and QoS.

    Args:
        node: Asked who subscribes.
        topic: The topic.
        subscriber: Full name of the node that has to receive it; empty for any.
    """
    return "" in _mismatches(node, topic, subscriber)


def qos_mismatches(node: Node, topic: PublishedTopic, subscriber: str = "") -> list[str]:
    """Explain for each subscription that does not fit, by type or QoS, why it receives nothing.

    See `is_received` for the arguments.
    """
    return [reason for reason in _mismatches(node, topic, subscriber) if reason]


def _mismatches(node: Node, topic: PublishedTopic, subscriber: str) -> Iterator[str]:
    """A reason for each subscription that receives nothing, "" for each that does."""
    for found in node.get_subscriptions_info_by_topic(topic.name):
        name = f"{found.node_namespace.rstrip('/')}/{found.node_name}"
        if subscriber not in ("", name):
            continue
        compatibility, why = qos_check_compatible(topic.qos, found.qos_profile)
        if found.topic_type != topic.recorded.type_name:
            yield (
                f"{name} subscribes to {topic.name} as {found.topic_type}, and the bag has "
                f"{topic.recorded.type_name}"
            )
        elif compatibility == QoSCompatibility.ERROR:
            fix = "" if topic.is_reliable else " (--reliable makes images reliable)"
            yield f"the QoS of {topic.name} does not suit {name}: {why.rstrip(' ;')}{fix}"
        else:
            yield ""


def publisher_qos(recorded: Sequence[Any], *, lossless: bool = False) -> QoSProfile:
    """Build one QoS profile that serves every subscriber that a recorded publisher served.

    Where several publishers were recorded, each policy is the one that promises most: reliable,
    transient local, the shortest deadline, the longest lifespan, the deepest history. Unknown
    policies become reliable, volatile, keep last 10, which serves most subscribers.

    Args:
        recorded: A `rosbags.interfaces.Qos` of each publisher; may be empty.
        lossless: Whether no message may be lost: reliable, kept until it is acknowledged.
    """
    profile = QoSProfile(depth=_DEPTH, liveliness=LivelinessPolicy.AUTOMATIC)

    def names(policy: str) -> list[str]:
        return [getattr(qos, policy).name for qos in recorded]

    def nanoseconds(policy: str) -> list[int]:
        return [_nanoseconds(getattr(qos, policy)) for qos in recorded]

    if recorded and set(names("reliability")) == {"BEST_EFFORT"}:
        profile.reliability = ReliabilityPolicy.BEST_EFFORT
    if "TRANSIENT_LOCAL" in names("durability"):
        profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
    if any(each.startswith("MANUAL") for each in names("liveliness")):
        profile.liveliness = LivelinessPolicy.MANUAL_BY_TOPIC
    if "KEEP_ALL" in names("history"):
        profile.history = HistoryPolicy.KEEP_ALL
    depths = [qos.depth for qos in recorded if qos.history.name == "KEEP_LAST"]
    profile.depth = max(depths, default=0) or _DEPTH
    # Always set: `qos_check_compatible` takes an unset deadline for a shorter one than forever.
    profile.deadline = Duration(nanoseconds=min(nanoseconds("deadline"), default=_FOREVER_NS))
    profile.lifespan = Duration(nanoseconds=max(nanoseconds("lifespan"), default=_FOREVER_NS))
    profile.liveliness_lease_duration = Duration(
        nanoseconds=min(nanoseconds("liveliness_lease_duration"), default=_FOREVER_NS)
    )
    profile.avoid_ros_namespace_conventions = any(
        qos.avoid_ros_namespace_conventions for qos in recorded
    )
    if lossless:
        profile.reliability = ReliabilityPolicy.RELIABLE
        profile.history = HistoryPolicy.KEEP_ALL
        profile.lifespan = Duration(nanoseconds=_FOREVER_NS)
    return profile


def _nanoseconds(time: Any) -> int:
    nanoseconds: int = time.sec * 1_000_000_000 + time.nsec
    return nanoseconds if 0 < nanoseconds < _FOREVER_NS else _FOREVER_NS
