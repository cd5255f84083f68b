"""Images without a result yet, and the gate that limits how many there are."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING

from efv2_ros.play.options import PlayError

if TYPE_CHECKING:
    from efv2_ros.client.spinner import Spinner

_REMEMBERED = 1000
"""Images that may be dropped in a row before the next one has a result."""


class InFlight:
    """Counts the images that were sent to a classifier and have no answer yet.

    An image is answered by a result with its stamp, and so are all before it: results come in the
    order of the images. A dropped image gets no result. If no later image has one either, the
    classifier's own counts tell; they also tell of results that got lost.

    Args:
        limit: Images that may be in flight at once.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sent = self._by_results = self._by_counts = 0
        self._unanswered: deque[tuple[int, int | None]] = deque(maxlen=limit + _REMEMBERED)

    def __len__(self) -> int:
        """Images in flight."""
        return max(0, self._sent - self.answered)

    @property
    def answered(self) -> int:
        """Least number of images that were classified or dropped."""
        return max(self._by_results, self._by_counts)

    @property
    def has_room(self) -> bool:
        """Whether another image may be sent."""
        return len(self) < self._limit

    @property
    def oldest(self) -> int | None:
        """Stamp, in nanoseconds, of the image in flight for longest; None if it has none."""
        return next((stamp for number, stamp in self._unanswered if number > self.answered), None)

    def sent(self, stamp_ns: int | None) -> None:
        """Note that an image was sent; the stamp is None if it cannot be read."""
        self._sent += 1
        self._unanswered.append((self._sent, stamp_ns))

    def result(self, stamp_ns: int) -> None:
        """Note that a result with this stamp came."""
        number = next((number for number, each in self._unanswered if each == stamp_ns), 0)
        while self._unanswered and self._unanswered[0][0] <= number:
            self._unanswered.popleft()
        self._by_results = max(self._by_results, number)

    def counted(self, answered: int) -> None:
        """Note how many images the classifier reports as classified or dropped, of all sent."""
        self._by_counts = answered


class ResultGate:
    """Lets an image go once enough of those before it are answered; see `Gate`.

    Args:
        spinner: The node that receives the answers.
        in_flight: Told of the answers by others, of the images by the gate.
        topics: Topics of the images, by their names in the bag.
        classifier: Full name of the classifier.
        timeout_s: How long to wait for another answer.
    """

    def __init__(
        self,
        spinner: Spinner,
        in_flight: InFlight,
        topics: Collection[str],
        *,
        classifier: str,
        timeout_s: float,
    ) -> None:
        self.topics = topics
        self._spinner, self._in_flight = spinner, in_flight
        self._classifier, self._timeout_s = classifier, timeout_s

    def wait(self) -> None:
        """See `Gate.wait`."""
        while not self._in_flight.has_room:
            if not self._advances(self._in_flight.answered):
                raise PlayError(self._no_answer())

    def sent(self, stamp_ns: int | None) -> None:
        """See `Gate.sent`."""
        self._in_flight.sent(stamp_ns)

    def _advances(self, before: int) -> bool:
        """Whether more than `before` images are answered in time."""
        return self._spinner.spin_until(lambda: self._in_flight.answered > before, self._timeout_s)

    def _no_answer(self) -> str:
        stamp_ns = self._in_flight.oldest
        image = "an image whose stamp cannot be read"
        if stamp_ns is not None:
            image = f"the image stamped {stamp_ns // 10**9}.{stamp_ns % 10**9:09d}"
        return (
            f"{self._classifier} gave no result for {image} in {self._timeout_s:g} s, nor did it "
            "report another dropped image"
        )
