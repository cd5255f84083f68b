"""Bags at URLs, which fsspec copies to this machine: `s3://`, `gs://`, `https://` and others."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from efv2_ros.bags.bag import is_storage_file, listed_files
from efv2_ros.bags.errors import BagError
from efv2_ros.fleet.sources import is_url

_METADATA = "metadata.yaml"


class Copy:
    """A bag on this machine: a copy of one from elsewhere, or one that is here.

    Args:
        location: The bag's path or URL.

    Attributes:
        path: Where it is.

    Raises:
        BagError: It cannot be copied.
    """

    def __init__(self, location: str) -> None:
        self.path = Path(location)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if is_url(location):
            self._folder = tempfile.TemporaryDirectory(prefix="efv2_bag_")
            try:
                self.path = copy(location, Path(self._folder.name))
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Remove a copy."""
        if self._folder is not None:
            self._folder.cleanup()


@contextmanager
def on_this_machine(location: str) -> Iterator[Path]:
    """Copy a bag to this machine for a while, unless it is there.

    Raises:
        BagError: It cannot be copied.
    """
    with closing(Copy(location)) as found:
        yield found.path


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
