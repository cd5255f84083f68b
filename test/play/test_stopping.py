"""How `efv2 play` is stopped: at once, once, in every phase, and as the Unix shell expects."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from bag_maker import image, stamps
from tiny_models import projection

from efv2_ros.bags.bag import Bag
from efv2_ros.bags.salvage import Message
from efv2_ros.bags.writer import BagWriter
from efv2_ros.replay.results import read_run
from efv2_ros.replay.run import read_jsonl

SOON = 60.0  # seconds: only reached when something is broken
INTERRUPTED = "interrupted: the results end there\n"


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    return str(projection(tmp_path_factory.mktemp("model") / "model.onnx"))


def make(path, count):
    with BagWriter(path) as bag:
        for number, stamp in enumerate(stamps(count)):
            kind, data = image(number, stamp)
            bag.write("/lens/image", kind, stamp, data)
    return path


class Play:
    """`efv2 play` in a process of its own, from a shell that may ignore SIGINT."""

    def __init__(self, *arguments, ignores_sigint=False, environment=None):
        trap = 'trap "" INT; ' if ignores_sigint else ""
        command = [sys.executable, "-m", "efv2_ros.cli", "play", *map(str, arguments)]
        self.process = subprocess.Popen(
            ["sh", "-c", f'{trap}exec "$0" "$@"', *command],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.wait()

    def send(self, number, times=1):
        """Send a signal, over and over as launch does."""
        for _ in range(times):
            self.process.send_signal(number)
            time.sleep(0.05)

    def end(self):
        """Exit status and standard error."""
        _, error = self.process.communicate(timeout=SOON)
        assert "Traceback" not in error, error
        return self.process.returncode, error


@pytest.fixture
def hears(start, model_file):
    """A classifier of /lens/image, and a talker that hears it; the options to play to it."""
    process, talker = start(
        {"model_path": model_file, "queue_policy": "all"},
        remappings={"image": "/lens/image"}, wait=False,
    )  # fmt: skip
    assert talker.spin_until(lambda: talker.vision_info, SOON)
    return talker, ["--classifier", process.name, "--reliable", "--rate", 0.5]


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_that_come_again_cut_nothing_short(hears, tmp_path, number):
    talker, options = hears
    out = tmp_path / "out.jsonl"
    with Play(make(tmp_path / "bag", 200), *options, "--results", out) as running:
        assert talker.wait_for_results(3, SOON)
        running.send(number, times=30)
        assert running.end() == (130, INTERRUPTED)
    assert 2 <= len(read_jsonl(out).frames) < 200


@pytest.mark.e2e
def test_started_with_sigint_ignored_it_ends_by_sigterm(hears, tmp_path):
    """As a script starts it: `efv2 play ... &`."""
    talker, options = hears
    out = tmp_path / "out"
    arguments = [make(tmp_path / "bag", 200), *options, "--results", out]
    with Play(*arguments, ignores_sigint=True) as running:
        assert talker.wait_for_results(2, SOON)
        running.send(signal.SIGINT)
        count = len(talker.results)
        assert talker.wait_for_results(count + 3, SOON)  # it plays on
        running.send(signal.SIGTERM)
        assert running.end() == (130, INTERRUPTED)
    assert count + 2 <= len(read_run(out).frames) < 200


@pytest.mark.e2e
@pytest.mark.parametrize(
    "more", [[], ["--results", "OUT"], ["--wait-for-results"]], ids=["images", "results", "gate"]
)
def test_waiting_for_somebody_is_stopped(ros, tmp_path, more):
    node = ros.create_node("waiting")
    bag = make(tmp_path / "bag", 2)
    more = [each.replace("OUT", str(tmp_path / "out")) for each in more]
    arguments = [bag, "--start-timeout", 10 * SOON, "--classifier", "nobody", *more]
    with Play(*arguments) as running:
        end = time.monotonic() + SOON
        while not node.count_publishers("/lens/image") and time.monotonic() < end:
            time.sleep(0.05)
        running.send(signal.SIGINT, times=3)
        assert running.end() == (130, "interrupted\n")
    assert not (tmp_path / "out").exists()
    node.destroy_node()


_DEAF_ROS2 = """#!{python}
import pathlib, signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path({path!r}).write_text("started")
time.sleep(600)
"""


@pytest.mark.e2e
def test_a_ros2_bag_play_that_does_not_end_is_killed(hears, tmp_path):
    _, options = hears
    program, started = tmp_path / "bin" / "ros2", tmp_path / "started"
    program.parent.mkdir()
    program.write_text(_DEAF_ROS2.format(python=sys.executable, path=str(started)))
    program.chmod(stat.S_IRWXU)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    arguments = [make(tmp_path / "bag", 2), *options, "--player", "ros2"]
    with Play(*arguments, environment={"PATH": path}) as running:
        end = time.monotonic() + SOON
        while not started.exists() and time.monotonic() < end:
            time.sleep(0.05)
        sent = time.monotonic()
        running.send(signal.SIGINT)
        assert running.end() == (130, INTERRUPTED)
        assert time.monotonic() - sent < 8  # it is killed within one


@pytest.mark.e2e
def test_waiting_for_acknowledgements_is_stopped(tmp_path, monkeypatch):
    rclpy = pytest.importorskip("rclpy")
    from efv2_ros.client.ros import ros_context
    from efv2_ros.client.spinner import Spinner
    from efv2_ros.play import player
    from efv2_ros.play.qos import published_topics
    from efv2_ros.play.read_ahead import ReadAhead

    program = (
        "import rclpy\n"
        "from sensor_msgs.msg import Image\n"
        "rclpy.init()\n"
        "node = rclpy.create_node('asleep')\n"
        "node.create_subscription(Image, '/lens/image', lambda message: None, 10)\n"
        "rclpy.spin(node)\n"
    )
    monkeypatch.setattr(player, "ACKNOWLEDGE_TIMEOUT_S", 10 * SOON)
    stopped = []
    subscriber = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)
    try:
        with (
            Bag(make(tmp_path / "bag", 2)) as bag,
            ReadAhead(lambda stop: bag.messages(bag.topics, stop)) as ahead,
            ros_context() as context,
            Spinner(rclpy.create_node("a", context=context), lambda: bool(stopped)) as spinner,
        ):
            (topic,) = published_topics(list(bag.topics.values()), {}, lossless=True)
            playing = player.Player(spinner, [topic], ahead, 1.0, 0.0)
            assert spinner.spin_until(lambda: playing.is_connected(topic), SOON)
            subscriber.send_signal(signal.SIGSTOP)
            threading.Timer(2.0, stopped.append, [True]).start()
            start = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                playing.play(None)
            assert playing.sent.total() == 2
            assert time.monotonic() - start < SOON
    finally:
        subscriber.kill()
        subscriber.wait()


def test_reading_ends_though_nothing_is_wanted(tmp_path):
    """Between two messages that are played, much that is not may lie."""
    from efv2_ros.play.read_ahead import ReadAhead

    class Endless(Bag):
        def __init__(self):
            self._parts, self.problems = [PART], []

    class PART:
        file, reader = tmp_path / "bag.mcap", None

    reading = threading.Event()

    def endless(file, damage):
        while True:
            reading.set()
            yield Message("/other", "T", 0, b"")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("efv2_ros.bags.bag.salvage", endless)
        bag = Endless()
        ahead = ReadAhead(lambda should_stop: bag.messages({"/lens/image"}, should_stop))
        with ahead:
            assert reading.wait(SOON)
        ahead._thread.join(SOON)
        assert not ahead._thread.is_alive()


def test_a_disk_that_hangs_does_not_hang_the_end():
    from efv2_ros.play.read_ahead import ReadAhead

    reading, released = threading.Event(), threading.Event()

    def hang(should_stop):
        reading.set()
        released.wait(10 * SOON)
        yield from ()

    start = time.monotonic()
    with ReadAhead(hang) as ahead:
        assert reading.wait(SOON)
        assert not ahead.ready
    assert time.monotonic() - start < SOON
    released.set()


@pytest.mark.e2e
def test_a_report_of_another_node_is_no_end(ros, tmp_path):
    """Its name is the classifier's, and what it says is not."""
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

    from efv2_ros.client.spinner import Spinner
    from efv2_ros.play.recorder import Recorder

    noticed = []
    with Spinner(ros.create_node("recording")) as spinner:
        recorder = Recorder(spinner.node, "/a/b", on_notice=noticed.append)
        reports = spinner.node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        assert spinner.spin_until(lambda: reports.get_subscription_count() > 0, SOON)
        for _ in range(3):
            reports.publish(DiagnosticArray(status=[DiagnosticStatus(name="a/b: stream")]))
        with recorder.recording(None):
            assert spinner.spin_until(lambda: noticed, SOON)
            spinner.spin_for(0.5)
    (text,) = noticed
    assert text.startswith("a message of /diagnostics cannot be read: ")
    assert "frames received" in text


def test_results_that_cannot_be_written_are_missed_before_the_bag_is_played(ros, tmp_path):
    bag = make(tmp_path / "bag", 2)
    out = tmp_path / "nowhere" / "out.jsonl"
    with Play(bag, "--start-timeout", 10 * SOON, "--results", out) as running:
        status, error = running.end()
    assert status == 1
    assert error.startswith(f"Error: cannot write {out}: there is no folder")


def test_json_lines_are_whole_or_not_there(ros, hears, tmp_path):
    _, options = hears
    out = tmp_path / "out.jsonl"
    arguments = [make(tmp_path / "bag", 5), *options, "--wait-for-results", "--results", out]
    with Play(*arguments) as running:
        status, error = running.end()
    assert (status, error) == (0, "")
    lines = out.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line).get("frame_id", "") for line in lines[1:]] == ["camera"] * 5
    assert {each.name for each in Path(tmp_path).iterdir()} == {"bag", "out.jsonl"}
