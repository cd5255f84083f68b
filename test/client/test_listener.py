"""Spinner, listener, status and requests, over real DDS."""

import os
import signal
import subprocess
import sys
import time

import pytest
from tiny_models import projection

from efv2_ros.pictures.photo import read_photo

pytest.importorskip("rclpy")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import String

from efv2_ros.classify.latency import END_TO_END, STAGES
from efv2_ros.classify.options import ViewOptions
from efv2_ros.client.listener import Listener, running_classifier
from efv2_ros.client.requests import request_view_options
from efv2_ros.client.ros import RosError, ros_context
from efv2_ros.client.spinner import Spinner
from efv2_ros.client.status import ClassifierStatus, Counts, counts_of, stage_latencies, values

SOON = 60.0  # seconds: only reached when something is broken


@pytest.fixture
def spinner():
    with ros_context() as context, Spinner(rclpy.create_node("a", context=context)) as spinner:
        yield spinner


# Spinner


def test_messages_are_handled_only_while_the_spinner_spins(spinner):
    heard = []
    spinner.node.create_subscription(String, "/words", heard.append, 10)
    words = spinner.node.create_publisher(String, "/words", 10)
    assert spinner.spin_until(lambda: words.get_subscription_count() > 0, SOON)
    words.publish(String(data="a"))
    time.sleep(0.2)
    assert heard == []
    assert spinner.spin_until(lambda: len(heard) == 1, SOON)
    assert not spinner.spin_until(lambda: False, 0.0)
    start = time.monotonic()
    spinner.spin_for(0.2)
    assert time.monotonic() - start >= 0.2


def test_a_spinner_that_is_to_stop_waits_no_longer():
    stopped = []
    with (
        ros_context() as context,
        Spinner(rclpy.create_node("a", context=context), lambda: bool(stopped)) as spinner,
    ):
        assert not spinner.spin_until(lambda: False, 0.1)
        spinner.node.create_timer(0.1, lambda: stopped.append(True))
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            spinner.spin_until(lambda: False, 10 * SOON)
        with pytest.raises(KeyboardInterrupt):
            spinner.spin_once()
        assert time.monotonic() - start < SOON


def test_a_middleware_that_does_not_start_is_an_error_for_people(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "no number")
    with pytest.raises(RosError, match=r"^ROS 2 does not start: [^\n]+$"), ros_context():
        pass


# Status


def report(name, *, stamp=(0, 0), level=DiagnosticStatus.OK, message="", **reported):
    pairs = [KeyValue(key=key.replace("_", " "), value=str(each))
             for key, each in reported.items()]  # fmt: skip
    status = DiagnosticStatus(name=name, level=level, message=message, values=pairs)
    array = DiagnosticArray(status=[status])
    array.header.stamp.sec, array.header.stamp.nanosec = stamp
    return array


def test_counts_are_those_since_an_earlier_report():
    counts = Counts(10, 6, {"decode": 1, "size": 2})
    assert (counts.dropped, counts.complete) == (3, False)
    assert Counts(9, 6, {"decode": 1, "size": 2}).complete
    assert counts.since(Counts(4, 3, {"size": 1})) == Counts(6, 3, {"decode": 1, "size": 1})


def test_counts_are_read_from_a_stream_and_from_nothing_else():
    numbers = {"frames_received": 5, "frames_classified": 3, "dropped:_size": 2}
    (stream,) = report("a: stream", **numbers).status
    assert counts_of(stream) == Counts(5, 3, {"size": 2})
    for wrong in ({"frames_received": 5}, {**numbers, "frames_classified": "many"}):
        with pytest.raises(ValueError, match=r"frames classified|invalid literal"):
            counts_of(report("a: stream", **wrong).status[0])


def test_a_status_is_that_of_its_classifier():
    status = ClassifierStatus("/a/b")
    assert (status.stream, status.model, status.state, status.problem) == (None, None, "", "")
    assert not status.update(report("b: stream", message="active"))
    assert not status.update(report("a/b: model"))  # no report of a classifier is without it
    array = report("a/b: stream", stamp=(3, 5), message="inactive")
    array.status += report("a/b: model", level=DiagnosticStatus.ERROR, message="no model").status
    array.status += report("a/b: model2", runtime="x").status
    assert status.update(array)
    assert (status.state, status.problem, status.stamp_ns) == (
        "inactive",
        "no model",
        3 * 10**9 + 5,
    )
    assert status.runtime == ""
    array = report("a/b: stream", message="active")
    array.status += report("a/b: model", message="an error", runtime="libdnn").status
    assert status.update(array)
    assert (status.state, status.problem, status.runtime) == ("active", "", "libdnn")
    status.clear()
    assert (status.stream, status.model) == (None, None)


# A running classifier


@pytest.mark.distros
@pytest.mark.e2e
def test_a_listener_keeps_what_a_classifier_says(tmp_path, photos):
    model = str(projection(tmp_path / "model.onnx"))
    parameters = {
        "model_path": model, "queue_policy": "all", "diagnostics_period": 0.2, "top_k": 3,
        "roi": "1,2,30,40",
    }  # fmt: skip
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with running_classifier("listening", parameters) as (process, listener):
        namespace = f"/efv2_listening_{os.getpid()}"
        assert process.name == listener.classifier == f"{namespace}/efv2_classifier"
        assert not listener.connected
        assert (listener.stream, listener.model) == (None, None)
        assert listener.wait_for_classifier(SOON), process.stop()
        assert not listener.wait_for_results(1, 0.2)
        before = time.monotonic()
        for photo in photos:
            listener.publish(read_photo(photo))
        assert listener.wait_for_results(len(photos), SOON), process.stop()
        assert before < listener.arrivals[0] <= listener.arrivals[-1] < time.monotonic()
        assert [each.header.frame_id for each in listener.results] == [
            photo.name for photo in photos
        ]
        assert {len(each.results) for each in listener.results} == {3}
        assert listener.vision_info[-1].method
        assert listener.label_info[-1].class_map
        assert listener.wait_for_diagnostics(SOON)
        assert counts_of(listener.stream) == Counts(len(photos), len(photos), {})
        assert set(stage_latencies(listener.stream)) == {*STAGES, END_TO_END}
        assert "slots" in values(listener.model)
        assert abs(listener.reported_at - time.time()) < SOON

        with (
            ros_context() as context,
            Spinner(rclpy.create_node("asking", context=context)) as spinner,
        ):
            view = request_view_options(spinner, process.name)
            assert (view["top_k"], view["fit"]) == (3, ViewOptions().fit)
            assert tuple(view["roi"]) == (1, 2, 30, 40)
            # The listener has the service, and none of the parameters.
            assert request_view_options(spinner, f"{namespace}/listening") is None
    assert process.returncode == 0
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_a_node_with_other_parameters_of_these_names_is_no_classifier(spinner):
    for name in ViewOptions().__dataclass_fields__:
        spinner.node.declare_parameter(name, 7)
    assert request_view_options(spinner, "/a") is None


@pytest.mark.distros
@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_wait_for_a_classifier_and_the_classifier(tmp_path, number):
    """Sent again and again, as launch does."""
    model = str(projection(tmp_path / "model.onnx"))
    program = (
        "import sys\n"
        "from efv2_ros.client.listener import running_classifier\n"
        "try:\n"
        "    parameters = {'model_path': sys.argv[1]}\n"
        "    with running_classifier('stopped', parameters) as (process, listener):\n"
        "        assert listener.wait_for_classifier()\n"
        "        print(process.pid, flush=True)\n"
        "        listener.spin_for(600.0)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', process.returncode)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, model],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    classifier = int(process.stdout.readline())
    for _ in range(20):
        process.send_signal(number)
        time.sleep(0.05)
    out, error = process.communicate(timeout=SOON)
    assert (out, error, process.returncode) == ("interrupted 0\n", "", 0)
    with pytest.raises(ProcessLookupError):
        os.kill(classifier, 0)


def test_a_listener_needs_no_namespace(ros):
    listener = Listener(ros.create_node("alone"), "/a/b", topic="/lens/image", depth=3)
    assert listener.images.topic_name == "/lens/image"
    assert not listener.connected
    listener.close()
