"""Workers that are processes of this machine."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from efv2_ros.workers.errors import WorkerDiedError
from efv2_ros.workers.workers import POLL_S, TRIES, Tag, Workers

_PR_SET_PDEATHSIG = 1
"""From Linux's `sys/prctl.h`: the signal that a process gets when its parent dies."""


class LocalWorkers(Workers[Tag]):
    """Processes of this machine.

    Each has a pool of its own: if it dies, it is known which task did it, and no other is lost.

    Args:
        processes: Their number; 0 is one a core.
    """

    def __init__(self, processes: int = 0) -> None:
        self.processes = processes or cores()
        self._waiting: deque[_Task] = deque()
        self._running: dict[Future[Any], tuple[_Process, _Task]] = {}
        self._idle: list[_Process] = []
        self._scratch = tempfile.TemporaryDirectory(
            prefix="efv2_workers_",
            ignore_cleanup_errors=True,  # of a process that still dies
        )

    def submit(self, tag: Tag, function: Callable[..., Any], *arguments: Any) -> None:
        """See `Workers.submit`."""
        self._waiting.append(_Task(tag, function, arguments))

    def results(
        self, should_stop: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[Tag, Any]]:
        """See `Workers.results`."""
        while True:
            self._start()
            if not self._running or should_stop():
                return
            done, _ = wait(self._running, POLL_S, FIRST_COMPLETED)
            for future in done:
                process, task = self._running.pop(future)
                error = future.exception()
                if not isinstance(error, BrokenProcessPool):
                    self._idle.append(process)
                    yield task.tag, future.result() if error is None else error
                    continue
                process.pool.shutdown()
                task.tries += 1
                if task.tries < TRIES:
                    self._waiting.append(task)
                else:
                    yield task.tag, WorkerDiedError(f"its process died, {TRIES} times")

    def close(self) -> None:
        """See `Workers.close`."""
        self._waiting.clear()
        for process in [*self._idle, *(process for process, _ in self._running.values())]:
            process.close()
        self._idle, self._running = [], {}
        self._scratch.cleanup()

    def _start(self) -> None:
        """Give each process that is idle, or yet to be started, a task that waits."""
        while self._waiting and len(self._running) < self.processes:
            process = self._idle.pop() if self._idle else _Process(self._scratch.name)
            task = self._waiting[0]
            try:
                future = process.pool.submit(task.function, *task.arguments)
            except BrokenProcessPool:  # it died while it was idle
                process.pool.shutdown()
                continue
            self._running[future] = process, self._waiting.popleft()


@dataclass(slots=True)
class _Task:
    """A task, and how often its process has died."""

    tag: Any
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    tries: int = 0


class _Process:
    """A process that runs one task after the other.

    Args:
        scratch: Folder of its temporary files, which it may not live to remove.
    """

    def __init__(self, scratch: str) -> None:
        # A fresh interpreter: one that is forked has this one's threads' locks, but no threads.
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(1, context, _begin, (os.getpid(), scratch))
        self._pid = self.pool.submit(os.getpid)

    def close(self) -> None:
        """End the process, whatever it does."""
        with suppress(BrokenProcessPool, ProcessLookupError):
            os.kill(self._pid.result(), signal.SIGKILL)
        # Only the pool's thread is left to wait for; at the interpreter's end it would be late.
        self.pool.shutdown(cancel_futures=True)


def _begin(parent: int, scratch: str) -> None:
    """Prepare a process: its parent handles signals for it, and it ends with its parent."""
    tempfile.tempdir = scratch
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before
            os._exit(1)


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
