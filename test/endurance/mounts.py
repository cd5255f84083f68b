"""Small disks of memory that only a check and its children see."""

from __future__ import annotations

import functools
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rows import Check, Length, Row

_INSIDE = "EFV2_OWN_MOUNTS"
"""Environment variable of a process whose mounts are its own."""


def in_own_mounts(check: Check) -> Check:
    """Run a check in a process whose mounts are its own and end with it.

    Users other than root get a user namespace with it. Where the system allows neither, the row
    says so as a figure, `skipped`.
    """

    @functools.wraps(check)
    def run(length: Length) -> Row:
        if os.environ.get(_INSIDE):
            return check(length)
        unshare = ["unshare", "--mount", *(["--map-root-user"] if os.getuid() else [])]
        try:
            _run(*unshare, "mount", "-t", "tmpfs", "tmpfs", "/mnt")
        except (OSError, RuntimeError) as error:
            return Row(check.__name__, "runs", figures={"skipped": f"no mounts here: {error}"})
        with tempfile.NamedTemporaryFile() as answer:
            request = sys.path, check.__module__, check.__name__, length, answer.name
            subprocess.run(
                [*unshare, sys.executable, __file__],
                input=pickle.dumps(request), env={**os.environ, _INSIDE: "1"}, check=True,
            )  # fmt: skip
            row: Row = pickle.loads(Path(answer.name).read_bytes())
            return row

    return run


def _answer() -> None:
    """Run the check that standard input names, and write its row to the file that it names."""
    sys.path[:], module, name, length, file = pickle.load(sys.stdin.buffer)
    row = getattr(__import__(module), name)(length)
    Path(file).write_bytes(pickle.dumps(row))


class Disk:
    """A disk of memory, mounted at a folder.

    Args:
        folder: Where it is mounted; made if it does not exist.
        size: Its size in bytes.
    """

    def __init__(self, folder: Path, size: int) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self._filling = folder / "filling"
        _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))

    @property
    def free(self) -> int:
        """Bytes that can still be written."""
        state = os.statvfs(self.folder)
        return state.f_bavail * state.f_frsize

    def fill(self, left: int = 0) -> None:
        """Fill it up to `left` bytes, which are whole pages."""
        if self.free > left:
            with self._filling.open("ab") as file:
                os.posix_fallocate(file.fileno(), file.tell(), self.free - left)

    def clear(self) -> None:
        """Remove what `fill` wrote."""
        self._filling.unlink(missing_ok=True)

    def remove(self, path: Path) -> None:
        """Remove a file or a folder."""
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    def make_read_only(self) -> None:
        """Refuse all writing from now on."""
        _run("mount", "-o", "remount,ro", str(self.folder))

    def unmount(self) -> None:
        """Give the memory back."""
        _run("umount", "--lazy", str(self.folder))

    def files(self) -> set[str]:
        """All files and folders on it, by their paths below its folder."""
        return {str(each.relative_to(self.folder)) for each in self.folder.rglob("*")} - {
            self._filling.name
        }


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())


if __name__ == "__main__":
    _answer()
