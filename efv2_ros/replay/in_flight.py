"""Which images were sent to a classifier and are not answered yet."""

from __future__ import annotations

from collections import deque

_REMEMBERED = 1000
"""Images whose results may come later than the count of them, or never, as of those dropped."""


class InFlight:
    """Counts what is on its way.

    An image is answered by a result with its stamp. One that is dropped gets none: it is known
    from the classifier's own counts alone, and not which one it is.

    Args:
        most: Images that may be on their way at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._sent = self._results = self._classified = self._dropped = 0
        self._unanswered: deque[int | None] = deque(maxlen=most + _REMEMBERED)

    def __len__(self) -> int:
        """Images on their way."""
        return max(0, self._sent - self.answered)

    @property
    def answered(self) -> int:
        """Images that were classified or dropped."""
        return max(self._results, self._classified) + self._dropped

    @property
    def has_room(self) -> bool:
        """Whether another image may be sent."""
        return len(self) < self._most

    @property
    def oldest(self) -> int | None:
        """Stamp of the image that is on its way for longest, if it is known which one that is.

        An image whose message cannot be read has no stamp.
        """
        return self._unanswered[-len(self)] if 0 < len(self) <= len(self._unanswered) else None

    def sent(self, stamp: int | None) -> None:
        """An image was sent; its stamp in nanoseconds, if it has one that can be read."""
        self._sent += 1
        self._unanswered.append(stamp)

    def result(self, stamp: int) -> None:
        """A result came, with this stamp."""
        if stamp in self._unanswered:
            self._unanswered.remove(stamp)
            self._results += 1

    def counted(self, classified: int, dropped: int) -> None:
        """The classifier has told what became of all images since the first one."""
        self._classified, self._dropped = classified, dropped
