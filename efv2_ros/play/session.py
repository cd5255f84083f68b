"""Playing a bag to running nodes and recording what a classifier makes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType

import rclpy
from rclpy.parameter import Parameter

from efv2_ros.bags.bag import Bag, Topic
from efv2_ros.bags.errors import BagError
from efv2_ros.bags.writer import BagWriter
from efv2_ros.client.requests import request_view_options
from efv2_ros.client.ros import ros_context
from efv2_ros.client.spinner import Spinner
from efv2_ros.client.status import Counts
from efv2_ros.node.transports import TransportError, message_type
from efv2_ros.play.in_flight import InFlight, ResultGate
from efv2_ros.play.options import Played, PlayError, PlayOptions, PlayProgress
from efv2_ros.play.player import CLOCK, BagPlayer, Player
from efv2_ros.play.qos import PublishedTopic, published_topics
from efv2_ros.play.read_ahead import ReadAhead
from efv2_ros.play.readiness import Readiness
from efv2_ros.play.recorder import DIAGNOSTICS_TOPIC, Recorder
from efv2_ros.play.ros2_bag import Ros2Bag


def play(
    bag: Bag,
    options: PlayOptions,
    *,
    on_notice: Callable[[str], None] = lambda text: None,
    on_progress: PlayProgress = lambda done, total: None,
    should_stop: Callable[[], bool] | None = None,
) -> Played:
    """Play a bag to running nodes, and with a classifier follow it to the last result.

    Args:
        bag: The bag.
        options: How to play it.
        on_notice: Called with a sentence about what is left out or goes wrong.
        on_progress: See `PlayProgress`.
        should_stop: Polled; ends the playing with the results so far. See `catch_stop`.

    Raises:
        BagError: The bag has no such topics, or the results cannot be written.
        PlayError: It could not start: nobody subscribes, or the classifier is not ready.
        RosError: ROS does not start.
        KeyboardInterrupt: `should_stop` returned true before anything was played.
    """
    with Session(bag, options, on_notice, on_progress, should_stop) as session:
        session.wait_for_subscribers()
        session.start_recording()
        with session.noting_problems():
            session.play()
            session.wait_for_results()
    return session.result()


class Session:
    """One replay, from the first publisher to the last result; a context manager.

    See `play` for the arguments, and for the order in which the methods are called.
    """

    def __init__(
        self,
        bag: Bag,
        options: PlayOptions,
        on_notice: Callable[[str], None],
        on_progress: PlayProgress,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self._bag, self._options, self._on_progress = bag, options, on_progress
        self._in_flight = InFlight(options.in_flight)
        self._images: Sequence[PublishedTopic] = ()
        self._total: int | None = None
        self._duration_s = 0.0
        self._problems: list[str] = []
        self._interrupted = False
        chosen = _chosen(bag, options, on_notice)
        topics = published_topics(chosen, options.renamed, lossless=options.lossless)
        with ExitStack() as stack:
            context = stack.enter_context(ros_context())
            simulated_time = Parameter("use_sim_time", value=options.clock_rate_hz > 0)
            node = rclpy.create_node(
                "efv2_play", context=context, parameter_overrides=[simulated_time]
            )
            self._spinner = stack.enter_context(Spinner(node, should_stop))
            self._player = self._create_player(topics, stack)
            self._recorder: Recorder | None = None
            if options.needs_classifier:
                self._recorder = Recorder(
                    node,
                    options.classifier,
                    on_result=self._on_result,
                    on_report=self._on_report,
                    on_notice=on_notice,
                )
            self._resources = stack.pop_all()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._resources.close()

    def wait_for_subscribers(self) -> None:
        """Wait until somebody receives the images; see `Readiness`.

        Raises:
            PlayError: It takes too long.
        """
        readiness = Readiness(self._spinner, self._player, self._recorder, self._options)
        self._images = readiness.wait()

    def start_recording(self) -> None:
        """Count results from now on, and record them until the session ends.

        Raises:
            BagError: The bag of results cannot be written.
        """
        if self._recorder is None:
            return
        writer = None
        if self._options.results is not None:
            view = request_view_options(self._spinner, self._options.classifier)
            writer = self._resources.enter_context(BagWriter(self._options.results))
            recorded = self._images[0].recorded
            writer.describe(
                {
                    "bag": str(self._bag.path),
                    "topic": recorded.name,
                    "type": recorded.type_name,
                    "model": self._recorder.model,
                    "runtime": self._recorder.status.runtime,
                    "view": view,
                }
            )
        self._resources.enter_context(self._recorder.recording(writer))

    @contextmanager
    def noting_problems(self) -> Iterator[None]:
        """Let an interruption or a failure end the block, and become part of the result."""
        try:
            yield
        except KeyboardInterrupt:
            self._interrupted = True
            self._problems.append("interrupted: the results end there")
        except (PlayError, BagError) as error:
            self._problems.append(str(error))

    def play(self) -> None:
        """Play the bag to its end.

        Raises:
            PlayError: The classifier does not answer, or the player fails.
            BagError: The bag cannot be read on, or the results cannot be written.
        """
        counted = self._player.topics if self._options.player == "efv2" else self._images
        self._total = sum(topic.recorded.count for topic in counted)
        self._on_progress(0, self._total)
        start = time.monotonic()
        try:
            self._player.play(self._gate())
        finally:
            self._duration_s = time.monotonic() - start

    def wait_for_results(self) -> None:
        """Wait for the results that are still to come.

        Raises:
            PlayError: Not all of them come.
            BagError: The results cannot be written.
        """
        recorder = self._recorder
        if recorder is None:
            return
        recorder.reset_settled()
        while not self._is_done(recorder):
            if not self._advances(recorder):
                raise PlayError(self._missing_results(recorder))

    def result(self) -> Played:
        """What came of it."""
        return Played(
            messages=self._player.sent.total(),
            images=self._images_sent,
            duration_s=self._duration_s,
            max_lateness_s=self._player.max_lateness_s,
            counts=self._recorder.counts if self._recorder is not None else None,
            problems=(*self._problems, *self._bag.problems),
            interrupted=self._interrupted,
        )

    def _create_player(self, topics: Sequence[PublishedTopic], stack: ExitStack) -> BagPlayer:
        options = self._options
        if options.player == "ros2":
            return Ros2Bag(
                self._spinner, self._bag.path, topics, options.rate, options.clock_rate_hz
            )
        names = {topic.recorded.name for topic in topics}
        messages = stack.enter_context(
            ReadAhead(lambda should_stop: self._bag.messages(names, should_stop))
        )
        return Player(
            self._spinner,
            topics,
            messages,
            options.rate,
            options.clock_rate_hz,
            on_sent=self._report_progress,
        )

    def _gate(self) -> ResultGate | None:
        options = self._options
        if not options.in_flight:
            return None
        return ResultGate(
            self._spinner,
            self._in_flight,
            [topic.recorded.name for topic in self._images],
            classifier=options.classifier,
            timeout_s=options.result_timeout_s,
        )

    def _on_result(self, stamp_ns: int) -> None:
        self._in_flight.result(stamp_ns)
        if self._recorder is not None and self._options.player == "ros2":
            self._report_progress(self._recorder.results)

    def _on_report(self, counts: Counts) -> None:
        self._in_flight.counted(counts.classified + counts.dropped)

    def _report_progress(self, done: int) -> None:
        if self._total is not None:
            self._on_progress(done, self._total)

    @property
    def _images_sent(self) -> int:
        """Images that were published on topics that are received."""
        return sum(self._player.sent[topic.recorded.name] for topic in self._images)

    def _is_done(self, recorder: Recorder) -> bool:
        arrived = recorder.counts.received >= self._images_sent
        # An image that was not sent reliably may never arrive.
        lossy = not all(topic.is_reliable for topic in self._images)
        return recorder.has_all and (arrived or (lossy and recorder.settled))

    def _advances(self, recorder: Recorder) -> bool:
        """Whether the classifier says anything new in time."""
        before = recorder.progress
        return self._spinner.spin_until(
            lambda: self._is_done(recorder) or recorder.progress != before,
            self._options.result_timeout_s,
        )

    def _missing_results(self, recorder: Recorder) -> str:
        counts, name, sent = recorder.counts, recorder.classifier, self._images_sent
        if recorder.has_all:
            return f"{sent - counts.received} of {sent} images did not reach {name}"
        return (
            f"{name} reported nothing new for {self._options.result_timeout_s:g} s: of {sent} "
            f"images it received {counts.received}, classified {counts.classified} and dropped "
            f"{counts.dropped}; {recorder.results} results arrived"
        )


def _chosen(bag: Bag, options: PlayOptions, on_notice: Callable[[str], None]) -> list[Topic]:
    """The topics to play, without those that cannot or must not be published."""
    for name in (*options.topics, *options.renamed):
        if name not in bag.topics:
            raise BagError(f"{bag.path} has no topic {name}; it has {', '.join(bag.topics)}")
    chosen, replaced, unknown = [], [], []
    for topic in (bag.topics[name] for name in options.topics or bag.topics):
        if _has_other_publisher(topic.name, options):
            replaced.append(topic.name)
        elif options.player == "efv2" and not _is_installed(topic):
            unknown.append(f"{topic.name} ({topic.type_name})")
        else:
            chosen.append(topic)
    if replaced:
        on_notice(f"left out, since it has another publisher now: {', '.join(replaced)}")
    if unknown:
        on_notice(f"left out, since its message type is not installed: {', '.join(unknown)}")
    if not chosen:
        raise PlayError(f"nothing is left to play of {bag.path}")
    return chosen


def _has_other_publisher(name: str, options: PlayOptions) -> bool:
    """Whether the classifier publishes this topic during the replay, or the player's clock."""
    is_classifiers = name == DIAGNOSTICS_TOPIC or name.startswith(f"{options.classifier}/")
    return (options.needs_classifier and is_classifiers) or (
        options.clock_rate_hz > 0 and name == CLOCK
    )


def _is_installed(topic: Topic) -> bool:
    try:
        message_type(topic.type_name)
    except TransportError:
        return False
    return True
