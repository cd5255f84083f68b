"""Calls something again and again from another thread while a block runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeating(
    action: Callable[[], None], period_s: float, may_go_on: Callable[[], bool]
) -> Iterator[None]:
    """Call `action` every `period_s` seconds until the block ends, or `may_go_on` says no.

    Args:
        action: What to call; it must not raise.
        period_s: Seconds between two calls, and before the first.
        may_go_on: Asked before each wait.
    """
    done = threading.Event()

    def repeat() -> None:
        while may_go_on() and not done.wait(period_s):
            action()

    thread = threading.Thread(target=repeat, name="repeating", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
