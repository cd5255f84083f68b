"""`efv2 doctor`: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from efv2_ros import __version__
from efv2_ros.cli.console import findings_table, messages, output
from efv2_ros.errors import Efv2Error
from efv2_ros.findings import Finding
from efv2_ros.models.catalog import Catalog
from efv2_ros.models.store import inventory
from efv2_ros.runtimes import board
from efv2_ros.runtimes.base import (
    Candidate,
    RuntimeUnavailableError,
    candidates,
    select_runtime,
)
from efv2_ros.vision import turbojpeg

_PYTHON_TIMEOUT_S = 60.0


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for issue reports and scripts.")
def doctor(as_json: bool) -> None:
    """Say what is here and what to do about what is missing."""
    with messages.status("looking"):
        findings = list(examine())
        document = describe(findings) if as_json else None
    if document is not None:
        click.echo(json.dumps(document, indent=2))
        return
    output.print(findings_table(findings))


def examine() -> Iterator[Finding]:
    """Look at the interpreter, the libraries, ROS, the board, the runtimes and the models."""
    yield Finding("Python", "ok", f"{platform.python_version()} on {platform.machine()}")
    yield _library("numpy", "numpy", module="numpy")
    yield _library("OpenCV", *_OPENCV, module="cv2")
    yield _jpeg_library()
    yield _bags()
    yield from _ros()
    yield from _board()
    yield from _runtimes()
    yield from _models()


def describe(findings: Iterable[Finding]) -> dict[str, Any]:
    """Describe this machine and its findings in JSON's types.

    Returns:
        `efv2_ros`: the package's version; `platform` and `ros`: facts by name, None where there
        is none; `versions`: of libraries, None where one cannot be imported; `findings`: each
        with `subject`, `verdict`, `detail` and `fix`.
    """
    return {
        "efv2_ros": __version__,
        "platform": {
            "os": _os_name(),
            "kernel": platform.release(),
            "machine": platform.machine(),
            "board": board.name() or None,
            "bpu": board.has_bpu(),
        },
        "ros": {
            "distro": os.environ.get("ROS_DISTRO"),
            "rclpy": _version("rclpy"),
            "rmw": _middleware(),
        },
        "versions": {
            "python": platform.python_version(),
            "numpy": _version("numpy", module="numpy"),
            "opencv": _version(*_OPENCV, module="cv2"),
            **{name: _version(name) for name in ("click", "rich", "rosbags", "mcap", "onnx")},
            "onnxruntime": _version("onnxruntime", "onnxruntime-gpu", module="onnxruntime"),
        },
        "findings": [asdict(each) for each in findings],
    }


_OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python")


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _version(*distributions: str, module: str = "") -> str | None:
    """Look a version up in pip's records, else ask the module, as apt's packages need it."""
    for distribution in distributions:
        with suppress(PackageNotFoundError):
            return version(distribution)
    return _run_python(f"import {module}; print({module}.__version__)") if module else None


def _middleware() -> str | None:
    # In a process of its own: importing rclpy may run the interpreter anew.
    return _run_python("import rclpy; print(rclpy.get_rmw_implementation_identifier())")


def _library(name: str, *distributions: str, module: str) -> Finding:
    found = _version(*distributions, module=module)
    if found is None:
        return Finding(name, "missing", "cannot be imported", f"pip install {distributions[0]}")
    return Finding(name, "ok", found)


def _jpeg_library() -> Finding:
    library = turbojpeg.load()
    if library is None:
        return Finding(
            "libturbojpeg", "info", "not found: OpenCV decodes JPEG, which takes longer",
            "sudo apt install libturbojpeg, or pip install turbojpeg",
        )  # fmt: skip
    return Finding("libturbojpeg", "ok", f"{library._name} decodes JPEG")


def _bags() -> Finding:
    found = {}
    for package in ("rosbags", "mcap"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    listed = ", ".join(f"{name} {number}" for name, number in found.items())
    if "rosbags" not in found:
        return Finding("bags", "info", "rosbags is not here, so none can be read or written",
                       "pip install rosbags mcap")  # fmt: skip
    if "mcap" not in found:
        detail = f"{listed}; mcap, which reads damaged .mcap files, is not here"
        return Finding("bags", "info", detail, "pip install mcap")
    return Finding("bags", "ok", listed)


def _ros() -> Iterator[Finding]:
    distro = os.environ.get("ROS_DISTRO", "")
    middleware = _middleware()
    if middleware is None:
        yield Finding(
            "ROS 2", "missing", "rclpy cannot be imported, so the node cannot run",
            "source /opt/ros/DISTRO/setup.bash (on the board /opt/tros/humble/setup.bash); "
            "without ROS on this machine, scripts/demo of the source brings it along",
        )  # fmt: skip
        return
    yield Finding("ROS 2", "ok", distro or "rclpy can be imported; ROS_DISTRO is not set")
    for package in ("sensor_msgs", "diagnostic_msgs", "std_srvs", "vision_msgs"):
        if _run_python(f"import {package}") is None:
            yield Finding(
                package, "missing", "cannot be imported, so the node cannot run",
                f"sudo apt install ros-{distro or 'DISTRO'}-{package.replace('_', '-')}",
            )  # fmt: skip
    yield from _viewers(distro)
    yield Finding("middleware", "info", middleware)


def _viewers(distro: str) -> Iterator[Finding]:
    """Say which topics for viewers there are not, since their types are not installed."""
    if _run_python("import foxglove_msgs.msg") is None:
        yield Finding(
            "foxglove_msgs", "info", "not here, so the node has no ~/annotations",
            f"sudo apt install ros-{distro or 'DISTRO'}-foxglove-msgs",
        )  # fmt: skip
    if board.has_bpu() and _run_python("import ai_msgs.msg") is None:
        yield Finding(
            "ai_msgs", "info", "not here, so the node has no ~/ai_targets",
            "source /opt/tros/humble/setup.bash",
        )  # fmt: skip


def _board() -> Iterator[Finding]:
    name, state = board.name(), board.state()
    if state is None:
        yield Finding("board", "info", f"{name or 'none known'}; no BPU")
        return
    yield Finding("board", "ok", f"{name or 'unknown'}, with a BPU")
    if state.governor == "performance":
        yield Finding("CPU governor", "ok", state.governor)
    elif state.governor:
        detail = f"{state.governor}: latencies are longer and uneven"
        yield Finding("CPU governor", "info", detail, board.PERFORMANCE_MODE)


def _runtimes() -> Iterator[Finding]:
    taken = False
    for each in candidates():
        subject = f"runtime {each.name}"
        if each.kind.not_auto:
            yield _by_name_only(subject, each)
            continue
        # What belongs to a board is not missing on another machine.
        expected = each.kind.model_format == "onnx" or board.has_bpu()
        if not each.problem:
            how = "next in line" if taken else "taken by `auto`"
            taken = True
            yield Finding(subject, "ok", f"{each.version}, runs .{each.kind.model_format}; {how}")
            continue
        detail, separator, fix = each.problem.rpartition(": ")
        if not separator:
            detail, fix = each.problem, ""
        yield Finding(
            subject,
            "missing" if expected and not taken else "info",
            f"not taken: {detail}" if expected else f"not taken: {each.problem}",
            fix if expected and not taken else "",
        )


def _by_name_only(subject: str, candidate: Candidate) -> Finding:
    """Look at a runtime that `auto` never takes and nobody misses."""
    try:
        found = f"{candidate.kind.probe()}, runs .{candidate.kind.model_format}"
    except RuntimeUnavailableError as error:
        return Finding(subject, "info", f"not taken: {error}")
    return Finding(subject, "ok", f"{found}; never taken by `auto`: {candidate.kind.not_auto}")


def _models() -> Iterator[Finding]:
    """The models in the format of the runtime that would be taken."""
    try:
        _, kind = select_runtime()
    except RuntimeUnavailableError:
        return
    try:
        statuses = list(inventory(Catalog.load()))
    except (Efv2Error, OSError) as error:
        yield Finding("models", "missing", str(error))
        return
    for status in statuses:
        if status.format != kind.model_format:
            continue
        subject = f"model {status.spec.size} .{status.format}"
        fix = f"efv2 models fetch {status.spec.size} --format {status.format}"
        if status.path is None:
            yield Finding(subject, "missing", "not on this machine", fix)
        elif status.problem is not None:
            yield Finding(subject, "missing", status.problem, fix)
        else:
            yield Finding(subject, "ok", str(status.path))


def _run_python(code: str) -> str | None:
    """What a few lines of Python print; None when they fail."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            timeout=_PYTHON_TIMEOUT_S,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
