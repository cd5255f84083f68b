"""Says which packages this Python has, and whether their files are as they were installed."""

import base64
import hashlib
import importlib.machinery
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from channel import Channel, serve
from sitecustomize import STOOD_IN_FOR


def run(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Examine the packages of the request."""
    channel.step("examining the packages", 0.0, 1.0)
    packages = [package(name) for name in request["packages"]]
    missing = [name for name in sorted(STOOD_IN_FOR) if not is_installed(name)]
    return {"python": platform.python_version(), "packages": packages, "stand_ins": missing}


def package(name: str) -> dict[str, Any]:
    """Examine one package."""
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return {"name": name, "version": None, "files": 0, "damaged": ""}
    files = [each for each in found.files or [] if each.hash is not None]
    damaged = next((str(each) for each in files if not is_whole(each)), "")
    return {"name": name, "version": found.version, "files": len(files), "damaged": damaged}


def is_whole(file: importlib.metadata.PackagePath) -> bool:
    """Whether a file has the hash that its package's list has."""
    path = Path(str(file.locate()))
    wanted: Any = file.hash
    try:
        found = hashlib.new(wanted.mode, path.read_bytes()).digest()
    except OSError:
        return False
    return bool(base64.urlsafe_b64encode(found).rstrip(b"=").decode() == wanted.value)


def is_installed(module: str) -> bool:
    """Whether a top module is really there."""
    return importlib.machinery.PathFinder.find_spec(module) is not None


if __name__ == "__main__":
    serve(run)
