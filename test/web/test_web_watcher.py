"""The page's side of ROS, beside a stand-in of a classifier with two cameras."""

import os
import threading
import time
from array import array
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import SetBool
from vision_msgs.msg import Classification, LabelInfo, ObjectHypothesis, VisionClass

from efv2_ros.client.spinner import Spinner
from efv2_ros.web.eyes import Eyes
from efv2_ros.web.hub import ControlError
from efv2_ros.web.watcher import Watcher

pytestmark = pytest.mark.e2e

SOON = 30.0  # seconds: only reached when something is broken
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class StandIn:
    """Publishes what a classifier with the cameras `left` and `right` does."""

    def __init__(self, ros, *, tells_topics=True):
        self.namespace = f"/web_{os.getpid()}_{time.monotonic_ns()}"
        node = ros.create_node("classifier", namespace=self.namespace)
        self.node, self.name = node, f"{self.namespace}/classifier"
        self.spinner = Spinner(node)
        self.tells_topics = tells_topics
        self.wide = node.create_publisher(Image, "wide", 1)
        self.jpeg = node.create_publisher(CompressedImage, "jpeg", 1)
        self.topics = {"left": "wide", "right": "jpeg"}
        self.results = {
            name: node.create_publisher(Classification, f"~/{name}/classification", 10)
            for name in self.topics
        }
        self.latencies = {
            name: node.create_publisher(DiagnosticArray, f"~/{name}/latency", 10)
            for name in self.topics
        }
        self.diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.labels = node.create_publisher(LabelInfo, "~/label_info", LATCHED)
        classes = [VisionClass(class_id=n, class_name=f"class {n}") for n in range(3)]
        self.labels.publish(LabelInfo(class_map=classes))
        node.create_service(SetBool, "~/set_enabled", self._set_enabled)
        self.enabled = []

    def _set_enabled(self, request, response):
        self.enabled.append(request.data)
        response.success, response.message = request.data, f"enabled is {request.data}"
        return response

    def publish(self):
        """One image, result, latency and report of each camera."""
        self.wide.publish(
            Image(height=4, width=100, step=300, encoding="bgr8", data=bytes([9, 9, 250]) * 400)
        )
        _, file = cv2.imencode(".jpg", np.full((8, 8, 3), 90, np.uint8))
        self.jpeg.publish(CompressedImage(format="jpeg", data=array("B", file.tobytes())))
        for number, name in enumerate(self.topics):
            scores = [(str(number), 0.75), ("2", float("nan")), ("77", 0.05)]
            self.results[name].publish(
                Classification(
                    results=[ObjectHypothesis(class_id=each, score=score)
                             for each, score in scores]
                )
            )  # fmt: skip
            stages = {"infer": "5.5", "wait": "nan", "convert": "?"}
            self.latencies[name].publish(DiagnosticArray(status=[status("", stages)]))
        self.diagnostics.publish(
            DiagnosticArray(
                status=[
                    status(f"{self.name[1:]}: {name} stream",
                           {"image topic": f"{self.namespace}/{topic}"}
                           if self.tells_topics else {})
                    for name, topic in self.topics.items()
                ]
            )
        )  # fmt: skip

    def until(self, condition):
        end = time.monotonic() + SOON
        while not condition():
            assert time.monotonic() < end
            self.publish()
            self.spinner.spin_for(0.02)

    def subscriptions(self):
        """How many subscribe to the images, results and latencies."""
        return [
            each.get_subscription_count()
            for each in (self.wide, self.jpeg, *self.results.values(), *self.latencies.values())
        ]


def status(name, values):
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(name=name, message="1.0 results/s", values=pairs)


@contextmanager
def watching(ros, classifier, sizes=()):
    """A watcher and its eyes, each in its thread, and the pictures that they saw."""
    pictures = {}
    watcher = Watcher(
        ros.create_node("watcher"), classifier, sizes=sizes, faults=lambda: eyes.faults
    )
    eyes = Eyes(
        ros.create_node("eyes"), width=50, fps=20.0, views=watcher.wanted_views,
        show=lambda name, jpeg: pictures.update({name: jpeg}),
    )  # fmt: skip
    stop = threading.Event()
    threads = [threading.Thread(target=each.run, args=(stop,)) for each in (watcher, eyes)]
    for each in threads:
        each.start()
    try:
        yield watcher, pictures
    finally:
        stop.set()
        for each in threads:
            each.join()
        watcher.close()
        eyes.close()


@pytest.fixture
def stand_in(ros):
    stand_in = StandIn(ros)
    with stand_in.spinner:
        yield stand_in


def cameras(watcher):
    return {each["name"]: each for each in watcher.collect().status["cameras"]}


def test_each_camera_has_its_picture_results_and_latencies(ros, stand_in):
    with watching(ros, stand_in.name) as (watcher, pictures):
        stand_in.until(lambda: cameras(watcher).keys() == {"left", "right"})
        assert stand_in.subscriptions() == [0] * 6 and pictures == {}  # nobody looks
        watcher.watch(True)
        stand_in.until(lambda: pictures.keys() == {"left", "right"})
        found = {}

        def complete():
            found.update(watcher.collect().cameras)
            return all(each.results and each.latency for each in found.values())

        stand_in.until(complete)
        assert stand_in.subscriptions() == [1] * 6
        assert found["left"].classes == (("class 0", 0.75), ("class 2", 0.0), ("77", 0.05))
        assert found["right"].classes[0] == ("class 1", 0.75)
        assert found["left"].latency == {"infer": 5.5}
        topics = {name: each["topic"] for name, each in cameras(watcher).items()}
        assert topics == {name: f"{stand_in.namespace}/{topic}"
                          for name, topic in stand_in.topics.items()}  # fmt: skip
        left = cv2.imdecode(np.frombuffer(pictures["left"], np.uint8), cv2.IMREAD_COLOR)
        assert left.shape == (2, 50, 3) and left[0, 0, 2] > 200 > 100 > left[0, 0, 0]
        _, file = cv2.imencode(".jpg", np.full((8, 8, 3), 90, np.uint8))
        assert pictures["right"] == file.tobytes()
        watcher.watch(False)
        stand_in.until(lambda: stand_in.subscriptions() == [0] * 6)
        assert watcher.wanted_views() == {}


def test_what_cannot_be_shown_is_told(ros, stand_in):
    with watching(ros, stand_in.name) as (watcher, pictures):
        watcher.watch(True)
        stand_in.until(lambda: pictures.keys() == {"left", "right"})

        def broken():
            stand_in.jpeg.publish(CompressedImage(format="jpeg", data=bytes(10)))
            stand_in.spinner.spin_for(0.02)
            problem = cameras(watcher)["right"]["problem"]
            return problem and "JPEG" in problem["text"]

        end = time.monotonic() + SOON
        while not broken():
            assert time.monotonic() < end
        stand_in.until(lambda: cameras(watcher)["right"]["problem"] is None)


def test_results_and_latencies_that_cannot_be_read_are_left_out(ros, stand_in):
    broken = b"\0\1\0\0" + b"\xff" * 40
    with watching(ros, stand_in.name) as (watcher, _):
        watcher.watch(True)
        stand_in.until(lambda: watcher.collect().cameras.get("left", (0,))[0])
        while watcher.collect().cameras["left"].results:
            stand_in.spinner.spin_for(0.1)
        stand_in.results["left"].publish(broken)
        stand_in.latencies["left"].publish(broken)
        end = time.monotonic() + SOON
        while not (found := watcher.collect().cameras["left"]).results:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert (found.results, found.classes, found.latency) == (1, (), {})
        stand_in.until(lambda: watcher.collect().cameras["left"].classes)


def test_a_topic_of_something_else_is_left_alone(ros, stand_in):
    stand_in.node.create_publisher(String, "words", 1)
    stand_in.topics["left"] = "words"
    with watching(ros, stand_in.name) as (watcher, pictures):
        watcher.watch(True)
        stand_in.until(lambda: "right" in pictures)
        assert watcher.wanted_views().keys() == {"right"}


def test_topics_that_are_not_told_are_found_where_there_is_one(ros):
    stand_in = StandIn(ros, tells_topics=False)
    del stand_in.topics["right"]
    node = stand_in.node
    node.destroy_publisher(stand_in.results.pop("right"))
    node.create_subscription(Image, "wide", lambda message: None, 1)
    with stand_in.spinner, watching(ros, stand_in.name) as (watcher, pictures):
        watcher.watch(True)
        stand_in.until(lambda: "left" in pictures)
        assert cameras(watcher)["left"]["topic"] == f"{stand_in.namespace}/wide"


def test_a_node_that_goes_is_missed(ros, stand_in):
    with watching(ros, stand_in.name) as (watcher, _):
        stand_in.until(lambda: not watcher.collect().status["problems"] and cameras(watcher))
        stand_in.spinner.close()
        end = time.monotonic() + SOON
        while not watcher.collect().status["problems"]:
            assert time.monotonic() < end
            time.sleep(0.05)
        (problem,) = watcher.collect().status["problems"]
        assert problem["text"].startswith(f"there is no {stand_in.name}")
        assert cameras(watcher).keys() == {"left", "right"}


def test_changes_reach_the_node(ros, stand_in):
    with watching(ros, stand_in.name, ["s0"]) as (watcher, _):
        stand_in.until(lambda: cameras(watcher))
        on = watcher.change("enabled", True)
        stand_in.until(on.done)
        assert on.result() == "enabled is True"
        off = watcher.change("enabled", False)
        stand_in.until(off.done)
        with pytest.raises(ControlError, match="enabled is False"):
            off.result()
        assert stand_in.enabled == [True, False]
        model = watcher.change("model_size", "s1")
        stand_in.until(model.done)
        with pytest.raises(ControlError, match=r"undeclared|not declared"):
            model.result()
    with (
        watching(ros, "/no_such_node", ["s0"]) as (watcher, _),
        pytest.raises(ControlError, match="/no_such_node is not there"),
    ):
        watcher.change("enabled", True).result(SOON)
