"""Runs a program in the toolchain's Python: its messages, its log, and its end."""

from __future__ import annotations

import errno
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from efv2_ros.toolchain.environment import (
    WORKER,
    Stopped,
    ToolchainError,
    toolchain_python,
    toolchain_variables,
)
from efv2_ros.toolchain.protocol import Failure, Progress, parse

DESCRIPTOR_VARIABLE = "EFV2_MESSAGES"
"""Environment variable with the number of the pipe for messages, as `worker/channel.py` has it."""

_POLL_S = 0.1  # how often `should_stop` is asked
_END_S = 5.0  # for a program that has said its last word
_BLOCK = 1 << 16
_PERCENT = re.compile(rb"(\d{1,3})%")
_VENDORS_FRAME = re.compile(r"\*{3} ERROR-OCCUR-DURING .*? \*{3},? ?(error message: ?)?")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TAIL_LINES = 3
_TAIL_BYTES = 1 << 16
_TAIL_LENGTH = 400  # characters

OnProgressMessage = Callable[[Progress], None]


class Program:
    """A program of `worker/` with its children, in a session of their own.

    A context manager: whatever ends the block, all of them are dead after it.

    Args:
        script: Name of the program in `worker/`.
        request: The request, as `protocol.encode` writes it.
        log: File that gets all that the program and its children print; appended to.
        folder: Folder for temporary files; it must exist.

    Raises:
        ToolchainUnavailableError: The toolchain is not installed.
        ToolchainError: The program cannot be started, or the log cannot be written.
    """

    def __init__(self, script: str, request: str, *, log: Path, folder: Path) -> None:
        python = toolchain_python()
        self._log = log
        self._folder = folder
        self._progress = Progress("", 0.0, 0.0, 0.0)
        self._lines = b""
        self._result: Mapping[str, Any] | None = None
        self._failure: Failure | None = None
        self._request = f"{request}\n".encode()
        receiving, sending = os.pipe()
        self._messages = os.fdopen(receiving, "rb", buffering=0)
        try:
            self._log_file = log.open("ab")
            self._process = subprocess.Popen(
                [str(python), str(WORKER / script)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                pass_fds=[sending], start_new_session=True, bufsize=0, cwd=folder,
                env={
                    **toolchain_variables(python),
                    DESCRIPTOR_VARIABLE: str(sending),
                    "TMPDIR": str(folder),
                },
            )  # fmt: skip
        except OSError as error:
            self._messages.close()
            raise ToolchainError(f"cannot start {python}: {error.strerror}") from error
        finally:
            os.close(sending)

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the program and its children, if they live, and close all files."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._messages, self._log_file):
            if file is not None:
                with suppress(OSError):
                    file.close()

    def run(
        self, on_progress: OnProgressMessage, should_stop: Callable[[], bool]
    ) -> Mapping[str, Any]:
        """Wait for the program's result; see `run_all`."""
        return run_all([self], lambda _, progress: on_progress(progress), should_stop)[0]

    def start(self, selector: selectors.BaseSelector, on_progress: OnProgressMessage) -> None:
        """Send the request, and have the selector call whatever reads the program's answers."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has died; its log says why
            self._process.stdin.write(self._request)
        for stream in (self._process.stdout, self._messages):
            read = partial(self._read, stream, on_progress)
            selector.register(stream, selectors.EVENT_READ, read)

    @property
    def ended(self) -> bool:
        """Whether it has said its last word, or has died."""
        said = self._result is not None or self._failure is not None
        return said or self._process.poll() is not None

    def result(self, on_progress: OnProgressMessage) -> Mapping[str, Any]:
        """Read the result of a program that has ended.

        Raises:
            ToolchainError: See `run_all`.
        """
        self._drain(on_progress)
        if self._result is None:
            raise self._error()
        return self._result

    def _read(self, stream: Any, on_progress: OnProgressMessage) -> bool:
        """Read what has come; return whether more may come."""
        block: bytes = os.read(stream.fileno(), _BLOCK)
        if stream is self._messages:
            *lines, self._lines = (self._lines + block).split(b"\n")
            for line in lines:
                self._take(line.decode(errors="replace"), on_progress)
        else:
            self._write_log(block)
            percents = [int(each) for each in _PERCENT.findall(block)]
            if percents and percents[-1] <= 100:
                self._advance(percents[-1] / 100, on_progress)
        return bool(block)

    def _take(self, line: str, on_progress: OnProgressMessage) -> None:
        message = parse(line)
        if isinstance(message, Progress):
            self._progress = message
            on_progress(message)
        elif isinstance(message, Failure):
            self._failure = message
        else:
            self._result = message

    def _advance(self, fraction: float, on_progress: OnProgressMessage) -> None:
        """Take over the percentage of the vendor's own progress bar; a step has several bars."""
        now = self._progress
        if now.step and fraction > now.fraction:
            self._progress = Progress(now.step, now.begin, now.end, fraction)
            on_progress(self._progress)

    def _write_log(self, block: bytes) -> None:
        try:
            self._log_file.write(block)
            self._log_file.flush()
        except OSError as error:
            raise ToolchainError(os_sentence(error, self._log)) from error

    def _drain(self, on_progress: OnProgressMessage) -> None:
        """Let the program end, and read what it had left to say."""
        assert self._process.stdout is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        for stream in (self._messages, self._process.stdout):
            os.set_blocking(stream.fileno(), False)
            with suppress(BlockingIOError):  # a grandchild may hold the pipe
                while self._read(stream, on_progress):
                    pass

    def _error(self) -> ToolchainError:
        status = self._process.poll()
        failure = self._failure
        if failure is not None and failure.is_sentence:
            return ToolchainError(" ".join(failure.reason.split()))
        doing = failure.step if failure else self._progress.step
        where = f" while it was {doing}" if doing else ""
        if failure is None and status is not None and status < 0:
            return ToolchainError(f"the toolchain was killed by {signal_name(-status)}{where}")
        if failure is not None and failure.error_number:
            system = OSError(failure.error_number, os.strerror(failure.error_number))
            if failure.error_number in (errno.ENOSPC, errno.EDQUOT):
                return ToolchainError(os_sentence(system, self._folder.parent))
        if _is_full(self._folder):
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return ToolchainError(os_sentence(full, self._folder.parent))
        reason = failure.reason if failure else f"it ended with exit status {status}"
        reason = " ".join(_VENDORS_FRAME.sub("", reason).split())
        tail = [
            line
            for line in log_tail(self._log, only_errors=failure is not None)
            if line not in reason
        ]
        told = f"; its log {self._log} ends with: {' | '.join(tail)}" if tail else ""
        return ToolchainError(f"the toolchain failed{where}: {_cut(reason)}{told}")


def run_all(
    programs: Sequence[Program],
    on_progress: Callable[[int, Progress], None],
    should_stop: Callable[[], bool],
) -> list[Mapping[str, Any]]:
    """Wait for the results of programs that run side by side.

    Args:
        programs: The programs; the caller closes them.
        on_progress: Called in this thread with a program's index and each change of its progress.
        should_stop: Asked ten times a second.

    Returns:
        Their results, for `typed_json.decode`.

    Raises:
        Stopped: `should_stop` returned True.
        ToolchainError: A program failed, was killed, or answered nonsense; the message has the
            end of its log.
    """
    results: dict[int, Mapping[str, Any]] = {}
    notes = [partial(on_progress, index) for index in range(len(programs))]
    with selectors.DefaultSelector() as selector:
        for program, note in zip(programs, notes, strict=True):
            program.start(selector, note)
        while len(results) < len(programs):
            if should_stop():
                raise Stopped
            for key, _ in selector.select(_POLL_S):
                if not key.data():
                    selector.unregister(key.fileobj)
            for index, program in enumerate(programs):
                if index not in results and program.ended:
                    results[index] = program.result(notes[index])
            if not selector.get_map():
                time.sleep(_POLL_S)  # all have closed their pipes, and do not end
    return [results[index] for index in range(len(programs))]


def signal_name(number: int) -> str:
    """Name a signal, with the usual cause of a SIGKILL."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    # Linux frees memory with this signal.
    return f"{name}: the machine may be out of memory" if number == signal.SIGKILL else name


def log_tail(log: Path, *, only_errors: bool = False) -> list[str]:
    """The last lines of a vendor's log that tell of an error; else its last lines.

    Args:
        log: The log.
        only_errors: Whether to return nothing where no line tells of an error.

    Returns:
        At most three lines, shortened, without times and colours.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = _COLOUR.sub("", file.read().decode(errors="replace"))
    except OSError:
        return []
    lines = [" ".join(line.split()) for line in re.split(r"[\r\n]+", text)]
    errors = [line for line in lines if re.search(r"\bERROR\b(?!-)|\bFATAL\b", line)]
    if errors or only_errors:
        lines = [re.sub(r"^[\d :,.-]*ERROR ", "", line) for line in errors]
    return [_cut(line) for line in lines if line][-_TAIL_LINES:]


def _cut(text: str) -> str:
    return text if len(text) <= _TAIL_LENGTH else f"{text[: _TAIL_LENGTH - 3]}..."


def _is_full(folder: Path) -> bool:
    """Whether the disk is so full that the vendor's programs fail with other words."""
    try:
        return shutil.disk_usage(folder).free < _BLOCK
    except OSError:
        return False


def os_sentence(error: OSError, path: Path) -> str:
    """Tell of an error of the system.

    Args:
        error: The error.
        path: What was written, if the error does not know.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space is left on the disk of {path}"
    return f"cannot write {error.filename or path}: {error.strerror or error}"
