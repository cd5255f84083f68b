"""The image publisher: what a subscriber gets over real DDS."""

import itertools
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

import rclpy
from pictures import picture, write_video
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image

from efv2_ros.errors import Efv2Error
from efv2_ros.node.image_publisher import ImagePublisher
from efv2_ros.pictures.encode import ENCODERS, resized
from efv2_ros.vision.frame import FrameError

numbers = itertools.count()

SOON = 30.0  # seconds: only reached when something is broken


class Listener:
    """Hears one publisher's images."""

    def __init__(self, node, namespace, message_type=Image, qos=None):
        self.images = []
        self.node = node
        self.subscription = node.create_subscription(
            message_type, f"{namespace}/image", self.images.append, qos or QoSProfile(depth=100)
        )

    def wait(self, count, spin=None):
        end = time.monotonic() + SOON
        while len(self.images) < count and time.monotonic() < end:
            rclpy.spin_once(self.node, timeout_sec=0.02)
            if spin:
                rclpy.spin_once(spin, timeout_sec=0.02)
        return self.images


class Publisher(Listener):
    """The node as a process."""

    def __init__(self, node, path, qos=None, **parameters):
        namespace = f"/publisher_{next(numbers)}"
        super().__init__(node, namespace, qos=qos)
        self.process = subprocess.Popen(
            [*command(path=path, rate=50.0, **parameters), "-r", f"__ns:={namespace}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self):
        """Its exit status and what it printed."""
        output, _ = self.process.communicate(timeout=SOON)
        self.node.destroy_subscription(self.subscription)
        return self.process.returncode, output


def command(**parameters):
    arguments = [sys.executable, "-m", "efv2_ros.node.image_publisher", "--ros-args"]
    for name, value in parameters.items():
        shown = str(value).lower() if isinstance(value, bool) else value
        arguments += ["-p", f"{name}:={shown}"]
    return arguments


def overrides(**parameters):
    return [Parameter(name, value=value) for name, value in parameters.items()]


@pytest.fixture
def node(ros):
    node = ros.create_node("image_listener")
    yield node
    node.destroy_node()


@pytest.fixture
def publish(node):
    """The node in this process: `publish(count, ...)` gives the first images it publishes."""
    made = []

    def publish(count, message_type=Image, **parameters):
        namespace = f"/publisher_{next(numbers)}"
        made.append(
            ImagePublisher(
                namespace=namespace,
                parameter_overrides=overrides(wait_for_subscribers=1, rate=100.0, **parameters),
            )
        )
        return Listener(node, namespace, message_type).wait(count, made[-1])

    yield publish
    for each in made:
        each.destroy_node()


@pytest.fixture
def folder(tmp_path):
    """Three pictures without loss, a file that is none and one that only pretends to be."""
    for number in (2, 0, 1):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(number))
    (tmp_path / "1b.jpg").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


@pytest.mark.distros
@pytest.mark.e2e
def test_every_photo_arrives_once_and_in_order(node, folder):
    publisher = Publisher(node, folder, loop=False, wait_for_subscribers=1, frame_id="front")
    images = publisher.wait(3)
    status, output = publisher.end()
    assert status == 0, output
    assert len(images) == 3
    for number, image in enumerate(images):
        assert (image.width, image.height, image.step, image.encoding) == (36, 22, 108, "bgr8")
        assert bytes(image.data) == picture(number).tobytes()
        assert image.header.frame_id == "front"
    stamps = [image.header.stamp.sec * 10**9 + image.header.stamp.nanosec for image in images]
    assert 0 < stamps[0] < stamps[1] < stamps[2]
    assert output.count("1b.jpg") == 1
    assert "notes.txt" not in output


@pytest.mark.distros
@pytest.mark.e2e
def test_it_loops_until_interrupted_and_warns_once(node, folder):
    publisher = Publisher(node, folder, qos=qos_profile_sensor_data)
    assert len(publisher.wait(10)) >= 10
    publisher.process.send_signal(signal.SIGINT)
    status, output = publisher.end()
    assert status == 0, output
    assert output.count("1b.jpg") == 1


@pytest.mark.parametrize("encoding", ENCODERS)
def test_every_encoding_reaches_the_subscriber(publish, folder, encoding):
    image = publish(1, path=str(folder), encoding=encoding, width=20, height=10)[0]
    expected = ENCODERS[encoding](resized(picture(0), 20, 10))
    assert (image.width, image.height, image.encoding) == (20, 10, encoding)
    assert image.step == expected[0].nbytes
    assert bytes(image.data) == expected.tobytes()


def test_jpeg_files_go_out_as_they_are_and_others_are_compressed(publish, folder):
    (folder / "1b.jpg").write_bytes(cv2.imencode(".jpg", picture(9))[1].tobytes())
    images = publish(4, CompressedImage, path=str(folder), encoding="jpeg")
    assert [image.format for image in images[:4]] == ["jpeg"] * 4
    assert bytes(images[2].data) == (folder / "1b.jpg").read_bytes()
    pixels = cv2.imdecode(np.frombuffer(images[0].data, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == picture(0).shape


def test_a_videos_frames_arrive_in_order_again_and_again(publish, tmp_path):
    path = str(write_video(tmp_path / "video.avi"))
    images = publish(6, path=path)[:6]
    shades = [np.frombuffer(image.data, np.uint8).mean() for image in images]
    assert np.allclose(shades, [40, 120, 200] * 2, atol=3)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"path": ""}, "path names"),
        ({"path": "/nowhere"}, "no file /nowhere"),
        ({"path": __file__}, "neither a photo nor a video"),
        ({"encoding": "bgr16"}, "encoding is one of"),
        ({"reliability": "perhaps"}, "reliability is one of"),
        ({"path": "~nouser/photos"}, "nouser"),
        ({"rate": -1.0}, "rate is not negative"),
        ({"rate": 1e-320}, "rate is 0, or lies in"),
        ({"rate": 1e300}, "rate is 0, or lies in"),
        ({"height": -1}, "height is not negative"),
    ],
)
def test_what_cannot_work_is_refused(ros, folder, parameters, words):
    with pytest.raises((Efv2Error, FrameError), match=words):
        ImagePublisher(parameter_overrides=overrides(**{"path": str(folder), **parameters}))


@pytest.mark.distros
@pytest.mark.e2e
@pytest.mark.parametrize("files", [{}, {"only.jpg": b"no picture"}])
def test_a_folder_without_a_readable_photo_ends_it_with_one_sentence(tmp_path, files):
    for name, contents in files.items():
        (tmp_path / name).write_bytes(contents)
    result = subprocess.run(
        command(path=tmp_path), capture_output=True, text=True, timeout=SOON, check=False
    )
    assert result.returncode == 1
    *warnings, sentence = result.stderr.strip().splitlines()
    assert str(tmp_path) in sentence
    assert len(warnings) == len(files), result.stderr
