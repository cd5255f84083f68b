"""A bag played to the running node, and what the node says recorded: `efv2 play`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import rclpy
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from efv2_ros.bags.bag import Bag, Topic
from efv2_ros.bags.errors import BagError
from efv2_ros.client.spinner import Spinner
from efv2_ros.node.fastdds import image_profile
from efv2_ros.node.transports import TransportError, message_type
from efv2_ros.play.player import CLOCK, Player, PlayError
from efv2_ros.play.qos import offered_topics
from efv2_ros.play.read_ahead import ReadAhead
from efv2_ros.play.recorder import REPORTS
from efv2_ros.play.ros2_bag import Ros2Bag
from efv2_ros.play.session import Bar, Played, PlayOptions, Session, Source


def play(path: Path, options: PlayOptions, *, say: Callable[[str], None], bar: Bar) -> Played:
    """Play a bag; Ctrl-C ends it with what has come so far.

    Args:
        path: The bag.
        options: How to play it.
        say: Told, in a sentence, what is left out.
        bar: See `Bar`.

    Raises:
        BagError: The bag cannot be opened, or has no such topics.
        PlayError: It could not start: nobody subscribes, or the classifier is not ready.
    """
    with ExitStack() as stack:
        bag = stack.enter_context(Bag(path))
        offers = offered_topics(
            _chosen(bag, options, say), options.renamed, lossless=options.lossless
        )
        spinner = stack.enter_context(_ros(simulated_time=options.clock_rate > 0))
        source: Source
        if options.player == "ros2":
            source = Ros2Bag(spinner, path, offers, options.rate, options.clock_rate)
        else:
            names = {offer.topic.name for offer in offers}
            ahead = stack.enter_context(ReadAhead(bag.messages(names)))
            source = Player(spinner, offers, ahead, options.rate, options.clock_rate)
        session = Session(spinner, source, options)
        session.await_subscribers()
        session.begin_recording(bag, stack)
        played = session.run(bar)
    played.problems += bag.problems
    return played


@contextmanager
def _ros(*, simulated_time: bool) -> Generator[Spinner, None, None]:
    os.environ.update(image_profile(os.environ))
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        overrides = [Parameter("use_sim_time", value=simulated_time)]
        spinner = Spinner(rclpy.create_node("efv2_play", parameter_overrides=overrides))
        # Ctrl-C ends the playing, not the middleware; so does what ends a service.
        before = {
            number: signal.signal(number, spinner.interrupt)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield spinner
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            spinner.close()
    finally:
        rclpy.try_shutdown()


def _chosen(bag: Bag, options: PlayOptions, say: Callable[[str], None]) -> list[Topic]:
    """The topics to play, without what cannot or must not be."""
    for name in (*options.topics, *options.renamed):
        if name not in bag.topics:
            raise BagError(f"{bag.path} has no topic {name}; it has {', '.join(bag.topics)}")
    chosen, anew, unknown = [], [], []
    for topic in (bag.topics[name] for name in options.topics or bag.topics):
        if _is_published_anew(topic.name, options):
            anew.append(topic.name)
        elif options.player == "efv2" and not _is_installed(topic):
            unknown.append(f"{topic.name} ({topic.type_name})")
        else:
            chosen.append(topic)
    if anew:
        say(f"left out, since it is published anew: {', '.join(anew)}")
    if unknown:
        say(f"left out, since its message type is not installed: {', '.join(unknown)}")
    if not chosen:
        raise PlayError(f"nothing is left to play of {bag.path}")
    return chosen


def _is_published_anew(name: str, options: PlayOptions) -> bool:
    """Whether messages of this name come from somebody else now, who is listened to."""
    heard = name == REPORTS or name.startswith(f"{options.classifier}/")
    return (options.listens and heard) or (options.clock_rate > 0 and name == CLOCK)


def _is_installed(topic: Topic) -> bool:
    try:
        message_type(topic.type_name)
    except TransportError:
        return False
    return True
