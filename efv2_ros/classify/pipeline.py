"""From a stream of items to a stream of results in the same order. No ROS, no OpenCV.

A producer puts items into a mailbox. Workers prepare them and work on them, `slots` at once on the
accelerator, and while those wait for it, others prepare what comes next: an accelerator finds its
next item ready. Another thread finishes and delivers the results one at a time, in the order of
the items, while the workers are back at work.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Generic, Literal, Protocol, TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
Item_contra = TypeVar("Item_contra", contravariant=True)
Outcome_co = TypeVar("Outcome_co", covariant=True)

QueuePolicy = Literal["latest", "all"]
DropCause = Literal["superseded", "closed"]


def spare_slots(slots: int) -> int:
    """How many prepared things there may be beyond those that `slots` work on.

    As many as are in preparation at once, and one that is ready.
    """
    return slots + 1


class Processor(Protocol[Item_contra, Outcome_co]):
    """What is done with an item, in three steps; threads call them side by side."""

    def prepare(self, item: Item_contra) -> Any:
        """Make of the item what `work` needs; up to `2 * slots + 1` such things exist at once."""

    def discard(self, prepared: Any) -> None:
        """Take back what was prepared and will not be worked on."""

    def work(self, prepared: Any) -> Any:
        """Run the accelerator; called at most `slots` times at once."""

    def finish(self, worked: Any) -> Outcome_co:
        """Make the outcome of it; one call at a time."""


class _Job(Generic[Item, Outcome]):
    """An item on its way."""

    __slots__ = ("content", "error", "is_done", "item", "processor", "since", "waited")

    def __init__(self, item: Item, since: float, processor: Processor[Item, Outcome]) -> None:
        self.item, self.since, self.processor = item, since, processor
        self.waited = 0.0
        self.content: Any = item
        self.error: Exception | None = None
        self.is_done = False

    def step(self, stage: Callable[[Any], Any]) -> None:
        """Go through a stage, after a wait for it."""
        self.waited += time.perf_counter() - self.since
        try:
            self.content = stage(self.content)
        except Exception as error:  # the stream goes on; `on_outcome` says what happened
            self.error = error
        self.since = time.perf_counter()


class Pipeline(Generic[Item, Outcome]):
    """A mailbox, worker threads, and a thread that delivers in order.

    Args:
        processor: What is done with the items. `replace` changes it while items flow.
        on_outcome: Receives every item with its outcome, or with the exception that a stage
            raised, and the seconds the item waited for its turns. Calls never overlap. It must
            not raise.
        slots: Items worked on at once.
        policy: `latest` keeps the newest item, prepared or not; a newer one replaces it until
            work on it begins. `all` keeps every item and makes `submit` wait while `slots` items
            are waiting.
        on_dropped: Called with each item that gets no result, and why: a newer one replaced it, or
            the pipeline was closed before its turn.
    """

    def __init__(
        self,
        processor: Processor[Item, Outcome],
        on_outcome: Callable[[Item, Outcome | Exception, float], None],
        *,
        slots: int = 1,
        policy: QueuePolicy = "latest",
        on_dropped: Callable[[Item, DropCause], None] = lambda item, cause: None,
    ) -> None:
        self._processor = processor
        self._on_outcome = on_outcome
        self._on_dropped = on_dropped
        self._policy = policy
        self._slots = slots
        self._waiting: deque[tuple[Item, float]] = deque()
        self._jobs: deque[_Job[Item, Outcome]] = deque()  # in the order of their items
        self._prepared: set[_Job[Item, Outcome]] = set()
        self._preparing = self._working = self._done = 0
        self._running: Counter[Processor[Item, Outcome]] = Counter()
        self._closed = False
        # One state, and whom its changes concern: workers, the deliverer, and those who call.
        lock = threading.RLock()
        self._workable = threading.Condition(lock)
        self._deliverable = threading.Condition(lock)
        self._changed = threading.Condition(lock)
        self._workers = [
            threading.Thread(target=self._run, name=f"pipeline-{n}", daemon=True)
            for n in range(2 * slots)
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
                self._changed.wait_for(lambda: self._closed or self._ahead() < self._slots)
            if self._closed:
                raise RuntimeError("the pipeline is closed")
            if self._policy == "latest" and self._waiting:
                replaced, _ = self._waiting.popleft()
            self._waiting.append((item, time.perf_counter()))
            self._workable.notify()
        if replaced is not None:
            self._on_dropped(replaced, "superseded")

    def replace(self, processor: Processor[Item, Outcome]) -> None:
        """Use `processor` for every item taken from now on.

        Returns when the last item of the previous ones has been delivered, so that what they used
        can be freed. One call at a time.
        """
        with self._changed:
            previous, self._processor = self._processor, processor
            self._changed.wait_for(
                lambda: previous is self._processor or not self._running[previous]
            )

    def drain(self, timeout: float) -> bool:
        """Wait until nothing is waiting or running; False when `timeout` seconds are over."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._waiting and not self._running.total(), timeout
            )

    def close(self) -> None:
        """Drop what waits, let what runs finish and be delivered, end the threads."""
        with self._changed:
            self._closed = True
            waiting = [item for item, _ in self._waiting]
            prepared = list(self._prepared)
            self._waiting.clear()
            self._prepared.clear()
            self._workable.notify_all()
            self._changed.notify_all()
        for item in waiting:
            self._on_dropped(item, "closed")
        for job in prepared:
            self._drop(job, "closed")
        for worker in self._workers:
            worker.join()
        with self._changed:
            self._deliverable.notify_all()
        self._deliverer.join()

    # What follows, up to `_run`, is called with the lock held.

    def _ahead(self) -> int:
        """Items before their work."""
        return len(self._waiting) + self._preparing + len(self._prepared)

    def _may_work(self) -> bool:
        """Whether work may start: results must not pile up behind a slow delivery."""
        if not self._prepared or self._working == self._slots:
            return False
        # The one that all others wait for to be delivered must not wait for them.
        return self._done <= self._slots or self._jobs[0] in self._prepared

    def _run(self) -> None:
        while self._do_next():
            pass

    def _do_next(self) -> bool:
        """Prepare an item, work on one, or both in turn; False if there will be no more."""
        with self._workable:
            self._workable.wait_for(lambda: self._closed or self._waiting or self._may_work())
            if self._may_work():  # first: the accelerator is what must not wait
                job, is_prepared = self._begin_work(), True
            elif self._waiting:
                job, is_prepared = self._begin_preparation(), False
            else:
                return False
        if not is_prepared:
            job.step(job.processor.prepare)
            if not self._is_next(job):
                return True  # it waits for its turn, with whoever is free then
        job.step(job.processor.work)
        with self._workable:
            self._working -= 1
            self._finish(job)
        return True

    def _begin_preparation(self) -> _Job[Item, Outcome]:
        item, since = self._waiting.popleft()
        job = _Job(item, since, self._processor)
        self._jobs.append(job)
        self._running[self._processor] += 1
        self._preparing += 1
        self._changed.notify_all()
        return job

    def _begin_work(self) -> _Job[Item, Outcome]:
        job = self._oldest()
        self._prepared.remove(job)
        self._working += 1
        self._changed.notify_all()
        return job

    def _is_next(self, job: _Job[Item, Outcome]) -> bool:
        """Put a job among the prepared; True if the caller is to work on it at once."""
        with self._workable:
            self._preparing -= 1
            if job.error is not None:
                self._finish(job)
                return False
            self._prepared.add(job)
            unwanted = self._superfluous()
            is_next = self._may_work() and self._oldest() is job
            if is_next:
                self._begin_work()
        if unwanted is not None:
            self._drop(unwanted, "closed" if self._closed else "superseded")
        return is_next

    def _superfluous(self) -> _Job[Item, Outcome] | None:
        """A prepared job that is not wanted any more, taken out."""
        if self._policy == "all" and not self._closed:
            return None
        if len(self._prepared) <= (0 if self._closed else 1):
            return None
        oldest = self._oldest()
        self._prepared.remove(oldest)
        return oldest

    def _drop(self, job: _Job[Item, Outcome], cause: DropCause) -> None:
        """Do without an item that was prepared; the lock is not held."""
        job.processor.discard(job.content)
        self._on_dropped(job.item, cause)
        with self._changed:
            self._forget(job)

    def _oldest(self) -> _Job[Item, Outcome]:
        return next(job for job in self._jobs if job in self._prepared)

    def _finish(self, job: _Job[Item, Outcome]) -> None:
        job.is_done = True
        self._done += 1
        self._deliverable.notify()

    def _forget(self, job: _Job[Item, Outcome]) -> None:
        """What remains to be done once a job is delivered or dropped."""
        self._jobs.remove(job)
        self._running[job.processor] -= 1
        self._running += Counter()  # forgets what is at zero, and so lets it be freed
        if self._may_work():  # the job that is now the oldest may have had to wait
            self._workable.notify()
        self._deliverable.notify()
        self._changed.notify_all()

    def _run_delivery(self) -> None:
        while True:
            with self._deliverable:
                self._deliverable.wait_for(
                    lambda: self._jobs[0].is_done if self._jobs else self._closed
                )
                if not self._jobs:
                    return
                job = self._jobs[0]
                self._done -= 1
                if self._may_work():
                    self._workable.notify()
            if job.error is None:
                job.step(job.processor.finish)
            outcome: Outcome | Exception = job.content if job.error is None else job.error
            self._on_outcome(job.item, outcome, job.waited)
            with self._changed:
                self._forget(job)
            del job, outcome  # or they would live until the next result
