"""The endurance checks, shortened; and the driver, which must show what goes wrong."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("rosbags")

import driver

FOLDER = Path(__file__).parent

MODULES = [each for each in driver.MODULES if importlib.util.find_spec(each)]

FAKES = '''
import os, signal, subprocess
from rows import Row

def good(length):
    """Go well."""
    return Row("good", "things", length.count(600), figures={"rate": "5 Hz"})

def bad(length):
    return Row("bad", "things", 3, failures=["thing 2 of seed %d | is broken" % length.seed])

def raises(length):
    print("printed before")
    raise ValueError("deliberately")

def dies(length):
    os.kill(os.getpid(), signal.SIGKILL)

def hangs(length):
    sleeper = subprocess.Popen(["sleep", "300"])
    open(os.environ["EFV2_TEST_PIDS"], "w").write(f"{os.getpid()} {sleeper.pid}")
    sleeper.wait()

CHECKS = (good, bad, raises, dies, hangs)
'''


def command(*arguments):
    return [sys.executable, FOLDER, *map(str, arguments)]


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """A module of checks that fail in every way."""
    (tmp_path / "fake_checks.py").write_text(FAKES)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("EFV2_TEST_PIDS", str(tmp_path / "pids"))
    return ("--module", "fake_checks")


def run(*arguments):
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.endurance
@pytest.mark.parametrize("check", [check.name for check in driver.find(MODULES)])
def test_every_check_finds_nothing(check, tmp_path):
    out = tmp_path / "rows.json"
    done = run("--only", check, "--minutes", "0.3", "--seed", "1", "--json", out)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(out.read_text())["rows"]
    assert row["count"] > 0 or "skipped" in row["figures"], row


def test_what_goes_wrong_is_counted_and_listed(fakes, tmp_path):
    table, out = tmp_path / "table.md", tmp_path / "rows.json"
    only = [f"--only={name}" for name in ("good", "bad", "raises", "dies")]
    done = run(
        *fakes, *only, "--jobs", "2", "--minutes", "6", "--seed", "42",
        "--markdown", table, "--json", out,
    )  # fmt: skip
    assert done.returncode == 1
    rows = {row["name"]: row for row in json.loads(out.read_text())["rows"]}
    assert rows["good"]["count"] == 60
    assert {name: len(row["failures"]) for name, row in rows.items()} == {
        "good": 0, "bad": 1, "raises": 1, "dies": 1,
    }  # fmt: skip
    assert "ValueError: deliberately" in rows["raises"]["failures"][0]
    assert "printed before" in rows["raises"]["failures"][0]
    assert "exit status -9" in rows["dies"]["failures"][0]
    text = table.read_text()
    assert "`scripts/endurance --minutes 6 --seed 42`" in text
    for shown in (text, done.stdout):
        assert "thing 2 of seed 42 | is broken" in shown
        assert "ValueError: deliberately" in shown
    assert "| good | 60 things | 0 |" in text


def test_a_run_without_failures_succeeds(fakes):
    done = run(*fakes, "--only", "good")
    assert done.returncode == 0, done.stderr
    assert "--seed " in done.stdout  # drawn, and shown so that the run can be repeated


def test_checks_are_listed(fakes):
    done = run(*fakes, "--list")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "good", "bad", "raises", "dies", "hangs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--only", "nothing"), "there is no check nothing, only good"),
        (("--module", "no_such_module"), "there is no module no_such_module"),
        (("--json", "/no/folder/out.json"), "there is no folder /no/folder"),
        (("--minutes", "0"), "--minutes"),
        (("--minutes", "nan"), "--minutes"),
        (("--jobs", "0"), "--jobs"),
    ],
)
def test_wrong_arguments(fakes, arguments, complaint):
    done = run(*fakes, *arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_and_all_that_it_started(fakes, tmp_path, number):
    pids = tmp_path / "pids"
    process = subprocess.Popen(
        command(*fakes, "--only", "good", "--only", "hangs"), stdout=subprocess.PIPE, text=True
    )
    try:
        while not (pids.exists() and len(pids.read_text().split()) == 2):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "good: 600 things" in said
    assert not any(map(is_alive, pids.read_text().split()))
