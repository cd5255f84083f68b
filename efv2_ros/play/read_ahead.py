"""Reading a bag in a thread of its own, ahead of the player: a slow disk delays nothing."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from types import TracebackType

from efv2_ros.bags.salvage import Message

_BYTES = 64 << 20
_MESSAGES = 10_000
"""At most this many messages wait to be taken, and this many bytes or one message."""

_JOIN_TIMEOUT_S = 0.5
"""For the thread to end. One that hangs in a read of the disk ends with the process."""

Read = Callable[[Callable[[], bool]], Generator[Message, None, None]]
"""Returns the messages to read; given whether to stop reading. See `Bag.messages`."""


class ReadAhead:
    """The messages of a bag, in their order; a context manager that ends the reading.

    Args:
        read: Called in the thread, to which the generator belongs.
        max_bytes: Limit of the messages that wait.
    """

    def __init__(self, read: Read, *, max_bytes: int = _BYTES) -> None:
        self._read = read
        self._max_bytes = max_bytes
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
        self._thread.join(_JOIN_TIMEOUT_S)

    @property
    def ready(self) -> bool:
        """Whether the next message has been read, or there is none."""
        with self._changed:
            return bool(self._waiting) or self._over

    @property
    def ended(self) -> bool:
        """Whether all messages have been taken."""
        with self._changed:
            return self._over and not self._waiting

    def first(self) -> Message | None:
        """The next message, without taking it; None if there is none, or not yet.

        Raises:
            Exception: See `take`.
        """
        with self._changed:
            self._raise()
            return self._waiting[0] if self._waiting else None

    def take(self, timeout_s: float) -> Message | None:
        """Take the next message; None at the end, or if it was not read within `timeout_s`.

        Raises:
            Exception: What reading raised, once all messages before it have been taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over, timeout_s)
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
        messages = self._read(lambda: self._closed)
        try:
            for message in messages:
                if not self._put(message):
                    break
        except Exception as exception:  # raised again by `take`
            error = exception
        finally:
            messages.close()  # it closes its files, SQLite's too, in the thread that opened them
            with self._changed:
                self._over, self._error = True, error
                self._changed.notify_all()

    def _put(self, message: Message) -> bool:
        """Wait until there is room for a message and add it; False if reading has to end."""
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
        return self._bytes + size <= self._max_bytes and len(self._waiting) < _MESSAGES
