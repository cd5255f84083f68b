"""Fixtures for tests over real DDS: a classifier in its own process, and a node to talk to it."""

import itertools
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

# What several tests share. pytest's own option for this is missing from Ubuntu 22.04's version.
sys.path.insert(0, str(Path(__file__).parent / "support"))

# Several test runs on one machine must not hear each other. 1..101 suit every middleware.
os.environ.setdefault("ROS_DOMAIN_ID", str(os.getpid() % 101 + 1))

# A script's background job starts with SIGINT ignored, and so would every program under test.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Models are looked for in places that belong to the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("EFV2_MODEL_DIR", raising=False)


@pytest.fixture(autouse=True)
def own_signals():
    """A command that was interrupted in this process ignores signals: it would have ended."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def ros():
    rclpy = pytest.importorskip("rclpy")
    from rclpy.signals import SignalHandlerOptions

    # Tests that send signals to their own process must not end ROS for those that follow.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    yield rclpy
    rclpy.try_shutdown()


@pytest.fixture
def start(ros):
    """Start a classifier: `start(parameters, ...)` gives its process and a `Talker`."""
    from talker import Talker

    from efv2_ros.client.process import ClassifierProcess

    with ExitStack() as stack:

        def start(
            parameters,
            *,
            wait=True,
            environment=None,
            remappings=None,
            log_level="info",
            **publisher,
        ):
            namespace = f"/test_{os.getpid()}_{next(_numbers)}"
            process = ClassifierProcess(
                {"diagnostics_period": 0.2, **parameters},
                namespace=namespace,
                environment={**os.environ, **(environment or {})},
                remappings=remappings,
                log_level=log_level,
            )
            stack.enter_context(process)
            talker = Talker(ros.create_node("talker", namespace=namespace), process, **publisher)
            stack.callback(talker.close)
            if wait:
                assert talker.wait_for_classifier(), process.stop()
            return process, talker

        yield start


@pytest.fixture
def photos():
    return sorted((Path(__file__).parent.parent / "photos").glob("*.jpg"))


@pytest.fixture
def bpu(monkeypatch):
    """The board's libraries as stand-ins in this process; its settings and counters."""
    import standins

    from efv2_ros.runtimes.libdnn import abi as libdnn_abi

    monkeypatch.setattr(libdnn_abi, "LIBRARIES", (str(standins.library()),))
    monkeypatch.setenv(standins.LIBRARY_VARIABLE, str(standins.library()))
    monkeypatch.syspath_prepend(str(standins.VENDOR))
    controls = standins.Controls()
    yield controls
    misused = [controls[name] for name in ("wild_writes", "reused_memory", "overruns")]
    controls.reset()
    for name in [each for each in sys.modules if each.split(".")[0] in standins.VENDOR_MODULES]:
        del sys.modules[name]
    assert misused == [0, 0, 0]


@pytest.fixture(scope="session")
def installed_toolchain():
    """The Python of D-Robotics' toolchain, which is installed into the user's cache if need be."""
    from efv2_ros.toolchain.environment import (
        PYTHON_VARIABLE,
        ToolchainUnavailableError,
        toolchain_python,
    )
    from efv2_ros.toolchain.install import install
    from efv2_ros.toolchain.pythons import find_python

    if not os.environ.get(PYTHON_VARIABLE):
        try:
            find_python()
        except ToolchainUnavailableError as error:
            pytest.skip(str(error))
        install()
    return toolchain_python()


@pytest.fixture
def toolchain(installed_toolchain, monkeypatch):
    """D-Robotics' toolchain for this test, whose cache is its own; gives its Python."""
    from efv2_ros.toolchain.environment import PYTHON_VARIABLE

    monkeypatch.setenv(PYTHON_VARIABLE, str(installed_toolchain))
    return installed_toolchain
