"""SIGINT and SIGTERM as a flag: what is kept, what is left alone, what comes back."""

import signal
import subprocess
import sys
import threading

import pytest

from efv2_ros.signals import STOP_SIGNALS, catch_stop

SOON = 60.0  # seconds: only reached when something is broken


@pytest.fixture(autouse=True)
def handlers():
    """The handlers there were, whatever a test leaves."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_sets_the_flag_and_interrupts_nothing(number):
    with catch_stop(again=signal.SIG_IGN) as should_stop:
        assert not should_stop()
        signal.raise_signal(number)
        assert should_stop()
        signal.raise_signal(number)
        assert should_stop()
    # The process is ending: launch repeats its signals, and none may interrupt that.
    for each in STOP_SIGNALS:
        signal.raise_signal(each)


def test_a_signal_may_come_while_the_handlers_are_being_set(monkeypatch):
    """Between the first handler's setting and the second's."""
    set_handler = signal.signal

    def set_and_receive(number, handler):
        set_handler(number, handler)
        if not came:
            came.append(number)
            signal.raise_signal(number)

    came = []
    monkeypatch.setattr(signal, "signal", set_and_receive)
    with catch_stop(again=signal.SIG_IGN) as should_stop:
        assert should_stop()


def test_without_a_signal_everything_is_as_before(handlers):
    with catch_stop(again=signal.SIG_IGN) as should_stop:
        pass
    assert not should_stop()
    assert {number: signal.getsignal(number) for number in STOP_SIGNALS} == handlers


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with catch_stop(again=signal.SIG_IGN) as should_stop:
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.raise_signal(signal.SIGINT)
        assert not should_stop()
        signal.raise_signal(signal.SIGTERM)
        assert should_stop()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_outside_the_main_thread_no_signal_is_handled(handlers):
    def check():
        with catch_stop(again=signal.SIG_IGN) as should_stop:
            found.append((should_stop(), signal.getsignal(signal.SIGINT)))

    found = []
    thread = threading.Thread(target=check)
    thread.start()
    thread.join(SOON)
    assert found == [(False, handlers[signal.SIGINT])]


def test_a_shells_background_process_ignores_sigint_and_ends_by_sigterm():
    """As a script starts it: `command &`."""
    program = (
        "import signal, time\n"
        "from efv2_ros.signals import catch_stop\n"
        "with catch_stop(again=signal.SIG_IGN) as should_stop:\n"
        "    print('ready', flush=True)\n"
        "    while not should_stop():\n"
        "        time.sleep(0.01)\n"
        "print('stopped')\n"
    )
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, program],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=SOON)[0] == "stopped\n"
    assert process.returncode == 0
