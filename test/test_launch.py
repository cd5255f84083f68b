"""`ros2 launch efv2_ros classify.launch.py`, from the installed package; needs ROS launch."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("launch_ros")
pytest.importorskip("ros2launch")

from bag_maker import PERIOD, image, stamps, write
from installed import build
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import Parameter
from ros2_stand_in import ros2_on_path
from tiny_models import projection

from efv2_ros import launching
from efv2_ros.bags.bag import Bag
from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import ModelRequest, ViewOptions
from efv2_ros.client.listener import Listener
from efv2_ros.node.fastdds import VARIABLES
from efv2_ros.node.options import PARAMETERS
from efv2_ros.replay import offline
from efv2_ros.replay.results import read_run

SOON = 60.0  # seconds: only reached when something is broken
LAUNCH = ["ros2", "launch", "efv2_ros", "classify.launch.py"]
REPLAY = ["ros2", "launch", "efv2_ros", "replay.launch.py"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    _, environment = build(tmp_path_factory.mktemp("colcon"))
    return environment


@pytest.fixture
def environment(built, tmp_path):
    """The sourced package, with the variables that belong to this test."""
    mine = {name: os.environ[name] for name in ("ROS_DOMAIN_ID", "XDG_CACHE_HOME")}
    return {**built, **mine, "ROS_LOG_DIR": str(tmp_path / "log"), "PYTHONUNBUFFERED": "1"}


class Launch:
    """A launch that runs until the block ends."""

    def __init__(self, environment, *arguments, file=LAUNCH):
        self.command = [*file, *arguments]
        self.environment = environment
        self.output = Path(environment["ROS_LOG_DIR"]).with_name("launch.txt")

    def __enter__(self):
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        return self

    def __exit__(self, *exception):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(SOON)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)

    def wait_for(self, pattern):
        """The match of `pattern` in what was printed so far."""
        end = time.monotonic() + SOON
        while time.monotonic() < end:
            match = re.search(pattern, self.output.read_text())
            if match:
                return match
            time.sleep(0.05)
        raise AssertionError(f"no {pattern} in\n{self.output.read_text()}")


def profiles_of_nodes(launch):
    """What names Fast DDS's profile in the processes of the classifier and of its camera."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text()
            if os.getsid(int(process.name)) == launch.process.pid and "--ros-args" in command:
                lines = (process / "environ").read_text().split("\0")
                found.append({line for line in lines if "_DEFAULT_PROFILES_FILE" in line})
        except OSError:
            continue  # it is gone
    return found


def parameters_of(listener, node_name, names):
    client = listener.node.create_client(GetParameters, f"{node_name}/get_parameters")
    assert listener.spin_until(client.service_is_ready, SOON)
    future = client.call_async(GetParameters.Request(names=names))
    assert listener.spin_until(future.done, SOON)
    return {
        name: Parameter.from_parameter_msg(ParameterMessage(name=name, value=value)).value
        for name, value in zip(names, future.result().values, strict=True)
    }


@pytest.mark.parametrize(
    ("file", "others", "defaults"),
    [
        (LAUNCH, {"image_topic", "camera", "path", "namespace", "params_file", "respawn"}, {}),
        (
            REPLAY, {"out", "rate", "player", "namespace", "node_name", "params_file"},
            {"queue_policy": "all", "diagnostics_period": 0.2},
        ),
    ],
)  # fmt: skip
def test_arguments_read_like_help(environment, file, others, defaults):
    result = subprocess.run(
        [*file, "-s"], env=environment, capture_output=True, text=True, timeout=SOON, check=True
    )
    shown = dict(re.findall(r"(?ms)^    '(\w+)':\n(.*?\(default: .*?\))$", result.stdout))
    assert others < set(shown)
    for name, option in PARAMETERS.items():
        default = defaults.get(name, option.default)
        default = str(default).lower() if isinstance(default, bool) else default
        assert option.description in shown[name]
        assert option.range in shown[name]
        assert shown[name].endswith(f"(default: '{default}')")
        assert all(f"'{choice}'" in shown[name] for choice in option.choices)


@pytest.mark.parametrize(
    ("text", "value"),
    [(text, True) for text in ("true", "True", "TRUE", "yes", "on", "y", "1")]
    + [(text, False) for text in ("false", "False", "no", "OFF", "N", "0")],
)
def test_yes_and_no_are_read_as_ros_reads_them(text, value):
    assert launching.typed("antialias", text, bool) is value


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("maybe", bool), ("2", bool), ("", bool), ("1.5", int), ("true", int), ("[", int),
        ("9" * 5000, int), ("9" * 400, float), ("[" * 5000, float), ("a: &a [*a]", float),
    ],
)  # fmt: skip
def test_what_is_of_another_type_is_refused_in_a_short_sentence(text, kind):
    with pytest.raises(RuntimeError, match=f"x is of type {kind.__name__}, ") as caught:
        launching.typed("x", text, kind)
    assert len(str(caught.value)) < 150


# The second key is as specific as can be, and still the command line comes first.
PARAMETERS_FILE = """
/**:
  ros__parameters:
    stale_after: 9.0
    qos_reliability: best_effort
/front/eye:
  ros__parameters:
    top_k: 2
    fit: letterbox
"""


@pytest.mark.e2e
def test_photos_are_classified_with_the_parameters_given(ros, environment, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(2):
        image = np.random.default_rng(number).integers(0, 256, (120, 160, 3), np.uint8)
        cv2.imwrite(str(photos / f"{number}.jpg"), image)
    (tmp_path / "front.yaml").write_text(PARAMETERS_FILE)
    listener = Listener(ros.create_node("launch_listener", namespace="/front"), "/front/eye")
    arguments = [
        "camera:=images", f"path:={photos}", "encoding:=jpeg", "rate:=20", "namespace:=front",
        "node_name:=eye", f"params_file:={tmp_path / 'front.yaml'}", "allow_untrained:=true",
        "top_k:=4", "score_threshold:=0", "model_size:=s0", "image_topic:=lens/image",
    ]  # fmt: skip
    try:
        with Launch(environment, *arguments) as launch:
            assert listener.spin_until(lambda: len(listener.results) >= 3, SOON), (
                launch.output.read_text()
            )
            values = parameters_of(
                listener, "/front/eye",
                ["top_k", "fit", "stale_after", "score_threshold", "transport", "roi",
                 "qos_reliability"],
            )  # fmt: skip
            topics = dict(listener.node.get_topic_names_and_types())
            profiles = profiles_of_nodes(launch)
    finally:
        listener.close()
    share = Path(environment["COLCON_CURRENT_PREFIX"], "efv2_ros", "share", "efv2_ros")
    name = VARIABLES[os.environ["ROS_DISTRO"] in ("humble", "jazzy")]
    files = ("fastdds_annotated.xml", "fastdds_images.xml")  # the classifier's, the camera's
    assert sorted(profiles, key=str) == [{f"{name}={share / 'config' / file}"} for file in files]
    assert values == {
        "top_k": 4,
        "fit": "letterbox",
        "stale_after": 9.0,
        "score_threshold": 0.0,
        "transport": "compressed",
        "roi": "",
        "qos_reliability": "best_effort",
    }
    assert len(listener.results[-1].results) == 4
    assert listener.results[-1].header.frame_id == "camera"
    assert topics["/front/lens/image"] == ["sensor_msgs/msg/CompressedImage"]
    assert launch.process.returncode == 0
    assert "process has died" not in launch.output.read_text()


@pytest.mark.e2e
def test_the_page_is_started_beside_the_classifier(environment):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ["web:=true", f"web_port:={port}", "namespace:=front", "node_name:=eye"]
    with Launch(environment, *arguments, "allow_download:=false") as launch:
        launch.wait_for(f"the page is at http://127.0.0.1:{port}/")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=SOON) as page:
            assert b"efv2_ros" in page.read()
        commands = [each.read_bytes() for each in Path("/proc").glob("[0-9]*/cmdline")]
        assert [each for each in commands if b"\0--classifier\0/front/eye\0" in each]
    assert "Traceback" not in launch.output.read_text()


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["top_k:=0"], "top_k must be 1 to 1000, not '0'"),
        (["top_k:=many"], "top_k is of type int, 'many' is not"),
        (["use_sim_time:=maybe"], "use_sim_time is of type bool, 'maybe' is not"),
        (["respawn:=maybe"], "respawn is of type bool, 'maybe' is not"),
        (["antialias:=maybe"], "antialias is of type bool, 'maybe' is not"),
        (["score_threshold:=.nan"], "score_threshold must be 0 to 1, not 'nan'"),
        (["scale:=0,0,0"], "scale: '0,0,0' has a factor of zero"),
        (["top_k:=["], "top_k is of type int, '[' is not"),
        (["fit:=zoom"], '"fit" provided value "zoom" is not valid'),
        (["params_file:=/nowhere.yaml"], "there is no params_file /nowhere.yaml"),
        (["camera:=video"], "camera:=video needs path:="),
        (["camera:=video", "path:=/a.avi", "transport:=compressed"], "leave transport out"),
        (["cameras:=a,a"], "'a' comes twice"),
        (["cameras:=a,b", "image_topic:=/image"], "is the topic of one camera"),
        (["cameras:=a,b", "camera:=images"], "start those of cameras by themselves"),
        (["camera:=usb"], "needs one of hobot_usb_cam, usb_cam, v4l2_camera"),
        (["camera:=mipi"], "needs the package mipi_cam"),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(environment, arguments, words):
    result = subprocess.run(
        [*LAUNCH, *arguments], env=environment, capture_output=True, text=True, timeout=SOON,
        check=False,
    )  # fmt: skip
    output = result.stdout + result.stderr
    assert result.returncode == 1
    assert words in output
    assert "process started" not in output
    assert "Traceback" not in output


CAMERA = """#!{python}
import sys
from pathlib import Path
files = [Path(b).read_text() for a, b in zip(sys.argv, sys.argv[1:]) if a == "--params-file"]
print("CAMERA", sys.argv[1:], *files, "END", flush=True)
"""

MIPI_LAUNCH = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

NAMES = ("mipi_io_method", "mipi_out_format", "mipi_frame_ts_type", "mipi_channel")

def generate_launch_description():
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value="theirs") for name in NAMES),
        Node(
            package="mipi_cam", executable="mipi_cam", output="screen",
            parameters=[{name: LaunchConfiguration(name) for name in NAMES}],
        ),
    ])
"""


def install_camera(prefix, package, executable):
    """A package that stands in for a camera's, whose node needs a camera: it says how it runs."""
    marker = prefix / "share/ament_index/resource_index/packages" / package
    program = prefix / "lib" / package / executable
    for file, text in ((marker, ""), (program, CAMERA.format(python=sys.executable))):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    if package == "mipi_cam":
        folder = prefix / "share" / package / "launch"
        folder.mkdir(parents=True)
        (folder / "mipi_cam.launch.py").write_text(MIPI_LAUNCH)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("camera", "package", "executable", "remapping", "settings", "transport"),
    [
        (
            "usb", "hobot_usb_cam", "hobot_usb_cam", "image:=lens",
            {"video_device": "/dev/video7", "pixel_format": "mjpeg"}, "compressed",
        ),
        (
            "usb", "usb_cam", "usb_cam_node_exec", "image_raw:=lens",
            {"video_device": "/dev/video7"}, "raw",
        ),
        (
            "usb", "v4l2_camera", "v4l2_camera_node", "image_raw:=lens",
            {"video_device": "/dev/video7"}, "raw",
        ),
        (
            "mipi", "mipi_cam", "mipi_cam", "image_raw:=lens",
            {"mipi_io_method": "ros", "mipi_out_format": "nv12", "mipi_channel": "'0'"}, "raw",
        ),
    ],
)  # fmt: skip
def test_cameras_publish_what_the_classifier_subscribes_to(
    ros, environment, tmp_path, camera, package, executable, remapping, settings, transport
):
    install_camera(tmp_path, package, executable)
    environment["AMENT_PREFIX_PATH"] += f":{tmp_path}"
    listener = Listener(ros.create_node("launch_listener"), "/front/efv2_classifier")
    arguments = [
        f"camera:={camera}", "namespace:=/front", "image_topic:=lens", "autostart:=false",
        "video_device:=/dev/video7", "mipi_channel:='0'",
    ]  # fmt: skip
    try:
        with Launch(environment, *arguments) as launch:
            said = launch.wait_for(r"(?s)CAMERA (.*)END")[1]
            values = parameters_of(
                listener, "/front/efv2_classifier", ["transport", "qos_reliability"]
            )
    finally:
        listener.close()
    assert f"'{remapping}'" in said
    assert "'__ns:=/front'" in said
    for name, value in settings.items():
        assert re.search(rf"{name}: '?{value}'?$", said, re.MULTILINE), said
    assert values == {"transport": transport, "qos_reliability": "reliable"}


@pytest.mark.e2e
@pytest.mark.parametrize("yes", ["True", "yes", "1"])
def test_the_arguments_for_bool_take_all_words_for_yes(ros, environment, tmp_path, yes):
    listener = Listener(ros.create_node("launch_listener"), "/front/efv2_classifier")
    arguments = [
        "namespace:=front", "autostart:=no", f"use_sim_time:={yes}", f"respawn:={yes}",
        f"allow_untrained:={yes}", "antialias:=Off",
    ]  # fmt: skip
    try:
        with Launch(environment, *arguments):
            names = ["use_sim_time", "autostart", "allow_untrained", "antialias"]
            values = parameters_of(listener, "/front/efv2_classifier", names)
    finally:
        listener.close()
    assert list(values.values()) == [True, False, True, False]


def images(count, topic="/lens/image"):
    """Messages of a bag, each recorded some time after its stamp."""
    return [
        (topic, stamp + 2 * PERIOD, image(number, stamp))
        for number, stamp in enumerate(stamps(count))
    ]


def replayed(environment, *arguments, folder=None):
    """Replay to the end, in a folder; the exit status and the output."""
    result = subprocess.run(
        [*REPLAY, *map(str, arguments)], env=environment, capture_output=True, text=True,
        timeout=SOON, check=False, cwd=folder,
    )  # fmt: skip
    return result.returncode, result.stdout + result.stderr


@pytest.mark.e2e
@pytest.mark.parametrize("player", ["efv2", "ros2"])
def test_a_bag_is_replayed_and_all_ends(environment, tmp_path, player):
    messages = images(40)
    messages[10] = (*messages[10][:2], image(10, stamps(11)[-1], encoding="bayer_grbg99"))
    bag = write(tmp_path / "bag", messages)
    model = projection(tmp_path / "model.onnx")
    (tmp_path / "eye.yaml").write_text("/**:\n  ros__parameters:\n    top_k: 3\n")
    if player == "ros2":  # taken where it is installed
        install_camera(tmp_path, "ros2bag", "ros2bag")
        environment["AMENT_PREFIX_PATH"] += f":{tmp_path}"
        environment |= ros2_on_path(tmp_path / "bin", path=environment["PATH"])
    status, output = replayed(
        environment, f"bag:={bag}", f"out:={tmp_path / 'out'}", f"model_path:={model}",
        "namespace:=front", "node_name:=eye", f"params_file:={tmp_path / 'eye.yaml'}",
        "score_threshold:=0",
    )  # fmt: skip
    assert status == 0, output
    assert output.count(" messages in ") == {"efv2": 1, "ros2": 2}[player]  # both players tell
    assert "/front/eye: 39 classified, 1 dropped (1 encoding)" in output
    assert "process has died" not in output
    run = read_run(tmp_path / "out")
    loaded = load_model(ModelRequest(model_path=str(model)), pipelined=True)
    with Bag(bag) as opened:
        options = ViewOptions(top_k=3)
        expected = offline.replay(opened, opened.image_topic(), Classifier(loaded, options))
    loaded.close()
    classified = [frame for frame in expected.frames if not frame.dropped]
    assert [(frame.header, frame.prediction) for frame in run.frames] == [
        (frame.header, frame.prediction) for frame in classified
    ]
    assert run.lost == {"encoding": 1}
    assert run.info["view"] == expected.info["view"]
    ends = [frame.milliseconds["end_to_end"] for frame in run.frames]  # by the bag's time
    assert PERIOD / 1e6 <= min(ends) <= max(ends) < 60_000


@pytest.mark.e2e
def test_results_are_recorded_even_where_nobody_says_where(environment, tmp_path):
    bag = write(tmp_path / "bag", images(5))
    projection(tmp_path / "model.onnx")
    status, output = replayed(
        environment, "bag:=bag", "model_path:=model.onnx", "player:=efv2", folder=bag.parent
    )
    assert status == 0, output
    (out,) = tmp_path.glob("efv2_results_*")
    assert len(read_run(out).frames) == 5


@pytest.mark.e2e
def test_a_replay_that_fails_fails_the_launch(environment, tmp_path):
    bag = write(tmp_path / "bag", images(2))
    status, output = replayed(environment, f"bag:={bag}", "model_path:=/nowhere.onnx")
    assert status == 1
    assert "/efv2_classifier cannot classify: model_path /nowhere.onnx is no file" in output
    assert "the replay failed with exit status 1" in output
    (tmp_path / "eye.yaml").write_text("/**:\n  ros__parameters:\n    top_k: many\n")
    status, output = replayed(environment, f"bag:={bag}", f"params_file:={tmp_path / 'eye.yaml'}")
    assert status == 1
    assert "the classifier ended with exit status 2" in output
    assert "Traceback" not in output


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bag:=/nowhere"], "there is no bag /nowhere"),
        (["bag:=BAG"], "topics of images in BAG: /left (sensor_msgs/msg/Image), /right (sensor_"),
        (["bag:=BAG", "topic:=/front"], "BAG has no topic /front; topics of images: /left"),
        (["bag:=BAG", "topic:=/left", "transport:=compressed"], "leave transport out"),
        (["bag:=BAG", "topic:=/left", "out:=BAG"], "cannot write BAG: it exists already"),
        (["bag:=BAG", "topic:=/left", "rate:=fast"], "rate is of type float, 'fast' is not"),
        (["bag:=BAG", "topic:=/left", "rate:=0"], "rate is positive and finite, 0 is not"),
        (["bag:=BAG", "topic:=/left", "rate:=.nan"], "rate is positive and finite, nan is not"),
        (["bag:=BAG", "topic:=/left", "rate:=.inf"], "rate is positive and finite, inf is not"),
        (["bag:=BAG", "topic:=/left", "player:=ros2"], "player:=ros2 needs `ros2 bag`: sudo apt"),
        (["bag:=BAG", "topic:=/left", "top_k:=0"], "top_k must be 1 to 1000, not '0'"),
    ],
)
def test_what_cannot_be_replayed_is_said_before_anything_starts(
    environment, tmp_path, arguments, words
):
    bag = str(write(tmp_path / "bag", [*images(1, "/left"), *images(1, "/right")]))
    status, output = replayed(environment, *(each.replace("BAG", bag) for each in arguments))
    assert status == 1
    assert words.replace("BAG", bag) in output
    assert "process started" not in output
    assert "Traceback" not in output
