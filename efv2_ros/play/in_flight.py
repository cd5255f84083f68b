"""Which images were sent to a classifier and are not answered yet."""

from __future__ import annotations

from collections import deque

_REMEMBERED = 1000
"""Images that may be dropped in a row before the next one has a result."""


class InFlight:
    """Counts what is on its way.

    An image is answered by a result with its stamp, and so are all before it, since results come
    in the order of the images. One that is dropped gets no result: if no later image has one, the
    classifier's own counts tell, and they tell of results that got lost as well.

    Args:
        most: Images that may be on their way at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._sent = self._by_results = self._by_counts = 0
        self._unanswered: deque[tuple[int, int | None]] = deque(maxlen=most + _REMEMBERED)

    def __len__(self) -> int:
        """Images on their way."""
        return max(0, self._sent - self.answered)

    @property
    def answered(self) -> int:
        """Images that were classified or dropped, at least."""
        return max(self._by_results, self._by_counts)

    @property
    def has_room(self) -> bool:
        """Whether another image may be sent."""
        return len(self) < self._most

    @property
    def oldest(self) -> int | None:
        """Stamp of the image that is on its way for longest; None if it has none, or none is."""
        return next((stamp for number, stamp in self._unanswered if number > self.answered), None)

    def sent(self, stamp: int | None) -> None:
        """An image was sent; its stamp in nanoseconds, if it has one that can be read."""
        self._sent += 1
        self._unanswered.append((self._sent, stamp))

    def result(self, stamp: int) -> None:
        """A result came, with this stamp."""
        number = next((number for number, each in self._unanswered if each == stamp), 0)
        while self._unanswered and self._unanswered[0][0] <= number:
            self._unanswered.popleft()
        self._by_results = max(self._by_results, number)

    def counted(self, answered: int) -> None:
        """The classifier has told how many images it classified or dropped since the first one."""
        self._by_counts = answered
