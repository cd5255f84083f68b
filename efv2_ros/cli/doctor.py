"""`efv2 doctor`: what is here, and what to do about what is missing."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import click
from rich.markup import escape
from rich.table import Table

from efv2_ros.cli.console import output
from efv2_ros.models.catalog import Catalog
from efv2_ros.models.store import inventory
from efv2_ros.runtimes import board
from efv2_ros.runtimes.base import RuntimeUnavailableError, candidates, select_runtime
from efv2_ros.vision import turbojpeg

Verdict = Literal["ok", "missing", "info"]


@click.command()
def doctor() -> None:
    """Say what is here and what to do about what is missing."""
    from efv2_ros.cli.doctor import examine

    table = Table(show_header=False, box=None)
    marks = {"ok": "[green]ok[/green]", "missing": "[red]missing[/red]", "info": "[blue]-[/blue]"}
    with output.status("looking"):
        findings = list(examine())
    for finding in findings:
        table.add_row(marks[finding.verdict], finding.subject, escape(finding.detail))
        if finding.cure:
            table.add_row("", "", f"[bold]-> {escape(finding.cure)}[/bold]")
    output.print(table)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What it is.
        verdict: `missing` only where something will not work without it.
        detail: What was found.
        cure: What to do about it; empty when nothing needs doing.
    """

    subject: str
    verdict: Verdict
    detail: str
    cure: str = ""


def examine() -> Iterator[Finding]:
    """Look at the interpreter, the libraries, ROS, the board, the runtimes and the models."""
    yield Finding("Python", "ok", f"{platform.python_version()} on {platform.machine()}")
    yield _library("numpy", "numpy")
    yield _library("OpenCV", "opencv-python-headless", "opencv-python", module="cv2")
    yield _jpeg_library()
    yield _bags()
    yield from _ros()
    yield from _board()
    yield from _runtimes()
    yield from _models()


def _library(name: str, *distributions: str, module: str | None = None) -> Finding:
    for distribution in distributions:
        try:
            return Finding(name, "ok", version(distribution))
        except PackageNotFoundError:
            continue
    found = _run_python(f"import {module or name}; print({module or name}.__version__)")
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
    # In a process of its own: importing rclpy may run the interpreter anew.
    if _run_python("import rclpy") is None:
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
    yield Finding("middleware", "info", os.environ.get("RMW_IMPLEMENTATION", "the default one"))


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
        # What belongs to a board is not missing on another machine.
        expected = each.kind.model_format == "onnx" or board.has_bpu()
        if not each.problem:
            how = "next in line" if taken else "taken by `auto`"
            taken = True
            yield Finding(subject, "ok", f"{each.version}, runs .{each.kind.model_format}; {how}")
            continue
        detail, separator, cure = each.problem.rpartition(": ")
        if not separator:
            detail, cure = each.problem, ""
        yield Finding(
            subject,
            "missing" if expected and not taken else "info",
            f"not taken: {detail}" if expected else f"not taken: {each.problem}",
            cure if expected and not taken else "",
        )


def _models() -> Iterator[Finding]:
    """The models in the format of the runtime that would be taken."""
    try:
        _, kind = select_runtime()
    except RuntimeUnavailableError:
        return
    for status in inventory(Catalog.load()):
        if status.format != kind.model_format:
            continue
        subject = f"model {status.spec.size} .{status.format}"
        cure = f"efv2 models fetch {status.spec.size} --format {status.format}"
        if status.path is None:
            yield Finding(subject, "missing", "not on this machine", cure)
        elif status.problem is not None:
            yield Finding(subject, "missing", status.problem, cure)
        else:
            yield Finding(subject, "ok", str(status.path))


def _run_python(code: str) -> str | None:
    """What a few lines of Python print; None when they fail."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None
