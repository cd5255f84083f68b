"""SIGINT and SIGTERM as a flag, for programs that close something before they end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Keep SIGINT and SIGTERM from interrupting the block; yield whether one has come.

    Python's own handler raises KeyboardInterrupt wherever the program is, which comes out of
    rclpy's C++ as another error. A flag that is polled between two steps does not.

    A signal that the process was started to ignore stays ignored: a shell script starts
    `command &` with SIGINT ignored. Such a process ends by SIGTERM.

    Once a signal has come, further ones change nothing, not even after the block: the process is
    about to end, and launch repeats its signals.

    Outside the main thread, which alone may set handlers, no signal is handled.
    """
    stopped = False

    def stop(*_: Any) -> None:
        nonlocal stopped
        stopped = True

    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            handler = signal.getsignal(number)
            if handler is not signal.SIG_IGN:
                previous[number] = handler
                signal.signal(number, stop)
    try:
        yield lambda: stopped
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_IGN if stopped else handler)
