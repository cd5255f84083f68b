"""Trials in workers: each opens a bench of its own, from a description of it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from efv2_ros.quantize.build import Level
from efv2_ros.quantize.prepare import Sources
from efv2_ros.quantize.trials import Bench, Outcome, ToolchainBench, Trial, attempt
from efv2_ros.workers.errors import WorkerDiedError, WorkersError
from efv2_ros.workers.lending import Lending
from efv2_ros.workers.workers import Workers


class BenchSpec(Hashable, Protocol):
    """Describes a bench, so that a worker can open it; picklable."""

    def open(self) -> AbstractContextManager[Bench]:
        """Open the bench."""


@dataclass(frozen=True)
class ToolchainBenchSpec:
    """Describes a `ToolchainBench`.

    Attributes:
        sources: The model and the images, at the same places for each worker.
        level: The compiler's effort for costs.
        jobs: Threads of each compiler; 0 for one a core.
    """

    sources: Sources
    level: Level
    jobs: int

    @contextmanager
    def open(self) -> Iterator[Bench]:
        """Load the model and read the images.

        Raises:
            Efv2Error: They cannot be used.
        """
        with self.sources.open() as inputs:
            yield ToolchainBench(inputs, self.level, self.jobs)


class TrialWorkers:
    """Makes trials in workers, each with the toolchain of its own machine.

    Args:
        workers: What runs the trials.
        spec: The bench that each worker opens once.
    """

    def __init__(self, workers: Workers[int], spec: BenchSpec) -> None:
        self._workers, self._spec = workers, spec

    def outcomes(
        self, trials: Mapping[int, Trial], should_stop: Callable[[], bool]
    ) -> Iterator[tuple[int, Outcome[Any]]]:
        """See `Elsewhere.outcomes`.

        Raises:
            WorkersError: The workers are gone, or have another model, images or toolchain.
            ToolchainUnavailableError: A worker has no toolchain.
            Efv2Error: A worker cannot read the model or the images.
        """
        for number, trial in trials.items():
            self._workers.submit(number, make_trial, self._spec, trial)
        for number, found in self._workers.results(should_stop):
            if isinstance(found, WorkerDiedError):
                yield number, Outcome(None, str(found))
            elif isinstance(found, Exception):
                raise found
            else:
                yield number, found


def make_trial(spec: BenchSpec, trial: Trial) -> Outcome[Any]:
    """Make a trial on the bench of this process.

    Raises:
        WorkersError: The trial would have another result than where its key is from.
        ToolchainUnavailableError: This machine has no toolchain.
        Efv2Error: The bench cannot be opened.
    """
    with _benches(spec) as opened:
        if opened.bench.key(trial.recipe, trial.kind) != trial.key:
            raise WorkersError(
                f"the worker {platform.node()} has another model, other images or another "
                "toolchain than this machine"
            )
        return attempt(opened.bench, trial)


class _OpenBench:
    """A bench, and what to close with it."""

    def __init__(self, spec: BenchSpec) -> None:
        self._stack = ExitStack()
        self.bench = self._stack.enter_context(spec.open())

    def close(self) -> None:
        self._stack.close()


_benches = Lending(_OpenBench)
