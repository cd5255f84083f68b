"""The measuring commands: what they count is right, whatever the speed of this machine."""

import json
import signal
import subprocess
import sys
import threading

import pytest
import standins

from efv2_ros.benchmark.perf import measure
from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import ModelRequest
from efv2_ros.runtimes.base import InferenceError

DURATION = 5.0  # milliseconds, of a task on the stand-in


def efv2(*arguments, **settings):
    command = [sys.executable, "-m", "efv2_ros.cli", *map(str, arguments)]
    return subprocess.run(
        command, env=standins.environment(**settings), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture
def zoo(tmp_path):
    """A folder with a model under the name that the zoo's has."""
    standins.bin_model(tmp_path / "EfficientFormerv2_s0_224x224_nv12.bin")
    return tmp_path


def test_the_table_stands_beside_the_published_one(zoo):
    done = efv2("perf", "--model", zoo, "--frames", 20, "--json", duration_us=int(DURATION * 1e3))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["model"], report["runtime"]) == ("efficientformerv2_s0", "libdnn")
    rows = report["rows"]
    assert [row["threads"] for row in rows] == [1, 4, 8]
    assert [row["frames"] for row in rows] == [20, 80, 160]
    assert [row["published_latency"] for row in rows] == [5.79, 19.96, None]
    assert [row["published_fps"] for row in rows] == [None, 198.45, None]
    for row in rows:
        # One device takes the tasks in turn: no machine can be faster.
        assert row["fps"] <= 1e3 / DURATION * 1.001
        assert row["latency_p50"] >= DURATION * 0.99
        assert row["latency"] <= row["latency_p99"] + DURATION
        # Little's law; threads that have ended make the mean a little shorter.
        assert row["latency"] * row["fps"] / 1e3 == pytest.approx(row["threads"], rel=0.25)


def test_the_table_for_people(zoo):
    done = efv2("perf", "--model", zoo, "--frames", 5, "--callers", 1, "--callers", 4)
    assert done.returncode == 0, done.stderr
    for text in ("efficientformerv2_s0 on libdnn", "5.79", "19.96", "198.45"):
        assert text in done.stdout


def test_a_failure_while_measuring_is_one_sentence(zoo):
    done = efv2("perf", "--model", zoo, "--frames", 20, wait_error_at=30)
    assert done.returncode == 1
    assert "hbDNNWaitTaskDone failed with -6000012" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failure_of_one_thread_ends_them_all(bpu, tmp_path):
    path = standins.bin_model(tmp_path / "model.bin")
    model = load_model(ModelRequest(model_path=str(path), slots=4))
    bpu.set(infer_error_at=2)  # while the threads warm up
    with pytest.raises(InferenceError, match="hbDNNInfer"):
        measure(model, 4, 10)
    assert measure(model, 4, 10).frames == 40
    model.close()


def test_ctrl_c_ends_the_threads(bpu, tmp_path):
    path = standins.bin_model(tmp_path / "model.bin")
    model = load_model(ModelRequest(model_path=str(path), slots=2))
    bpu.set(duration_us=1000)
    before = set(threading.enumerate())
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run may ignore it
    main = threading.main_thread().ident
    timer = threading.Timer(0.5, signal.pthread_kill, [main, signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        measure(model, 2, 100_000)
    timer.join()
    assert set(threading.enumerate()) <= before
    assert measure(model, 2, 2).frames == 4
    model.close()
