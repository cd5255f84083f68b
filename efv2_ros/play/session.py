"""One replay against a running node: waiting for it, playing, waiting for its last result."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from efv2_ros.bags.bag import Bag
from efv2_ros.bags.errors import BagError
from efv2_ros.bags.writer import BagWriter
from efv2_ros.client.remote import view_of
from efv2_ros.client.spinner import Spinner
from efv2_ros.play.in_flight import InFlight
from efv2_ros.play.player import CLOCK, Gate, PlayError
from efv2_ros.play.qos import Offer, misfits
from efv2_ros.play.recorder import Counts, Recorder
from efv2_ros.replay.results import NODE

Progress = Callable[[int], None]
"""Told how much is done."""

Bar = Callable[[int], Progress]
"""Given how much there is, of messages or of results, returns what is told how much is done."""


@dataclass(frozen=True, slots=True)
class PlayOptions:
    """How a bag is played.

    Attributes:
        topics: What to play; empty for everything.
        rate: Seconds of the bag in a second; `math.inf` for as fast as it goes.
        clock_rate: How often in a second `/clock` is published; 0 for never.
        renamed: New names of topics.
        lossless: Whether every image has to arrive, whatever QoS was recorded.
        wait: Whether to wait until somebody subscribes to images.
        start_timeout: Seconds to wait for that, and for the classifier.
        in_flight: Images that may be without a result at once; 0 does not wait for results.
        classifier: Full name of the classifier.
        result_timeout: Seconds without any answer of the classifier after which it is given up.
        results: Where to write what the classifier says, as a bag.
        player: What plays: this package, or `ros2 bag play`.
    """

    topics: Sequence[str] = ()
    rate: float = 1.0
    clock_rate: float = 0.0
    renamed: Mapping[str, str] = field(default_factory=dict)
    lossless: bool = False
    wait: bool = True
    start_timeout: float = 60.0
    in_flight: int = 0
    classifier: str = NODE
    result_timeout: float = 10.0
    results: Path | None = None
    player: Literal["efv2", "ros2"] = "efv2"

    @property
    def listens(self) -> bool:
        """Whether a classifier must be there."""
        return bool(self.results or self.in_flight or self.player == "ros2")


@dataclass(slots=True)
class Played:
    """What came of it.

    Attributes:
        messages: Messages that were published.
        images: Images among them; with a classifier, those on topics that it takes.
        seconds: How long that took.
        behind: The most seconds by which a message was late.
        counts: What the classifier made of the images; None without one.
        problems: What went wrong, a sentence each.
        interrupted: Whether Ctrl-C ended it.
    """

    messages: int = 0
    images: int = 0
    seconds: float = 0.0
    behind: float = 0.0
    counts: Counts | None = None
    problems: list[str] = field(default_factory=list)
    interrupted: bool = False


class Source(Protocol):
    """What plays a bag: `Player` or `Ros2Bag`."""

    offers: Sequence[Offer]
    sent: Counter[str]

    @property
    def behind(self) -> float:
        """The most seconds by which a message was late."""

    def is_connected(self, offer: Offer) -> bool:
        """Whether somebody takes what is published."""

    def play(self, gate: Gate | None, progress: Progress) -> None:
        """Play it to its end."""


class ResultGate:
    """Lets an image go when enough of those before it are answered; see `Gate`."""

    def __init__(
        self, spinner: Spinner, recorder: Recorder, topics: Sequence[str], options: PlayOptions
    ) -> None:
        self.topics: Collection[str] = topics
        self._spinner, self._recorder = spinner, recorder
        self._timeout = options.result_timeout
        self._flow = InFlight(options.in_flight)
        recorder.on_result = self._flow.result
        recorder.on_report = self._on_report

    def admit(self) -> None:
        """See `Gate.admit`."""
        while not self._flow.has_room:
            if not self._advances(self._flow.answered):
                raise PlayError(self._silence())

    def sent(self, stamp: int | None) -> None:
        """See `Gate.sent`."""
        self._flow.sent(stamp)

    def _advances(self, before: int) -> bool:
        """Whether more than `before` are answered in time."""
        return self._spinner.until(lambda: self._flow.answered > before, self._timeout)

    def _on_report(self) -> None:
        counts = self._recorder.counts
        self._flow.counted(counts.classified + counts.dropped)

    def _silence(self) -> str:
        stamp = self._flow.oldest
        image = "an image whose stamp cannot be read"
        if stamp is not None:
            image = f"the image stamped {stamp // 10**9}.{stamp % 10**9:09d}"
        return (
            f"{self._recorder.classifier} gave no result for {image} in {self._timeout:g} s, nor "
            "did it report another dropped image"
        )


class Session:
    """A bag from the first subscriber to the last result.

    Args:
        spinner: The node.
        source: What plays the bag.
        options: See `PlayOptions`.
    """

    def __init__(self, spinner: Spinner, source: Source, options: PlayOptions) -> None:
        self._spinner, self._source, self._options = spinner, source, options
        self._recorder: Recorder | None = None
        if options.listens:
            self._recorder = Recorder(spinner.node, options.classifier)
        self._images = [offer for offer in source.offers if offer.is_image]

    def await_subscribers(self) -> None:
        """Wait until the images go somewhere, and what comes back is heard.

        Raises:
            PlayError: It takes too long.
        """
        recorder, timeout = self._recorder, self._options.start_timeout
        if recorder is not None:
            if not self._images:
                raise PlayError("there are no images for the classifier in what is played")
            self._spinner.until(
                lambda: self._is_ready(recorder) or self._is_hopeless(recorder), timeout
            )
            if not self._is_ready(recorder):
                raise PlayError(self._missing(recorder))
            self._images = self._taken()
            return
        must_wait = self._options.wait and bool(self._images)
        if must_wait and not self._spinner.until(lambda: bool(self._taken()), timeout):
            raise PlayError(f"nobody takes the images: {self._hindrances()}")

    def begin_recording(self, bag: Bag, stack: ExitStack) -> None:
        """Count what comes from now on, and write it until `stack` is closed."""
        recorder = self._recorder
        if recorder is None:
            return
        writer = None
        if self._options.results is not None:
            writer = stack.enter_context(BagWriter(self._options.results))
            topic = self._images[0].topic
            writer.describe(
                {
                    "bag": str(bag.path),
                    "topic": topic.name,
                    "type": topic.type_name,
                    "model": recorder.model,
                    "runtime": recorder.runtime,
                    "view": view_of(self._spinner, recorder.classifier),
                }
            )
        recorder.begin(writer)
        stack.callback(recorder.end)

    def run(self, bar: Bar) -> Played:
        """Play, and wait for the last result."""
        played, recorder, source = Played(), self._recorder, self._source
        began = time.monotonic()
        try:
            try:
                self._play(bar)
            finally:
                played.seconds = time.monotonic() - began
            if recorder is not None:
                self._drain(recorder)
        except KeyboardInterrupt:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)  # the bag must be closed
            played.interrupted = True
            played.problems.append("interrupted: the results are those until then")
        except (PlayError, BagError) as error:
            played.problems.append(str(error))
        played.messages, played.behind = source.sent.total(), source.behind
        played.images = self._sent
        played.counts = recorder.counts if recorder is not None else None
        return played

    @property
    def _sent(self) -> int:
        """Images that were sent on topics that are taken."""
        return sum(self._source.sent[offer.topic.name] for offer in self._images)

    def _misfits(self, offer: Offer) -> list[str] | None:
        subscriber = self._options.classifier if self._recorder is not None else ""
        return misfits(self._spinner.node, offer, subscriber)

    def _taken(self) -> list[Offer]:
        """Offers of images that are taken by whom they are for."""
        return [
            offer
            for offer in self._images
            if self._source.is_connected(offer) and self._misfits(offer) is None
        ]

    def _hindrances(self) -> str:
        return "; ".join(
            reason
            for offer in self._images
            for reason in self._misfits(offer) or [f"no subscription to {offer.name}"]
        )

    def _is_hopeless(self, recorder: Recorder) -> bool:
        """Whether there is nothing to wait for: another classifier would have to be started."""
        return bool(recorder.problem or (recorder.model and all(map(self._misfits, self._images))))

    def _is_ready(self, recorder: Recorder) -> bool:
        return bool(
            recorder.model
            and recorder.has_reported
            and self._time_is_known(recorder)
            and self._taken()
        )

    def _time_is_known(self, recorder: Recorder) -> bool:
        """Whether the classifier hears the time, if this process tells it by now."""
        tells = self._options.clock_rate > 0 and self._options.player == "efv2"
        return recorder.knows_time or not tells

    def _missing(self, recorder: Recorder) -> str:
        """What is missing for a start."""
        name, waited = recorder.classifier, f"{self._options.start_timeout:g} s"
        if recorder.problem:
            return f"{name} cannot classify: {recorder.problem}"
        if not (recorder.model or recorder.has_reported):
            return f"there is no classifier {name}: nothing was heard of it for {waited}"
        if not recorder.model:
            return f"{name} is {recorder.state} after {waited}"
        if not self._taken():
            takes = ", ".join(recorder.takes()) or "no images"
            return (
                f"{name} does not take the images: {self._hindrances()}; it takes {takes}, and "
                "--remap gives a topic another name"
            )
        if not recorder.has_reported:
            return f"{name} published no diagnostics for {waited}"
        return f"{name} did not hear {CLOCK} for {waited}"

    def _play(self, bar: Bar) -> None:
        recorder, options = self._recorder, self._options
        if recorder is None or options.player == "efv2":
            gate = None
            if recorder is not None and options.in_flight:
                names = [offer.topic.name for offer in self._images]
                gate = ResultGate(self._spinner, recorder, names, options)
            total = sum(offer.topic.count for offer in self._source.offers)
            self._source.play(gate, bar(total))
        else:
            progress = bar(sum(offer.topic.count for offer in self._images))
            recorder.on_result = lambda stamp: progress(recorder.results)
            self._source.play(None, progress)

    def _drain(self, recorder: Recorder) -> None:
        """Wait for what is still to come.

        Raises:
            PlayError: Not all of it comes.
        """
        recorder.await_rest()
        while not self._is_done(recorder):
            if not self._advances(recorder):
                raise PlayError(self._rest(recorder))

    def _is_done(self, recorder: Recorder) -> bool:
        arrived = recorder.counts.received >= self._sent
        # What was not sent reliably may never arrive.
        lossy = not all(offer.is_reliable for offer in self._images)
        return recorder.has_all and (arrived or (lossy and recorder.settled))

    def _advances(self, recorder: Recorder) -> bool:
        """Whether anything comes in time."""
        before = recorder.total
        return self._spinner.until(
            lambda: self._is_done(recorder) or recorder.total != before,
            self._options.result_timeout,
        )

    def _rest(self, recorder: Recorder) -> str:
        counts, name = recorder.counts, recorder.classifier
        if recorder.has_all:
            return f"{self._sent - counts.received} of {self._sent} images did not reach {name}"
        return (
            f"{name} says nothing new for {self._options.result_timeout:g} s: of {self._sent} "
            f"images it received {counts.received}, classified {counts.classified} and dropped "
            f"{counts.dropped}; {recorder.results} results came"
        )
