"""Publishing a bag: the recorded bytes, when they are due, with the QoS they had."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.exceptions import InvalidTopicNameException
from rosgraph_msgs.msg import Clock as ClockMessage

from efv2_ros.bags.bag import Topic
from efv2_ros.bags.salvage import Message
from efv2_ros.client.spinner import Spinner
from efv2_ros.messages.images import IMAGE_TYPES
from efv2_ros.node.transports import message_type
from efv2_ros.play.options import PlayError
from efv2_ros.play.qos import PublishedTopic
from efv2_ros.play.read_ahead import ReadAhead
from efv2_ros.play.schedule import Schedule
from efv2_ros.vision.frame import FrameError

CLOCK = "/clock"

_READ_TIMEOUT_S = 0.05
"""Longest wait for the disk before messages are handled again."""

ACKNOWLEDGE_TIMEOUT_S = 5.0
"""For subscribers to acknowledge, at the end, that everything arrived."""

_ACKNOWLEDGE_STEP_S = 0.1
"""Longest wait for an acknowledgement before messages are handled again."""


class Gate(Protocol):
    """Decides when the next image may be published."""

    topics: Collection[str]
    """Topics whose images wait at the gate, by their names in the bag."""

    def wait(self) -> None:
        """Wait until an image may be published; raise PlayError if that takes too long."""

    def sent(self, stamp_ns: int | None) -> None:
        """Note that it was published; the stamp is None if it cannot be read."""


class BagPlayer(Protocol):
    """What plays a bag: `Player` or `Ros2Bag`."""

    topics: Sequence[PublishedTopic]
    """The topics that are published."""

    sent: Counter[str]
    """Messages that were published, by the name of the topic in the bag."""

    @property
    def max_lateness_s(self) -> float:
        """The most by which a message was published late; 0 if that is not known."""

    def is_connected(self, topic: PublishedTopic) -> bool:
        """Whether a subscriber is connected to a topic."""

    def play(self, gate: Gate | None) -> None:
        """Play the bag to its end."""


class Player:
    """Publishes the messages of a bag.

    Everything happens in the thread that calls it. Until `play`, `/clock` stands at the time of
    the first message.

    Args:
        spinner: The node to publish with; its messages are handled while nothing is due.
        topics: What to publish; the message types are installed.
        messages: The messages of these topics; the first one is waited for.
        rate: See `Schedule`.
        clock_rate_hz: How often `/clock` is published, besides once before each message; 0 for
            never.
        on_sent: Called with the number of messages published so far, after each.

    Attributes:
        topics: As given.
        sent: Messages that were published, by the name of the topic in the bag.

    Raises:
        PlayError: A topic cannot be published under its name, or with its QoS.
        BagError: The bag cannot be read.
    """

    def __init__(
        self,
        spinner: Spinner,
        topics: Sequence[PublishedTopic],
        messages: ReadAhead,
        rate: float,
        clock_rate_hz: float,
        *,
        on_sent: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.topics = topics
        self.sent: Counter[str] = Counter()
        self._spinner, self._messages, self._on_sent = spinner, messages, on_sent
        self._schedule = Schedule(rate)
        self._by_name = {topic.recorded.name: topic for topic in topics}
        self._publishers = {topic.recorded.name: self._publisher(topic) for topic in topics}
        spinner.spin_until(lambda: messages.ready, math.inf)
        first = messages.first()
        self._time_ns = self._next_ns = first.log_time if first is not None else 0
        self._clock = None
        if clock_rate_hz:
            self._clock = spinner.node.create_publisher(ClockMessage, CLOCK, 10)
            spinner.node.create_timer(
                1.0 / clock_rate_hz, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME)
            )

    @property
    def max_lateness_s(self) -> float:
        """The most by which a message was published late."""
        return self._schedule.max_lateness_s

    def is_connected(self, topic: PublishedTopic) -> bool:
        """Whether a subscriber is connected to a topic."""
        return bool(self._publishers[topic.recorded.name].get_subscription_count())

    def play(self, gate: Gate | None) -> None:
        """Publish all messages, and wait until subscribers acknowledge those that are reliable.

        Args:
            gate: Where images wait; None lets all through. While one waits, the bag's time stands
                still, and all later messages are due later by as much.

        Raises:
            PlayError: The gate gives up, or the middleware takes no more.
            BagError: The bag cannot be read on.
        """
        self._schedule.start(self._time_ns, time.monotonic())
        while not self._messages.ended:
            message = self._messages.take(_READ_TIMEOUT_S)
            self._spinner.spin_once()
            if message is not None:
                self._play(message, gate)
                self._on_sent(self.sent.total())
        self._wait_for_acknowledgements()

    def _publisher(self, topic: PublishedTopic) -> Any:
        kind = message_type(topic.recorded.type_name)
        try:
            return self._spinner.node.create_publisher(kind, topic.name, topic.qos)
        except InvalidTopicNameException as error:
            reason = str(error).partition("\n")[0]
            raise PlayError(f"{topic.name} cannot be the name of a topic: {reason}") from error
        except Exception as error:  # rclpy's RCLError, or what a bag names as a type is none
            reason = str(error).partition("\n")[0]
            raise PlayError(
                f"{topic.name} ({topic.recorded.type_name}) cannot be published: {reason}"
            ) from error

    def _play(self, message: Message, gate: Gate | None) -> None:
        topic = self._by_name[message.topic]
        self._next_ns = max(self._next_ns, message.log_time)
        is_gated = gate is not None and message.topic in gate.topics
        if gate is not None and is_gated:
            ready = max(time.monotonic(), self._schedule.due(message.log_time))
            gate.wait()
            self._schedule.hold(max(0.0, time.monotonic() - ready))
        self._spinner.spin_for(self._schedule.due(message.log_time) - time.monotonic())
        if self._next_ns > self._time_ns:
            self._time_ns = self._next_ns
            self._publish_time()
        try:
            self._publishers[message.topic].publish(message.data)
        except RuntimeError as error:  # rclpy's RCLError, which Humble does not export
            raise PlayError(f"{topic.name} cannot be published: {error}") from error
        self._schedule.sent(message.log_time, time.monotonic())
        self.sent[message.topic] += 1
        if gate is not None and is_gated:
            gate.sent(_stamp(topic.recorded, message.data))

    def _wait_for_acknowledgements(self) -> None:
        end = time.monotonic() + ACKNOWLEDGE_TIMEOUT_S
        for publisher in self._publishers.values():
            step = Duration(seconds=_ACKNOWLEDGE_STEP_S)
            while not publisher.wait_for_all_acked(step) and time.monotonic() < end:
                self._spinner.spin_once()

    def _tick(self) -> None:
        """Publish the time as it is by now, but never that of a message before the message."""
        now_ns = self._schedule.log_time(time.monotonic())
        self._time_ns = max(self._time_ns, min(now_ns, self._next_ns))
        self._publish_time()

    def _publish_time(self) -> None:
        if self._clock is not None:
            message = ClockMessage()
            message.clock.sec, message.clock.nanosec = divmod(self._time_ns, 1_000_000_000)
            self._clock.publish(message)


def _stamp(topic: Topic, data: bytes) -> int | None:
    """The stamp of an image in nanoseconds; None if it cannot be read."""
    kind = IMAGE_TYPES[str(topic.transport)]
    try:
        frame = kind.frame(data) if kind.has_header else kind.frame(data, frame_id="")
    except FrameError:
        return None
    return frame.header.nanoseconds
