"""When the messages of a bag are due: counted from the first one, so that nothing adds up."""

from __future__ import annotations

import math


class Schedule:
    """A bag's time beside that of a steady clock.

    Args:
        rate: Seconds of the bag in a second. With `math.inf` everything is due at once, and time
            does not run by itself.

    Attributes:
        behind: The most seconds by which a message was late.
    """

    def __init__(self, rate: float) -> None:
        self.behind = 0.0
        self._rate = rate
        self._start = 0.0
        self._first = 0

    def start(self, log_time: int, now: float) -> None:
        """Have time run: it is `log_time`, in nanoseconds, at `now`, in steady seconds."""
        self._first, self._start = log_time, now

    def due(self, log_time: int) -> float:
        """When, in steady seconds, it is `log_time`."""
        return self._start + (log_time - self._first) / 1e9 / self._rate

    def log_time(self, now: float) -> int:
        """The bag's time at `now`, in nanoseconds."""
        if math.isinf(self._rate):
            return self._first
        return self._first + int((now - self._start) * self._rate * 1e9)

    def hold(self, seconds: float) -> None:
        """Have everything that is to come be due later: time stood still for `seconds`."""
        self._start += seconds

    def sent(self, log_time: int, now: float) -> None:
        """Note how late a message was."""
        if not math.isinf(self._rate):
            self.behind = max(self.behind, now - self.due(log_time))
