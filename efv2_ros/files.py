"""Atomic writing of result files: readers see the old file or the new one, never a part of it."""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from efv2_ros.errors import Efv2Error

_STREAMS = ("/dev/fd/", "/dev/std", "/proc/")
"""Names of files that are open already: of `/dev/stdout` there is nothing to replace."""


class FileWriteError(Efv2Error):
    """A result file that cannot be written; the message names the file and the reason."""


@contextmanager
def open_atomic_binary(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that replaces `path` once the `with` block has ended.

    The new file is written beside the old one, flushed to the disk and renamed. After any
    exception in the block, KeyboardInterrupt included, `path` is as it was and nothing else is
    left in its folder. A symbolic link stays, and the file it points to is replaced; an existing
    file's permissions are kept. Devices and pipes are written in place.

    Args:
        path: The file; its folder must exist.

    Raises:
        FileWriteError: The file cannot be written. OSErrors of the block itself become this error
            too, so it should do nothing but write.
    """
    try:
        status = _status(path)
        if _is_stream(path, status):
            with path.open("wb") as file:
                yield file
            return
        target = Path(os.path.realpath(path))
        _check(target, status)
        temporary = target.with_name(f".efv2_{secrets.token_hex(8)}.tmp")
        try:
            with open(temporary, "xb") as file:  # noqa: PTH123
                if status is not None:
                    os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise _failed(path, error) from error


@contextmanager
def open_atomic(path: Path) -> Iterator[IO[str]]:
    r"""Open a text file, UTF-8 with `\n` line ends, as `open_atomic_binary` does.

    Raises:
        FileWriteError: See `open_atomic_binary`.
    """
    with open_atomic_binary(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
        try:
            yield text
            text.flush()
        finally:
            with suppress(OSError, ValueError):  # after a failure the file is removed anyway
                text.detach()


def check_writable(path: Path) -> None:
    """Check that a file can be written, before the work whose results it is for.

    Raises:
        FileWriteError: The file cannot be written.
    """
    try:
        status = _status(path)
        if not _is_stream(path, status):
            _check(Path(os.path.realpath(path)), status)
    except OSError as error:
        raise _failed(path, error) from error


def _status(path: Path) -> os.stat_result | None:
    """Stat the file that `path` or its symbolic link names; None where there is none."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _is_stream(path: Path, status: os.stat_result | None) -> bool:
    """Whether `path` is a device, a pipe, or another name of an open file."""
    if os.path.abspath(path).startswith(_STREAMS):  # noqa: PTH100 - absolute() keeps `..`
        return True
    kinds = (stat.S_IFREG, stat.S_IFDIR)
    return status is not None and stat.S_IFMT(status.st_mode) not in kinds


def _check(target: Path, status: os.stat_result | None) -> None:
    """Raise the OSError that writing to `target`, whose stat is `status`, would raise."""
    if status is not None and stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {target.parent}")
    if os.statvfs(target.parent).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    # Renaming would replace a write-protected file too.
    if status is not None and not _is_accessible(target, os.W_OK):
        raise PermissionError(errno.EACCES, "it is write-protected")
    if not _is_accessible(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"no file can be made in {target.parent}")


def _is_accessible(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _failed(path: Path, error: OSError) -> FileWriteError:
    return FileWriteError(f"cannot write {path}: {error.strerror or error}")
