"""`efv2 web` and `ros2 run efv2_ros web`: options, and what is said where something is missing."""

import importlib
import sys

import pytest
from click.testing import CliRunner

from efv2_ros.cli import web
from efv2_ros.cli.main import main


def run(*arguments, **environment):
    return CliRunner().invoke(main, ["web", *arguments], env={"EFV2_WEB_TOKEN": "", **environment})


@pytest.fixture
def served(monkeypatch):
    """What would be served."""
    pytest.importorskip("rclpy")
    pytest.importorskip("aiohttp")
    calls = []

    def serve(options, on_ready, ros_arguments=()):
        calls.append((options, list(ros_arguments)))
        on_ready(options.port or 12345)

    session = importlib.import_module("efv2_ros.web.session")
    monkeypatch.setattr(session, "serve", serve)
    return calls


def test_only_this_machine_can_look_by_default(served):
    result = run("--classifier", "robot/efv2_classifier")
    assert result.output == "the page is at http://127.0.0.1:8000/\n"
    ((options, ros_arguments),) = served
    assert (options.classifier, options.host) == ("/robot/efv2_classifier", "127.0.0.1")
    assert not options.allow_control and ros_arguments == []


def test_another_host_needs_a_token(served):
    result = run("--host", "0.0.0.0")
    assert result.exit_code == 1 and served == []
    assert result.output == (
        "Error: with the host '0.0.0.0', other machines can look through the camera: give a "
        "token, which the browser must know, with --token or in $EFV2_WEB_TOKEN\n"
    )
    assert "at least 8 characters" in run("--host", "::", "--token", "short").output
    result = run("--host", "::", "--port", "0", EFV2_WEB_TOKEN="a long token")
    assert result.output == "the page is at http://[::]:12345/?token=TOKEN\n"
    assert served[0][0].token == "a long token"


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("aiohttp", "Error: the page needs aiohttp: sudo apt install python3-aiohttp, or pip "
                    "install aiohttp\n"),
        ("rclpy", "Error: ROS 2 is not here ("),
    ],
)  # fmt: skip
def test_what_is_missing_is_told(monkeypatch, module, said):
    pytest.importorskip("rclpy")
    for name in [each for each in sys.modules if each.startswith("efv2_ros.web")]:
        if name != "efv2_ros.web.options":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    result = run()
    assert result.exit_code == 1 and result.output.startswith(said)


def test_arguments_for_ros_are_passed_on(served, monkeypatch):
    own = ["--port", "8001"]
    monkeypatch.setattr(sys, "argv", ["web", *own, "--ros-args", "-r", "__ns:=/robot"])
    with pytest.raises(SystemExit) as ended:
        web.main()
    assert ended.value.code == 0
    monkeypatch.setattr(sys, "argv", ["web", *own])
    with pytest.raises(SystemExit):
        web.main()
    assert [ros for _, ros in served] == [["--ros-args", "-r", "__ns:=/robot"], []]
    assert {options.port for options, _ in served} == {8001}
