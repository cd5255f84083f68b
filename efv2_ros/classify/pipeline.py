"""A pipeline of threads: items in, results out in the same order. Knows neither ROS nor OpenCV.

Producers submit items, each of a source. Worker threads prepare them and run them on the
accelerator, `slots` at once. While some wait for the accelerator, others prepare the next items,
so that the accelerator never waits. Sources take turns, however many items one submits. One more
thread finishes the results and delivers them, one at a time and in the order of preparation, which
is that of each source's items, while the workers continue.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable
from typing import Any, Generic, Literal, Protocol, TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
Item_contra = TypeVar("Item_contra", contravariant=True)
Outcome_co = TypeVar("Outcome_co", covariant=True)

QueuePolicy = Literal["latest", "all"]
DropCause = Literal["superseded", "closed"]


def spare_slots(slots: int) -> int:
    """Number of items that may be prepared beyond the `slots` that the accelerator works on.

    These are the `slots` items that are in preparation at once, and one that is ready.
    """
    return slots + 1


class Processor(Protocol[Item_contra, Outcome_co]):
    """The work on an item, in three steps. Several threads call them at once."""

    def prepare(self, item: Item_contra) -> Any:
        """Turn the item into what `work` needs. Up to `2 * slots + 1` of these exist at once."""

    def discard(self, prepared: Any) -> None:
        """Free what `prepare` returned for an item that gets no result."""

    def work(self, prepared: Any) -> Any:
        """Run the accelerator. At most `slots` calls run at once."""

    def finish(self, worked: Any) -> Outcome_co:
        """Make the outcome. One call runs at a time."""


class _Waiting(Generic[Item]):
    """An item that no worker has taken yet, its source, and since when it waits."""

    __slots__ = ("item", "since", "source")

    def __init__(self, item: Item, source: Hashable) -> None:
        self.item, self.source, self.since = item, source, time.perf_counter()


class _Job(Generic[Item, Outcome]):
    """An item in the pipeline, and what has become of it so far."""

    __slots__ = ("content", "error", "is_done", "item", "processor", "since", "source", "waited")

    def __init__(self, waiting: _Waiting[Item], processor: Processor[Item, Outcome]) -> None:
        self.item, self.source, self.since = waiting.item, waiting.source, waiting.since
        self.processor = processor
        self.waited = 0.0
        self.content: Any = waiting.item
        self.error: Exception | None = None
        self.is_done = False

    def step(self, stage: Callable[[Any], Any]) -> None:
        """Run a step; the time since the last one counts as waiting."""
        self.waited += time.perf_counter() - self.since
        try:
            self.content = stage(self.content)
        except Exception as error:  # the stream continues; `on_outcome` gets the error
            self.error = error
        self.since = time.perf_counter()


class Pipeline(Generic[Item, Outcome]):
    """A queue of items, worker threads, and a thread that delivers the results in order.

    Args:
        processor: The work on each item. `replace` changes it while items are submitted.
        on_outcome: Called with each item, its outcome or the exception that a step raised, and
            the seconds that the item waited between its steps. Calls never overlap. It must not
            raise.
        slots: Number of items that the accelerator works on at once.
        policy: `latest` keeps only the newest item of each source that waits for the accelerator;
            a newer one replaces it, and the source that was served longest ago comes next. `all`
            keeps every item in the order of the calls, and `submit` waits while `slots` items
            wait.
        source_of: Returns the source of an item, such as its camera.
        on_dropped: Called with each item that gets no result, and the cause: a newer item
            replaced it, or the pipeline was closed before its turn.
    """

    def __init__(
        self,
        processor: Processor[Item, Outcome],
        on_outcome: Callable[[Item, Outcome | Exception, float], None],
        *,
        slots: int = 1,
        policy: QueuePolicy = "latest",
        source_of: Callable[[Item], Hashable] = lambda item: None,
        on_dropped: Callable[[Item, DropCause], None] = lambda item, cause: None,
    ) -> None:
        self._processor = processor
        self._source_of = source_of
        self._on_outcome = on_outcome
        self._on_dropped = on_dropped
        self._policy = policy
        self._slots = slots
        self._waiting: list[_Waiting[Item]] = []
        self._turns: dict[Hashable, int] = {}  # when each source was served last
        self._begun = 0
        self._jobs: deque[_Job[Item, Outcome]] = deque()  # in the order of their items
        self._preparing: set[_Job[Item, Outcome]] = set()
        self._prepared: set[_Job[Item, Outcome]] = set()
        self._working = self._done = 0
        self._running: Counter[Processor[Item, Outcome]] = Counter()
        self._closed = False
        # One lock for all state, with a condition each for workers, the deliverer and callers.
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
        """Add an item; with policy `all`, wait until there is room for it.

        Raises:
            RuntimeError: The pipeline is closed, or was closed while waiting.
        """
        replaced: _Waiting[Item] | None = None
        source = self._source_of(item)
        with self._changed:
            if self._policy == "all":
                self._changed.wait_for(lambda: self._closed or self._ahead() < self._slots)
            if self._closed:
                raise RuntimeError("the pipeline is closed")
            if self._policy == "latest":
                replaced = next((each for each in self._waiting if each.source == source), None)
            if replaced is not None:
                self._waiting.remove(replaced)
            self._waiting.append(_Waiting(item, source))
            self._workable.notify()
        if replaced is not None:
            self._on_dropped(replaced.item, "superseded")

    def withdraw(self, source: Hashable) -> None:
        """Drop the items of a source that wait; those that a worker has taken are delivered.

        For a source that submits nothing any more.
        """
        with self._changed:
            withdrawn = [each for each in self._waiting if each.source == source]
            for each in withdrawn:
                self._waiting.remove(each)
            self._turns.pop(source, None)
            self._changed.notify_all()
        for each in withdrawn:
            self._on_dropped(each.item, "closed")

    def replace(self, processor: Processor[Item, Outcome]) -> None:
        """Use `processor` for all items whose preparation starts from now on.

        Returns after the last item of the previous processor has been delivered, so that its
        resources can be freed. Only one call may run at a time.
        """
        with self._changed:
            previous, self._processor = self._processor, processor
            self._changed.wait_for(
                lambda: previous is self._processor or not self._running[previous]
            )

    def drain(self, timeout_s: float) -> bool:
        """Wait until no item is left; False if `timeout_s` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._waiting and not self._running.total(), timeout_s
            )

    def close(self) -> None:
        """Drop the items that wait, deliver those that run, and end the threads."""
        with self._changed:
            self._closed = True
            waiting = [each.item for each in self._waiting]
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

    # The methods from here to `_run` are called with the lock held.

    def _ahead(self) -> int:
        """Number of items that the accelerator has not begun."""
        return len(self._waiting) + len(self._preparing) + len(self._prepared)

    def _may_work(self) -> bool:
        """Whether the accelerator may begin an item: results must not pile up before delivery."""
        if not self._prepared or self._working == self._slots:
            return False
        # The oldest item must not wait for later ones, which cannot be delivered before it.
        return self._done <= self._slots or self._jobs[0] in self._prepared

    def _next(self) -> _Waiting[Item] | None:
        """The item to prepare next; None if there is none, or those that are prepared suffice."""
        if self._policy == "all" or not self._waiting:
            return self._waiting[0] if self._waiting else None
        chosen = min(self._waiting, key=lambda each: self._turns.get(each.source, 0))
        ahead = self._preparing | self._prepared
        if len(ahead) < self._slots:
            return chosen
        # A newer item of the same source replaces the one that is ready. With another source in
        # it, it waits for its turn: else a fast source would always have one ready.
        sources = {job.source for job in ahead} | {each.source for each in self._waiting}
        return chosen if len(sources) == 1 else None

    def _run(self) -> None:
        while self._do_next():
            pass

    def _do_next(self) -> bool:
        """Prepare an item, run one, or both in turn; False once the pipeline is closed."""
        with self._workable:
            self._workable.wait_for(lambda: self._closed or self._next() or self._may_work())
            if self._may_work():  # first, so that the accelerator does not wait
                job, is_prepared = self._begin_work(), True
            elif (waiting := self._next()) is not None:
                job, is_prepared = self._begin_preparation(waiting), False
            else:
                return False
        if not is_prepared:
            job.step(job.processor.prepare)
            if not self._is_next(job):
                return True  # a worker that is free takes it when it is its turn
        job.step(job.processor.work)
        with self._workable:
            self._working -= 1
            self._finish(job)
        return True

    def _begin_preparation(self, waiting: _Waiting[Item]) -> _Job[Item, Outcome]:
        self._waiting.remove(waiting)
        job = _Job(waiting, self._processor)
        self._begun += 1
        self._turns[waiting.source] = self._begun
        self._jobs.append(job)
        self._running[self._processor] += 1
        self._preparing.add(job)
        self._changed.notify_all()
        return job

    def _begin_work(self) -> _Job[Item, Outcome]:
        job = self._oldest()
        self._prepared.remove(job)
        self._working += 1
        if self._waiting:  # another source's turn may have come
            self._workable.notify()
        self._changed.notify_all()
        return job

    def _is_next(self, job: _Job[Item, Outcome]) -> bool:
        """Mark a job as prepared; True if the caller shall run it at once."""
        with self._workable:
            self._preparing.remove(job)
            if job.error is not None:
                self._finish(job)
                return False
            self._prepared.add(job)
            unwanted = self._superfluous(job.source)
            is_next = self._may_work() and self._oldest() is job
            if is_next:
                self._begin_work()
        if unwanted is not None:
            self._drop(unwanted, "closed" if self._closed else "superseded")
        return is_next

    def _superfluous(self, source: Hashable) -> _Job[Item, Outcome] | None:
        """Take out a prepared job of a source that is no longer wanted, if there is one."""
        if self._policy == "all" and not self._closed:
            return None
        own = [job for job in self._jobs if job in self._prepared and job.source == source]
        if len(own) <= (0 if self._closed else 1):
            return None
        self._prepared.remove(own[0])
        return own[0]

    def _drop(self, job: _Job[Item, Outcome], cause: DropCause) -> None:
        """Drop a prepared item. Called without the lock."""
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
        """Remove a job that was delivered or dropped, and wake who waited for that."""
        self._jobs.remove(job)
        self._running[job.processor] -= 1
        self._running += Counter()  # drops counts of zero, so that the processor can be freed
        if self._may_work():  # the job that is now the oldest may have waited for this
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
            del job, outcome  # else they would be kept alive until the next result
