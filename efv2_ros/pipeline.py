"""From a stream of items to a stream of results in the same order. No ROS, no OpenCV.

A producer puts items into a mailbox; `slots` worker threads take them, oldest first, and do the
slow work side by side; results are delivered one at a time, in the order of the items.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

QueuePolicy = Literal["latest", "all"]
DropCause = Literal["superseded", "closed"]


class Pipeline(Generic[Item, Outcome]):
    """A mailbox, worker threads, and delivery in order.

    Args:
        work: Turns an item into an outcome; called from `slots` threads at once. `replace`
            changes it while items flow.
        deliver: Receives every item with its outcome, or with the exception that `work` raised,
            and the seconds the item waited for a worker. Calls never overlap. It must not raise.
        slots: Number of worker threads.
        policy: `latest` keeps one waiting item, which a newer one replaces. `all` keeps every
            item and makes `submit` wait while `slots` items are waiting.
        dropped: Called with each item that gets no result, and why: a newer one replaced it, or
            the pipeline was closed before its turn.
    """

    def __init__(
        self,
        work: Callable[[Item], Outcome],
        deliver: Callable[[Item, Outcome | Exception, float], None],
        *,
        slots: int = 1,
        policy: QueuePolicy = "latest",
        dropped: Callable[[Item, DropCause], None] = lambda item, cause: None,
    ) -> None:
        self._work = work
        self._deliver = deliver
        self._dropped = dropped
        self._policy = policy
        self._capacity = 1 if policy == "latest" else slots
        self._waiting: deque[tuple[Item, float]] = deque()
        self._running: Counter[Callable[[Item], Outcome]] = Counter()
        self._closed = False
        self._changed = threading.Condition()
        # Tickets number the items as workers take them; delivery follows the tickets.
        self._ticket = 0
        self._next_delivery = 0
        self._finished: dict[int, tuple[Item, Outcome | Exception, float]] = {}
        self._delivery = threading.Lock()
        self._workers = [
            threading.Thread(target=self._run, name=f"pipeline-{n}", daemon=True)
            for n in range(slots)
        ]
        for worker in self._workers:
            worker.start()

    def submit(self, item: Item) -> None:
        """Hand over an item; with policy `all`, wait until there is room for it.

        Raises:
            RuntimeError: The pipeline is closed, or was closed while waiting.
        """
        replaced: Item | None = None
        with self._changed:
            if self._policy == "all":
                self._changed.wait_for(lambda: self._closed or self._has_room())
            if self._closed:
                raise RuntimeError("the pipeline is closed")
            if not self._has_room():
                replaced, _ = self._waiting.popleft()
            self._waiting.append((item, time.perf_counter()))
            self._changed.notify_all()
        if replaced is not None:
            self._dropped(replaced, "superseded")

    def replace(self, work: Callable[[Item], Outcome]) -> None:
        """Use `work` for every item taken from now on.

        Returns when the last item of the previous `work` has been delivered, so that what it
        used can be freed. One call at a time.
        """
        with self._changed:
            previous, self._work = self._work, work
            self._changed.wait_for(lambda: previous == self._work or not self._running[previous])

    def drain(self, timeout: float) -> bool:
        """Wait until nothing is waiting or running; False when `timeout` seconds are over."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._waiting and not self._running.total(), timeout
            )

    def close(self) -> None:
        """Drop what waits, let what runs finish and be delivered, end the workers."""
        with self._changed:
            self._closed = True
            waiting = [item for item, _ in self._waiting]
            self._waiting.clear()
            self._changed.notify_all()
        for item in waiting:
            self._dropped(item, "closed")
        for worker in self._workers:
            worker.join()

    def _has_room(self) -> bool:
        return len(self._waiting) < self._capacity

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting)
                if not self._waiting:
                    return
                item, since = self._waiting.popleft()
                ticket, work = self._ticket, self._work
                self._ticket += 1
                self._running[work] += 1
                self._changed.notify_all()
            waited = time.perf_counter() - since
            outcome: Outcome | Exception
            try:
                outcome = work(item)
            except Exception as error:  # the stream goes on; `deliver` says what happened
                outcome = error
            self._finish(ticket, item, outcome, waited)
            with self._changed:
                self._running[work] -= 1
                self._running += Counter()  # forgets what is at zero, and so lets it be freed
                self._changed.notify_all()

    def _finish(
        self, ticket: int, item: Item, outcome: Outcome | Exception, waited: float
    ) -> None:
        with self._delivery:
            self._finished[ticket] = (item, outcome, waited)
            while self._next_delivery in self._finished:
                self._deliver(*self._finished.pop(self._next_delivery))
                self._next_delivery += 1
