"""When the messages of a bag are due, counted from the first one so that no error adds up."""

from __future__ import annotations

import math


class Schedule:
    """Maps a bag's time to a steady clock's, and back.

    Args:
        rate: Playback speed; 2 is twice real time. With `math.inf` everything is due at once, and
            the bag's time does not run by itself.

    Attributes:
        max_lateness_s: The most by which a message was published late.
    """

    def __init__(self, rate: float) -> None:
        self.max_lateness_s = 0.0
        self._rate = rate
        self._start_s = 0.0
        self._first_ns = 0

    def start(self, log_time_ns: int, now_s: float) -> None:
        """Start the bag's time: it is `log_time_ns` at `now_s` of the steady clock."""
        self._first_ns, self._start_s = log_time_ns, now_s

    def due(self, log_time_ns: int) -> float:
        """When the bag's time is `log_time_ns`, in seconds of the steady clock."""
        return self._start_s + (log_time_ns - self._first_ns) / 1e9 / self._rate

    def log_time(self, now_s: float) -> int:
        """The bag's time at `now_s` of the steady clock, in nanoseconds."""
        if math.isinf(self._rate):
            return self._first_ns
        return self._first_ns + int((now_s - self._start_s) * self._rate * 1e9)

    def hold(self, duration_s: float) -> None:
        """Delay everything that is still to come."""
        self._start_s += duration_s

    def sent(self, log_time_ns: int, now_s: float) -> None:
        """Note when a message was published."""
        if not math.isinf(self._rate):
            self.max_lateness_s = max(self.max_lateness_s, now_s - self.due(log_time_ns))
