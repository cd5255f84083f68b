"""The command that runs the whole node for people to see, as people run it."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from tiny_models import projection

from efv2_ros.models.efficientformerv2.builder import seeded_state, write

pytest.importorskip("rclpy")

pytestmark = pytest.mark.e2e


def efv2(*arguments):
    command = [sys.executable, "-m", "efv2_ros.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_offline_the_demo_names_50_cards(tmp_path):
    done = efv2("demo", "--offline", "--rate", 50)
    assert done.returncode == 0, done.stderr
    shown = done.stdout
    rows = re.findall(r"^ +(\d+) +\d+\.\d ms +\d+\.\d% (.+?) {2,}(right|wrong)", shown, re.M)
    assert [int(number) for number, _, _ in rows] == [*range(1, 51)]
    right = sum(mark == "right" for _, _, mark in rows)
    assert right >= 45
    assert len({name for _, name, mark in rows if mark == "right"}) == right
    assert f"{right} of 50 cards have their right name" in shown
    for stage in ("wait", "convert", "infer", "postprocess", "publish", "end to end"):
        assert re.search(rf"{stage} +│ +\d+\.\d\d", shown)
    assert "50 images received, 50 classified, 0 dropped" in shown
    said = " ".join(done.stderr.split())
    assert "efficientformerv2_s0" in said
    assert "The package's own network looks at the images instead" in said
    assert "untrained" not in shown + said


def test_offline_the_demo_says_which_network_saw_photos_and_why(photos):
    done = efv2("demo", "--offline", "--frames", 4, "--rate", 50, *photos)
    assert done.returncode == 0, done.stderr
    assert [done.stdout.count(photo.name) for photo in photos] == [2, 1, 1]
    assert len(re.findall(r"\d\.\d% ", done.stdout)) == 4 * 5
    assert "efficientformerv2_s0_cards on onnx" in done.stdout
    assert "cards have their right name" not in done.stdout
    said = " ".join(done.stderr.split())
    assert "efficientformerv2_s0_deploy.onnx is not in" in said
    assert "knows nothing else" in said


def test_a_model_that_was_fetched_is_shown_with_photos(tmp_path, monkeypatch, photos):
    write(tmp_path / "efficientformerv2_s0_deploy.onnx", seeded_state("s0"))
    monkeypatch.setenv("EFV2_MODEL_DIR", str(tmp_path))
    done = efv2("demo", "--offline", "--frames", 3, "--rate", 50)
    assert done.returncode == 0, done.stderr
    assert [done.stdout.count(photo.name) for photo in photos] == [1, 1, 1]
    assert "package's own network" not in done.stderr


def test_a_size_that_was_asked_for_is_not_exchanged():
    done = efv2("demo", "--offline", "--size", "s1")
    assert done.returncode == 1
    assert "efficientformerv2_s1" in done.stderr


def test_the_demo_of_a_model_file_shows_photos(tmp_path):
    done = efv2("demo", "--model", projection(tmp_path / "m.onnx"), "--frames", 2)
    assert done.returncode == 0, done.stderr
    assert "cat.jpg" in done.stdout


def test_the_demo_of_a_model_that_is_not_there_fails_with_the_reason(tmp_path):
    done = efv2("demo", "--model", tmp_path / "absent.onnx")
    assert done.returncode == 1
    assert "absent.onnx" in done.stderr
    assert "Traceback" not in done.stderr


# Stopping


def stopped(arguments, line, number, *, trap="", times=30, last=False):
    """Run a command until it prints `line`, send it a signal over and over; how it ended.

    If it goes on, as it has to with `last`, SIGTERM is the last one.
    """
    process = subprocess.Popen(
        ["sh", "-c", f'{trap} exec "$0" "$@"', sys.executable, "-m", "efv2_ros.cli", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "EFV2_TEST_RUN": (mark := str(uuid4()))},
    )  # fmt: skip
    for text in process.stdout:
        if line in text:
            break
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.05)
    if last:
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
    try:
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    end = time.monotonic() + 60
    while left := processes(mark):
        assert time.monotonic() < end, left
        time.sleep(0.05)
    return process.returncode, out


def processes(mark):
    """The numbers of processes that have `mark` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if mark in (process / "environ").read_text(errors="replace"):
                found.append(process.name)
    return found


DEMO = ["demo", "--offline", "--frames", "10000", "--rate", "1"]
BENCH = ["bench", "--part", "device", "--seconds", "600"]
TRANSPORT = ["bench", "--part", "transport", "--seconds", "600"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("arguments", "line"),
    [(DEMO, "   1  "), (BENCH, "slots 1"), (TRANSPORT, "round 1")],
    ids=["demo", "bench", "transport"],
)
def test_a_signal_ends_it_without_a_traceback(arguments, line, number):
    status, out = stopped(arguments, line, number)
    assert "Traceback" not in out, out
    # Before it has started the node, there is nothing to end but itself.
    assert status in ((130, -number) if number == signal.SIGTERM else (130,))


@pytest.mark.parametrize(
    ("arguments", "line"), [(DEMO, "   1  "), (BENCH, "slots 1")], ids=["demo", "bench"]
)
def test_started_with_sigint_ignored_it_ends_by_sigterm(arguments, line):
    """The node that it starts inherits that SIGINT is ignored, and ends all the same."""
    status, out = stopped(arguments, line, signal.SIGINT, trap='trap "" INT;', times=10, last=True)
    assert "Traceback" not in out, out
    assert status == 130
