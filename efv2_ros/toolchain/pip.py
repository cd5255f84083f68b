"""Runs pip, or another program of an installation: each line as it comes, killed when stopped."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from efv2_ros.toolchain.environment import Stopped, ToolchainError

_POLL_S = 0.1
_LINES_KEPT = 200
_LENGTH = 400  # characters of an error


class CommandError(ToolchainError):
    """A program of an installation failed; the message has its own words."""


def run_lines(
    command: Sequence[str | Path],
    *,
    variables: Mapping[str, str],
    on_line: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> None:
    """Run a program to its end.

    Args:
        command: The program and its arguments.
        variables: Its environment.
        on_line: Called with each line that it prints, and ten times a second with an empty one.
        should_stop: Asked ten times a second.

    Raises:
        Stopped: `should_stop` returned True; the program and its children are dead.
        CommandError: It failed, or cannot be started.
    """
    try:
        process = subprocess.Popen(
            [str(each) for each in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=variables, start_new_session=True, bufsize=0,
        )  # fmt: skip
    except OSError as error:
        raise CommandError(f"cannot start {command[0]}: {error.strerror}") from error
    assert process.stdout is not None
    said: list[str] = []
    rest = b""
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                if should_stop():
                    raise Stopped
                if not selector.select(_POLL_S):
                    on_line("")
                    continue
                block = os.read(process.stdout.fileno(), 1 << 16)
                *lines, rest = (rest + block).replace(b"\r", b"\n").split(b"\n")
                for line in lines if block else [rest]:
                    text = line.decode(errors="replace").strip()
                    said = [*said[-_LINES_KEPT:], text]
                    on_line(text)
                if not block:
                    break
        status = process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    if status:
        raise CommandError(_reason(said, status))


def _reason(said: Sequence[str], status: int) -> str:
    """The program's own words for its failure; pip begins them with ERROR."""
    if any(os.strerror(28) in line for line in said):
        return "no space is left on the disk"
    errors = [line.removeprefix("ERROR:").strip() for line in said if line.startswith("ERROR")]
    lines = errors or [line for line in said if line]
    text = " | ".join(lines[-2:]) or f"it ended with exit status {status}"
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 3]}..."
