"""Programs and their messages, logs and ends, with programs that need no toolchain."""

import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from efv2_ros.toolchain import environment, process
from efv2_ros.toolchain.environment import Stopped, ToolchainError, ToolchainUnavailableError
from efv2_ros.toolchain.process import Program, log_tail, run_all


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Start a program with the given code: `program(code)`, or its body after `def run`."""
    worker = tmp_path / "worker"
    worker.mkdir()
    shutil.copy(environment.WORKER / "channel.py", worker)
    monkeypatch.setenv("EFV2_TOOLCHAIN_PYTHON", sys.executable)
    for module in (environment, process):
        monkeypatch.setattr(module, "WORKER", worker)
    started = []

    def start(body, request='{"version": 1, "name": "it"}'):
        code = "import os, sys, time, subprocess\nfrom channel import serve\n"
        code += "def run(request, channel):\n    channel.step('at work', 0.0, 0.5)\n"
        code += "".join(f"    {line}\n" for line in body.splitlines())
        name = f"p{len(started)}.py"
        (worker / name).write_text(f"{code}serve(run)\n")
        log = tmp_path / f"{name}.log"
        started.append(Program(name, request, log=log, folder=tmp_path))
        return started[-1]

    yield start
    for each in started:
        each.close()


def failure(program, should_stop=lambda: False):
    with program, pytest.raises(ToolchainError) as caught:
        program.run(lambda progress: None, should_stop)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state != "Z"


def wait_for(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_progress_result_and_log(program, tmp_path):
    seen = []
    started = program(
        "print('[==   ]  40%', flush=True)\ntime.sleep(.3)\n"
        "channel.step('at rest', 0.5, 1.0)\nchannel.progress(1.0)\n"
        "return {'hello': request['name']}"
    )
    with started:
        assert started.run(seen.append, lambda: False) == {"hello": "it"}
    assert [(each.step, each.total) for each in seen] == [
        ("at work", 0.0), ("at work", 0.2), ("at rest", 0.5), ("at rest", 1.0),
    ]  # fmt: skip
    assert "40%" in (tmp_path / "p0.py.log").read_text()


def test_a_failure_carries_the_vendors_words_and_log(program):
    message = failure(
        program(
            "print('2026-01-01 10:00:00,123 INFO fine')\n"
            "print('2026-01-01 10:00:00,123 \\x1b[91mERROR\\x1b[0m Layer /a: kernel is 0')\n"
            "raise ValueError('no\\nsuch thing')"
        )
    )
    assert "failed while it was at work: no such thing" in message
    assert "ends with: Layer /a: kernel is 0" in message
    assert "fine" not in message


def test_the_vendors_exit_is_a_failure(program):
    assert "failed while it was at work: 3" in failure(program("sys.exit(3)"))


def test_a_crash_before_the_first_message(program):
    message = failure(program("os._exit(7)"))
    assert "exit status 7" in message


def test_a_killed_program_says_so(program):
    message = failure(program("os.kill(os.getpid(), 9)"))
    assert (
        "was killed by SIGKILL: the machine may be out of memory while it was at work" in message
    )
    assert "killed by SIGSEGV while" in failure(program("os.kill(os.getpid(), 11)"))


@pytest.mark.parametrize(
    "error",
    ["OSError(28, 'No space left on device')", "RuntimeError('a: No space left on device')"],
)
def test_no_space_gets_a_sentence(program, tmp_path, error):
    body = f"try:\n    raise {error}\nexcept Exception as e:\n    raise ValueError('bad') from e"
    if "Runtime" in error:
        body = f"raise {error}"
    assert failure(program(body)) == f"no space is left on the disk of {tmp_path.parent}"


def test_another_version_of_the_messages(program):
    message = failure(program("return {}", request='{"version": 99}'))
    assert "was asked in 99" in message


def test_nonsense_on_the_pipe(program):
    assert "no message" in failure(program("channel._pipe.write('boo\\n')\nreturn {}"))


def test_stopping_kills_the_children_too_within_a_second(program, tmp_path):
    pids = tmp_path / "pids"
    started = program(
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(pids)!r} + '.tmp', 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        f"os.rename({str(pids)!r} + '.tmp', {str(pids)!r})\n"
        "time.sleep(60)"
    )
    asked = []

    def should_stop():
        if pids.exists() and not asked:
            asked.append(time.monotonic())
        return bool(asked)

    with pytest.raises(Stopped), started:
        started.run(lambda progress: None, should_stop)
    assert time.monotonic() - asked[0] < 1
    assert not any(is_alive(int(pid)) for pid in pids.read_text().split())


def test_the_program_dies_with_its_caller(program, tmp_path):
    pids = tmp_path / "pids"
    started = program(
        f"open({str(pids)!r}, 'w').write(str(os.getpid()))\nsubprocess.run(['sleep', '60'])"
    )

    def run():
        with pytest.raises(ToolchainError):
            started.run(lambda progress: None, lambda: False)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: pids.exists() and pids.read_text())
    started._process.stdin.close()
    thread.join(5)
    assert not thread.is_alive()
    assert started._process.poll() == -signal.SIGKILL


def test_several_programs_run_side_by_side(program):
    programs = [program(f"time.sleep(.3)\nreturn {{'index': {index}}}") for index in range(3)]
    seen = set()
    results = run_all(programs, lambda index, progress: seen.add(index), lambda: False)
    assert [each["index"] for each in results] == [0, 1, 2]
    assert seen == {0, 1, 2}


def test_one_failure_of_several_is_told_at_once(program):
    programs = [program("time.sleep(60)"), program("raise ValueError('the second')")]
    with pytest.raises(ToolchainError, match="the second"):
        run_all(programs, lambda index, progress: None, lambda: False)


def test_without_the_toolchain_the_command_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("EFV2_TOOLCHAIN_PYTHON", raising=False)
    with pytest.raises(ToolchainUnavailableError, match="efv2 toolchain install"):
        Program("compile.py", "{}", log=tmp_path / "log", folder=tmp_path)
    monkeypatch.setenv("EFV2_TOOLCHAIN_PYTHON", "/nowhere/python")
    with pytest.raises(ToolchainUnavailableError, match="/nowhere/python, which is no file"):
        Program("compile.py", "{}", log=tmp_path / "log", folder=tmp_path)


def test_the_log_cannot_be_written(program, tmp_path, monkeypatch):
    (tmp_path / "p0.py.log").mkdir()
    with pytest.raises(ToolchainError, match="Is a directory"):
        program("return {}")


def test_the_tail_of_a_log_without_errors_is_its_end(tmp_path):
    log = tmp_path / "log"
    log.write_text("one\ntwo\rthree\n\nfour\n" + "x" * 1000)
    tail = log_tail(log)
    assert tail[:2] == ["three", "four"]
    assert len(tail[2]) == 400
    assert log_tail(tmp_path / "none") == []
