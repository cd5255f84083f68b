"""The classifier as a child process: started as asked, and ended whatever signals it ignores."""

import signal
import subprocess
import sys
import time

import pytest
from tiny_models import projection

from efv2_ros.classify.options import NODE
from efv2_ros.client.process import NODE_NAME, ClassifierProcess, end_process

SOON = 60.0  # seconds: only reached when something is broken


def child(program):
    """A process that has run `program` to the line that it prints."""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_process_is_asked_to_end():
    process = child(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    assert end_process(process, SOON) == 5
    assert end_process(process, SOON) == 5  # it has ended


def test_a_process_that_does_not_end_is_killed():
    process = child(
        "import signal, time\n"
        "for number in (signal.SIGINT, signal.SIGTERM):\n"
        "    signal.signal(number, signal.SIG_IGN)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    assert end_process(process, 0.2) == -signal.SIGKILL


def test_a_child_that_inherits_an_ignored_sigint_ends():
    process = child(
        "import subprocess, sys\n"
        "command = [sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(600)']\n"
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from efv2_ros.client.process import end_process\n"
        "child = subprocess.Popen(command, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print('ready', flush=True)\n"
        f"print(end_process(child, {SOON}))\n"
    )
    assert process.communicate(timeout=SOON)[0] == f"{-signal.SIGTERM}\n"


@pytest.mark.e2e
def test_a_classifier_has_its_name_and_parameters_and_ends_well(start, tmp_path):
    model = projection(tmp_path / 'it\'s a "model".onnx')
    process, _ = start({"model_path": str(model)})
    assert process.name.endswith(f"/{NODE_NAME}")
    assert f"/{NODE_NAME}" == NODE
    assert process.running
    assert (process.output, process.returncode) == ("", None)
    assert f"from {model}" in process.stop()
    assert not process.running
    assert process.returncode == 0
    assert process.stop() == process.output


@pytest.mark.e2e
def test_a_classifier_in_a_namespace_that_cannot_start_says_so():
    pytest.importorskip("rclpy")
    with ClassifierProcess({"top_k": "many"}, namespace="/a/b") as process:
        assert process.name == f"/a/b/{NODE_NAME}"
        end = time.monotonic() + SOON
        while process.running and time.monotonic() < end:
            time.sleep(0.05)
    assert process.returncode == 2
    assert "top_k" in process.output
