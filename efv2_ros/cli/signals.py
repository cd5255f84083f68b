"""Ctrl-C (SIGINT) and SIGTERM: commands end with the results so far, or at least tidily.

A process that was started with SIGINT ignored, as scripts start `command &`, goes on ignoring it;
SIGTERM ends it then.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def catch_stop(again: Any = None) -> Iterator[Callable[[], bool]]:
    """Note the first SIGINT or SIGTERM instead of ending by it.

    Args:
        again: Handler of the signals that follow; by default the handlers there were before.

    Yields:
        Whether a signal came; the `should_stop` of long work.
    """
    stopped = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        for each, handler in before.items():
            signal.signal(each, handler if again is None else again)

    with _handled(note) as before:
        yield lambda: stopped


@contextmanager
def interruptible() -> Iterator[None]:
    """Have SIGTERM raise KeyboardInterrupt as Ctrl-C does, so that commands clean up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled(interrupt):
        yield


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[dict[int, Any]]:
    """Handle both signals, except those that are ignored; yields the handlers before."""
    found: dict[int, Any] = {number: signal.getsignal(number) for number in _NUMBERS}
    before = {number: each for number, each in found.items() if each != signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, handler)
        yield before
    finally:
        for number, each in before.items():
            signal.signal(number, each)
