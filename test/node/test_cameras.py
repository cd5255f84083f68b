"""Several cameras in one node: each with topics, options and counts of its own, and one model."""

import time

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from talker import SOON
from tiny_models import projection
from vision_msgs.msg import Classification

from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import ModelRequest, ViewOptions
from efv2_ros.client.status import values
from efv2_ros.node import conversions
from efv2_ros.vision.frame import Frame
from efv2_ros.vision.nv12 import Roi

pytestmark = [pytest.mark.e2e, pytest.mark.distros]

CAMERAS = ("left", "right")


@pytest.fixture
def model(tmp_path):
    return str(projection(tmp_path / "model.onnx"))


class Rig:
    """Publishes images of several cameras to a node, and keeps what comes back of each."""

    def __init__(self, process, talker, cameras):
        self.process, self.talker, self.node = process, talker, talker.node
        self.results, self.publishers, self.statuses = {}, {}, {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        for camera in cameras:
            self.add(camera)

    def add(self, camera, kind=Image):
        self.results[camera] = []
        self.node.create_subscription(
            Classification,
            f"{self.process.name}/{camera}/classification",
            self.results[camera].append,
            100,
        )
        self.publishers[camera] = self.node.create_publisher(kind, f"{camera}/image", 10)

    def _on_diagnostics(self, array):
        for status in array.status:
            node, _, task = status.name.partition(": ")
            if node == self.process.name.lstrip("/"):
                self.statuses[task] = status

    def is_subscribed(self, *cameras):
        return all(self.publishers[each].get_subscription_count() for each in cameras)

    def wait(self, condition):
        assert self.talker.spin_until(condition, SOON), self.process.stop() or self.process.output

    def send(self, camera, number):
        """Send a picture that is different for each number; return it."""
        message = conversions.image_message(frame := picture(number))
        message.header.stamp.sec, message.header.frame_id = 1000 + number, camera
        self.publishers[camera].publish(message)
        return frame


def picture(number):
    return Frame.from_bgr(np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8))


def scores(message):
    return [(int(each.class_id), each.score) for each in message.results]


@pytest.fixture
def rig(start, model):
    def rig(parameters, cameras=CAMERAS):
        process, talker = start(
            {"model_path": model, "queue_policy": "all", **parameters}, wait=False
        )
        rig = Rig(process, talker, cameras)
        rig.wait(lambda: rig.is_subscribed(*cameras))
        return rig

    return rig


def test_each_camera_has_its_own_options_results_and_counts(rig, model):
    rig = rig({"cameras": "left, right", "left.fit": "stretch", "right.roi": "0,0,32,24"})
    views = {"left": ViewOptions(fit="stretch"), "right": ViewOptions(roi=Roi(0, 0, 32, 24))}
    expected = {camera: [] for camera in CAMERAS}
    loaded = load_model(ModelRequest(model_path=model))
    for number in range(5):
        for camera in CAMERAS:
            frame = rig.send(camera, number + 100 * (camera == "right"))
            said = Classifier(loaded, views[camera]).classify(frame).prediction
            expected[camera].append(list(zip(*said, strict=True)))
    rig.wait(lambda: all(len(results) == 5 for results in rig.results.values()))
    for camera, results in rig.results.items():
        assert [scores(message) for message in results] == expected[camera]
        assert {message.header.frame_id for message in results} == {camera}
        assert [m.header.stamp.sec for m in results] == sorted(m.header.stamp.sec for m in results)
    assert expected["left"] != expected["right"]
    rig.statuses.clear()
    rig.wait(lambda: {"left stream", "right stream", "model"} <= rig.statuses.keys())
    assert "stream" not in rig.statuses
    for camera in CAMERAS:
        reported = values(rig.statuses[f"{camera} stream"])
        assert reported["frames classified"] == "5"
        assert reported["image topic"].endswith(f"/{camera}/image")
    for topic, count in (("left/latency", 1), ("right/label", 1), ("label_info", 1),
                         ("classification", 0), ("latency", 0)):  # fmt: skip
        assert rig.node.count_publishers(f"{rig.process.name}/{topic}") == count, topic


def test_cameras_come_and_go_while_others_go_on(rig):
    rig = rig({"cameras": ["left", "right"]})
    rig.add("back")
    rig.send("right", 0)
    rig.wait(lambda: rig.results["right"])
    (answer,) = rig.talker.set(cameras=["left", "back"])
    assert answer.successful, answer.reason
    rig.wait(lambda: rig.is_subscribed("left", "back") and not rig.is_subscribed("right"))
    assert rig.talker.get("cameras") == "left,back"
    rig.wait(lambda: rig.node.count_publishers(f"{rig.process.name}/right/classification") == 0)
    (answer,) = rig.talker.set(**{"back.roi": "0,0,8,8"})
    assert answer.successful
    for camera in ("left", "back"):
        rig.send(camera, 1)
        rig.wait(lambda camera=camera: rig.results[camera])
    assert len(rig.results["right"]) == 1
    rig.statuses.clear()
    rig.wait(lambda: "back stream" in rig.statuses and "model" in rig.statuses)
    assert "right stream" not in rig.statuses
    (answer,) = rig.talker.set(cameras="")  # one camera again, without a name
    assert answer.successful
    rig.talker.publish(picture(2))
    assert rig.talker.wait_for_classifier()
    rig.talker.publish(picture(2))
    rig.talker.expect_results(1)


def test_changes_in_quick_succession_end_with_the_last(rig):
    rig = rig({"cameras": "left,right"})
    rig.add("back")
    requests = ["left,right,back", "left", "back,right", "left,back"] * 3
    for cameras in requests:
        (answer,) = rig.talker.set(cameras=cameras)
        assert answer.successful, answer.reason
    rig.wait(lambda: rig.is_subscribed("left", "back") and not rig.is_subscribed("right"))
    for camera in ("left", "back"):
        rig.send(camera, 1)
        rig.wait(lambda camera=camera: rig.results[camera])
    rig.statuses.clear()
    rig.wait(lambda: {"left stream", "back stream"} <= rig.statuses.keys())
    assert "right stream" not in rig.statuses
    for camera in ("left", "back"):
        assert values(rig.statuses[f"{camera} stream"])["frames dropped"] == "0"


def test_a_change_that_fails_leaves_the_cameras_as_they_were(rig, tmp_path):
    rig = rig({"cameras": "left,right"})
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    node = rig.talker
    request = [
        Parameter("cameras", value="left").to_parameter_msg(),
        Parameter("model_path", value=str(broken)).to_parameter_msg(),
    ]
    from rcl_interfaces.srv import SetParametersAtomically

    node.call(SetParametersAtomically, "set_parameters_atomically", parameters=request)
    rig.wait(lambda: node.get("cameras") == "left,right" and rig.is_subscribed(*CAMERAS))
    for camera in CAMERAS:
        rig.send(camera, 3)
        rig.wait(lambda camera=camera: rig.results[camera])


@pytest.mark.parametrize(
    ("cameras", "words"),
    [("le ft", "no name of a camera"), ("a,a", "comes twice"), ("1", "no name of a camera"),
     ("a__b", "no name of a camera"), (",".join(f"c{n}" for n in range(17)), "more than 16")],
)  # fmt: skip
def test_wrong_names_are_refused_in_words(rig, cameras, words):
    rig = rig({"cameras": "left,right"})
    (answer,) = rig.talker.set(cameras=cameras)
    assert not answer.successful
    assert words in answer.reason
    rig.send("left", 0)
    rig.wait(lambda: rig.results["left"])


def test_each_camera_has_its_own_transport(rig):
    rig = rig({"cameras": "left,right", "right.transport": "compressed"}, cameras=("left",))
    rig.add("right", CompressedImage)
    rig.wait(lambda: rig.is_subscribed(*CAMERAS))
    _, jpeg = cv2.imencode(".jpg", np.full((64, 64, 3), 99, np.uint8))
    rig.publishers["right"].publish(CompressedImage(format="jpeg", data=jpeg.tobytes()))
    rig.send("left", 0)
    rig.wait(lambda: all(rig.results.values()))


def test_no_camera_starves_beside_a_fast_one(rig):
    """With `latest`, the fast camera's images are dropped, and most of the slow one's are not."""
    rig = rig({"cameras": "left,right", "queue_policy": "latest", "qos_reliability": "reliable"})
    end, number = time.monotonic() + 2.0, 0
    while time.monotonic() < end:
        number += 1
        rig.send("left", number)
        if number % 10 == 0:
            rig.send("right", number)
        rig.talker.spin_until(lambda: False, 0.001)
    sent = number // 10
    # On a busy machine two of its images may meet; starved, it would get next to none.
    rig.wait(lambda: len(rig.results["right"]) >= 0.5 * sent)
    assert rig.results["left"]
