"""Workers: what runs tasks somewhere else, and gives each result back exactly once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

Tag = TypeVar("Tag")

POLL_S = 0.1
"""How often a wait for results asks whether it should stop."""

TRIES = 3
"""How often a task is begun whose process dies."""


class Workers(ABC, Generic[Tag]):
    """Processes that run tasks; a context manager.

    A task is a function of a module, so that every process can import it, and its arguments, which
    must be picklable. A task whose process dies is run again by another one.

    One thread submits the tasks and takes their results.
    """

    def __enter__(self) -> Workers[Tag]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def submit(self, tag: Tag, function: Callable[..., Any], *arguments: Any) -> None:
        """Add a task.

        Args:
            tag: Given back with the result; each must be another one.
            function: The task.
            *arguments: Its arguments.
        """

    @abstractmethod
    def results(
        self, should_stop: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[Tag, Any]]:
        """Wait for the tasks' results, in the order in which they end; more may be submitted.

        Args:
            should_stop: Polled; True ends the iteration. What is running is given up by `close`.

        Yields:
            The task's tag, and what the task returned or the exception that it raised;
            `WorkerDiedError` where its process died `TRIES` times.

        Raises:
            WorkersError: No task can be run any more.
        """

    @abstractmethod
    def close(self) -> None:
        """End the processes, or leave the cluster, without waiting for running tasks."""
