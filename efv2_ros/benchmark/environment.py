"""The machine and the software that a benchmark ran on, for the head of its report."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np

from efv2_ros import __version__
from efv2_ros.classify.options import ModelRequest
from efv2_ros.runtimes import board
from efv2_ros.runtimes.base import RuntimeUnavailableError

_CPUINFO = Path("/proc/cpuinfo")


def describe(request: ModelRequest) -> dict[str, str | int]:
    """Describe machine and software, with the runtime that `request` selects."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 0,
        "os": _os(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "ros_distro": os.environ.get("ROS_DISTRO", "none"),
        "rmw": _rmw(),
        "runtime": _runtime(request),
        "date_utc": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M"),
        "efv2_ros": __version__,
    }


def _cpu() -> str:
    """Model of the CPU; on Arm, whose cpuinfo has none, the name of the board."""
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or board.name() or platform.machine()


def _os() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.system()
    return f"{name}, kernel {platform.release()}, {platform.machine()}"


def _rmw() -> str:
    try:
        from rclpy import get_rmw_implementation_identifier
    except ImportError:
        return "none"
    return str(get_rmw_implementation_identifier())


def _runtime(request: ModelRequest) -> str:
    try:
        name, kind = request.select_runtime()
        return f"{name} ({kind.probe()})"
    except RuntimeUnavailableError as error:
        return f"none: {error}"
