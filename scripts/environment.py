"""Make or reuse an environment with ROS 2, and run a command in it.

The environment is a virtual environment in the user's cache, named by a hash of all that goes into
it. Where a ROS 2 is sourced it is that ROS 2 plus what is missing; elsewhere it is ROS 2 from
PyPI's wheels. Either way the interface packages in `interfaces` are generated where the
official ones are not there, and `efv2_ros` is imported from the clone that holds this file.

Only the standard library is used: this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import inspect
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
CLONE = SCRIPTS.parent
LOCK_FILE = SCRIPTS / "requirements.lock"
HASHES_FILE = SCRIPTS / "requirements.hashes"
INTERFACES = SCRIPTS.parent / "interfaces"
DISTROS = ("kilted", "jazzy")
COMPLETE = "efv2-complete"  # the file that marks a prefix as one of ours, built to its end

# The module that shows a distribution to be installed, where its name alone does not tell.
MODULES = {
    "empy": "em",
    "lark-parser": "lark",
    "opencv-python-headless": "cv2",
    "python-dateutil": "dateutil",
    "pyyaml": "yaml",
}


class EnvironmentFailure(Exception):
    """The environment cannot be made; the message says why and what to do."""


@dataclass(frozen=True)
class Flavour:
    """Which environment is wanted.

    Attributes:
        distro: The ROS 2 distribution's name.
        numpy2: Whether numpy 2 is wanted instead of what a board has.
        train: Whether PyTorch and what else training needs are wanted too.
        sourced: Prefix of the sourced ROS 2 to use; None for ROS 2 from PyPI's wheels.
        has: The packages of `interfaces` that the sourced ROS 2 has.
    """

    distro: str
    numpy2: bool = False
    train: bool = False
    sourced: str | None = None
    has: tuple[str, ...] = ()

    def __str__(self) -> str:
        marks = {"numpy2": self.numpy2, "train": self.train, "sourced": self.sourced}
        return "-".join([self.distro, *(mark for mark, holds in marks.items() if holds)])

    def pins(self) -> dict[str, list[str]]:
        """The sections of the lock file that this flavour is made of."""
        sections = read_sections(LOCK_FILE)
        host = sections["numpy2" if self.numpy2 else "numpy1"] + sections["host"]
        ros = [] if self.sourced else sections[self.distro]
        train = sections["train"] if self.train else []
        rest = sections["common"] + train + ros
        return {"build": sections["build"], "host": host, "rest": rest}


def main() -> None:
    """Run the command given on the command line inside the environment."""
    options = parse_arguments()
    command: list[str] = options.command[1:] if options.command[:1] == ["--"] else options.command
    try:
        flavour = choose_flavour(options.distro, options.numpy2, options.train)
        prefix = ensure_environment(flavour)
    except EnvironmentFailure as failure:
        sys.exit(f"scripts/env: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
    if not command:
        describe(prefix, flavour)
        return
    try:
        os.execvpe(command[0], command, environment_variables(prefix, flavour))
    except OSError as error:
        print(f"scripts/env: {command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/env",
        usage="scripts/env [--distro DISTRO] [--numpy2] [--train] [--] [COMMAND...]",
        description="Run COMMAND where ROS 2, vision_msgs and this clone's efv2_ros can be "
        "imported; without COMMAND, show what the environment has. It is made on first use "
        "and kept in ~/.cache/efv2_ros ($EFV2_CACHE_DIR, $XDG_CACHE_HOME).",
    )
    parser.add_argument(
        "--distro",
        help="ROS 2 distribution (default: the one that is sourced, else kilted); "
        "one that is not sourced comes from PyPI: kilted or jazzy",
    )
    parser.add_argument(
        "--numpy2", action="store_true", help="use numpy 2, with ROS 2 from PyPI's wheels"
    )
    parser.add_argument(
        "--train", action="store_true", help="add PyTorch and timm, about 3 GB, for `efv2 train`"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    return parser.parse_args()


def choose_flavour(distro: str | None, numpy2: bool, train: bool = False) -> Flavour:
    """Decide between the sourced ROS 2, if there is one that fits, and PyPI's wheels.

    Raises:
        EnvironmentFailure: The distribution is neither sourced nor there as wheels.
    """
    sourced = sourced_flavour()
    if sourced and not numpy2 and distro in (None, sourced.distro):
        return replace(sourced, train=train)
    distro = distro or DISTROS[0]
    if distro not in DISTROS:
        raise EnvironmentFailure(
            f"ROS 2 {distro} is not on PyPI ({' and '.join(DISTROS)} are) and not sourced"
        )
    return Flavour(distro, numpy2, train)


def sourced_flavour() -> Flavour | None:
    """The sourced ROS 2; None where there is none that this interpreter can use.

    Prefixes made by this script, seen where it runs inside itself, do not count.
    """
    distro = os.environ.get("ROS_DISTRO")
    prefixes = map(Path, filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)))
    found = [prefix for prefix in prefixes if not (prefix / COMPLETE).exists()]
    with_rclpy = [prefix for prefix in found if (prefix / "share" / "rclpy").is_dir()]
    if not (distro and with_rclpy and importlib.util.find_spec("rclpy")):
        return None
    has = tuple(
        package.name
        for package in interface_packages()
        if any((prefix / "share" / package.name).is_dir() for prefix in found)
    )
    return Flavour(distro, sourced=str(with_rclpy[0]), has=has)


def interface_packages() -> list[Path]:
    """The folders of the packages that may have to be generated."""
    return sorted(manifest.parent for manifest in INTERFACES.glob("*/package.xml"))


def cache_folder() -> Path:
    """The folder that holds the environments."""
    if chosen := os.environ.get("EFV2_CACHE_DIR"):
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "efv2_ros"


def environment_variables(prefix: Path, flavour: Flavour) -> dict[str, str]:
    """What a process inside the environment has in its environment."""
    variables = dict(os.environ)
    variables.pop("PYTHONHOME", None)

    def prepend(name: str, *entries: Path) -> None:
        inherited = variables.get(name, "").split(os.pathsep)
        added = [str(entry) for entry in entries]
        kept = [entry for entry in inherited if entry and entry not in added]
        variables[name] = os.pathsep.join(added + kept)

    if not flavour.sourced:
        # Nothing of another ROS 2 may show through.
        for name in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "LD_LIBRARY_PATH", "PYTHONPATH"):
            variables.pop(name, None)
        variables.update(
            ROS_DISTRO=flavour.distro,
            ROS_VERSION="2",
            ROS_PYTHON_VERSION="3",
            RMW_IMPLEMENTATION="rmw_fastrtps_cpp",  # the only one there is as a wheel
            # Without it importing any of the wheels starts the interpreter anew, to set the
            # library path that is set below.
            _ROS_WHEELS_BOOTSTRAP_COMPLETE="1",
        )
    variables["VIRTUAL_ENV"] = str(prefix)
    variables["EFV2_ROS_FROM"] = "sourced" if flavour.sourced else "wheels"
    prepend("PATH", prefix / "bin")
    prepend("PYTHONPATH", CLONE)
    prepend("AMENT_PREFIX_PATH", prefix)
    prepend("CMAKE_PREFIX_PATH", prefix)
    bundled = sorted((prefix / python_folder()).glob("ros_*.libs"))
    prepend("LD_LIBRARY_PATH", prefix / "lib", *bundled)
    return variables


def python_folder() -> str:
    """Where a prefix keeps its Python packages, relative to it."""
    return f"lib/python{python_version()}/site-packages"


def python_version() -> str:
    """Major and minor version of this interpreter."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def ensure_environment(flavour: Flavour) -> Path:
    """Return the environment's prefix, after building it if it is not there yet.

    Raises:
        EnvironmentFailure: It could not be built.
    """
    cache = cache_folder()
    prefix = cache / f"env-{flavour}-py{python_version()}-{fingerprint(flavour)}"
    complete = prefix / COMPLETE
    if complete.exists():
        return prefix
    cache.mkdir(parents=True, exist_ok=True)
    with exclusive(prefix.with_name(f"{prefix.name}.lock")):
        if not complete.exists():
            check_prerequisites(flavour)
            Builder(prefix, flavour).build()
            complete.touch()
    return prefix


def fingerprint(flavour: Flavour) -> str:
    """A short hash of all that goes into the environment.

    Raises:
        EnvironmentFailure: A pin has no hashes.
    """
    inputs = [sys.version, sys.base_prefix, sysconfig.get_platform()]
    requirements = {group: with_hashes(pins) for group, pins in flavour.pins().items()}
    inputs += [repr(flavour), repr(requirements), inspect.getsource(Builder)]
    for file in sorted(INTERFACES.rglob("*.*")):
        inputs += [file.name, file.read_text(encoding="utf-8")]
    return hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:10]


def read_sections(path: Path) -> dict[str, list[str]]:
    """The lines under each `[section]` of a file, without comments and blank lines."""
    sections: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"\[(\S+)\]", line):
            pins = sections.setdefault(heading[1], [])
        elif line and not line.startswith("#"):
            pins.append(line)
    return sections


def release_of(pin: str) -> str:
    """The `name==version` of a pin, without its condition."""
    return pin.partition(" ;")[0]


def with_hashes(pins: list[str]) -> str:
    """Pins as a file of requirements for pip, each with the hashes of the files it may install.

    Raises:
        EnvironmentFailure: A pin has none.
    """
    files = read_sections(HASHES_FILE)
    if missing := [release for release in map(release_of, pins) if not files.get(release)]:
        raise EnvironmentFailure(
            f"{HASHES_FILE} has no hashes of {', '.join(missing)}: run scripts/hashes"
        )
    lines = []
    for pin in pins:
        hashes = [f"--hash=sha256:{file.split()[0]}" for file in files[release_of(pin)]]
        lines.append(" \\\n    ".join([pin, *hashes]) + "\n")
    return "".join(lines)


def module_of(pin: str) -> str:
    """The module that a pinned distribution brings."""
    distribution = pin.partition("==")[0]
    return MODULES.get(distribution, distribution.replace("-", "_"))


@contextlib.contextmanager
def exclusive(lock_file: Path) -> Iterator[None]:
    """Hold a lock that one process at a time can have."""
    with lock_file.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another process is building this environment; waiting for it ...\n")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def check_prerequisites(flavour: Flavour) -> None:
    """Look for all that a build needs, before anything is downloaded.

    Raises:
        EnvironmentFailure: Something is missing; all that is missing is named at once.
    """
    if not flavour.sourced and (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise EnvironmentFailure(
            f"PyPI's ROS 2 wheels are for Linux on x86_64; this is {platform.system()} on "
            f"{platform.machine()}. Source a ROS 2 first, e.g. source /opt/ros/humble/setup.bash"
        )
    if all(package.name in flavour.has for package in interface_packages()):
        return
    missing = [
        f"{what} ({' or '.join(names)})"
        for what, names in {
            "a C compiler": [os.environ.get("CC", "cc"), "gcc", "clang"],
            "a C++ compiler": [os.environ.get("CXX", "c++"), "g++", "clang++"],
            "CMake": ["cmake"],
            "a build tool": ["make", "ninja"],
        }.items()
        if not any(shutil.which(name) for name in names)
    ]
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        missing.append(f"Python's headers ({header})")
    if missing:
        raise EnvironmentFailure(
            f"missing: {', '.join(missing)}.\n  On Debian or Ubuntu: "
            "sudo apt install build-essential cmake python3-venv python3-dev"
        )


class Builder:
    """Builds one environment, step by step, with all output in one log file."""

    def __init__(self, prefix: Path, flavour: Flavour) -> None:
        self.prefix = prefix
        self.flavour = flavour
        self.python = prefix / "bin" / "python"
        self.log = prefix / "build.log"
        self.step_started = 0.0

    def build(self) -> None:
        """Build the environment from nothing; what an interrupted build left is removed.

        Raises:
            EnvironmentFailure: A step failed.
        """
        steps: list[tuple[str, Callable[[], None]]] = [
            ("make a virtual environment", self.make_venv),
            ("install packages", self.install_packages),
        ]
        steps += [
            (f"build {package.name}", functools.partial(self.build_interfaces, package))
            for package in interface_packages()
            if package.name not in self.flavour.has
        ]
        steps.append(("check", self.check))
        shutil.rmtree(self.prefix, ignore_errors=True)
        self.prefix.mkdir()
        origin = self.flavour.sourced or "PyPI's wheels, about 750 MB"
        if self.flavour.train:
            origin += ", and PyTorch, about 3 GB"
        say(
            f"Making an environment of ROS 2 {self.flavour.distro} ({origin}), once, in a few "
            f"minutes at most:\n  {self.prefix}\n"
        )
        for number, (title, step) in enumerate(steps, start=1):
            self.step_started = time.monotonic()
            say(f"[{number}/{len(steps)}] {title} ... ")
            try:
                step()
            except EnvironmentFailure:
                say("failed\n")
                raise
            say(f"{self.step_seconds()}\n")

    def step_seconds(self) -> str:
        """How long the running step has taken."""
        return f"{time.monotonic() - self.step_started:.0f} s"

    def make_venv(self) -> None:
        """Make the virtual environment and give it the `efv2` command."""
        options = ["--system-site-packages"] if self.flavour.sourced else []
        self.run(sys.executable, "-m", "venv", *options, self.prefix)
        # Not an installed entry point: the environment is shared between clones.
        command = self.prefix / "bin" / "efv2"
        command.write_text('#!/bin/sh\nexec python -m efv2_ros.cli "$@"\n')
        command.chmod(0o755)

    def install_packages(self) -> None:
        """Install the pinned packages and nothing else."""
        pins = self.flavour.pins()
        host = pins["host"]
        if self.flavour.sourced:
            # Its compiled packages are built against one another: those it has are kept.
            host = [pin for pin in host if not importlib.util.find_spec(module_of(pin))]
        self.install(pins["build"])
        self.install(host + pins["rest"])
        if not self.flavour.sourced:
            self.correct_cmake_files()

    def install(self, pins: list[str]) -> None:
        """Install these packages and no other, each from a file whose hash is known."""
        requirements = self.prefix / "requirements.txt"
        requirements.write_text(with_hashes(pins), encoding="utf-8")
        # Wheels only, so that a package without one for this Python fails at once instead of
        # being compiled; empy is one Python file, published as source.
        wheels = ("--only-binary=:all:", "--no-binary=empy", "--no-build-isolation")
        pip = (self.python, "-m", "pip", "install", "--disable-pip-version-check")
        self.run(*pip, "--require-hashes", "--no-deps", *wheels, "-r", requirements)

    def correct_cmake_files(self) -> None:
        """Replace the paths of the machine that built the wheels with this environment's."""
        numpy_include = subprocess.check_output(
            [self.python, "-c", "import numpy; print(numpy.get_include())"], text=True
        ).strip()
        python_include = sysconfig.get_path("include")
        for file in self.prefix.glob("share/*/cmake/*.cmake"):
            text = file.read_text(encoding="utf-8")
            corrected = re.sub(
                r"/opt/python/[^;\"]*/numpy/_core/include", lambda _: numpy_include, text
            )
            corrected = re.sub(
                r"/opt/python/[^;\"]*/include/python[\d.]+", lambda _: python_include, corrected
            )
            if corrected != text:
                file.write_text(corrected, encoding="utf-8")

    def build_interfaces(self, package: Path) -> None:
        """Generate, compile and install an interface package into the environment's prefix."""
        with tempfile.TemporaryDirectory(prefix=f"efv2-{package.name}-") as build:
            self.run(
                "cmake",
                *("-S", package, "-B", build),
                f"-DCMAKE_INSTALL_PREFIX={self.prefix}",
                f"-DPYTHON_INSTALL_DIR={python_folder()}",  # Debian's default is another folder
                f"-DPython3_EXECUTABLE={self.python}",
                "-DCMAKE_BUILD_TYPE=Release",
                "-DBUILD_TESTING=OFF",
            )
            self.run("cmake", "--build", build, "--parallel", str(os.cpu_count() or 1))
            self.run("cmake", "--install", build)

    def check(self) -> None:
        """See that everything fits together and can be imported."""
        if not self.flavour.sourced:  # a machine's own packages are not ours to judge
            self.run(self.python, "-m", "pip", "check")
        modules = "rclpy, sensor_msgs.msg, vision_msgs.msg, cv_bridge, cv2, numpy, onnxruntime"
        self.run(self.python, "-c", f"import {modules}; vision_msgs.msg.Classification()")

    def run(self, *command: str | Path) -> None:
        """Run a command inside the environment, its output appended to the log."""
        variables = environment_variables(self.prefix, self.flavour)
        with self.log.open("a") as log:
            log.write(f"$ {' '.join(str(part) for part in command)}\n")
            log.flush()
            with subprocess.Popen(
                command, env=variables, stdout=log, stderr=subprocess.STDOUT
            ) as process:
                while process.poll() is None:
                    if sys.stderr.isatty():
                        seconds = self.step_seconds()
                        say(seconds + "\b" * len(seconds))
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(timeout=1)
        if process.returncode:
            raise EnvironmentFailure(self.explain())

    def explain(self) -> str:
        """Say what a failed step printed last and what to do about it."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        tail = "\n".join(f"  | {line}" for line in text.splitlines()[-15:])
        if "DO NOT MATCH THE HASHES" in text:
            advice = (
                f"A downloaded file is not the one in {HASHES_FILE}: it was damaged on its way, "
                "or it has been exchanged.\nRun the command again; if it fails again, do not use "
                "the file, and tell us."
            )
        elif "connection broken by" in text or "Could not fetch URL" in text:
            advice = "The package index cannot be reached: check the network and proxy settings."
        elif "No space left on device" in text:
            advice = f"The disk is full: free 1 GB, or set EFV2_CACHE_DIR (now {cache_folder()})."
        else:
            advice = "Running the command again starts afresh."
        return f"a step failed. Its last lines:\n{tail}\n{advice}\nThe whole log: {self.log}"


def describe(prefix: Path, flavour: Flavour) -> None:
    """Show where the environment is, what it has, and how to use it."""
    variables = environment_variables(prefix, flavour)
    versions = (
        "import cv2, numpy, onnxruntime, platform; print(f'Python {platform.python_version()}, "
        "numpy {numpy.__version__}, OpenCV {cv2.__version__}, "
        "ONNX Runtime {onnxruntime.__version__}')"
    )
    shown = subprocess.check_output(
        [prefix / "bin" / "python", "-c", versions], env=variables, text=True
    ).strip()
    origin = flavour.sourced or "PyPI's wheels"
    print(f"ROS 2 {flavour.distro} ({origin}), {shown}")
    print(f"in {prefix}")
    print("Run a command in it with: scripts/env -- COMMAND, or a shell with: scripts/env -- bash")


def say(text: str) -> None:
    """Show progress, apart from the command's own output."""
    print(text, end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
