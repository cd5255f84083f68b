"""How the nodes end: SIGINT and SIGTERM, in every state and however often they come."""

import fcntl
import hashlib
import itertools
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import cv2
import pytest

pytest.importorskip("rclpy")

from http_server import serving
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from pictures import picture
from rclpy.parameter import Parameter
from talker import SOON
from tiny_models import projection

from efv2_ros.node.classifier_node import ClassifierNode

pytestmark = pytest.mark.e2e

SIGNALS = [signal.SIGINT, signal.SIGTERM]

AT_ONCE = 10.0
"""Seconds: a second is what is promised, the rest is for a busy machine. A download that stalls
takes longer to time out."""

CATALOG = """
models:
  mine:
    input: {{height: 224, width: 224}}
    classes: 1000
    mean: [127, 127, 127]
    scale: [0.01, 0.01, 0.01]
    nv12_range: full
    files:
      onnx: {url}
"""


@contextmanager
def sigint(disposition):
    """What the processes that are started meanwhile inherit."""
    before = signal.signal(signal.SIGINT, disposition)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def interruptible():
    """A script that runs the tests in the background has SIGINT ignored."""
    with sigint(signal.default_int_handler):
        yield


@pytest.fixture
def server(monkeypatch):
    """A server that sends the beginning of a model and then stalls."""
    monkeypatch.setenv("no_proxy", "*")
    with serving() as server:
        server.behaviour.content = bytes(3_000_000)
        server.behaviour.stall_after = [1_000_000] * 10
        yield server


@pytest.fixture
def download(server, tmp_path):
    """Parameters of a node that downloads its model."""
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(CATALOG.format(url=server.url("mine.onnx")))
    return {"model_size": "mine", "catalog_file": str(catalog), "allow_download": True}


@pytest.fixture
def local(tmp_path):
    """Parameters of a node that has its model."""
    return {"model_path": str(projection(tmp_path / "local.onnx"))}


def assert_ends_at_once(process, number):
    """The signal ends the process in order, and long before a download could time out."""
    start = time.monotonic()
    process._process.send_signal(number)
    with suppress(subprocess.TimeoutExpired):
        process._process.wait(AT_ONCE)
    took = time.monotonic() - start
    log = process.stop(0)
    assert process.returncode == 0, log
    assert took < AT_ONCE
    assert "Traceback" not in log
    assert "was stopped" not in log


def request(talker, transition):
    """Ask for a transition without waiting for the answer."""
    client = talker.node.create_client(ChangeState, f"{talker.process.name}/change_state")
    assert talker.spin_until(client.service_is_ready, SOON)
    identifier = getattr(Transition, f"TRANSITION_{transition.upper()}")
    return client.call_async(ChangeState.Request(transition=Transition(id=identifier)))


def begin_download(talker, server, download):
    """Change the running node's model to one that must be downloaded."""
    changes = {**download, "model_path": ""}
    for name in ("catalog_file", "allow_download", "model_size", "model_path"):
        (result,) = talker.set(**{name: changes[name]})
        assert result.successful, result.reason
    assert talker.spin_until(server.asked.is_set, SOON), talker.process.stop()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_first_download(start, server, download, number):
    process, _ = start(download, wait=False)
    assert server.asked.wait(SOON), process.stop()
    assert_ends_at_once(process, number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_download_that_a_service_asked_for(start, server, download, number):
    process, talker = start({**download, "autostart": False}, wait=False)
    request(talker, "configure")
    assert talker.spin_until(server.asked.is_set, SOON), process.stop()
    assert_ends_at_once(process, number)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("state", ["active", "inactive"])
def test_a_signal_ends_the_download_of_another_model(
    start, server, download, local, state, number
):
    process, talker = start(local)
    if state == "inactive":
        assert talker.transition("deactivate")
    begin_download(talker, server, download)
    assert_ends_at_once(process, number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_wait_for_another_process_that_downloads(
    start, server, download, tmp_path, number
):
    key = hashlib.sha256(server.url("mine.onnx").encode()).hexdigest()[:16]
    part = tmp_path / "cache" / "efv2_ros" / "models" / key / "mine.onnx.part"
    part.parent.mkdir(parents=True)
    with part.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        process, talker = start(download, wait=False)
        assert talker.wait_for_diagnostics(SOON), process.stop()
        talker.spin_for(1.0)
        assert_ends_at_once(process, number)
    assert not server.asked.is_set()


def test_diagnostics_are_published_while_the_first_model_is_downloaded(start, server, download):
    process, talker = start(download, wait=False)
    assert server.asked.wait(SOON), process.stop()
    for _ in range(3):
        stream, _ = talker.fresh_stream()
        assert stream.message == "configuring"
    server.behaviour.content = b"no model"
    server.release.set()
    assert talker.spin_until(lambda: talker.stream.message == "unconfigured", SOON)
    assert talker.model.message
    assert process.stop().count("cannot configure") == 1


@pytest.mark.parametrize(
    ("transitions", "state"),
    [
        (["deactivate", "cleanup"], "unconfigured"),
        (["active_shutdown"], "finalized"),
        (["deactivate", "inactive_shutdown"], "finalized"),
    ],
)
def test_a_transition_ends_the_download_of_another_model(
    start, server, download, local, transitions, state
):
    process, talker = start(local)
    begin_download(talker, server, download)
    begin = time.monotonic()
    for transition in transitions:
        assert talker.transition(transition)
    assert time.monotonic() - begin < AT_ONCE
    assert talker.state() == state
    log = process.stop()
    assert "was stopped" not in log  # nobody waits for the other model any more
    assert process.returncode == 0


def test_destroying_the_node_ends_the_download(ros, server, download, local):
    parameters = [Parameter(name, value=value) for name, value in local.items()]
    node = ClassifierNode(namespace=f"/destroyed_{os.getpid()}", parameter_overrides=parameters)
    try:
        node.start()
        changes = {**download, "model_path": ""}
        node.set_parameters_atomically([Parameter(n, value=v) for n, v in changes.items()])
        assert server.asked.wait(SOON)
    finally:
        begin = time.monotonic()
        node.destroy_node()
    assert time.monotonic() - begin < AT_ONCE


# SIGINT ignored at the start


PROGRAMS = {"efv2_classifier": "classifier_node", "image_publisher": "image_publisher"}
"""Module of each node."""

_NUMBERS = itertools.count()


@pytest.fixture
def begin(ros, local, tmp_path):
    """Start a program: `begin(name)` gives its process once its node is there."""
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), picture(0))
    parameters = {
        "efv2_classifier": ["-p", f"model_path:={local['model_path']}"],
        "image_publisher": ["-p", f"path:={photo}"],
    }
    node = ros.create_node("signaller")
    processes = []

    def begin(name):
        # A namespace of its own: a killed node stays in the graph for some 20 s.
        namespace = f"/signals_{os.getpid()}_{next(_NUMBERS)}"
        process = subprocess.Popen(
            [sys.executable, "-m", f"efv2_ros.node.{PROGRAMS[name]}", "--ros-args",
             "-r", f"__ns:={namespace}", *parameters[name]],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        processes.append(process)
        end = time.monotonic() + SOON
        while (name, namespace) not in node.get_node_names_and_namespaces():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.05)
        return process

    yield begin
    node.destroy_node()
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_started_with_sigint_ignored_goes_on_ignoring_it(begin, name):
    with sigint(signal.SIG_IGN):
        process = begin(name)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2.0)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=SOON)
    assert process.returncode == 0, output


@pytest.mark.parametrize("signals", [[signal.SIGINT] * 3, SIGNALS * 2])
@pytest.mark.parametrize("pause", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("name", PROGRAMS)
def test_signals_that_come_again_change_nothing(begin, name, pause, signals):
    """`ros2 launch` sends SIGINT to processes that the terminal has sent it to already."""
    process = begin(name)
    for number in signals:
        process.send_signal(number)
        time.sleep(pause)
    output, _ = process.communicate(timeout=SOON)
    assert process.returncode == 0, output
    assert "Traceback" not in output


FLOODED = """
import subprocess, sys
from efv2_ros.node.running import _note_signals

was_signalled = _note_signals()
flood = subprocess.Popen([sys.executable, "-c", '''
import os, signal
for _ in range(20_000):
    os.kill(os.getppid(), signal.SIGINT)
'''])
while flood.poll() is None:
    pass
print(was_signalled())
"""


def test_a_signal_may_interrupt_the_handler_of_another():
    flooded = subprocess.run(
        [sys.executable, "-c", FLOODED],
        check=True, capture_output=True, text=True, timeout=SOON,
    )  # fmt: skip
    assert flooded.stdout == "True\n"
