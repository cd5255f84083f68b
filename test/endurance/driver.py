"""Find the checks and run each in a process of its own."""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Collection, Generator, Iterable
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from pathlib import Path

from rows import Length, Row, timed

from efv2_ros.errors import Efv2Error

MODULES = ("messages", "fuzzing", "bpu", "machine")
"""Modules with a tuple `CHECKS`."""

LIMIT_S = 3600.0
"""No check takes as long, whatever the machine: one that still runs then hangs."""

SHOWN_LINES = 15
"""Lines of a check's output that are shown when it fails."""

_spawn = get_context("spawn")


class UnknownCheckError(Efv2Error):
    """There is no check of a name."""


@dataclass(frozen=True)
class FoundCheck:
    """A check by its name, so that a process can be told which to run.

    Attributes:
        module: Name of its module.
        name: Name of its function.
        purpose: First sentence of its docstring.
    """

    module: str
    name: str
    purpose: str


def find(modules: Iterable[str], only: Collection[str] = ()) -> list[FoundCheck]:
    """List the checks of some modules, those named in `only` if it names any.

    Raises:
        UnknownCheckError: A module or a check is not there.
    """
    checks = []
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise UnknownCheckError(f"there is no module {module}")
        for check in importlib.import_module(module).CHECKS:
            purpose = (check.__doc__ or "").strip().partition("\n")[0]
            checks.append(FoundCheck(module, check.__name__, purpose))
    known = [check.name for check in checks]
    if missing := [name for name in only if name not in known]:
        raise UnknownCheckError(f"there is no check {missing[0]}, only {', '.join(known)}")
    return [check for check in checks if not only or check.name in only]


def run(checks: Iterable[FoundCheck], length: Length, jobs: int = 1) -> Generator[Row, None, None]:
    """Run checks, `jobs` at once, and give each one's row as soon as it ends.

    Whatever a check started ends with it; all end when the iteration does.
    """
    waiting = list(checks)
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_Running(waiting.pop(0), length))
            connection.wait([each.process.sentinel for each in running], timeout=1.0)
            for each in [each for each in running if each.has_ended]:
                running.remove(each)
                yield each.end()
    finally:
        for each in running:
            each.end()


class _Running:
    """A check in its process, which leads a session with a folder, a cache and a ROS domain."""

    def __init__(self, check: FoundCheck, length: Length) -> None:
        self._check = check
        self._begin = time.monotonic()
        self._folder = tempfile.TemporaryDirectory(prefix="efv2_endurance_")
        self._log = Path(self._folder.name, "output.txt")
        self._result, sender = _spawn.Pipe(duplex=False)
        self.process = _spawn.Process(
            target=_work, args=(check, length, self._folder.name, self._log, sender)
        )
        self.process.start()
        sender.close()

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended, or takes so long that it never will."""
        return not self.process.is_alive() or time.monotonic() - self._begin > LIMIT_S

    def end(self) -> Row:
        """End what is left of the check and return its row."""
        hangs = self.process.is_alive()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            self.process.kill()  # before it led its session
        self.process.join()
        row = self._received() or self._failed(hangs)
        self._result.close()
        self._folder.cleanup()
        return row

    def _received(self) -> Row | None:
        try:
            return self._result.recv() if self._result.poll() else None
        except EOFError:
            return None

    def _failed(self, hangs: bool) -> Row:
        code = self.process.exitcode
        reason = f"it still ran after {LIMIT_S:g} s" if hangs else f"it died, exit status {code}"
        seconds = time.monotonic() - self._begin
        return Row(
            self._check.name, "runs", failures=[_with_output(reason, self._log)], seconds=seconds
        )


def _work(check: FoundCheck, length: Length, folder: str, log: Path, result: Connection) -> None:
    """Run a check in this process and send its row."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with log.open("w") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
    tempfile.tempdir = None
    os.environ |= {
        "TMPDIR": folder,
        "XDG_CACHE_HOME": str(Path(folder, "cache")),
        "ROS_DOMAIN_ID": str(os.getpid() % 101 + 1),  # 1..101 suit every middleware
    }
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    module = importlib.import_module(check.module)
    function = next(each for each in module.CHECKS if each.__name__ == check.name)
    try:
        row = timed(function, length)
    except Exception:
        row = Row(check.name, "runs", failures=[_with_output(traceback.format_exc(), log)])
    result.send(row)


def _with_output(reason: str, log: Path) -> str:
    """A failure with the end of what the check printed."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join([reason.rstrip(), *lines[-SHOWN_LINES:]])
