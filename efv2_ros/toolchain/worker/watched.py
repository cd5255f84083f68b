"""Remembers the vendor's child processes: its errors do not say that one was killed."""

import signal
import subprocess
from pathlib import Path
from typing import Any

_children: list["_Child"] = []


class _Child(subprocess.Popen[Any]):
    """A child that is remembered."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        _children.append(self)


def watch_children() -> None:
    """Remember each child that is started from now on."""
    subprocess.Popen = _Child  # type: ignore[misc]


def killed_child() -> str:
    """Say which child was killed by a signal; empty where none was."""
    for child in _children:
        if child.returncode is not None and child.returncode < 0:
            command: Any = child.args
            program = command.split()[0] if isinstance(command, str) else command[0]
            number = -child.returncode
            cause = ": the machine may be out of memory" if number == signal.SIGKILL else ""
            return f"{Path(program).name} was killed by {signal.Signals(number).name}{cause}"
    return ""
