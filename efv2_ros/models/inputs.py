"""Checks of what users write in catalogs and parameters: paths, URLs, values of any type."""

from __future__ import annotations

import errno
import reprlib
import stat
from pathlib import Path
from urllib.parse import urlsplit

from efv2_ros.models.modelfile import ModelError


def expand_user(path: str | Path) -> Path:
    """Replace a leading `~` or `~user` by the home folder.

    Raises:
        ModelError: There is no such user, or the user has no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ModelError(f"{path}: {error}") from error


def read_input(path: Path, *, max_mib: int) -> bytes:
    """Read a file that a user names, such as a catalog or a labels file.

    Pipes and devices are refused, since reading them may never end, and so are files too large to
    be meant.

    Args:
        path: The file.
        max_mib: Size limit in MiB.

    Raises:
        OSError: The file cannot be read.
        ValueError: The name is impossible, for example because it has a NUL character.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    with path.open("rb") as file:
        content = file.read((max_mib << 20) + 1)
    if len(content) > max_mib << 20:
        raise OSError(errno.EFBIG, f"it is larger than {max_mib} MiB")
    return content


def url_problem(url: str) -> str | None:
    """Say what makes a URL malformed; None if nothing does.

    Args:
        url: Any text. `scheme://host[:port]/path` in ASCII, without spaces, is well formed.
    """
    if not url.isascii() or not url.isprintable() or " " in url:
        return "it must be percent-encoded: no spaces, control characters or letters beyond ASCII"
    try:
        parts = urlsplit(url)
        port = parts.port  # raises for a port that is no number or too large
    except ValueError as error:
        return str(error)
    if not parts.scheme or not parts.hostname:
        return "it names no host"
    return "port 0 cannot be connected to" if port == 0 else None


def shorten(value: object) -> str:
    """Write a value of any type and size for an error message.

    YAML's aliases can make a small file a value whose `repr` fills the memory, and Python refuses
    to write integers of more than some thousand digits.
    """
    try:
        return _SHORT.repr(value)
    except ValueError:
        return f"a {type(value).__name__} too long to show"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
