"""Ctrl-C (SIGINT) and SIGTERM: commands end with the results so far, or at least tidily.

A process that was started with SIGINT ignored, as scripts start `command &`, goes on ignoring it;
SIGTERM ends it then.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def catch_stop(again: Any = None) -> Iterator[Callable[[], bool]]:
    """Note the first SIGINT or SIGTERM instead of ending by it.

    Python's own handler raises KeyboardInterrupt wherever the program is, which comes out of
    rclpy's C++ as another error. A flag that is polled between two steps does not.

    Outside the main thread, which alone may set handlers, no signal is handled.

    Args:
        again: Handler of the signals that follow; by default the handlers there were before. With
            `signal.SIG_IGN` they change nothing, not even after the block: the process is about
            to end, and launch repeats its signals.

    Yields:
        Whether a signal came; the `should_stop` of long work.
    """
    stopped = False
    before = _handlers()  # a signal may come while the handlers are being set

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        for each, handler in before.items():
            signal.signal(each, handler if again is None else again)

    with _handled(note, before):
        yield lambda: stopped


@contextmanager
def interruptible() -> Iterator[None]:
    """Have SIGTERM raise KeyboardInterrupt as Ctrl-C does, so that commands clean up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled(interrupt, _handlers()):
        yield


def ignore_signals() -> None:
    """Ignore SIGINT and SIGTERM from now on: the process is about to end, and tidily."""
    if _is_main_thread():
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _handlers() -> dict[int, Any]:
    """The handlers of both signals, except those that are ignored and those not ours to change."""
    if not _is_main_thread():
        return {}
    found: dict[int, Any] = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    return {number: each for number, each in found.items() if each != signal.SIG_IGN}


@contextmanager
def _handled(
    handler: Callable[[int, FrameType | None], None], before: dict[int, Any]
) -> Iterator[None]:
    """Handle the signals of `before`, and restore its handlers at the end."""
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, each in before.items():
            # Whoever ignores a signal since then knows that the process is about to end.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, each)
