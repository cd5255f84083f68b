"""PNG files of plots. Requires matplotlib, an optional dependency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from efv2_ros.errors import Efv2Error
from efv2_ros.files import open_atomic_binary


def matplotlib() -> Any:
    """Import matplotlib with its figures, which takes a second.

    Raises:
        Efv2Error: It is not installed.
    """
    try:
        import matplotlib.figure
    except ImportError as error:
        raise Efv2Error(
            f"plots need matplotlib, which is not installed ({error}): pip install matplotlib"
        ) from error
    return matplotlib


def save(figure: Any, path: Path) -> None:
    """Write a figure as a PNG file.

    Raises:
        FileWriteError: The file cannot be written.
    """
    with open_atomic_binary(path) as file:
        figure.savefig(file, dpi=110, format="png")
