"""The node on a simulated BPU, in the real toolchain."""

import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("onnx")

from compiled_models import compiled, small_cnn
from diagnostic_msgs.msg import DiagnosticStatus
from talker import SOON

from efv2_ros.runtimes.base import ImageInput, open_runtime
from efv2_ros.vision.frame import Frame, Header

pytestmark = [pytest.mark.e2e, pytest.mark.toolchain]

CATALOG = """
models:
  small:
    input: {height: 64, width: 96}
    classes: 10
    mean: [0, 0, 0]
    scale: [1, 1, 1]
    nv12_range: full
    files: {bin: model.bin}
"""


@pytest.fixture
def model(toolchain, tmp_path):
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    return compiled(tmp_path, small_cnn(tmp_path / "model.onnx", 64, 96), 64, 96)


def children(process):
    command = ["pgrep", "-P", str(process)]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    return [int(each) for each in listed.stdout.split()]


def test_results_and_a_simulator_that_dies(start, model, tmp_path):
    random = np.random.RandomState(0)
    images = [random.randint(0, 256, (96, 96), np.uint8) for _ in range(4)]
    runtime = open_runtime(model, ImageInput(64, 96), "simulator")
    expected = [int(runtime.infer(image).argmax()) for image in images]
    runtime.close()
    process, talker = start(
        {
            "runtime": "simulator", "model_path": str(model), "model_size": "small",
            "catalog_file": str(tmp_path / "catalog.yaml"), "fit": "stretch", "top_k": 1,
            "queue_policy": "all",
        },
        depth=100,
    )  # fmt: skip

    def publish(image):
        talker.publish(Frame(Header(), "nv12", image.reshape(-1), 64, 96, 96))

    for count, image in enumerate(images, start=1):
        publish(image)
        talker.expect_results(count)
    assert [int(each.results[0].class_id) for each in talker.results] == expected
    report, values = talker.fresh_model()
    assert report.level == DiagnosticStatus.OK
    assert values["runtime"] == "simulator dg_nn_toolkit 1.0.0"
    assert values["device"] == "simulated BPU"

    simulators = children(process.pid)
    assert simulators
    for each in simulators:
        os.kill(each, signal.SIGKILL)

    def all_replaced():
        publish(images[0])
        talker.spin_for(0.2)
        return len(talker.results) > 8

    assert talker.spin_until(all_replaced, SOON)
    _, values = talker.fresh_stream()
    assert int(values["dropped: infer"]) >= 1
    assert talker.state() == "active"
    simulators = children(process.pid)
    log = process.stop()
    assert "ended by SIGKILL" in log
    assert process.returncode == 0
    assert not any(Path(f"/proc/{each}").exists() for each in simulators)
