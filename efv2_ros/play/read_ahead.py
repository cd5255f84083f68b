"""Reading a bag in a thread of its own, ahead of who plays it: a slow disk delays no message."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator
from types import TracebackType

from efv2_ros.bags.salvage import Message

_BYTES = 64 << 20
_MESSAGES = 10_000
"""What waits to be taken is at most this many messages, and this many bytes or one message."""


class ReadAhead:
    """The messages of a bag, in their order; a context manager that ends the reading.

    Args:
        messages: As `Bag.messages` gives them; from now on they belong to the thread.
        most_bytes: Of the messages that wait.
    """

    def __init__(
        self, messages: Generator[Message, None, None], *, most_bytes: int = _BYTES
    ) -> None:
        self._messages = messages
        self._most_bytes = most_bytes
        self._waiting: deque[Message] = deque()
        self._bytes = 0
        self._over = self._closed = False
        self._error: Exception | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        self._thread.start()

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def ended(self) -> bool:
        """Whether all messages have been taken."""
        with self._changed:
            return self._over and not self._waiting

    def first(self) -> Message | None:
        """The next message, which stays; waits for it. None if there is none."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over)
            self._raise()
            return self._waiting[0] if self._waiting else None

    def take(self, timeout: float) -> Message | None:
        """The next message; None if it was not read within `timeout` seconds, or at the end.

        Raises:
            Exception: What reading raised, once all that was read before has been taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over, timeout)
            self._raise()
            if not self._waiting:
                return None
            message = self._waiting.popleft()
            self._bytes -= len(message.data)
            self._changed.notify_all()
            return message

    def _raise(self) -> None:
        if self._error is not None and not self._waiting:
            raise self._error

    def _run(self) -> None:
        error = None
        try:
            for message in self._messages:
                if not self._put(message):
                    break
        except Exception as exception:  # whoever takes the messages is told
            error = exception
        finally:
            self._messages.close()  # what it holds open, SQLite's files too, is of this thread
            with self._changed:
                self._over, self._error = True, error
                self._changed.notify_all()

    def _put(self, message: Message) -> bool:
        """Have a message wait for its turn; False if nobody wants it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room(len(message.data)))
            if self._closed:
                return False
            self._waiting.append(message)
            self._bytes += len(message.data)
            self._changed.notify_all()
            return True

    def _has_room(self, size: int) -> bool:
        if not self._waiting:
            return True
        return self._bytes + size <= self._most_bytes and len(self._waiting) < _MESSAGES
