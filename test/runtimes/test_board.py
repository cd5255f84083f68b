"""What is known of the board, and which runtime is taken where."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import standins
from tiny_models import projection

from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import ModelRequest
from efv2_ros.cli import doctor
from efv2_ros.cli.doctor import examine
from efv2_ros.runtimes import board
from efv2_ros.runtimes.base import (
    RUNTIMES,
    RuntimeKind,
    RuntimeUnavailableError,
    candidates,
    select_runtime,
)

BPU = "sys/devices/system/bpu/bpu0/ratio"
GOVERNOR = "sys/devices/system/cpu/cpufreq/policy{}/scaling_governor"
ZONE = "sys/class/thermal/thermal_zone{}/temp"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """`machine({file: content})` is what the file system says of this machine."""

    def machine(files):
        root = tmp_path / "root"
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        monkeypatch.setattr(board, "ROOT", root)

    machine({})
    return machine


def test_a_board_tells_its_load_clock_and_temperature(machine):
    machine(
        {
            BPU: "37\n",
            GOVERNOR.format(0): "performance\n",
            ZONE.format(0): "51234\n",
            ZONE.format(1): "58500\n",
            "proc/device-tree/model": "D-Robotics RDK X5 V1.0\0",
        }
    )
    assert board.state() == board.BoardState(37, "performance", 58.5)
    assert board.name() == "D-Robotics RDK X5 V1.0"


def test_what_a_board_does_not_tell_is_left_out(machine):
    machine({BPU: "no number", ZONE.format(0): ""})
    assert board.state() == board.BoardState(None, None, None)
    machine({GOVERNOR.format(0): "performance", GOVERNOR.format(4): "schedutil"})
    assert board.state().governor == "performance, schedutil"


def test_other_machines_have_governors_and_temperatures_too_and_are_no_boards(machine):
    machine({GOVERNOR.format(0): "powersave", ZONE.format(0): "90000"})
    assert board.state() is None


def status_of(machine, files):
    pytest.importorskip("rclpy")
    from efv2_ros.client.status import values
    from efv2_ros.node.diagnostics import BoardStatus

    machine(files)
    status = BoardStatus().run(0)
    return status.level, status.message, values(status)


def test_the_diagnostics_warn_of_a_cpu_that_is_not_in_performance_mode(machine):
    pytest.importorskip("rclpy")
    from diagnostic_msgs.msg import DiagnosticStatus

    level, message, values = status_of(
        machine, {BPU: "5", GOVERNOR.format(0): "schedutil", ZONE.format(0): "40000"}
    )
    assert level == DiagnosticStatus.WARN
    assert "schedutil" in message
    assert "echo performance" in message
    assert values == {
        "BPU load (%)": "5", "CPU governor": "schedutil", "SoC temperature (C)": "40.0",
    }  # fmt: skip
    level, _, values = status_of(machine, {GOVERNOR.format(0): "performance"})
    assert level == DiagnosticStatus.OK
    level, _, _ = status_of(machine, {GOVERNOR.format(0): ""})
    assert level == DiagnosticStatus.OK


@pytest.mark.e2e
@pytest.mark.parametrize("on_board", [True, False])
def test_the_node_reports_the_board_on_a_board_only(ros, machine, on_board):
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.executors import SingleThreadedExecutor

    from efv2_ros.node.classifier_node import ClassifierNode

    machine({BPU: "5", GOVERNOR.format(0): "schedutil"} if on_board else {})
    node = ClassifierNode(namespace=f"board_{os.getpid()}_{on_board}")
    listener = ros.create_node("listener")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    executor.add_node(listener)
    reported = {}

    def listen(message):
        reported.update(
            {each.name.partition(": ")[2]: each for each in message.status
             if each.name.startswith(node.get_fully_qualified_name()[1:])}
        )  # fmt: skip

    listener.create_subscription(DiagnosticArray, "/diagnostics", listen, 10)
    for _ in range(300):
        executor.spin_once(timeout_sec=0.1)
        if reported:
            break
    executor.shutdown()
    node.destroy_node()
    listener.destroy_node()
    assert set(reported) == {"stream", "model"} | ({"board"} if on_board else set())


def names(found):
    return [each.name for each in found if not each.problem]


def test_a_board_takes_the_bpu_and_never_falls_back_to_the_cpu(machine, bpu, monkeypatch):
    machine({BPU: "0"})
    assert list(RUNTIMES) == ["libdnn", "hbm", "hobot_dnn", "onnx", "simulator"]
    assert names(candidates())[:2] == ["libdnn", "hbm"]
    assert "onnx" not in names(candidates())
    assert select_runtime()[0] == "libdnn"

    def probe(self):
        raise RuntimeUnavailableError(f"{self.module} is out of order")

    monkeypatch.setattr(RuntimeKind, "probe", probe)
    with pytest.raises(RuntimeUnavailableError, match=r"libdnn\S* is out.*hbm is out.*has a BPU"):
        select_runtime()


def test_other_machines_take_onnx(machine):
    assert select_runtime()[0] == "onnx"
    found = {each.name: each.problem for each in candidates()}
    assert "RDK OS" in found["libdnn"]
    assert "not installed" in found["hbm"]
    assert "hobot-dnn-rdkx5" in found["hobot_dnn"]


def test_a_model_file_decides_where_it_is_named(machine, bpu, tmp_path):
    machine({BPU: "0"})
    onnx = projection(tmp_path / "own.onnx")
    model = load_model(ModelRequest(model_path=str(onnx)))
    assert model.runtime.info.name == "onnx"
    compiled = standins.bin_model(tmp_path / "own.bin")
    model = load_model(ModelRequest(model_path=str(compiled)))
    assert model.runtime.info.name == "libdnn"
    model.close()


def findings(subject):
    return {each.subject: each for each in examine() if each.subject.startswith(subject)}


def test_the_doctor_says_of_each_runtime_why_it_was_or_was_not_taken(machine, bpu, monkeypatch):
    found = findings("runtime")
    assert list(found) == [f"runtime {name}" for name in RUNTIMES]
    assert "taken by `auto`" in found["runtime libdnn"].detail
    assert "next in line" in found["runtime hbm"].detail
    machine({BPU: "0", GOVERNOR.format(0): "powersave"})
    assert "has a BPU" in findings("runtime")["runtime onnx"].detail
    (governor,) = findings("CPU governor").values()
    assert governor.fix == board.PERFORMANCE_MODE
    assert all(".bin" in subject for subject in findings("model"))


def test_the_doctor_misses_nothing_of_a_board_on_another_machine(machine, monkeypatch):
    monkeypatch.delenv("EFV2_TOOLCHAIN_PYTHON", raising=False)
    found = findings("runtime")
    assert [each.verdict for each in found.values()] == [*["info"] * 3, "ok", "info"]
    assert "efv2 toolchain install" in found["runtime simulator"].detail
    assert all(not each.fix for each in found.values())
    assert all(".onnx" in subject for subject in findings("model"))


def test_the_doctor_knows_a_toolchain_that_works(machine, monkeypatch):
    monkeypatch.setattr("efv2_ros.runtimes.simulator.version", lambda: "dgdk 1.0.0")
    found = findings("runtime")["runtime simulator"]
    assert (found.verdict, found.fix) == ("ok", "")
    detail = "dgdk 1.0.0, runs .bin; never taken by `auto`: it simulates a BPU"
    assert found.detail == detail


def test_the_doctor_on_a_board_without_its_libraries(machine, monkeypatch):
    machine({BPU: "0"})
    found = findings("runtime")
    assert found["runtime libdnn"].verdict == "missing"
    assert "RDK OS" in found["runtime libdnn"].fix


def test_the_linker_finds_the_library(tmp_path):
    """By its plain name, as on a board; nothing in the process knows of the stand-in."""
    model = standins.bin_model(tmp_path / "model.bin")
    photo = Path(__file__).parents[2] / "photos" / "cat.jpg"
    done = subprocess.run(
        [sys.executable, "-m", "efv2_ros.cli", "classify", photo, "--model", model, "--json"],
        env=standins.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"runtime": "libdnn"' in done.stdout


@pytest.mark.parametrize(
    ("missing", "verdict", "fix"),
    [((), "ok", ""), (("mcap",), "info", "pip install mcap"),
     (("mcap", "rosbags"), "info", "pip install rosbags mcap")],
)  # fmt: skip
def test_the_doctor_says_whether_bags_can_be_read(monkeypatch, missing, verdict, fix):
    def installed(name):
        if name in missing:
            raise doctor.PackageNotFoundError(name)
        return version(name)

    version = doctor.version
    monkeypatch.setattr(doctor, "version", installed)
    (finding,) = (each for each in examine() if each.subject == "bags")
    assert (finding.verdict, finding.fix) == (verdict, fix)
