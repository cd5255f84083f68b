"""The programs' side of the messages: one request on stdin, progress and a result on a pipe.

The request is one line of JSON. While the caller lives it keeps stdin open: once stdin ends, the
program and all its children are killed, so that nobody's compiler goes on for minutes.
"""

import errno
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

VERSION = 1
"""Version of all messages; `protocol.py` has the other side's."""

DESCRIPTOR_VARIABLE = "EFV2_MESSAGES"
"""Environment variable with the number of the pipe for messages."""


class Channel:
    """Sends messages to the caller."""

    def __init__(self) -> None:
        descriptor = int(os.environ.pop(DESCRIPTOR_VARIABLE))
        os.set_inheritable(descriptor, False)
        self._pipe = os.fdopen(descriptor, "w", encoding="utf-8")
        self._step = ""
        self._range = (0.0, 0.0)

    def step(self, name: str, begin: float, end: float) -> None:
        """Begin a step.

        Args:
            name: What is done now, to follow "while it".
            begin: Share of the whole that is done, 0 to 1.
            end: The same, after the step.
        """
        self._step, self._range = name, (begin, end)
        self.progress(0.0)

    def progress(self, fraction: float) -> None:
        """Say which share of the step is done."""
        begin, end = self._range
        self._send("progress", step=self._step, begin=begin, end=end, fraction=fraction)

    def result(self, result: dict[str, Any]) -> None:
        """Send the result, the last message."""
        self._send("result", **result)

    def failure(self, reason: str, number: int = 0, *, is_sentence: bool = False) -> None:
        """Say why there is no result, the last message.

        Args:
            reason: Why.
            number: The system's number of the error, if it is one.
            is_sentence: Whether the reason says all that the user needs.
        """
        self._send(
            "failure",
            step=self._step,
            reason=reason,
            error_number=number,
            is_sentence=is_sentence,
        )

    def _send(self, kind: str, **content: Any) -> None:
        print(json.dumps({"version": VERSION, "kind": kind, **content}), file=self._pipe)
        self._pipe.flush()


def serve(
    work: Callable[[dict[str, Any], Channel], dict[str, Any]],
    sentences: type[BaseException] | tuple[()] = (),
) -> None:
    """Read the request, do the work and answer; then end the process.

    Args:
        work: Gets the request and the channel, and returns the result. Its exceptions are
            answered as failures.
        sentences: Exceptions whose messages say all that the user needs.
    """
    channel = Channel()
    request = json.loads(sys.stdin.readline())
    version = request.pop("version", None)
    if version != VERSION:
        channel.failure(f"it speaks version {VERSION} of our messages, and was asked in {version}")
        sys.exit(1)
    threading.Thread(target=_die_with_caller, daemon=True).start()
    try:
        result = work(request, channel)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the vendor's code calls sys.exit as well
        import traceback

        traceback.print_exc()
        _flush()
        number = _error_number(error)
        reason = str(error).strip() or type(error).__name__
        channel.failure(reason, number, is_sentence=isinstance(error, sentences))
        os._exit(1)
    channel.result(result)
    # The vendor's libraries may wait for threads, or fail, while they are unloaded.
    _flush()
    os._exit(0)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _error_number(error: BaseException) -> int:
    """The system's number of the error, which the vendor's code may have wrapped in others."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno is not None:
            return seen.errno
        seen = seen.__cause__ or seen.__context__
    return errno.ENOSPC if os.strerror(errno.ENOSPC) in str(error) else 0


def _die_with_caller() -> None:
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)
