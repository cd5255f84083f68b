"""The command that runs the whole node for people to see, as people run it."""

import re
import subprocess
import sys

import pytest
from tiny_models import projection

pytest.importorskip("rclpy")

pytestmark = pytest.mark.e2e


def efv2(*arguments):
    command = [sys.executable, "-m", "efv2_ros.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_demo_shows_every_result_and_the_latencies(photos):
    done = efv2("demo", "--offline", "--frames", 4, "--rate", 50)
    assert done.returncode == 0, done.stderr
    shown = done.stdout
    assert [shown.count(photo.name) for photo in photos] == [2, 1, 1]
    assert len(re.findall(r"\d\.\d% ", shown)) == 4 * 5
    for stage in ("wait", "convert", "infer", "postprocess", "publish", "end to end"):
        assert re.search(rf"{stage} +│ +\d+\.\d\d", shown)
    assert "4 images received, 4 classified, 0 dropped" in shown
    assert shown.count("(untrained)") >= 4 * 5
    assert "The network is untrained" in shown


def test_the_demo_of_a_model_says_nothing_of_untrained(tmp_path):
    done = efv2("demo", "--model", projection(tmp_path / "m.onnx"), "--frames", 2)
    assert done.returncode == 0, done.stderr
    assert "untrained" not in done.stdout


def test_the_demo_of_a_model_that_is_not_there_fails_with_the_reason(tmp_path):
    done = efv2("demo", "--model", tmp_path / "absent.onnx")
    assert done.returncode == 1
    assert "absent.onnx" in done.stderr
    assert "Traceback" not in done.stderr
