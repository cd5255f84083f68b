"""Installs the toolchain's environment: a Python 3.10 with pinned packages, in the user's cache.

Each environment has a folder of its own, named by its pins; the link `toolchain` beside it names
the one in use and changes last. An interrupted installation leaves the one before in use, and the
next goes on with what pip has downloaded.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from efv2_ros.toolchain.environment import (
    Stopped,
    ToolchainError,
    toolchain_path,
    toolchain_variables,
)
from efv2_ros.toolchain.pins import DISK_BYTES, FLAVOURS, Flavour, Pins
from efv2_ros.toolchain.pip import CommandError, run_lines
from efv2_ros.toolchain.process import os_sentence
from efv2_ros.toolchain.pythons import check_platform, find_python

COMPLETE = "efv2-complete"
"""The file that marks an environment as installed to its end."""

_POLL_S = 0.1
_SIZE = re.compile(r"\(([\d.]+) (\w+)\)")
_FILE = re.compile(r"(?:Downloading|Using cached) (?:\S*/)?(\S+?)-\d\S*\.(?:whl|tar\.gz)(?= |$)")
_RAW = re.compile(r"Progress (\d+) of (\d+)")


@dataclass(frozen=True)
class Step:
    """How far an installation is.

    Attributes:
        name: What is done now, as in `downloading numpy`.
        done: How much of it is done.
        total: Of how much; None where that is not known.
        unit: `bytes` or `packages`.
    """

    name: str
    done: int = 0
    total: int | None = None
    unit: str = "packages"


OnStep = Callable[[Step], None]


def installed() -> Pins | None:
    """The pins of the environment in use; None where there is none or its pins have changed."""
    return next(filter(_is_in_use, map(Pins.load, FLAVOURS)), None)


def install(
    flavour: Flavour = "slim",
    *,
    python: Path | None = None,
    on_step: OnStep = lambda step: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Install the environment, unless it is there; the full one serves as the slim one too.

    Args:
        flavour: Which packages.
        python: The Python 3.10 to make it with; by default the first that is found.
        on_step: Called in this thread, several times a second.
        should_stop: Asked ten times a second.

    Returns:
        Whether anything was installed.

    Raises:
        Stopped: `should_stop` returned True.
        ToolchainUnavailableError: This is another kind of machine, or there is no Python 3.10.
        ToolchainError: The installation failed; the message says why.
    """
    check_platform()
    if _serves(flavour):
        return False
    base = find_python(python)
    pins = Pins.load(flavour)
    cache = toolchain_path().parent
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _only_one(cache / "toolchain.lock", on_step, should_stop):
            if _serves(flavour):  # another process has just done it
                return False
            free = shutil.disk_usage(cache).free
            if free < DISK_BYTES[flavour]:
                raise ToolchainError(
                    f"the disk of {cache} has {free / 1e9:.1f} GB left, and installing needs "
                    f"{DISK_BYTES[flavour] / 1e9:.0f} GB"
                )
            folder = cache / pins.folder_name
            _build(folder, base.path, pins, on_step, should_stop)
            _switch(folder)
            _remove_others(cache, folder, on_step)
    except CommandError as error:
        raise ToolchainError(f"the toolchain was not installed: {error}") from error
    except OSError as error:
        raise ToolchainError(os_sentence(error, cache)) from error
    return True


def _serves(flavour: Flavour) -> bool:
    pins = installed()
    return pins is not None and pins.flavour in (flavour, "full")


def _is_in_use(pins: Pins) -> bool:
    folder = toolchain_path()
    return (
        folder.resolve().name == pins.folder_name
        and (folder / COMPLETE).is_file()
        and (folder / "bin" / "python").is_file()
    )


@contextmanager
def _only_one(file: Path, on_step: OnStep, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Wait until no other process installs."""
    with file.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                on_step(Step("waiting for another installation"))
            if should_stop():
                raise Stopped
            time.sleep(_POLL_S)
        yield


def _build(
    folder: Path, base: Path, pins: Pins, on_step: OnStep, should_stop: Callable[[], bool]
) -> None:
    """Make an environment from nothing; what was downloaded before is in pip's cache."""
    if folder.exists():
        on_step(Step("removing what was left half installed"))
        shutil.rmtree(folder)
    variables = _variables()

    def run(command: list[str | Path], on_line: Callable[[str], None]) -> None:
        run_lines(command, variables=variables, on_line=on_line, should_stop=should_stop)

    making = Step("making an environment")
    run([base, "-I", "-m", "venv", folder], lambda line: on_step(making))
    pip: list[str | Path] = [
        folder / "bin" / "python", "-I", "-m", "pip", "install", "--no-input", "--no-deps",
        "--disable-pip-version-check", "--require-hashes",
    ]  # fmt: skip
    bar: list[str | Path] = []
    if "pip" in pins.packages:  # a pip that tells how far it is
        file = folder / "pip.txt"
        lines = pins.file.read_text().splitlines()
        file.write_text("\n".join(line for line in lines if line.startswith("pip==")))
        run([*pip, "-r", file], lambda line: on_step(Step("installing pip")))
        bar = ["--progress-bar", "raw"]
    told = _PipProgress(folder, len(pins.packages), on_step)
    run([*pip, *bar, "-r", pins.file], told)
    on_step(Step("running the compiler"))
    run([folder / "bin" / "hbdk-cc", "--version"], lambda line: None)
    (folder / COMPLETE).write_text(f"{pins.sha256}\n")


class _PipProgress:
    """Reads how far pip is from what it prints."""

    def __init__(self, folder: Path, packages: int, on_step: OnStep) -> None:
        self._folder = folder
        self._packages = packages
        self._on_step = on_step
        self._step = Step("asking for packages", 0, packages)

    def __call__(self, line: str) -> None:
        raw, file = _RAW.match(line), _FILE.search(line)
        if raw:
            now = self._step
            self._step = Step(now.name, int(raw[1]), int(raw[2]) or None, "bytes")
        elif file and ".metadata" not in line:
            verb = "downloading" if line.startswith("Downloading") else "taking from pip's cache"
            self._step = Step(f"{verb} {file[1]}", 0, _bytes(line), "bytes")
        elif line.startswith("Collecting "):
            self._step = Step(f"asking for {re.split('[=<> ]', line)[1]}", 0, None)
        elif line.startswith("Installing collected packages") or self._step.name == "installing":
            there = len(list(self._folder.glob("lib/python*/site-packages/*.dist-info")))
            # pip removes a package for a moment to replace it.
            before = self._step.done if self._step.name == "installing" else 0
            done = max(before, min(there, self._packages))
            self._step = Step("installing", done, self._packages)
        self._on_step(self._step)


def _bytes(line: str) -> int | None:
    """Read the size that pip tells, as in `(17.0 MB)`."""
    found = _SIZE.search(line)
    if not found:
        return None
    return int(float(found[1]) * {"kB": 1e3, "MB": 1e6, "GB": 1e9}.get(found[2], 1))


def _variables() -> dict[str, str]:
    """The environment of programs that install: settings that lead pip elsewhere are left out."""
    elsewhere = ("PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_ROOT", "PIP_PYTHON")
    kept = toolchain_variables(Path(os.sep, "bin", "python"))
    return {name: value for name, value in kept.items() if name not in (*elsewhere, "PYTHONPATH")}


def _switch(folder: Path) -> None:
    """Have the link name this environment."""
    link = toolchain_path()
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    beside = link.with_name(f".toolchain-{os.getpid()}.tmp")
    beside.unlink(missing_ok=True)
    beside.symlink_to(folder.name)
    beside.replace(link)


def _remove_others(cache: Path, folder: Path, on_step: OnStep) -> None:
    """Remove environments with older pins."""
    for other in cache.glob("toolchain-*"):
        if other != folder and other.is_dir():
            on_step(Step(f"removing {other.name}"))
            shutil.rmtree(other, ignore_errors=True)
