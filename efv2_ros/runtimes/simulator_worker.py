"""A process that simulates the BPU: its start and end, and one answer for each frame.

The process runs `toolchain/worker/simulate.py`, which describes the messages. It has a session of
its own, so that Ctrl-C in a terminal does not end it before its caller has finished. It ends when
its caller closes it or dies, which ends its stdin.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from efv2_ros.runtimes.base import (
    DeviceLostError,
    InferenceError,
    InferenceTimeoutError,
    ModelLoadError,
)
from efv2_ros.toolchain.environment import (
    WORKER,
    ToolchainError,
    toolchain_python,
    toolchain_variables,
)

SCRIPT = WORKER / "simulate.py"
"""The program of the process."""

LOAD_TIMEOUT_S = 120.0
"""Seconds after which a process that loads a model is taken for hung."""

_LOST_AFTER = 3
"""The simulator counts as lost after this many processes that ended without an answer."""

_END_S = 1.0  # for a process that has closed its output
_TAIL_BYTES = 4096


class _Silence(Exception):
    """A process that gave no answer: it ended, or hangs."""

    def __init__(self, reason: str, *, hung: bool = False) -> None:
        super().__init__(reason)
        self.hung = hung


class Worker:
    """A simulator's process, which starts at once and is started again when it dies.

    Args:
        job: What `simulate.py` is asked for, without the folder.
        memory: Descriptor of the shared memory, which the process inherits.
        timeout: Seconds after which a process that runs a frame is taken for hung.

    Raises:
        ToolchainUnavailableError: The toolchain is not installed.
        ModelLoadError: The process cannot be started.
    """

    def __init__(self, job: Mapping[str, Any], memory: int, timeout: float) -> None:
        python = str(toolchain_python())
        self._memory = memory
        self._timeout = timeout
        self._lock = threading.Lock()
        self._closed = False
        self._failures = 0
        self._folder = tempfile.TemporaryDirectory(prefix="efv2_simulator_")
        self._command = [python, str(SCRIPT), json.dumps({**job, "folder": self._folder.name})]
        try:
            self._start()
        except OSError as error:
            self._folder.cleanup()
            raise ModelLoadError(f"the simulator cannot be started: {error}") from error

    def wait_loaded(self) -> Mapping[str, Any]:
        """Wait until the model is loaded.

        Returns:
            `classes`, the number of logits, and `version`, of the simulator.

        Raises:
            ModelLoadError: The model cannot be loaded; the process has ended.
        """
        try:
            answer = self._receive(LOAD_TIMEOUT_S)
        except _Silence as silence:
            raise ModelLoadError(f"the simulator cannot load the model: {silence}") from silence
        if "error" in answer:
            raise ModelLoadError(answer["error"])
        self._loaded = True
        return answer

    def run(self, slot: int) -> None:
        """Run the frame in a slot of the shared memory and wait for its logits.

        A process that has died or hangs is replaced, and this frame is lost.

        Args:
            slot: Number of the slot.

        Raises:
            InferenceTimeoutError: The process hung.
            DeviceLostError: Three processes in a row have died or hung.
            InferenceError: The process died, the frame failed, or the worker is closed.
        """
        with self._lock:
            if self._closed:
                raise InferenceError("the model is closed")
            if self._failures >= _LOST_AFTER:
                raise DeviceLostError(f"the simulator failed {self._failures} times in a row")
            try:
                if not self._loaded:
                    self.wait_loaded()
                answer = self._ask(slot)
            except (_Silence, ModelLoadError) as error:
                raise self._failure(error) from error
            except BaseException:  # Ctrl-C: an answer that is still to come would be another's
                self._closed = True
                self._end()
                raise
            self._failures = 0
        if "error" in answer:
            raise InferenceError(answer["error"])

    def close(self) -> None:
        """End the process at once; a frame that it runs is lost. A second call does nothing."""
        self._closed = True
        self._kill()
        with self._lock:  # whoever waited for an answer has noticed
            self._end()
            self._folder.cleanup()

    def _failure(self, error: Exception) -> InferenceError:
        """Replace the process after an error, and describe the error."""
        if self._closed:
            return InferenceError("the model is closed")
        self._failures += 1
        self._end()
        if self._failures >= _LOST_AFTER:
            return DeviceLostError(
                f"the simulator failed {self._failures} times in a row: {error}"
            )
        try:
            self._start()
        except (OSError, ToolchainError) as problem:
            self._failures = _LOST_AFTER
            return DeviceLostError(f"the simulator cannot be started again: {problem}")
        if isinstance(error, _Silence) and error.hung:
            return InferenceTimeoutError(str(error))
        return InferenceError(str(error))

    def _ask(self, slot: int) -> Mapping[str, Any]:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write(bytes([slot]))
        return self._receive(self._timeout)

    def _receive(self, limit: float) -> Mapping[str, Any]:
        """Wait for a line from the process.

        Raises:
            _Silence: The process has ended, or no line came within `limit` seconds.
        """
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        end = time.monotonic() + limit
        line = b""
        while not line.endswith(b"\n"):
            left = end - time.monotonic()
            if left <= 0 or not poll.poll(left * 1e3):
                raise _Silence(f"the simulator gave no answer within {limit:g} s", hung=True)
            block = os.read(descriptor, 1 << 16)
            if not block:
                raise _Silence(self._obituary())
            line += block
        try:
            answer: Mapping[str, Any] = json.loads(line)
        except ValueError as error:
            raise _Silence(f"the simulator answered {line[:80]!r}") from error
        return answer

    def _start(self) -> None:
        self._loaded = False
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            bufsize=0, pass_fds=[self._memory], start_new_session=True, cwd=self._folder.name,
            env=toolchain_variables(),
        )  # fmt: skip
        self._ended = False

    def _kill(self) -> None:
        """Kill the process and its children."""
        if not self._ended:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _end(self) -> None:
        self._kill()
        self._ended = True
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._log):
            assert file is not None
            file.close()

    def _obituary(self) -> str:
        """Say how the process ended, with its last words."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        self._kill()
        status = self._process.wait()
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _TAIL_BYTES))
        words = self._log.read().decode(errors="replace").strip().splitlines()
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        return f"the simulator ended {how}{f': {words[-1]}' if words else ''}"


def version() -> str:
    """Ask the toolchain for the versions of its simulators.

    Raises:
        ToolchainUnavailableError: The toolchain is not installed.
        OSError, subprocess.SubprocessError: Its Python does not run, or lacks the simulators.
    """
    python: Path = toolchain_python()
    done = subprocess.run(
        [str(python), str(SCRIPT), "--version"], env=toolchain_variables(), timeout=60.0,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()
