"""Bags played to a running node over real DDS, and its results recorded."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bag_maker import PERIOD, START, compressed, header, image, stamps, write
from click.testing import CliRunner
from message_packages import need_annotations
from ros2_stand_in import ros2_on_path
from tiny_models import projection

from efv2_ros.bags.bag import Bag
from efv2_ros.bags.writer import BagWriter
from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.latency import END_TO_END, STAGES
from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import ModelRequest
from efv2_ros.cli.main import main
from efv2_ros.messages.message import deserialize, serialize
from efv2_ros.replay import offline
from efv2_ros.replay.results import read_run, write_results
from efv2_ros.replay.run import read_jsonl

SOON = 120.0  # seconds: only reached when something is broken
SIZE = {"height": 64, "width": 96, "step": 288}
DELAY = 2 * PERIOD
"""From stamp to log time: at any time, images are older than the newest `/clock`."""


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    return str(projection(tmp_path_factory.mktemp("model") / "model.onnx"))


def picture(number, **changes):
    pixels = np.random.default_rng(number).integers(0, 256, (4, 6, 3), np.uint8)
    data = np.kron(pixels, np.ones((16, 16, 1), np.uint8)).reshape(-1)
    return image(number, stamps(number + 1)[-1], **{**SIZE, "data": data, **changes})


def make(path, messages, *, topic="/lens/image", storage="mcap", **options):
    """A bag of image messages, each recorded some time after its stamp."""
    with BagWriter(path, storage=storage) as bag:
        for number, (kind, data) in enumerate(messages):
            bag.write(topic, kind, stamps(number + 1)[-1] + DELAY, data, **options)
    return path


def hbm_1080p(number, stamp):
    data = np.zeros(6_220_800, np.uint8)
    data[: 96 * 96] = np.random.default_rng(number).integers(0, 256, 96 * 96, np.uint8)
    encoding = np.frombuffer(b"nv12".ljust(12, b"\0"), np.uint8)
    kind = "hbm_img_msgs/msg/HbmMsg1080P"
    return kind, serialize(
        kind, index=number, time_stamp=header(stamp).stamp, height=64, width=96,
        data_size=96 * 96, step=96, encoding=encoding, data=data,
    )  # fmt: skip


def run_offline(path, model_file, **options):
    model = load_model(ModelRequest(model_path=model_file), pipelined=True)
    with Bag(path) as bag:
        run = offline.replay(bag, bag.image_topic(), Classifier(model), **options)
    model.close()
    return run


def assert_same(live, expected):
    """Every image has the very result that offline replay has, or was dropped for that cause."""
    classified = [frame for frame in expected.frames if not frame.dropped]
    assert [frame.header for frame in live.frames] == [frame.header for frame in classified]
    for frame, other in zip(live.frames, classified, strict=True):
        assert frame.prediction == other.prediction
        assert set(frame.milliseconds) == {*STAGES, END_TO_END}
        assert min(frame.milliseconds.values()) >= 0
    assert live.drops() == expected.drops()
    for key in ("topic", "type", "model", "runtime", "view"):
        assert live.info[key] == expected.info[key]


class Play:
    """`efv2 play` in a process of its own."""

    def __init__(self, *arguments, environment=None):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "efv2_ros.cli", "play", *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._process.kill()
        self._process.wait()

    def send(self, number):
        self._process.send_signal(number)

    @property
    def running(self):
        return self._process.poll() is None

    def end(self):
        """Exit status, standard output, and standard error."""
        out, error = self._process.communicate(timeout=SOON)
        assert "Traceback" not in error, error
        return self._process.returncode, out, error


def play(*arguments, **options):
    with Play(*arguments, **options) as process:
        return process.end()


def played(*arguments, **options):
    """Play something that works; what was printed."""
    status, out, error = play(*arguments, **options)
    assert (status, error) == (0, ""), out
    return out


def classifier(start, model_file, topic="/lens/image", **parameters):
    """Start a classifier of everything on a topic; its name."""
    process, _ = start(
        {"model_path": model_file, "queue_policy": "all", "use_sim_time": True, **parameters},
        remappings={"image": topic},
        wait=False,
    )
    return process.name


# The same results


@pytest.mark.e2e
def test_live_is_offline_frame_by_frame(start, model_file, tmp_path):
    """300 images, some of which nothing can be made of, and a topic beside them."""
    broken = {
        40: {"encoding": "bayer_grbg99"},
        41: {"height": 0},
        150: {"data": np.zeros(7, np.uint8)},
    }
    messages = [picture(number, **broken.get(number, {})) for number in range(300)]
    messages[200] = messages[200][0], messages[200][1][:30]  # it ends in the header
    bag = make(tmp_path / "bag", messages)
    expected = run_offline(bag, model_file)
    assert expected.drops() == {"data": 1, "encoding": 1, "message": 1, "size": 1}
    assert len({frame.prediction.class_ids for frame in expected.frames}) > 250
    name = classifier(start, model_file)
    arguments = [bag, "--classifier", name, "--clock", "--reliable", "--wait-for-results"]
    out = played(*arguments, "--results", tmp_path / "out")
    assert "300 messages" in out
    assert f"{name}: 296 classified, 4 dropped (1 data, 1 encoding, 1 message, 1 size)\n" in out
    live = read_run(tmp_path / "out")
    assert_same(live, expected)
    assert live.info["bag"] == str(bag)

    # The node has counts now that are not this run's; several images are on their way at once.
    lines = tmp_path / "out.jsonl"
    out = played(*arguments, "--in-flight", "4", "--results", lines, "--timings")
    assert f"{name}: 296 classified, 4 dropped (1 data, 1 encoding, 1 message, 1 size)\n" in out
    again = read_jsonl(lines)
    assert [each.prediction for each in again.frames] == [each.prediction for each in live.frames]
    assert set(again.frames[-1].milliseconds) == {*STAGES, END_TO_END}
    assert again.info == live.info


@pytest.mark.e2e
def test_compressed_images_under_another_name(start, model_file, tmp_path):
    messages = [compressed(number, stamp) for number, stamp in enumerate(stamps(40))]
    messages[7] = compressed(7, stamps(8)[-1], data=np.zeros(50, np.uint8))
    bag = make(tmp_path / "bag", messages, topic="/lens/compressed")
    expected = run_offline(bag, model_file)
    assert expected.drops() == {"decode": 1}
    name = classifier(start, model_file, "/eye", transport="compressed", slots=2)
    played(
        bag, "--classifier", name, "--clock", "--reliable", "--wait-for-results", "--in-flight", 3,
        "--remap", "/lens/compressed:=/eye", "--results", tmp_path / "out",
    )  # fmt: skip
    assert_same(read_run(tmp_path / "out"), expected)


def shown(path):
    """What a bag of results has for viewers, by topic, in order."""
    with Bag(path) as bag:
        shown = {"label": [], "annotations": []}
        topics = [name for name in bag.topics if name.rpartition("/")[2] in shown]
        for each in bag.messages(topics):
            message = deserialize(each.type_name, each.data)
            shown[each.topic.rpartition("/")[2]].append(repr(message))
    return shown


@pytest.mark.e2e
@pytest.mark.parametrize("kind", [image, compressed])
def test_a_recording_shows_what_a_bag_of_offline_results_shows(start, model_file, tmp_path, kind):
    need_annotations()
    messages = [kind(number, stamp) for number, stamp in enumerate(stamps(30))]
    bag = make(tmp_path / "bag", messages)
    expected = run_offline(bag, model_file)
    write_results(expected, tmp_path / "offline")
    transport = {image: "raw", compressed: "compressed"}[kind]
    name = classifier(start, model_file, transport=transport, slots=2)
    played(
        bag, "--classifier", name, "--clock", "--reliable", "--wait-for-results", "--in-flight", 4,
        "--results", tmp_path / "live",
    )  # fmt: skip
    live = shown(tmp_path / "live")
    assert live == shown(tmp_path / "offline")
    assert [len(each) for each in live.values()] == [30, 30]
    assert len(set(live["annotations"])) == 30
    assert_same(read_run(tmp_path / "live"), expected)


@pytest.mark.e2e
def test_images_of_six_megabytes_that_have_no_header(start, model_file, tmp_path):
    pytest.importorskip("hbm_img_msgs.msg")
    messages = [hbm_1080p(number, stamp) for number, stamp in enumerate(stamps(6))]
    bag = make(tmp_path / "bag", messages)
    expected = run_offline(bag, model_file, frame_id="front")
    name = classifier(start, model_file, transport="hbmem_1080p", frame_id="front")
    played(
        bag, "--classifier", name, "--clock", "--reliable", "--wait-for-results",
        "--results", tmp_path / "out",
    )  # fmt: skip
    live = read_run(tmp_path / "out")
    assert_same(live, expected)
    assert {frame.header.frame_id for frame in live.frames} == {"front"}


@pytest.mark.e2e
def test_what_was_recorded_best_effort_is_played_best_effort(start, model_file, tmp_path):
    bag = make(tmp_path / "bag", map(picture, range(20)), reliable=False)
    name = classifier(start, model_file, qos_reliability="best_effort")
    arguments = [bag, "--classifier", name, "--clock", "--wait-for-results"]
    played(*arguments, "--results", tmp_path / "out")
    assert_same(read_run(tmp_path / "out"), run_offline(bag, model_file))


@pytest.mark.e2e
def test_a_damaged_bag_plays_what_can_be_read(start, model_file, tmp_path):
    bag = make(tmp_path / "bag", map(picture, range(12)), storage="sqlite3")
    (storage,) = bag.glob("*.db3")
    storage.write_bytes(storage.read_bytes()[:130_000])
    expected = run_offline(bag, model_file)
    assert 0 < len(expected.frames) < 12
    name = classifier(start, model_file)
    arguments = [bag, "--classifier", name, "--clock", "--reliable", "--wait-for-results"]
    status, out, error = play(*arguments, "--results", tmp_path / "out")
    assert status == 1
    assert f"{len(expected.frames)} classified, 0 dropped" in out
    assert "is damaged" in error
    assert_same(read_run(tmp_path / "out"), expected)


# As it was recorded


class Ears:
    """A node that keeps the bytes of what it hears."""

    def __init__(self, ros):
        from efv2_ros.client.spinner import Spinner

        self.heard = {}
        self.spinner = Spinner(ros.create_node("ears"))
        self.node = self.spinner.node

    def listen(self, topic, type_name, depth=10_000, **policies):
        from rclpy.qos import QoSProfile

        from efv2_ros.node.transports import message_type

        messages = self.heard[topic] = []
        qos = QoSProfile(depth=depth, **policies)
        kind = message_type(type_name)
        self.node.create_subscription(kind, topic, messages.append, qos, raw=True)
        return messages


@pytest.fixture
def ears(ros):
    ears = Ears(ros)
    yield ears
    ears.spinner.close()


def test_images_are_let_through_by_results_and_by_reports(ears):
    from efv2_ros.play.in_flight import InFlight, ResultGate
    from efv2_ros.play.options import PlayError

    in_flight = InFlight(1)
    gate = ResultGate(ears.spinner, in_flight, ["/lens/image"], classifier="/eye", timeout_s=0.0)
    gate.wait()
    gate.sent(2_000_000_005)
    with pytest.raises(
        PlayError, match=r"^/eye gave no result for the image stamped 2.000000005 "
    ):
        gate.wait()
    in_flight.result(2_000_000_005)
    gate.wait()
    gate.sent(None)
    with pytest.raises(PlayError, match="no result for an image whose stamp cannot be read in 0"):
        gate.wait()
    in_flight.counted(2)
    gate.wait()


class SlowGate:
    """Lets images of one topic through, each after a hundred seconds of the player's clock."""

    def __init__(self, clock):
        self.topics = {"/lens/image"}
        self.stamps = []
        self._clock = clock

    def wait(self):
        self._clock.now += 100.0

    def sent(self, stamp):
        self.stamps.append(stamp)


def test_time_stands_still_while_an_image_is_held_back(ears, tmp_path, monkeypatch):
    from efv2_ros.play import player
    from efv2_ros.play.qos import published_topics
    from efv2_ros.play.read_ahead import ReadAhead

    class PlayersClock:
        now = 0.0

        def monotonic(self):
            self.now += 0.001
            return self.now

    clock = PlayersClock()
    gate = SlowGate(clock)
    cut = picture(2)[0], picture(2)[1][:9]
    messages = [picture(0), picture(1), cut]
    write(
        tmp_path / "bag",
        [
            *(("/lens/image", START + n, each) for n, each in enumerate(messages)),
            *((f"/{side}", START + 5, text(0)) for side in ("words", "lens/more")),
        ],
    )
    monkeypatch.setattr(player, "time", clock)
    progress = []
    with (
        Bag(tmp_path / "bag") as bag,
        ReadAhead(lambda should_stop: bag.messages(bag.topics, should_stop)) as ahead,
    ):
        topics = published_topics(list(bag.topics.values()), {})
        playing = player.Player(ears.spinner, topics, ahead, 1.0, 0.0, on_sent=progress.append)
        playing.play(gate)
    assert progress == [1, 2, 3, 4, 5]
    assert playing.sent == {"/lens/image": 3, "/words": 1, "/lens/more": 1}
    assert gate.stamps == [*stamps(2), None]
    assert clock.now > 300
    assert playing.max_lateness_s < 10


def text(number):
    return "std_msgs/msg/String", serialize("std_msgs/msg/String", data=f"word {number}")


@pytest.mark.e2e
def test_bytes_order_qos_and_time_are_as_recorded(ears, tmp_path):
    from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
    from rclpy.serialization import deserialize_message
    from rosgraph_msgs.msg import Clock

    moments = [START + number * PERIOD for number in range(20)]
    pictures = [picture(number) for number in range(20)]
    words = [text(number) for number in range(20)]
    transform = ("tf2_msgs/msg/TFMessage", serialize("tf2_msgs/msg/TFMessage", transforms=[]))
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/map", *reordered(words[0], moments[0]), latched=True)
        bag.write("/tf_static", *reordered(transform, moments[0]), latched=True)
        bag.write("/clock", *reordered(("rosgraph_msgs/msg/Clock", bytes(12)), moments[0]))
        for number, moment in enumerate(moments):
            bag.write("/lens/image", *reordered(pictures[number], moment), reliable=False)
            bag.write("/words", *reordered(words[number], moment + 7))
    is_known = can_import("tf2_msgs.msg")

    clocks = ears.listen("/clock", "rosgraph_msgs/msg/Clock")
    heard = ears.listen("/words", "std_msgs/msg/String")
    latched = {"durability": DurabilityPolicy.TRANSIENT_LOCAL}
    mapped = ears.listen("/map", "std_msgs/msg/String", **latched)
    with Play(tmp_path / "bag", "--rate", 4, "--clock", "--clock-rate", 500) as process:
        # Time stands at the first message until somebody takes the images.
        assert ears.spinner.spin_until(lambda: len(clocks) > 20, SOON)
        assert len(set(clocks)) == 1
        assert not mapped
        images = ears.listen(
            "/lens/image", "sensor_msgs/msg/Image", reliability=ReliabilityPolicy.BEST_EFFORT
        )
        assert ears.spinner.spin_until(lambda: len(heard) == 1, SOON)
        offered = {
            topic: ears.node.get_publishers_info_by_topic(topic)[0].qos_profile
            for topic in ("/lens/image", "/words", "/map")
        }
        assert ears.spinner.spin_until(lambda: not process.running, SOON)
        status, out, error = process.end()
    ears.spinner.spin_until(lambda: len(images) == 20, SOON)
    assert status == 0
    assert "41 messages" in out if not is_known else "42 messages" in out
    assert "left out, since it has another publisher now: /clock\n" in error
    unknown = "left out, since its message type is not installed: /tf_static (tf2_msgs/msg/TFMess"
    assert (unknown in error) != is_known
    assert contents(images) == contents(data for _, data in pictures)
    assert contents(heard) == contents(data for _, data in words)
    assert contents(mapped) == contents([words[0][1]])
    best_effort, reliable = ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE
    assert [offered[topic].reliability for topic in ("/lens/image", "/words", "/map")] == [
        best_effort, reliable, reliable,
    ]  # fmt: skip
    assert offered["/map"].durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert offered["/words"].durability == DurabilityPolicy.VOLATILE

    times = [deserialize_message(each, Clock).clock for each in clocks]
    times = [each.sec * 10**9 + each.nanosec for each in times]
    assert times == sorted(times)
    assert (times[0], times[-1]) == (moments[0], moments[-1] + 7)
    recorded = {*moments, *(moment + 7 for moment in moments)}
    assert recorded <= set(times)
    assert set(times) - recorded  # the time between


def reordered(message, log_time):
    """Type, log time and bytes, as a bag is written with."""
    kind, data = message
    return kind, log_time, data


def contents(messages):
    """Bytes without what the transport changes: it pads them to fours, and notes by how many."""
    return [data[:2] + data[4:].rstrip(b"\0") for data in messages]


def can_import(name):
    try:
        __import__(name)
    except ImportError:
        return False
    return True


@pytest.mark.e2e
def test_the_node_and_the_recording_follow_the_clock(start, model_file, tmp_path):
    """What the bag has of an earlier run, and of other nodes' diagnostics, stays in the bag."""
    name = classifier(start, model_file)
    earlier = "vision_msgs/msg/Classification"
    result = serialize(earlier, header=header(START), results=[])
    report = "diagnostic_msgs/msg/DiagnosticArray"
    old = serialize(report, header=header(7), status=[])
    pictures = [("/lens/image", stamps(10)[n] + DELAY, picture(n)) for n in range(10)]
    write(
        tmp_path / "bag",
        [
            *pictures,
            (f"{name}/classification", START + DELAY + 5, (earlier, result)),
            (
                "/diagnostics",
                START + DELAY + 5,
                (report, old),
            ),
        ],
    )
    with Play(
        tmp_path / "bag", "--classifier", name, "--clock", "--reliable", "--rate", 2,
        "--results", tmp_path / "out",
    ) as process:  # fmt: skip
        status, out, error = process.end()
    assert status == 0
    assert (
        error
        == f"left out, since it has another publisher now: {name}/classification, /diagnostics\n"
    )
    assert "10 messages" in out
    with Bag(tmp_path / "out") as bag:
        assert bag.topics[f"{name}/classification"].count == 10
        messages = list(bag.messages(bag.topics))
        reports = [each.data for each in messages if each.topic == "/diagnostics"]
    times = {each.log_time for each in messages}
    first, last = START + DELAY, stamps(10)[-1] + DELAY
    assert first <= min(times) < max(times) <= last
    reported = [int.from_bytes(data[4:8], "little") for data in reports]
    assert reported[-1] == last // 10**9
    run = read_run(tmp_path / "out")
    latencies = [frame.milliseconds[END_TO_END] for frame in run.frames]
    assert min(latencies) >= DELAY / 1e6 - PERIOD / 1e6
    assert max(latencies) <= (last - START) / 1e6


@pytest.mark.e2e
def test_images_of_one_camera_of_two_are_waited_for(start, model_file, tmp_path):
    write(
        tmp_path / "bag",
        [
            (f"/{side}/image", stamps(10)[n] + DELAY + delay, picture(n))
            for n in range(10)
            for side, delay in (("left", 0), ("right", 3))
        ],
    )
    name = classifier(start, model_file, "/right/image")
    out = played(
        tmp_path / "bag", "--classifier", name, "--reliable", "--wait-for-results", "--clock",
        "--results", tmp_path / "out",
    )  # fmt: skip
    assert "20 messages" in out
    assert "10 of them images for the classifier" in out
    run = read_run(tmp_path / "out")
    assert len(run.frames) == 10
    assert run.info["topic"] == "/right/image"


# What goes wrong


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_bag_of_what_came(start, model_file, tmp_path, number):
    bag = make(tmp_path / "bag", map(picture, range(200)))
    process, talker = start(
        {"model_path": model_file, "queue_policy": "all"},
        remappings={"image": "/lens/image"}, wait=False,
    )  # fmt: skip
    assert talker.spin_until(lambda: talker.vision_info, SOON)  # it hears the node by now
    with Play(
        bag, "--classifier", process.name, "--reliable", "--rate", 0.5, "--clock",
        "--results", tmp_path / "out",
    ) as running:  # fmt: skip
        assert talker.wait_for_results(3, SOON)
        running.send(number)
        status, _, error = running.end()
    assert status == 130
    assert error == "interrupted: the results end there\n"
    expected = run_offline(bag, model_file).frames
    run = read_run(tmp_path / "out")
    assert "problems" not in run.info
    assert 2 <= len(run.frames) < 200
    for frame, other in zip(run.frames, expected, strict=False):
        assert (frame.header, frame.prediction) == (other.header, other.prediction)


@pytest.mark.e2e
def test_a_classifier_that_is_not_there_is_missed(ros, tmp_path):
    bag = make(tmp_path / "bag", map(picture, range(2)))
    arguments = [bag, "--start-timeout", 0.5, "--classifier", "nobody/here"]
    for more in (["--wait-for-results"], ["--results", tmp_path / "out"]):
        status, out, error = play(*arguments, *more)
        assert (status, out) == (1, "")
        assert error == (
            "Error: there is no classifier /nobody/here: it published nothing for 0.5 s\n"
        )
    assert not (tmp_path / "out").exists()
    status, _, error = play(*arguments)
    assert status == 1
    assert error == "Error: nobody receives the images: no subscription to /lens/image\n"
    assert "2 messages" in played(*arguments, "--no-wait-for-subscribers")


@pytest.mark.e2e
def test_a_classifier_that_cannot_classify_says_why(start, model_file, tmp_path):
    bag = make(tmp_path / "bag", map(picture, range(2)), reliable=False)
    name = classifier(start, "/nowhere.onnx")
    status, out, error = play(bag, "--classifier", name, "--results", tmp_path / "out")
    assert (status, out) == (1, "")
    assert error.startswith(f"Error: {name} cannot classify: model_path /nowhere.onnx is no file")
    assert not (tmp_path / "out").exists()


@pytest.mark.e2e
def test_a_classifier_whose_subscription_does_not_fit_is_not_waited_for(
    start, model_file, tmp_path
):
    bag = make(tmp_path / "bag", map(picture, range(2)), reliable=False)
    name = classifier(start, model_file)
    arguments = [bag, "--classifier", name, "--start-timeout", 10 * SOON]
    status, out, error = play(*arguments, "--results", tmp_path / "out")
    assert (status, out) == (1, "")
    assert (
        f"Error: {name} does not receive the images: the QoS of /lens/image does not su" in error
    )
    fix = "(--reliable makes images reliable); it subscribes to /lens/image, and --remap "
    assert fix in error
    assert not (tmp_path / "out").exists()


def test_why_a_subscriber_gets_nothing(ears, tmp_path):
    from rclpy.qos import ReliabilityPolicy

    from efv2_ros.play.qos import is_received, published_topics, qos_mismatches

    with Bag(make(tmp_path / "bag", [picture(0)], reliable=False)) as bag:
        topics = list(bag.topics.values())

    def check(subscriber=""):
        (topic,) = published_topics(topics, {"/lens/image": name})
        received = is_received(ears.node, topic, subscriber)
        return received, qos_mismatches(ears.node, topic, subscriber)

    def listen(type_name, **policies):
        ears.listen(name, type_name, **policies)
        assert ears.spinner.spin_until(lambda: ears.node.count_subscribers(name) > 0, SOON)

    name = "/a"
    assert check() == (False, [])
    listen("sensor_msgs/msg/Image", reliability=ReliabilityPolicy.BEST_EFFORT)
    assert check() == check("/ears") == (True, [])
    assert check("/eyes") == (False, [])
    name = "/b"
    listen("sensor_msgs/msg/CompressedImage")
    assert check() == (
        False,
        ["/ears subscribes to /b as sensor_msgs/msg/CompressedImage, and the bag has "
         "sensor_msgs/msg/Image"],
    )  # fmt: skip
    name = "/c"
    listen("sensor_msgs/msg/Image", reliability=ReliabilityPolicy.RELIABLE)
    received, (reason,) = check()
    assert not received
    assert reason.startswith("the QoS of /c does not suit /ears: ERROR: Best effort publisher")
    assert reason.endswith(" (--reliable makes images reliable)")
    listen("sensor_msgs/msg/Image", reliability=ReliabilityPolicy.BEST_EFFORT)
    assert ears.spinner.spin_until(lambda: check() == (True, [reason]), SOON)


def test_what_is_missing_for_a_start_is_said(ears, tmp_path):
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

    from efv2_ros.play.options import PlayError, PlayOptions
    from efv2_ros.play.session import Session

    def missing():
        with pytest.raises(PlayError) as raised:
            session.wait_for_subscribers()
        return str(raised.value)

    options = PlayOptions(classifier="/a/b", results=tmp_path / "out", start_timeout_s=0.1)
    counts = [KeyValue(key=f"frames {each}", value="0") for each in ("received", "classified")]
    report = DiagnosticArray(
        status=[DiagnosticStatus(name="a/b: stream", message="inactive", values=counts)]
    )
    reports = ears.node.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def is_heard():
        reports.publish(report)
        return missing() == "/a/b is inactive after 0.1 s"

    with (
        Bag(make(tmp_path / "bag", [picture(0)])) as bag,
        Session(bag, options, print, print, None) as session,
    ):
        assert missing() == "there is no classifier /a/b: it published nothing for 0.1 s"
        assert ears.spinner.spin_until(is_heard, SOON)


@pytest.mark.e2e
@pytest.mark.parametrize("waits", [True, False])
def test_an_image_without_an_answer_is_named(start, model_file, tmp_path, waits):
    bag = make(tmp_path / "bag", map(picture, range(100)))
    process, talker = start(
        {"model_path": model_file, "queue_policy": "all"},
        remappings={"image": "/lens/image"}, wait=False,
    )  # fmt: skip
    assert talker.spin_until(lambda: talker.vision_info, SOON)  # it hears the node by now
    with Play(
        bag, "--classifier", process.name, "--reliable", "--result-timeout", 1, "--rate", 0.5,
        "--results", tmp_path / "out", *(["--wait-for-results"] if waits else []),
    ) as running:  # fmt: skip
        assert talker.wait_for_results(3, SOON)
        talker.enable(False)
        status, out, error = running.end()
    run = read_run(tmp_path / "out")
    assert status == 1
    assert 3 <= len(run.frames) < 100
    if waits:
        stamp = stamps(len(run.frames) + 1)[-1]
        image = f"the image stamped {stamp // 10**9}.{stamp % 10**9:09d}"
        nor = "nor did it report another dropped image"
        assert error == f"{process.name} gave no result for {image} in 1 s, {nor}\n"
    else:
        lost = 100 - len(run.frames)
        assert error == f"{lost} of 100 images did not reach {process.name}\n"
        assert f"{len(run.frames)} classified, 0 dropped, {lost} never arrived\n" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--wait-for-results", "--player", "ros2"], "ros2 bag play cannot wait for results"),
        (["--timings", "--results", "out"], "--timings needs --results OUT.jsonl"),
        (["--results", "bag"], "cannot write bag: it exists already"),
        (["--remap", "/a:=/b"], "bag has no topic /a; it has /lens/image"),
        (["--remap", "/a"], "'/a' is not of the form OLD:=NEW"),
        (["--topics", "/lens/image,/a"], "bag has no topic /a"),
        (["--rate", "0"], "0 is not in the range"),
    ],
)
def test_what_cannot_work_is_said_at_once(ros, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "bag", map(picture, range(1)))
    result = CliRunner().invoke(main, ["play", "bag", *arguments])
    assert result.exit_code in (1, 2)
    assert words in result.output


def test_a_bag_without_images_has_nothing_for_the_classifier(ros, tmp_path):
    write(tmp_path / "bag", [("/words", START, text(0))])
    status, _, error = play(tmp_path / "bag", "--results", tmp_path / "out")
    assert (status, error) == (
        1,
        "Error: there are no images for the classifier among the topics to play\n",
    )
    assert "1 messages" in played(tmp_path / "bag")
    status, _, error = play(tmp_path / "bag", "--remap", "/words:=/1")
    assert status == 1
    assert "Error: /1 cannot be the name of a topic" in error


# ros2 bag play


@pytest.mark.e2e
def test_what_ros2_bag_play_plays_is_recorded(start, model_file, tmp_path):
    messages = [picture(number) for number in range(60)]
    messages[20] = picture(20, encoding="bayer_grbg99")
    bag = make(tmp_path / "bag", messages, reliable=False)
    name = classifier(start, model_file, "/eye")
    status, out, error = play(
        bag, "--player", "ros2", "--classifier", name, "--clock", "--clock-rate", 100, "--rate", 2,
        "--reliable", "--remap", "/lens/image:=/eye", "--results", tmp_path / "out",
        environment=ros2_on_path(tmp_path / "bin"),
    )  # fmt: skip
    assert (status, error) == (0, "")
    assert re.search(r"60 messages in \d+\.\d\d s, 60 of them images for the classifier\n", out)
    assert f"{name}: 59 classified, 1 dropped (1 encoding)\n" in out
    assert_same(read_run(tmp_path / "out"), run_offline(bag, model_file))
    with Bag(tmp_path / "out") as recorded:
        times = [each.log_time for each in recorded.messages(recorded.topics)]
    # What came before the first /clock has its time, or that of the end if none was ever heard.
    assert min(times) == max(times) or (
        START + DELAY <= min(times) < max(times) <= stamps(60)[-1] + DELAY
    )


@pytest.mark.e2e
def test_a_player_that_fails_fails_the_replay(start, model_file, tmp_path):
    bag = make(tmp_path / "bag", map(picture, range(2)))
    name = classifier(start, model_file)
    arguments = [bag, "--player", "ros2", "--classifier", name]
    environment = ros2_on_path(tmp_path / "bin", status=3)
    status, out, error = play(*arguments, environment=environment)
    assert (status, out, error) == (1, "", "ros2 bag play ended with status 3\n")
    paths = os.environ["PATH"].split(os.pathsep)
    without = os.pathsep.join(path for path in paths if not Path(path, "ros2").exists())
    status, out, error = play(*arguments, environment={"PATH": without})
    assert (status, out) == (1, "")
    assert error.startswith("there is no `ros2` here")
