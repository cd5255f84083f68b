"""A fleet of bags: replays each one, whole or in spans, in whatever workers there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from efv2_ros.bags.errors import BagError
from efv2_ros.classify.failures import MACHINE_CAUSES
from efv2_ros.errors import Efv2Error
from efv2_ros.fleet.results import BagResult, Results
from efv2_ros.fleet.sources import Source, version_of
from efv2_ros.fleet.tasks import Cut, Job, Replayed, replay_or_cut, replay_span, replay_whole
from efv2_ros.messages.errors import MessageError
from efv2_ros.replay.run import Run
from efv2_ros.workers.errors import WorkerDiedError
from efv2_ros.workers.workers import Workers


class Task(NamedTuple):
    """A task of a fleet: the number of its bag, and of its span; -1 is the whole bag."""

    bag: int
    span: int = -1


@dataclass(frozen=True)
class Progress:
    """How far a fleet is.

    Attributes:
        bags: Bags that have come to an end.
        images: Images that are done.
        total: All images, as far as they are counted.
        counted: Whether all are counted.
    """

    bags: int
    images: int
    total: int
    counted: bool


@dataclass
class _Open:
    """A bag that is cut, and its spans that have no result yet."""

    cut: Cut
    missing: set[int]
    images: int = 0
    seconds: float = 0.0


class Fleet:
    """Replays a fleet of bags.

    What one bag holds never depends on the workers: its run is that of a single replay, to the
    last byte.

    Args:
        sources: The bags.
        job: What to do with each.
        results: Where the results go. Bags that are there already are not replayed again.
        on_run: Called with the run of each bag that ends, and its name.
        on_progress: Called whenever a task ends.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        job: Job,
        results: Results,
        *,
        on_run: Callable[[Run, str], None] = lambda run, name: None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self._sources, self._job, self._results = sources, job, results
        self._on_run, self._on_progress = on_run, on_progress
        self._open: dict[int, _Open] = {}
        self._ended = 0
        self._images = 0
        self._counted: dict[int, int] = {}

    def run(self, workers: Workers[Task], should_stop: Callable[[], bool] = lambda: False) -> bool:
        """Replay the bags that have no results yet.

        Args:
            workers: What runs the tasks.
            should_stop: Polled; True ends the run. The next one goes on from there.

        Returns:
            Whether every bag has come to an end.

        Raises:
            Efv2Error: No bag can be replayed: the model cannot be used, or the workers are gone.
            FileWriteError: Results cannot be written.
        """
        for number, source in enumerate(self._sources):
            if known := self._results.known(source):
                self._end(number, known.images)
            elif cut := self._results.kept_cut(source):
                self._submit_spans(workers, number, cut)
            else:
                workers.submit(Task(number), replay_or_cut, source.absolute, self._job)
        self._tell()
        for task, outcome in workers.results(should_stop):
            self._take(workers, task, outcome)
            self._tell()
        self._results.save()
        if self._ended < len(self._sources):
            return False
        self._results.finish()
        return True

    def _take(self, workers: Workers[Task], task: Task, outcome: object) -> None:
        if task.span >= 0 and task.bag not in self._open:
            return  # another span of the bag failed, or is damaged
        if isinstance(outcome, Replayed):
            self._results.check_model(outcome.model)
        match outcome:
            case Cut():
                self._results.keep_cut(self._sources[task.bag], outcome)
                self._submit_spans(workers, task.bag, outcome)
            case Replayed() if task.span < 0:
                self._finish(task.bag, outcome.run, outcome.problems, outcome.seconds)
            case Replayed() if outcome.problems:
                self._submit_whole(workers, task.bag)
            case Replayed():
                self._keep_span(task, outcome)
            case BagError() | MessageError() | WorkerDiedError():
                self._fail(task.bag, str(outcome))
            case Efv2Error():
                raise outcome
            case Exception():
                self._fail(task.bag, f"{type(outcome).__name__}: {outcome}")

    def _submit_spans(self, workers: Workers[Task], number: int, cut: Cut) -> None:
        source = self._sources[number]
        opened = self._open[number] = _Open(cut, set(range(len(cut.spans))))
        self._counted[number] = cut.images
        for index, span in enumerate(cut.spans):
            kept = self._results.kept_part(source.name, index)
            if kept is not None:
                self._count(opened, index, kept)
            else:
                workers.submit(
                    Task(number, index), replay_span, source.absolute, self._job, cut.topic, span
                )
        if not opened.missing:
            self._join(number)

    def _keep_span(self, task: Task, replayed: Replayed) -> None:
        opened = self._open[task.bag]
        self._results.keep_part(self._sources[task.bag].name, task.span, replayed.run)
        opened.seconds += replayed.seconds
        self._count(opened, task.span, replayed.run)
        if not opened.missing:
            self._join(task.bag)

    def _count(self, opened: _Open, index: int, run: Run) -> None:
        opened.missing.discard(index)
        opened.images += len(run.frames)
        self._images += len(run.frames)

    def _close(self, number: int) -> _Open | None:
        """Forget the spans of a bag, and the images that are counted of them."""
        opened = self._open.pop(number, None)
        if opened is not None:
            self._images -= opened.images
        return opened

    def _join(self, number: int) -> None:
        opened = self._open[number]
        run = self._results.joined_parts(self._sources[number].name, len(opened.cut.spans))
        self._close(number)
        self._finish(number, run, (), opened.seconds)

    def _submit_whole(self, workers: Workers[Task], number: int) -> None:
        """Replay a bag in one piece, whose spans turned out to be damaged."""
        self._close(number)
        source = self._sources[number]
        self._results.drop_parts(source.name)
        workers.submit(Task(number), replay_whole, source.absolute, self._job)

    def _finish(self, number: int, run: Run, problems: tuple[str, ...], seconds: float) -> None:
        source = self._sources[number]
        run.info["bag"] = source.location
        drops = run.drops()
        faults = [
            f"{count} images: {cause}" for cause, count in drops.items() if cause in MACHINE_CAUSES
        ]
        result = BagResult(
            source.location, source.name, "failed" if faults else "done", len(run.frames), drops,
            (*problems, *faults), round(seconds, 3), version_of(source.location),
        )  # fmt: skip
        self._on_run(run, source.name)  # before the bag counts as done
        self._results.add(result, run)
        self._end(number, len(run.frames))

    def _fail(self, number: int, problem: str) -> None:
        self._close(number)
        source = self._sources[number]
        self._results.add(BagResult(source.location, source.name, "failed", problems=(problem,)))
        self._end(number, 0)

    def _end(self, number: int, images: int) -> None:
        self._ended += 1
        self._images += images
        self._counted[number] = images

    def _tell(self) -> None:
        counted = len(self._counted) == len(self._sources)
        total = sum(self._counted.values())
        self._on_progress(Progress(self._ended, self._images, total, counted))
