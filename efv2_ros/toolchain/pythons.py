"""Finds a Python 3.10 on this machine: the toolchain's packages are made for no other."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from efv2_ros.toolchain.environment import ToolchainUnavailableError

WANTED = "3.10"

_TIMEOUT_S = 20.0
_QUESTION = (
    "import json, os, platform, sys, importlib.util as i; print(json.dumps(["
    # Not one that an environment links to: that environment may go away.
    "os.path.join(sys.base_exec_prefix, 'bin', 'python3.10'), "
    "platform.python_implementation(), platform.python_version(), platform.machine(), "
    "sys.maxsize > 2**32, all(i.find_spec(each) for each in ('venv', 'ensurepip'))]))"
)


@dataclass(frozen=True)
class Python:
    """A Python interpreter that can make the environment.

    Attributes:
        path: The interpreter.
        version: Its version, as in `3.10.13`.
    """

    path: Path
    version: str


def check_platform() -> None:
    """Check that the toolchain's packages are made for this machine.

    Raises:
        ToolchainUnavailableError: They are not.
    """
    machine, system = platform.machine(), platform.system()
    if (machine, system) != ("x86_64", "Linux"):
        raise ToolchainUnavailableError(
            f"D-Robotics' toolchain runs on x86-64 Linux only, and this is {machine} {system}: "
            "quantise on a computer and copy the result here"
        )


def find_python(chosen: Path | None = None) -> Python:
    """Find a Python 3.10 that can make virtual environments.

    Args:
        chosen: The one to take; by default that of PATH, of pyenv, of uv, or this one.

    Raises:
        ToolchainUnavailableError: There is none, or the chosen one is none; the message says what
            to do.
    """
    check_platform()
    if chosen is not None:
        found, problem = _ask(chosen)
        if found is None:
            raise ToolchainUnavailableError(f"--python {chosen}: {problem}")
        return found
    problems = []
    for path in dict.fromkeys(_candidates()):
        found, problem = _ask(path)
        if found is not None:
            return found
        problems.append(f"{path}: {problem}")
    seen = f" ({'; '.join(problems)})" if problems else ""
    raise ToolchainUnavailableError(
        f"the toolchain needs Python {WANTED}, and none was found{seen}: "
        f"pip install uv && uv python install {WANTED}, or name one with --python"
    )


def _ask(path: Path) -> tuple[Python | None, str]:
    """Run an interpreter; return what it is, or else what is wrong with it."""
    try:
        done = subprocess.run(
            [str(path), "-I", "-c", _QUESTION], capture_output=True, text=True, check=True,
            timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        base, name, version, machine, wide, complete = json.loads(done.stdout)
    except OSError as error:
        return None, error.strerror or str(error)
    except subprocess.CalledProcessError as error:
        # pyenv's commands are there for versions that are not chosen, and tell so.
        return None, " ".join(error.stderr.split("\n")[0].split()) or "it does not run"
    except (subprocess.TimeoutExpired, ValueError):
        return None, "it does not answer as a Python does"
    if (name, machine, wide) != ("CPython", "x86_64", True):
        return None, f"it is {name} for {machine}, and x86-64 CPython is needed"
    if version.rpartition(".")[0] != WANTED:
        return None, f"it is Python {version}, and {WANTED} is needed"
    if not complete:
        return None, f"it cannot make environments: sudo apt install python{WANTED}-venv"
    return Python(Path(base) if Path(base).exists() else path, version), ""


def _candidates() -> Iterator[Path]:
    """Interpreters that may be there, the likeliest first."""
    name = f"python{WANTED}"
    on_path = shutil.which(name)
    if on_path:
        yield Path(on_path)
    with suppress(RuntimeError):
        yield from _of_pyenv(name)
        yield from _of_uv(name)
    yield from (each for each in (Path("/usr/bin", name), Path("/usr/local/bin", name))
                if each.exists())  # fmt: skip
    if platform.python_version().rpartition(".")[0] == WANTED:
        yield Path(sys.executable)


def _of_pyenv(name: str) -> Iterator[Path]:
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(root.glob(f"versions/{WANTED}*/bin/{name}"), reverse=True)


def _of_uv(name: str) -> Iterator[Path]:
    uv = shutil.which("uv")
    if uv:
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                [uv, "python", "find", "--no-python-downloads", WANTED], capture_output=True,
                text=True, check=True, timeout=_TIMEOUT_S,
            )  # fmt: skip
            yield Path(done.stdout.strip())
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    folder = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python")
    yield from sorted(folder.glob(f"cpython-{WANTED}*/bin/{name}"), reverse=True)
