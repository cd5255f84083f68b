"""What `efv2 toolchain doctor` looks at: the environment, its packages and the compiler."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from efv2_ros.findings import Finding
from efv2_ros.toolchain.environment import (
    PYTHON_VARIABLE,
    Stopped,
    ToolchainError,
    ToolchainUnavailableError,
    toolchain_path,
    toolchain_python,
    toolchain_variables,
)
from efv2_ros.toolchain.install import installed
from efv2_ros.toolchain.pins import DISK_BYTES, Pins
from efv2_ros.toolchain.pip import run_lines
from efv2_ros.toolchain.process import Program
from efv2_ros.toolchain.protocol import ExamineRequest, ExamineResult, encode
from efv2_ros.toolchain.pythons import check_platform, find_python
from efv2_ros.toolchain.typed_json import decode

INSTALL = "efv2 toolchain install"


def examine(should_stop: Callable[[], bool] = lambda: False) -> Iterator[Finding]:
    """Look at the toolchain; it ends early where nothing more can be said.

    Args:
        should_stop: Asked ten times a second.

    Raises:
        Stopped: `should_stop` returned True.
    """
    try:
        check_platform()
    except ToolchainUnavailableError as error:
        yield Finding("machine", "missing", str(error))
        return
    yield Finding("machine", "ok", "x86-64 Linux")
    try:
        python = toolchain_python()
    except ToolchainUnavailableError as error:
        yield _base_python()
        yield _disk(toolchain_path().parent)
        chosen = bool(os.environ.get(PYTHON_VARIABLE))
        detail, _, _ = str(error).partition(": run")
        fix = f"set {PYTHON_VARIABLE} to a Python, or unset it" if chosen else INSTALL
        yield Finding("environment", "missing", detail, fix)
        return
    pins = installed()
    yield _environment(python, pins)
    yield from _packages(python, pins, should_stop)
    yield _compiler(python, should_stop)
    if shutil.which("dot"):
        yield Finding("Graphviz", "ok", "dot, which the vendor's hb_perf draws with")
    else:
        detail = "no dot: only the vendor's own hb_perf needs it"
        yield Finding("Graphviz", "info", detail, "")
    yield _disk(Path(tempfile.gettempdir()))


def _base_python() -> Finding:
    try:
        found = find_python()
    except ToolchainUnavailableError as error:
        detail, _, fix = str(error).rpartition(": ")
        return Finding("Python 3.10", "missing", detail, fix)
    return Finding("Python 3.10", "ok", f"{found.version}, {found.path}")


def _environment(python: Path, pins: Pins | None) -> Finding:
    if os.environ.get(PYTHON_VARIABLE):
        return Finding("environment", "info", f"{PYTHON_VARIABLE} names {python}")
    if pins is None:
        detail = f"{toolchain_path()} was installed with other pins"
        return Finding("environment", "info", detail, INSTALL)
    return Finding("environment", "ok", f"{pins.flavour}, {toolchain_path().resolve()}")


def _packages(
    python: Path, pins: Pins | None, should_stop: Callable[[], bool]
) -> Iterator[Finding]:
    expected = pins or Pins.load("slim")
    try:
        with tempfile.TemporaryDirectory(prefix="efv2_toolchain_") as name:
            folder = Path(name)
            request = encode(ExamineRequest(tuple(expected.packages)))
            with Program("examine.py", request, log=folder / "log", folder=folder) as program:
                answer = program.run(lambda _: None, should_stop)
        report = decode(ExamineResult, answer)
    except Stopped:
        raise
    except ToolchainError as error:
        yield Finding("Python", "missing", str(error), INSTALL)
        return
    yield Finding("Python", "ok", f"{report.python}, {python}")
    again = f"rm -r {toolchain_path()} && {INSTALL}"
    for each in report.packages:
        wanted = expected.packages[each.name]
        if each.version is None:
            yield Finding(each.name, "missing", "not installed", again)
        elif each.damaged:
            detail = f"{each.version}, but {each.damaged} is missing or has changed"
            yield Finding(each.name, "missing", detail, again)
        elif each.version != wanted:
            yield Finding(each.name, "info", f"{each.version}, and {wanted} was tested")
        else:
            detail = f"{each.version}, {each.files} files as they were installed"
            yield Finding(each.name, "ok", detail)
    if report.stand_ins:
        yield Finding("stand-ins", "info", f"for {', '.join(report.stand_ins)}")


def _compiler(python: Path, should_stop: Callable[[], bool]) -> Finding:
    lines: list[str] = []
    command: list[str | Path] = [python.parent / "hbdk-cc", "--version"]
    try:
        run_lines(
            command, variables=toolchain_variables(python), on_line=lines.append,
            should_stop=should_stop,
        )  # fmt: skip
    except Stopped:
        raise
    except ToolchainError as error:
        return Finding("compiler", "missing", f"hbdk-cc does not run: {error}", INSTALL)
    return Finding("compiler", "ok", next(filter(None, lines), "hbdk-cc runs"))


def _disk(folder: Path) -> Finding:
    place = next(each for each in (folder, *folder.parents) if each.exists())
    free, needed = shutil.disk_usage(place).free, DISK_BYTES["slim"]
    detail = f"{free / 1e9:.1f} GB are left on the disk of {place}"
    if free < needed:
        return Finding("disk", "info", detail, f"free {needed / 1e9:.0f} GB")
    return Finding("disk", "ok", detail)
