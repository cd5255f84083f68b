"""What a replay waits for before its first message, and what is missing if it does not come."""

from __future__ import annotations

from collections.abc import Sequence

from efv2_ros.client.spinner import Spinner
from efv2_ros.play.options import PlayError, PlayOptions
from efv2_ros.play.player import CLOCK, BagPlayer
from efv2_ros.play.qos import PublishedTopic, is_received, qos_mismatches
from efv2_ros.play.recorder import Recorder


class Readiness:
    """Waits until somebody receives the images, and until the classifier's answers are received.

    Args:
        spinner: The node that waits.
        player: What plays the bag.
        recorder: What listens to the classifier; None if no classifier is needed.
        options: See `PlayOptions`.
    """

    def __init__(
        self,
        spinner: Spinner,
        player: BagPlayer,
        recorder: Recorder | None,
        options: PlayOptions,
    ) -> None:
        self._spinner, self._player = spinner, player
        self._recorder, self._options = recorder, options
        self._images = [topic for topic in player.topics if topic.is_image]

    def wait(self) -> Sequence[PublishedTopic]:
        """Wait until all is ready.

        Returns:
            With a classifier, the image topics that it receives; else all image topics.

        Raises:
            PlayError: It takes too long, or cannot come about; the message says what is missing.
        """
        if self._recorder is not None:
            self._wait_for_classifier(self._recorder)
            return self._received()
        if self._options.wait_for_subscribers and self._images:
            self._wait_for_subscribers()
        return self._images

    def _wait_for_subscribers(self) -> None:
        timeout_s = self._options.start_timeout_s
        if not self._spinner.spin_until(lambda: bool(self._received()), timeout_s):
            raise PlayError(f"nobody receives the images: {self._reasons()}")

    def _wait_for_classifier(self, recorder: Recorder) -> None:
        if not self._images:
            raise PlayError("there are no images for the classifier among the topics to play")
        self._spinner.spin_until(
            lambda: self._is_ready(recorder) or self._is_hopeless(recorder),
            self._options.start_timeout_s,
        )
        if not self._is_ready(recorder):
            raise PlayError(self._missing(recorder))

    @property
    def _subscriber(self) -> str:
        """Full name of the node that has to receive the images; empty for any."""
        return self._options.classifier if self._recorder is not None else ""

    def _received(self) -> list[PublishedTopic]:
        """Image topics that the intended subscriber receives."""
        return [
            topic
            for topic in self._images
            if self._player.is_connected(topic)
            and is_received(self._spinner.node, topic, self._subscriber)
        ]

    def _mismatches(self, topic: PublishedTopic) -> list[str]:
        return qos_mismatches(self._spinner.node, topic, self._subscriber)

    def _reasons(self) -> str:
        """Why nobody receives an image."""
        return "; ".join(
            reason
            for topic in self._images
            for reason in self._mismatches(topic) or [f"no subscription to {topic.name}"]
        )

    def _is_ready(self, recorder: Recorder) -> bool:
        return bool(
            recorder.model
            and recorder.has_reported
            and self._has_time(recorder)
            and self._received()
        )

    def _is_hopeless(self, recorder: Recorder) -> bool:
        """Whether waiting is of no use, because the classifier has to be started otherwise."""
        if recorder.status.problem:
            return True
        return bool(recorder.model) and all(
            self._mismatches(topic)
            and not is_received(self._spinner.node, topic, self._subscriber)
            for topic in self._images
        )

    def _has_time(self, recorder: Recorder) -> bool:
        """Whether the classifier hears `/clock`, if this process publishes it by now."""
        publishes = self._options.clock_rate_hz > 0 and self._options.player == "efv2"
        return recorder.knows_time or not publishes

    def _missing(self, recorder: Recorder) -> str:
        """What is missing, in a sentence."""
        name, waited = recorder.classifier, f"{self._options.start_timeout_s:g} s"
        if recorder.status.problem:
            return f"{name} cannot classify: {recorder.status.problem}"
        if not (recorder.model or recorder.has_reported):
            return f"there is no classifier {name}: it published nothing for {waited}"
        if not recorder.model:
            return f"{name} is {recorder.status.state} after {waited}"
        if not self._received():
            topics = ", ".join(recorder.image_topics()) or "no images"
            return (
                f"{name} does not receive the images: {self._reasons()}; it subscribes to "
                f"{topics}, and --remap publishes a topic under another name"
            )
        if not recorder.has_reported:
            return f"{name} published no diagnostics for {waited}"
        return f"{name} did not hear {CLOCK} for {waited}"
