"""Bags at URLs, which fsspec copies to this machine: `s3://`, `gs://`, `https://` and others."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from efv2_ros.bags.bag import is_storage_file, listed_files
from efv2_ros.bags.errors import BagError
from efv2_ros.fleet.sources import is_url

_METADATA = "metadata.yaml"


class Copies:
    """The bag that was asked for last, if it is not on this machine; a context manager.

    The spans of a bag mostly follow each other, so that each process copies a bag once.
    """

    def __init__(self) -> None:
        self._location = ""
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._path = Path()

    def __call__(self, location: str) -> Path:
        """Return where a bag is on this machine.

        Raises:
            BagError: It cannot be copied.
        """
        if not is_url(location):
            return Path(location)
        if location != self._location:
            self.close()
            self._folder = tempfile.TemporaryDirectory(prefix="efv2_bag_")
            self._path = copy(location, Path(self._folder.name))
            self._location = location
        return self._path

    def close(self) -> None:
        """Remove the copy."""
        self._location = ""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


@contextmanager
def on_this_machine(location: str) -> Iterator[Path]:
    """Copy a bag to this machine for a while, unless it is there.

    Raises:
        BagError: It cannot be copied.
    """
    copies = Copies()
    try:
        yield copies(location)
    finally:
        copies.close()


def copy(url: str, folder: Path) -> Path:
    """Copy a bag into a folder of this machine.

    Args:
        url: A storage file or a rosbag2 folder. Where the server lists no folders, as over
            `https://`, the files are those that its `metadata.yaml` names.
        folder: The folder.

    Returns:
        The bag in it.

    Raises:
        BagError: The package for this kind of URL is missing, or the bag cannot be read.
    """
    try:
        import fsspec
    except ImportError as error:
        raise BagError(f"{url} needs the package fsspec ({error}): pip install fsspec") from error
    try:
        files, root = fsspec.core.url_to_fs(url)
        root = root.rstrip("/")
        target = folder / PurePosixPath(root).name
        if is_storage_file(PurePosixPath(root)):
            files.get_file(root, str(target))
            return target
        target.mkdir()
        for name in _names(files, root, target):
            files.get_file(f"{root}/{name}", str(target / name))
    except BagError:
        raise
    except Exception as error:  # of a server, or of its library, which may be anything
        reason = str(error) or type(error).__name__
        raise BagError(f"cannot read the bag {url}: {reason}") from error
    return target


def _names(files: Any, root: str, target: Path) -> list[str]:
    """List the storage files of a folder; its description is copied, if it has one."""
    try:
        files.get_file(f"{root}/{_METADATA}", str(target / _METADATA))
    except FileNotFoundError:
        (target / _METADATA).unlink(missing_ok=True)
    else:
        if names := [each.name for each in listed_files(target)]:
            return names
    found = [PurePosixPath(each) for each in files.ls(root, detail=False)]
    names = [each.name for each in found if is_storage_file(each)]
    if not names:
        raise BagError(f"there is no bag at {root}: it has no {_METADATA} and no storage file")
    return names
