"""From a stream of items to a stream of results in the same order. No ROS, no OpenCV.

A producer puts items into a mailbox; `slots` worker threads take them, oldest first, and do the
slow work side by side; another thread delivers the results one at a time, in the order of the
items. So a worker that feeds an accelerator is back at it at once: delivery costs time only while
the accelerator works.
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
    """A mailbox, worker threads, and a thread that delivers in order.

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
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._worked = threading.Condition(lock)  # the same state, for the deliverer alone
        # Tickets number the items as workers take them; delivery follows the tickets.
        self._ticket = 0
        self._delivered = 0
        self._finished: dict[
            int, tuple[Item, Outcome | Exception, float, Callable[[Item], Outcome]]
        ] = {}
        self._slots = slots
        self._workers = [
            threading.Thread(target=self._run, name=f"pipeline-{n}", daemon=True)
            for n in range(slots)
        ]
        self._deliverer = threading.Thread(
            target=self._run_delivery, name="pipeline-delivery", daemon=True
        )
        for thread in (*self._workers, self._deliverer):
            thread.start()

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
        with self._changed:
            self._worked.notify_all()
        self._deliverer.join()

    def _has_room(self) -> bool:
        return len(self._waiting) < self._capacity

    def _may_take(self) -> bool:
        """Whether a worker may start: results must not pile up behind a slow delivery."""
        return bool(self._waiting) and len(self._finished) <= self._slots

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._may_take())
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
            with self._changed:
                self._finished[ticket] = (item, outcome, waited, work)
                self._worked.notify_all()

    def _run_delivery(self) -> None:
        while True:
            with self._changed:
                self._worked.wait_for(
                    lambda: (
                        self._delivered in self._finished
                        or (self._closed and self._delivered == self._ticket)
                    )
                )
                if self._delivered not in self._finished:
                    return
                item, outcome, waited, work = self._finished.pop(self._delivered)
            self._deliver(item, outcome, waited)
            with self._changed:
                self._delivered += 1
                self._running[work] -= 1
                self._running += Counter()  # forgets what is at zero, and so lets it be freed
                self._changed.notify_all()
            del item, outcome, work  # or they would live until the next result
