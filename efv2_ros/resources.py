"""Paths of the package's own files and of its cache. Needs neither ROS nor ament."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from efv2_ros.errors import Efv2Error

_PACKAGE = "efv2_ros"


def share_path(*parts: str) -> Path:
    """Find a file or folder that the package installs under `share/efv2_ros`.

    Searches a source checkout first, then the prefixes in `AMENT_PREFIX_PATH`, then the prefixes
    above this module and Python's own.

    Args:
        *parts: Path components below `share/efv2_ros`, for example `"models", "catalog.yaml"`.

    Raises:
        FileNotFoundError: The file is in none of these places.
    """
    roots = list(dict.fromkeys(_share_roots()))
    for root in roots:
        candidate = root.joinpath(*parts)
        if candidate.exists():
            return candidate
    raise FileNotFoundError(
        f"{'/'.join(parts)} of {_PACKAGE} is in none of {', '.join(map(str, roots))}: "
        "build the package with colcon and source its setup file, or run from a source checkout"
    )


def _share_roots() -> Iterator[Path]:
    module = Path(__file__).resolve()
    checkout = module.parents[1]
    if (checkout / "package.xml").is_file():
        yield checkout
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if prefix:
            yield Path(prefix) / "share" / _PACKAGE
    for prefix_dir in (*module.parents[2:], Path(sys.prefix)):
        yield prefix_dir / "share" / _PACKAGE


def cache_dir() -> Path:
    """Return the user's cache folder for this package, which may not exist yet.

    It is `$XDG_CACHE_HOME/efv2_ros`; or `~/.cache/efv2_ros` if the variable is unset or, as the
    XDG base directory specification demands, not an absolute path.

    Raises:
        Efv2Error: Neither variable is set and the user has no home folder.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if base.is_absolute():
        return base / _PACKAGE
    try:
        return Path.home() / ".cache" / _PACKAGE
    except RuntimeError as error:
        raise Efv2Error("this user has no home folder: set XDG_CACHE_HOME or HOME") from error
