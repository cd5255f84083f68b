import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import simulator_stand_in as stand_in
from simulate import fill

from efv2_ros.runtimes import simulator, simulator_worker
from efv2_ros.runtimes.base import (
    RUNTIMES,
    DeviceLostError,
    ImageInput,
    InferenceError,
    InferenceTimeoutError,
    ModelLoadError,
    RunOptions,
    RuntimeUnavailableError,
    candidates,
    open_runtime,
    select_runtime,
)

IMAGE = ImageInput(6, 10)


@pytest.fixture
def stood_in(monkeypatch):
    """The worker runs in this Python, with a network that needs no toolchain."""
    monkeypatch.setenv("EFV2_TOOLCHAIN_PYTHON", sys.executable)
    monkeypatch.setattr(simulator_worker, "SCRIPT", Path(stand_in.__file__))


@pytest.fixture
def open_model(stood_in, tmp_path):
    """Open a `.bin` with this text; what was opened is closed at the end."""
    opened = []

    def open_model(text="fine", **options):
        path = tmp_path / "model.bin"
        path.write_text(text)
        opened.append(open_runtime(path, IMAGE, "simulator", RunOptions(**options)))
        return opened[-1]

    yield open_model
    for runtime in opened:
        runtime.close()


def nv12(first=stand_in.FINE, y=10, u=20, v=30):
    image = np.empty(IMAGE.nv12_shape, np.uint8)
    image[:6], image[6:, ::2], image[6:, 1::2] = y, u, v
    image[0, 0] = first
    return image


def process_of(logits):
    return int(logits[3])


def is_alive(process):
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_it_describes_itself_and_returns_logits_that_the_caller_keeps(open_model):
    runtime = open_model()
    assert (runtime.info.name, runtime.info.version) == ("simulator", "stand-in 1.0")
    assert (runtime.info.classes, runtime.slots) == (4, 1)
    first = runtime.infer(nv12())
    second = runtime.infer(nv12(y=11, u=255, v=0))
    assert first.dtype == np.float32
    assert first[:3].tolist() == [10, 20, 30]
    assert second[:3].tolist() == [11, 255, 0]
    assert process_of(first) == process_of(second), "the process stays"


def test_an_image_is_written_where_the_worker_reads_it(open_model):
    with open_model(slots=2).slot() as slot:
        slot.nv12.y[...] = 40
        slot.nv12.uv[...] = 50
        slot.nv12.y[0, 0] = stand_in.FINE
        slot.commit()
        assert slot.infer()[:3].tolist() == [40, 50, 50]


def test_slots_run_at_once_and_keep_to_themselves(open_model, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    runtime = open_model(slots=4)
    results = []

    def caller(number):
        for value in range(number, 200, 4):
            image = nv12(y=value, u=255 - value, v=number)
            results.append((runtime.infer(image), value, number))

    callers = [threading.Thread(target=caller, args=(number,)) for number in range(4)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    assert len(results) == 200
    for logits, value, number in results:
        assert logits[:3].tolist() == [value, 255 - value, number]
    assert len({process_of(logits) for logits, *_ in results}) == 3, "no more than cores"


def test_a_process_that_dies_costs_one_frame(open_model):
    runtime = open_model()
    before = process_of(runtime.infer(nv12()))
    with pytest.raises(InferenceError, match=r"ended by SIGKILL: an instruction is unknown") as it:
        runtime.infer(nv12(stand_in.DIES))
    assert not isinstance(it.value, DeviceLostError)
    after = runtime.infer(nv12(y=77))
    assert after[:3].tolist() == [77, 20, 30]
    assert process_of(after) != before


def test_a_process_that_is_killed_between_two_frames(open_model):
    runtime = open_model()
    os.kill(process_of(runtime.infer(nv12())), signal.SIGKILL)
    with pytest.raises(InferenceError, match="ended by SIGKILL"):
        runtime.infer(nv12())
    assert runtime.infer(nv12(y=5))[0] == 5


def test_frames_after_another_start_the_count_again(open_model):
    runtime = open_model()
    for _ in range(4):
        with pytest.raises(InferenceError):
            runtime.infer(nv12(stand_in.DIES))
        runtime.infer(nv12())


def test_three_deaths_in_a_row_lose_the_simulator(open_model):
    runtime = open_model()
    for _ in range(2):
        with pytest.raises(InferenceError) as error:
            runtime.infer(nv12(stand_in.DIES))
        assert not isinstance(error.value, DeviceLostError)
    for frame in (stand_in.DIES, stand_in.FINE):
        with pytest.raises(DeviceLostError, match="3 times in a row"):
            runtime.infer(nv12(frame))


def test_a_process_that_cannot_load_the_model_again(open_model):
    runtime = open_model("dies the second time")
    with pytest.raises(InferenceError, match="SIGKILL"):
        runtime.infer(nv12(stand_in.DIES))
    with pytest.raises(InferenceError, match="it was here before"):
        runtime.infer(nv12())
    with pytest.raises(DeviceLostError):
        runtime.infer(nv12())


def test_a_toolchain_that_is_gone_when_it_is_needed_again(open_model, monkeypatch):
    runtime = open_model()
    worker = runtime._workers[0]
    monkeypatch.setattr(worker, "_command", ["/no/python"])
    with pytest.raises(DeviceLostError, match="cannot be started again"):
        runtime.infer(nv12(stand_in.DIES))


def test_a_process_that_hangs_is_ended_with_its_children(open_model, monkeypatch):
    monkeypatch.setattr(simulator, "LEAST_TIMEOUT_S", 0.3)
    runtime = open_model(infer_timeout=0.1)
    before = process_of(runtime.infer(nv12()))
    with pytest.raises(InferenceTimeoutError, match=r"no answer within 0\.3 s"):
        runtime.infer(nv12(stand_in.HANGS))
    wait_until(lambda: not members(before))
    assert runtime.infer(nv12(y=9))[0] == 9


def members(group):
    """Living processes of a process group."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, of = status.read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state != "Z":
                found.append(status.parent.name)
    return found


def test_a_limit_for_a_bpu_is_none_for_a_simulator(open_model):
    runtime = open_model(infer_timeout=0.01)
    assert runtime.infer(nv12(stand_in.SLOW))[1] == 20


def test_a_frame_that_fails_keeps_the_process(open_model):
    runtime = open_model()
    before = process_of(runtime.infer(nv12()))
    with pytest.raises(InferenceError, match=r"an address is odd$"):
        runtime.infer(nv12(stand_in.FAILS))
    assert process_of(runtime.infer(nv12())) == before


def test_what_libraries_print_is_no_answer(open_model):
    runtime = open_model()
    assert runtime.infer(nv12(stand_in.CHATTERS))[1] == 20
    assert runtime.infer(nv12())[1] == 20


def test_close_ends_all_processes_and_removes_their_files(open_model, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    runtime = open_model(slots=2)
    folders = [Path(worker._folder.name) for worker in runtime._workers]
    processes = [worker._process.pid for worker in runtime._workers]
    assert all(each.is_dir() for each in folders)
    begin = time.monotonic()
    runtime.close()
    assert time.monotonic() - begin < 5.0  # well below a second, on a machine that is idle
    assert not any(map(is_alive, processes))
    assert not any(each.exists() for each in folders)
    runtime.close()
    with pytest.raises(InferenceError, match="closed"):
        runtime.infer(nv12())


def test_close_ends_an_inference(open_model):
    runtime = open_model()
    errors = []

    def infer():
        with pytest.raises(InferenceError) as error:
            runtime.infer(nv12(stand_in.HANGS))
        errors.append(error.value)

    process = runtime._workers[0]._process.pid
    caller = threading.Thread(target=infer)
    caller.start()
    wait_until(lambda: len(members(process)) == 2)
    runtime.close()
    caller.join(1.0)
    assert str(errors[0]) == "the model is closed"
    wait_until(lambda: not members(process))


def test_interrupting_an_inference_takes_no_answer_for_anothers(open_model, monkeypatch):
    runtime = open_model()
    worker = runtime._workers[0]

    def interrupted(limit):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker, "_receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runtime.infer(nv12())
    with pytest.raises(InferenceError, match="closed"):
        runtime.infer(nv12())


CALLER = """
import os, signal, sys
import numpy as np
from pathlib import Path
from efv2_ros.runtimes import simulator_worker
from efv2_ros.runtimes.base import ImageInput, open_runtime
simulator_worker.SCRIPT = Path(sys.argv[1])
runtime = open_runtime(Path(sys.argv[2]), ImageInput(6, 10), "simulator")
worker = runtime._workers[0]
print(worker._process.pid, worker._folder.name, flush=True)
if sys.argv[3] == "hangs":
    image = np.full((9, 10), 2, np.uint8)
    runtime.infer(image)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("state", ["idle", "hangs"])
def test_the_process_ends_with_its_caller(stood_in, tmp_path, state):
    path = tmp_path / "model.bin"
    path.write_text("fine")
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, stand_in.__file__, str(path), state],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    process, folder = caller.stdout.readline().split()
    if state == "hangs":
        wait_until(lambda: len(members(int(process))) == 2)
        caller.kill()
    caller.wait()
    caller.stdout.close()
    wait_until(lambda: not members(int(process)), 2.0)
    assert not Path(folder).exists()


def test_ctrl_c_in_the_terminal_does_not_reach_the_process(open_model):
    process = open_model()._workers[0]._process.pid
    assert os.getpgid(process) == process != os.getpgrp()
    assert os.getsid(process) == process


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("refused", r"model\.bin is refused$"),
        ("broken", r"model\.bin cannot be simulated: seven of nine$"),
        ("dies", "ended by SIGKILL"),
        ("exits", "ended with status 1: no memory is left"),
    ],
)
def test_models_that_cannot_be_loaded(open_model, text, reason):
    with pytest.raises(ModelLoadError, match=reason):
        open_model(text, slots=2)


def test_loading_that_hangs_or_is_interrupted_leaves_nothing(open_model, monkeypatch):
    started = []
    start = simulator_worker.Worker._start

    def noted(self):
        start(self)
        started.append((self._process.pid, Path(self._folder.name)))

    monkeypatch.setattr(simulator_worker.Worker, "_start", noted)
    monkeypatch.setattr(simulator_worker, "LOAD_TIMEOUT_S", 0.3)
    with pytest.raises(ModelLoadError, match=r"no answer within 0\.3 s"):
        open_model("slow", slots=2)
    monkeypatch.setattr(simulator_worker, "LOAD_TIMEOUT_S", 60.0)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        open_model("slow", slots=2)
    timer.join()
    for process, folder in started:
        assert not members(process)
        assert not folder.exists()


def test_a_file_that_is_not_there(stood_in, tmp_path):
    with pytest.raises(ModelLoadError, match=r"absent\.bin cannot be read: No such file"):
        open_runtime(tmp_path / "absent.bin", IMAGE, "simulator")


def test_without_the_quantised_model_a_word_on_the_speed(open_model, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        open_model()
    (record,) = caplog.records
    assert "model.quantized.onnx is not here" in record.getMessage()
    assert "several seconds" in record.getMessage()
    caplog.clear()
    (tmp_path / "model.quantized.onnx").touch()
    with caplog.at_level(logging.WARNING):
        open_model()
    assert not caplog.records


def test_without_the_toolchain(tmp_path, monkeypatch):
    monkeypatch.delenv("EFV2_TOOLCHAIN_PYTHON", raising=False)
    path = tmp_path / "model.bin"
    path.touch()
    with pytest.raises(RuntimeUnavailableError, match="run efv2 toolchain install"):
        open_runtime(path, IMAGE, "simulator")
    with pytest.raises(RuntimeUnavailableError, match="run efv2 toolchain install"):
        RUNTIMES["simulator"].probe()


def test_a_python_that_is_not_the_toolchains(monkeypatch, tmp_path):
    monkeypatch.setenv("EFV2_TOOLCHAIN_PYTHON", sys.executable)
    with pytest.raises(RuntimeUnavailableError, match=r"dg_nn_toolkit.*: efv2 toolchain install"):
        RUNTIMES["simulator"].probe()
    text = tmp_path / "python"
    text.touch()
    monkeypatch.setenv("EFV2_TOOLCHAIN_PYTHON", str(text))
    with pytest.raises(RuntimeUnavailableError, match=r"Permission denied.*efv2 toolchain"):
        RUNTIMES["simulator"].probe()


def test_auto_never_takes_it(stood_in):
    *_, last = candidates("bin")
    assert (last.name, last.version) == ("simulator", "")
    assert last.problem == "it simulates a BPU: choose it with runtime simulator"
    with pytest.raises(RuntimeUnavailableError, match="choose it with runtime simulator"):
        select_runtime("auto", "bin")


def test_the_input_of_a_quantised_model():
    image = np.random.RandomState(0).randint(0, 256, IMAGE.nv12_shape, np.uint8)
    written = np.empty((1, 6, 10, 3), np.int8)
    fill(written, image)
    for row, column in np.ndindex(6, 10):
        square = image[6 + row // 2, column // 2 * 2 :][:2].astype(int)
        expected = [int(image[row, column]) - 128, *(square - 128)]
        assert written[0, row, column].tolist() == expected
