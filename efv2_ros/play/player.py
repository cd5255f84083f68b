"""Publishing a bag: the bytes that were recorded, when they are due, with the QoS they had."""

from __future__ import annotations

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
from efv2_ros.errors import Efv2Error
from efv2_ros.messages.images import IMAGE_TYPES
from efv2_ros.node.transports import message_type
from efv2_ros.play.qos import Offer
from efv2_ros.play.read_ahead import ReadAhead
from efv2_ros.play.schedule import Schedule
from efv2_ros.vision.frame import FrameError

CLOCK = "/clock"

_READING = 0.05
"""Seconds to wait for the disk before messages are handled again."""

_ACKNOWLEDGEMENT = 5.0
"""Seconds that subscribers have, at the end, to say that everything came."""


class PlayError(Efv2Error):
    """A bag cannot be played as it should be, or what it is played to does not answer."""


class Gate(Protocol):
    """Says when the next image may go."""

    topics: Collection[str]
    """Of the images that it wants to be asked about, by their names in the bag."""

    def admit(self) -> None:
        """Return when it may; raises PlayError if that takes too long."""

    def sent(self, stamp: int | None) -> None:
        """It has gone; its stamp in nanoseconds, if it has one that can be read."""


class Player:
    """Publishes the messages of a bag.

    Everything happens in the thread that calls it. Until `play`, time stands at that of the first
    message.

    Args:
        spinner: The node to publish with; messages to it are handled while nothing is due.
        offers: What to publish; the message types are installed.
        messages: Those of the same topics.
        rate: See `Schedule`.
        clock_rate: How often in a second `/clock` is published, besides once before each message;
            0 for never.

    Attributes:
        offers: As given.
        sent: Messages that were published, by the name of the topic in the bag.

    Raises:
        PlayError: A name is none that a topic can have.
        BagError: The bag cannot be read.
    """

    def __init__(
        self,
        spinner: Spinner,
        offers: Sequence[Offer],
        messages: ReadAhead,
        rate: float,
        clock_rate: float,
    ) -> None:
        self.offers = offers
        self.sent: Counter[str] = Counter()
        self._spinner, self._messages = spinner, messages
        self._schedule = Schedule(rate)
        self._publishers = {offer.topic.name: self._publisher(offer) for offer in offers}
        first = messages.first()
        self._time = self._next = first.log_time if first is not None else 0
        self._clock = None
        if clock_rate:
            self._clock = spinner.node.create_publisher(ClockMessage, CLOCK, 10)
            spinner.node.create_timer(
                1.0 / clock_rate, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME)
            )

    @property
    def behind(self) -> float:
        """The most seconds by which a message was late."""
        return self._schedule.behind

    def is_connected(self, offer: Offer) -> bool:
        """Whether somebody takes what is published."""
        return bool(self._publishers[offer.topic.name].get_subscription_count())

    def play(self, gate: Gate | None, progress: Callable[[int], None]) -> None:
        """Publish all messages, and wait until subscribers have those that are reliable.

        Args:
            gate: Asked before an image, if there is one. While it lets none through, time stands
                still: what comes after is due later by as much.
            progress: Told how many messages were published.

        Raises:
            PlayError: From the gate, or the middleware takes no more.
            BagError: The bag cannot be read on.
        """
        self._schedule.start(self._time, time.monotonic())
        while not self._messages.ended:
            message = self._messages.take(_READING)
            self._spinner.once()
            if message is not None:
                self._play(message, gate)
                progress(self.sent.total())
        end = time.monotonic() + _ACKNOWLEDGEMENT
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=max(0.0, end - time.monotonic())))

    def _publisher(self, offer: Offer) -> Any:
        kind = message_type(offer.topic.type_name)
        try:
            return self._spinner.node.create_publisher(kind, offer.name, offer.qos)
        except InvalidTopicNameException as error:
            reason = str(error).partition("\n")[0]
            raise PlayError(f"{offer.name} cannot be the name of a topic: {reason}") from error

    def _play(self, message: Message, gate: Gate | None) -> None:
        offer = next(each for each in self.offers if each.topic.name == message.topic)
        self._next = max(self._next, message.log_time)
        is_gated = gate is not None and message.topic in gate.topics
        if gate is not None and is_gated:
            ready = max(time.monotonic(), self._schedule.due(message.log_time))
            gate.admit()
            self._schedule.hold(max(0.0, time.monotonic() - ready))
        left = self._schedule.due(message.log_time) - time.monotonic()
        self._spinner.until(lambda: False, left)
        if self._next > self._time:
            self._time = self._next
            self._publish_time()
        try:
            self._publishers[message.topic].publish(message.data)
        except RuntimeError as error:  # rclpy's RCLError, which Humble does not export
            raise PlayError(f"{offer.name} cannot be published: {error}") from error
        self._schedule.sent(message.log_time, time.monotonic())
        self.sent[message.topic] += 1
        if gate is not None and is_gated:
            gate.sent(_stamp(offer.topic, message.data))

    def _tick(self) -> None:
        """Publish the time as it is by now, but never that of a message before the message."""
        now = self._schedule.log_time(time.monotonic())
        self._time = max(self._time, min(now, self._next))
        self._publish_time()

    def _publish_time(self) -> None:
        if self._clock is not None:
            message = ClockMessage()
            message.clock.sec, message.clock.nanosec = divmod(self._time, 1_000_000_000)
            self._clock.publish(message)


def _stamp(topic: Topic, data: bytes) -> int | None:
    """The stamp of an image in nanoseconds, if that much of it can be read."""
    kind = IMAGE_TYPES[str(topic.transport)]
    try:
        frame = kind.frame(data) if kind.has_header else kind.frame(data, frame_id="")
    except FrameError:
        return None
    return frame.header.nanoseconds
