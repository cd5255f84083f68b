"""What a bag's topics are published as: by which name, and with which QoS; and who takes that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
"""Of a topic whose history is not known, which is most: DDS does not tell a recorder."""

_FOREVER = (1 << 63) - 1
"""Nanoseconds that stand for "no limit"; so do 0 and what is larger."""


class Offer(NamedTuple):
    """A topic of a bag as it is published.

    Attributes:
        topic: The bag's.
        name: Its full name now.
        qos: With which it is published.
    """

    topic: Topic
    name: str
    qos: QoSProfile

    @property
    def is_image(self) -> bool:
        """Whether it carries images."""
        return self.topic.transport is not None

    @property
    def is_reliable(self) -> bool:
        """Whether what is lost on the way is sent again."""
        reliable: bool = self.qos.reliability == ReliabilityPolicy.RELIABLE
        return reliable


def offered_topics(
    topics: Sequence[Topic], renamed: Mapping[str, str], *, lossless: bool = False
) -> list[Offer]:
    """What is published.

    Args:
        topics: Of the bag.
        renamed: New names of topics.
        lossless: Whether every image has to arrive, whatever was recorded.
    """
    return [
        Offer(
            topic,
            f"/{renamed.get(topic.name, topic.name).removeprefix('/')}",
            offered_qos(topic.qos, lossless=lossless and topic.transport is not None),
        )
        for topic in topics
    ]


def misfits(node: Node, offer: Offer, subscriber: str = "") -> list[str] | None:
    """Why those who subscribe to a topic do not get what is published on it.

    Args:
        node: Knows who subscribes.
        offer: What is published.
        subscriber: Full name of the node that is to get it; empty for any.

    Returns:
        A reason for each, which stays while the subscription does; None if one gets it.
    """
    reasons = []
    for found in node.get_subscriptions_info_by_topic(offer.name):
        name = f"{found.node_namespace.rstrip('/')}/{found.node_name}"
        if subscriber not in ("", name):
            continue
        fits, why = qos_check_compatible(offer.qos, found.qos_profile)
        if found.topic_type != offer.topic.type_name:
            reasons.append(
                f"{name} takes {offer.name} as {found.topic_type}, and the bag has "
                f"{offer.topic.type_name}"
            )
        elif fits == QoSCompatibility.ERROR:
            cure = "" if offer.is_reliable else " (--reliable makes images reliable)"
            reasons.append(
                f"the QoS of {offer.name} does not suit {name}: {why.rstrip(' ;')}{cure}"
            )
        else:
            return None
    return reasons


def offered_qos(recorded: Sequence[Any], *, lossless: bool = False) -> QoSProfile:
    """One profile that serves every subscriber that one of the recorded ones served.

    Of several publishers' profiles, each policy is the one that promises most: reliable, transient
    local, the shortest deadline, the longest lifespan, the deepest history. What is not known is
    reliable, volatile, keep last 10, which serves most.

    Args:
        recorded: A `rosbags.interfaces.Qos` of each publisher; may be empty.
        lossless: Whether every message has to arrive, whatever was recorded: reliable, kept until
            it has, however long that takes.
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
    # Said outright, since `qos_check_compatible` takes "not said" for less than forever.
    profile.deadline = Duration(nanoseconds=min(nanoseconds("deadline"), default=_FOREVER))
    profile.lifespan = Duration(nanoseconds=max(nanoseconds("lifespan"), default=_FOREVER))
    profile.liveliness_lease_duration = Duration(
        nanoseconds=min(nanoseconds("liveliness_lease_duration"), default=_FOREVER)
    )
    profile.avoid_ros_namespace_conventions = any(
        qos.avoid_ros_namespace_conventions for qos in recorded
    )
    if lossless:
        profile.reliability = ReliabilityPolicy.RELIABLE
        profile.history = HistoryPolicy.KEEP_ALL
        profile.lifespan = Duration(nanoseconds=_FOREVER)
    return profile


def _nanoseconds(time: Any) -> int:
    nanoseconds: int = time.sec * 1_000_000_000 + time.nsec
    return nanoseconds if 0 < nanoseconds < _FOREVER else _FOREVER
