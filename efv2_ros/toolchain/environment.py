"""Where the toolchain's Python is, and how to run it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from efv2_ros.errors import Efv2Error
from efv2_ros.resources import cache_dir

PYTHON_VARIABLE = "EFV2_TOOLCHAIN_PYTHON"
"""Environment variable with a Python 3.10 that has the toolchain; replaces the installed one."""

WORKER = Path(__file__).parent / "worker"
"""Programs that the toolchain's Python runs. They import nothing of this package."""


class ToolchainError(Efv2Error):
    """The toolchain failed; the message says at what, and why."""


class Stopped(ToolchainError):
    """The caller's `should_stop` ended the work."""

    def __init__(self) -> None:
        super().__init__("stopped")


class ToolchainUnavailableError(ToolchainError):
    """The toolchain is not installed or does not work here; the message has the fix."""


def toolchain_path() -> Path:
    """Name the folder of the installed environment, which may not exist."""
    return cache_dir() / "toolchain"


def toolchain_python() -> Path:
    """Find the Python interpreter of the toolchain's environment.

    Raises:
        ToolchainUnavailableError: The toolchain is not installed.
    """
    chosen = os.environ.get(PYTHON_VARIABLE)
    python = Path(chosen) if chosen else toolchain_path() / "bin" / "python"
    if not python.is_file():
        raise ToolchainUnavailableError(
            f"{PYTHON_VARIABLE} is {chosen}, which is no file"
            if chosen
            else "the toolchain is not installed: run efv2 toolchain install"
        )
    return python


def toolchain_variables(python: Path | None = None) -> Mapping[str, str]:
    """Environment variables for a program that the toolchain's Python runs.

    Args:
        python: That Python; by default `toolchain_python()`.

    Raises:
        ToolchainUnavailableError: The toolchain is not installed.
    """
    programs = (python or toolchain_python()).parent  # hbdk-cc and others, which it starts
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {
        **kept,
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": str(WORKER / "standins"),
        "PYTHONNOUSERSITE": "1",
        "PYTHONHASHSEED": "0",  # sets of names have one order: the same model gives the same bytes
        "PYTHONDONTWRITEBYTECODE": "1",
    }
