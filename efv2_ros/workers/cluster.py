"""Workers of a Dask cluster: whatever Dask's deployers start, on one machine or on many."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any

from efv2_ros import __version__
from efv2_ros.workers.errors import WorkerDiedError, WorkersError
from efv2_ros.workers.workers import POLL_S, TRIES, Tag, Workers

_CONNECT_S = 10
"""Time in which a scheduler that is there answers."""


class DaskWorkers(Workers[Tag]):
    """The workers of a Dask cluster. Workers may come and go while tasks run.

    Args:
        address: Of the scheduler: `tcp://10.0.0.5:8786`.

    Raises:
        WorkersError: dask.distributed is missing, or there is no such scheduler.
    """

    def __init__(self, address: str) -> None:
        try:
            import distributed
        except ImportError as error:
            raise WorkersError(
                f"a cluster needs dask.distributed ({error}): pip install distributed"
            ) from error
        try:
            self._client = distributed.Client(address, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise WorkersError(f"there is no Dask scheduler at {address}: {error}") from error
        self._address = address
        self._tags: dict[Any, Tag] = {}
        self._done: queue.Queue[Any] = queue.Queue()

    def submit(self, tag: Tag, function: Callable[..., Any], *arguments: Any) -> None:
        """See `Workers.submit`."""
        future = self._client.submit(_run, __version__, function, arguments, pure=False)
        self._tags[future] = tag
        future.add_done_callback(self._done.put)

    def results(
        self, should_stop: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[Tag, Any]]:
        """See `Workers.results`."""
        from distributed import KilledWorker

        while self._tags and not should_stop():
            try:
                future = self._done.get(timeout=POLL_S)
            except queue.Empty:
                self._check()
                continue
            tag = self._tags.pop(future)
            try:
                result = future.result()
            except KilledWorker:
                result = WorkerDiedError(f"its process died, {TRIES} times")
            except ImportError as error:
                raise WorkersError(
                    f"a worker of {self._address} lacks a package: {error}"
                ) from error
            except Exception as error:  # the task's own
                result = error
            yield tag, result

    def close(self) -> None:
        """See `Workers.close`."""
        self._client.cancel(list(self._tags))
        self._tags = {}
        self._client.close()

    def _check(self) -> None:
        if self._client.status in ("closed", "closing"):
            raise WorkersError(f"the Dask scheduler at {self._address} is gone")


def _run(version: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Run a task, on a worker."""
    if version != __version__:
        raise WorkersError(f"a worker has efv2_ros {__version__}, and this is {version}")
    return function(*arguments)
