"""Options of playing a bag, and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from efv2_ros.classify.options import NODE
from efv2_ros.errors import Efv2Error

if TYPE_CHECKING:
    from efv2_ros.client.status import Counts

PlayProgress = Callable[[int, int], None]
"""Called with what is done and how much there is: messages played, or results if `ros2` plays."""


class PlayError(Efv2Error):
    """A bag cannot be played as it should be, or what it is played to does not answer."""


@dataclass(frozen=True, slots=True)
class PlayOptions:
    """How a bag is played.

    Attributes:
        topics: Names of the topics to play; empty for all.
        rate: Playback speed; 2 is twice real time, `math.inf` as fast as possible.
        clock_rate_hz: How often `/clock` is published; 0 for never.
        renamed: New names of topics, by their name in the bag.
        lossless: Whether images are published reliably, whatever QoS was recorded.
        wait_for_subscribers: Whether to wait until somebody subscribes to images.
        start_timeout_s: How long to wait for subscribers and for the classifier.
        in_flight: Images that may be without a result at once; 0 does not wait for results.
        classifier: Full name of the classifier.
        result_timeout_s: How long to wait for any answer of the classifier before giving up.
        results: Bag to write the classifier's messages to; None for none.
        player: What plays: this package, or `ros2 bag play`.

    Raises:
        PlayError: `ros2 bag play` is asked to wait for results.
    """

    topics: Sequence[str] = ()
    rate: float = 1.0
    clock_rate_hz: float = 0.0
    renamed: Mapping[str, str] = field(default_factory=dict)
    lossless: bool = False
    wait_for_subscribers: bool = True
    start_timeout_s: float = 60.0
    in_flight: int = 0
    classifier: str = NODE
    result_timeout_s: float = 10.0
    results: Path | None = None
    player: Literal["efv2", "ros2"] = "efv2"

    def __post_init__(self) -> None:
        if self.in_flight and self.player == "ros2":
            raise PlayError("ros2 bag play cannot wait for results")

    @property
    def needs_classifier(self) -> bool:
        """Whether a running classifier is needed."""
        return bool(self.results or self.in_flight or self.player == "ros2")


@dataclass(frozen=True, slots=True)
class Played:
    """What came of playing a bag.

    Attributes:
        messages: Messages that were published.
        images: Images among them; with a classifier, those on topics that it receives.
        duration_s: How long that took, without the wait for the last results.
        max_lateness_s: The most by which a message was published late.
        counts: What became of the images in the classifier; None without one.
        problems: What went wrong, a sentence each.
        interrupted: Whether SIGINT or SIGTERM ended it.
    """

    messages: int
    images: int
    duration_s: float
    max_lateness_s: float
    counts: Counts | None = None
    problems: tuple[str, ...] = ()
    interrupted: bool = False
