"""Atomic writing: what is there before, during and after, whatever happens in between."""

import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from efv2_ros.files import FileWriteError, check_writable, open_atomic, open_atomic_binary


def names(folder):
    return sorted(each.name for each in folder.iterdir())


def write(path, text="new"):
    with open_atomic(path) as file:
        file.write(text)


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with open_atomic(path) as file:
        file.write("new\n金鱼\n")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_bytes() == "new\n金鱼\n".encode()
    assert names(tmp_path) == ["a.txt"]


def test_bytes(tmp_path):
    with open_atomic_binary(tmp_path / "a.bin") as file:
        file.write(b"\r\n\xff")
    assert (tmp_path / "a.bin").read_bytes() == b"\r\n\xff"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("before", ["old", None])
@pytest.mark.parametrize("opened", [open_atomic, open_atomic_binary])
def test_nothing_is_left_of_a_failure(tmp_path, error, before, opened):
    path = tmp_path / "a.txt"
    if before is not None:
        path.write_text(before)
    with pytest.raises(error), opened(path) as file:
        file.write("part" if opened is open_atomic else b"part")
        raise error
    assert names(tmp_path) == ([] if before is None else ["a.txt"])
    assert before is None or path.read_text() == before


def test_text_that_is_no_utf_8_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), open_atomic(path) as file:
        file.write("\ud800")
    assert (names(tmp_path), path.read_text()) == (["a.txt"], "old")


def test_a_full_disk_leaves_the_old_file(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    code = (
        "import resource\n"
        "from pathlib import Path\n"
        "from efv2_ros.files import FileWriteError, open_atomic\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    with open_atomic(Path('a.txt')) as file:\n"
        "        file.write('x' * 100_000)\n"
        "except FileWriteError as error:\n"
        "    print(error)\n"
    )
    environment = {name: each for name, each in os.environ.items() if "COVERAGE" not in name}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("cannot write a.txt: "), done.stderr
    assert (names(tmp_path), (tmp_path / "a.txt").read_text()) == (["a.txt"], "old")


def test_a_read_only_file_system_is_named(tmp_path, monkeypatch):
    """Root may write everywhere else, and only root can make one."""
    state = list(os.statvfs(tmp_path))
    state[8] |= os.ST_RDONLY
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(state))
    with pytest.raises(FileWriteError, match=r"a\.txt: Read-only file system$"):
        check_writable(tmp_path / "a.txt")


def test_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (Path("a.txt"), Path("./b.txt"), Path("x/../c.txt")):
        (tmp_path / "x").mkdir(exist_ok=True)
        check_writable(path)
        write(path)
    assert names(tmp_path) == ["a.txt", "b.txt", "c.txt", "x"]


def test_permissions_are_those_of_the_old_file_or_of_the_umask(tmp_path):
    old = tmp_path / "old.txt"
    old.write_text("old")
    old.chmod(0o640)
    before = os.umask(0o027)
    try:
        for name in ("old.txt", "new.txt"):
            write(tmp_path / name)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("old.txt", "new.txt")]
    assert modes == [0o640, 0o640]
    old.chmod(0o666)
    write(old)
    assert stat.S_IMODE(old.stat().st_mode) == 0o666


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "real.txt").write_text("old")
    for name, target in (("link", "folder/real.txt"), ("dangling", "folder/made.txt")):
        (tmp_path / name).symlink_to(target)
        write(tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / target).read_text() == "new"
    assert names(tmp_path / "folder") == ["made.txt", "real.txt"]


def test_what_is_no_file_is_written_in_place(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()))
    reader.start()
    write(fifo)
    reader.join(30)
    assert read == ["new"]
    write(Path("/dev/null"))
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_standard_output_by_its_name(tmp_path):
    """A file that the shell opened must not be replaced under its hands."""
    code = (
        "from pathlib import Path\n"
        "from efv2_ros.files import open_atomic\n"
        "print('before', flush=True)\n"
        "with open_atomic(Path('/dev/stdout')) as file:\n"
        "    file.write('within\\n')\n"
        "print('after', flush=True)\n"
    )
    with (tmp_path / "out.txt").open("a") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, timeout=60, check=True)
    assert (tmp_path / "out.txt").read_text().split()[-1] == "after"
    assert names(tmp_path) == ["out.txt"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone/a.txt", "there is no folder"),
        ("a folder", "it is a folder"),
        ("file/a.txt", ""),
        ("x" * 300, "too long"),
    ],
)
def test_what_cannot_be_written_is_said_before_and_then(tmp_path, name, reason):
    (tmp_path / "a folder").mkdir()
    (tmp_path / "file").write_text("")
    path = tmp_path / name
    for attempt in (check_writable, write):
        with pytest.raises(FileWriteError) as caught:
            attempt(path)
        assert str(caught.value).startswith(f"cannot write {path}: ")
        assert reason in str(caught.value)
    assert names(tmp_path) == ["a folder", "file"]


@pytest.fixture
def as_nobody():
    """A folder of a user whom permissions bind: root, as tests may run, writes everything."""
    nobody = 65534
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() != 0:
            yield Path(folder)
            return
        os.chown(folder, nobody, nobody)
        os.seteuid(nobody)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


def test_protection_is_respected(as_nobody):
    path = as_nobody / "a.txt"
    path.write_text("old")
    path.chmod(0o444)
    for attempt in (check_writable, write):
        with pytest.raises(FileWriteError, match="write-protected"):
            attempt(path)
    path.chmod(0o644)
    as_nobody.chmod(0o555)
    for attempt in (check_writable, write):
        with pytest.raises(FileWriteError, match="no file can be made in"):
            attempt(path)
    as_nobody.chmod(0o755)
    write(path)
    assert path.read_text() == "new"
