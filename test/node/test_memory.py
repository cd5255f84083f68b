"""What malloc does with an image's memory, and Fast DDS with its way between processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.qos import ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Image
from talker import SOON
from tiny_models import projection

from efv2_ros.node import conversions, fastdds
from efv2_ros.node.fastdds import annotated_profile, image_profile
from efv2_ros.node.malloc import OFF_VARIABLE
from efv2_ros.vision.frame import Frame, Header

FAULTS = """
import resource, sys
from efv2_ros.node import malloc
for name in sys.argv[1:]:
    print(getattr(malloc, name)(), file=sys.stderr)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def use(size):
    one, two = bytes(size) + b"1", bytes(size) + b"2"  # as two images in work
use(6_000_000)
before = faults()
for _ in range(20):
    use(6_000_000)
print(faults() - before)
"""


def page_faults(*functions, **variables):
    """Page faults of 40 images of 6 MB, and what the functions called before said."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, *functions],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout), done.stderr


def test_the_next_image_has_no_page_faults():
    stock, _ = page_faults()
    assert stock > 10_000  # 6 MB are 1,465 pages
    kept, said = page_faults("keep_memory")
    assert kept < 100
    assert "keeps up to 262144 KiB" in said


def test_memory_is_returned_again():
    returned, said = page_faults("keep_memory", "return_memory")
    assert returned > 10_000
    assert "keeps up to 128 KiB" in said


@pytest.mark.parametrize(
    "variable",
    [
        (OFF_VARIABLE, "0"),
        ("MALLOC_TRIM_THRESHOLD_", "131072"),
        ("GLIBC_TUNABLES", "glibc.malloc.check=0"),
    ],
)
def test_the_users_own_settings_are_left_alone(variable):
    faults, said = page_faults("keep_memory", **dict([variable]))
    assert faults > 10_000
    assert "malloc is left as it is" in said
    assert variable[0] in said


def test_a_setting_of_something_else_does_not_count():
    faults, _ = page_faults("keep_memory", GLIBC_TUNABLES="glibc.rtld.nns=4")
    assert faults < 100


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("parameters", "environment", "said"),
    [
        ({}, {}, "malloc keeps up to 262144 KiB"),
        ({"keep_memory": False}, {}, "malloc keeps up to 128 KiB"),
        ({}, {OFF_VARIABLE: "0"}, "malloc is left as it is"),
    ],
)
def test_the_node_says_so_at_debug(start, tmp_path, parameters, environment, said):
    model = str(projection(tmp_path / "model.onnx"))
    process, _ = start(
        {"model_path": model, **parameters}, environment=environment, log_level="debug"
    )
    assert process.stop().count(said) == 1


# The middleware


@pytest.mark.e2e
def test_a_session_takes_shared_memory_only_where_it_publishes_images(tmp_path):
    """As in the demo and the benchmark: the listener publishes them, the classifier does not."""
    model = str(projection(tmp_path / "model.onnx"))
    program = (
        "import os, sys\n"
        "from efv2_ros.client.listener import running_classifier\n"
        "with running_classifier('profile', {'model_path': sys.argv[1]}) as (process, listener):\n"
        "    assert listener.wait_for_classifier()\n"
        "    print(*(name for name in os.environ if name.endswith('_PROFILES_FILE')))\n"
        "    print(open(f'/proc/{process.pid}/environ').read().count('fastdds_'))\n"
        "    for pid in (os.getpid(), process.pid):\n"
        "        status = open(f'/proc/{pid}/status').read()\n"
        "        print(status.partition('RssShmem:')[2].split()[0])\n"
    )
    environment = {k: v for k, v in os.environ.items() if k not in fastdds.VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", program, model],
        env=environment, capture_output=True, text=True, check=True, timeout=SOON * 2,
    )  # fmt: skip
    name, count, *shared_kb = done.stdout.split()
    assert name in fastdds.VARIABLES
    assert count == "0"
    listener_kb, classifier_kb = map(int, shared_kb)
    assert listener_kb > 60_000
    assert classifier_kb < 20_000


def test_the_profile_is_used_unless_there_is_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    added = image_profile({})
    assert "segment_size" in Path(added["FASTDDS_DEFAULT_PROFILES_FILE"]).read_text()
    for distro in ("humble", "jazzy"):
        assert image_profile({"ROS_DISTRO": distro}) == {
            "FASTRTPS_DEFAULT_PROFILES_FILE": added["FASTDDS_DEFAULT_PROFILES_FILE"]
        }
    assert image_profile({"ROS_DISTRO": "kilted"}) == added
    for variable in fastdds.VARIABLES:
        assert image_profile({variable: "/my/own.xml"}) == {}
        assert image_profile({variable: ""}) == added
    (tmp_path / "DEFAULT_FASTDDS_PROFILES.xml").touch()
    assert image_profile({}) == {}


@pytest.mark.e2e
def test_large_annotated_images_arrive(start, tmp_path):
    """With stock Fast DDS next to none do."""
    model = str(projection(tmp_path / "model.onnx"))
    variables = annotated_profile(os.environ)
    assert "fastdds_annotated.xml" in "".join(variables.values())
    process, talker = start(
        {"model_path": model, "qos_reliability": "reliable"}, environment=variables
    )
    annotated = []
    topic = f"{process.name}/image_annotated"
    talker.node.create_subscription(Image, topic, annotated.append, qos_profile_sensor_data)
    image = conversions.image_message(
        Frame(Header(), "nv12", np.zeros(1920 * 1080 * 3 // 2, np.uint8), 1080, 1920, 1920)
    )
    talker.spin_for(1.0)  # until the classifier has discovered the subscription
    for number in range(20):
        talker.images.publish(image)
        talker.expect_results(number + 1)
        talker.spin_for(0.1)
    assert talker.spin_until(lambda: len(annotated) >= 19, SOON), len(annotated)
    assert {(each.width, each.height) for each in annotated} == {(1920, 1080)}
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert int(status.partition("RssShmem:")[2].split()[0]) < 50_000


@pytest.mark.e2e
def test_large_images_arrive_best_effort(start, tmp_path, photos):
    """With stock Fast DDS in the publisher next to none do; the subscriber's does not matter."""
    model = str(projection(tmp_path / "model.onnx"))
    environment = {**os.environ, **image_profile(os.environ)}
    process, talker = start({"model_path": model}, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = [sys.executable, "-m", "efv2_ros.node.image_publisher", "--ros-args"]
    parameters = {
        "path": photos[0].parent, "width": 1920, "height": 1080, "rate": 10.0, "loop": False,
        "reliability": "best_effort", "wait_for_subscribers": 1,
    }  # fmt: skip
    for name, value in parameters.items():
        shown = str(value).lower() if isinstance(value, bool) else value
        publisher += ["-p", f"{name}:={shown}"]
    publisher += ["-r", f"__ns:={talker.node.get_namespace()}"]
    done = subprocess.run(
        publisher, env=environment, timeout=SOON, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert talker.spin_until(lambda: len(talker.results) >= len(photos) - 1, SOON), process.stop()
