"""Ctrl-C and SIGTERM: what long commands leave behind; an ignored SIGINT stays ignored."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bag_maker import make, stamps
from dispositions import SIGINT_DEFAULT, SIGINT_IGNORED
from tiny_models import projection

from efv2_ros.replay.results import read_run
from efv2_ros.replay.run import read_jsonl
from efv2_ros.signals import catch_stop, interruptible

SOON = 60.0  # seconds: only reached when something is broken
INTERRUPTED = 130


@pytest.fixture
def sigint():
    """Sets what this process does with SIGINT, until the test ends."""
    before = signal.getsignal(signal.SIGINT)
    yield lambda handler: signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_interrupts(sigint, number):
    sigint(signal.default_int_handler)
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with interruptible():
        with catch_stop() as should_stop:
            assert not should_stop()
            signal.raise_signal(number)
            assert should_stop()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_handler_of_the_second_signal_may_be_given(sigint):
    sigint(signal.default_int_handler)
    came = []
    with catch_stop(again=lambda number, frame: came.append(number)) as should_stop:
        signal.raise_signal(signal.SIGTERM)
        assert (should_stop(), came) == (True, [])
        signal.raise_signal(signal.SIGINT)
        assert came == [signal.SIGINT]


def test_an_ignored_sigint_stays_ignored(sigint):
    sigint(signal.SIG_IGN)
    with interruptible(), catch_stop() as should_stop:
        signal.raise_signal(signal.SIGINT)
        assert not should_stop()
        signal.raise_signal(signal.SIGTERM)
        assert should_stop()
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_what_ignores_signals_to_the_end_is_left_so(sigint):
    sigint(signal.default_int_handler)
    with interruptible():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


# The commands, as processes


class Command:
    """A running `efv2`."""

    def __init__(
        self, *arguments, start=("-m", "efv2_ros.cli"), disposition=SIGINT_DEFAULT, **options
    ):
        command = [*disposition, sys.executable, *start, *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def wait_for(self, condition):
        end = time.monotonic() + SOON
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)

    def end(self):
        stdout, stderr = self.process.communicate(timeout=SOON)
        return self.process.returncode, stdout, stderr


PROBE = """
import pathlib, sys, time
from efv2_ros.cli.main import main
from efv2_ros.replay import offline
replay = offline.replay

def slow_replay(*arguments, on_progress, **options):
    def progress(done):
        pathlib.Path("progress").write_text(str(done))
        time.sleep(0.05)
    return replay(*arguments, on_progress=progress, **options)

offline.replay = slow_replay
main(prog_name="efv2")
"""
"""`efv2 replay`, slowed down, which keeps the number of images done in a file."""


@pytest.fixture
def replaying(tmp_path, monkeypatch):
    """`replaying(disposition)` starts a replay of 400 images and waits for the third result."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "bag", 400)
    model = projection(tmp_path / "model.onnx")
    running = []

    def replaying(disposition, *more):
        command = Command(
            "replay", "bag", "--model", model, "--jsonl", "run.jsonl", "--out", "out", *more,
            start=["-c", PROBE], disposition=disposition,
        )  # fmt: skip
        running.append(command.__enter__())
        progress = tmp_path / "progress"
        command.wait_for(lambda: progress.exists() and int(progress.read_text() or 0) >= 3)
        return command

    yield replaying
    for each in running:
        each.__exit__()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_replay_ends_with_the_results_so_far(replaying, tmp_path, number):
    command = replaying(SIGINT_DEFAULT)
    command.process.send_signal(number)
    status, stdout, stderr = command.end()
    assert (status, stderr) == (
        INTERRUPTED, "interrupted: the results are those of the images until then\n"
    )  # fmt: skip
    frames = read_jsonl(tmp_path / "run.jsonl").frames
    assert 3 <= len(frames) < 400
    assert f"{len(frames)} images of /image" in stdout
    assert [each.header.nanoseconds for each in frames] == stamps(len(frames))
    assert len(read_run(tmp_path / "out").frames) == len(frames)


def test_an_interrupted_run_does_not_become_golden(replaying, tmp_path):
    (tmp_path / "golden.jsonl").write_text("before")
    command = replaying(SIGINT_DEFAULT, "--golden", "golden.jsonl", "--update-golden")
    command.process.send_signal(signal.SIGTERM)
    status, _, stderr = command.end()
    assert status != 0
    assert "only a whole run can be golden" in stderr
    assert (tmp_path / "golden.jsonl").read_text() == "before"


def test_a_replay_in_the_background_ignores_ctrl_c_and_ends_by_sigterm(replaying, tmp_path):
    command = replaying(SIGINT_IGNORED)
    done = int((tmp_path / "progress").read_text())
    command.process.send_signal(signal.SIGINT)
    command.wait_for(lambda: int((tmp_path / "progress").read_text() or 0) > done + 20)
    command.process.send_signal(signal.SIGTERM)
    status, _, stderr = command.end()
    assert (status, stderr.count("interrupted")) == (INTERRUPTED, 1)
    assert len(read_jsonl(tmp_path / "run.jsonl").frames) > done + 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_has_no_results_yet_only_cleans_up(tmp_path, number):
    """Unpacking a bag: its temporary folder must go, and nothing is written."""
    packed, temporary = tmp_path / "bag.mcap.zstd", tmp_path / "temporary"
    temporary.mkdir()
    os.mkfifo(packed)
    arguments = ["replay", packed, "--untrained", "--jsonl", tmp_path / "run.jsonl"]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with Command(*arguments, env=environment) as command, packed.open("wb"):
        # Nothing is sent: it waits for the bag.
        command.wait_for(lambda: is_reading(command.process.pid, packed))
        assert any(temporary.iterdir())
        command.process.send_signal(number)
        status, stdout, stderr = command.end()
    assert (status, stdout, stderr) == (INTERRUPTED, "", "interrupted\n")
    assert not any(temporary.iterdir())
    assert not (tmp_path / "run.jsonl").exists()


def is_reading(pid, file):
    """Whether a process is within a system call for this file: waits for it, when it is a pipe."""
    call = Path(f"/proc/{pid}/syscall").read_text().split()
    if len(call) < 2:  # running
        return False
    try:
        return os.path.samefile(f"/proc/{pid}/fd/{int(call[1], 16)}", file)  # noqa: PTH121
    except OSError:
        return False


@pytest.mark.e2e
def test_the_demo_ends_its_node(tmp_path):
    pytest.importorskip("rclpy")
    arguments = ["demo", "--model", projection(tmp_path / "m.onnx"), "--frames", 10_000]
    with Command(*arguments, "--rate", 20) as command:
        command.wait_for(lambda: "ms" in command.process.stdout.readline())
        (node,) = children(command.process.pid)
        command.process.send_signal(signal.SIGTERM)
        status, _, stderr = command.end()
    assert (status, stderr) == (INTERRUPTED, "interrupted\n")
    assert not Path(f"/proc/{node}").exists()


def children(pid):
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [each for task in tasks for each in (task / "children").read_text().split()]
