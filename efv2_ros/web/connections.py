"""Connections to the server: how many there are, how long they last, how much they may send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

MOST_CONNECTIONS = 96
"""More than viewers, since a browser opens several for the page's files."""

REQUEST_S = 15.0
"""Time for a connection to send its request and to take the answer."""

_MOST_BYTES = 32 << 10
"""Bytes that a connection may send with its request; a viewer, in each period of `REQUEST_S`."""


class Connection(asyncio.Protocol):
    """Passes everything on to aiohttp's protocol, and ends a connection that lasts too long.

    aiohttp waits for a request without end. A connection here has one request, and ends after
    `REQUEST_S` unless a viewer looks through it.
    """

    def __init__(self, connections: Connections, inner: asyncio.Protocol) -> None:
        self._connections, self._inner = connections, inner
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_kept = False
        self._received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)
        if not self._connections.add(self):
            self._transport.abort()
            return
        self._start_timer()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._received += len(data)
        if self._received > _MOST_BYTES:
            self.abort()
        elif self._timer is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """See `asyncio.Protocol`."""
        return self._inner.eof_received() if self._timer is not None else None

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._connections.remove(self)
        if self._timer is not None:
            self._timer.cancel()
            self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._inner.resume_writing()

    def is_of(self, transport: object) -> bool:
        """Whether this is the connection with a transport."""
        return self._transport is transport

    def keep(self) -> None:
        """Let the connection last: from now on, somebody else sees to its progress."""
        self._is_kept = True

    def abort(self) -> None:
        """End the connection at once, whatever it still has to send."""
        if self._transport is not None:
            self._transport.abort()

    def _start_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(REQUEST_S, self._on_time)

    def _on_time(self) -> None:
        if not self._is_kept:
            self.abort()
            return
        self._received = 0
        self._start_timer()


class Connections:
    """All connections of a server.

    Args:
        inner: Makes the protocol of a connection that is accepted.
    """

    def __init__(self, inner: Callable[[], asyncio.Protocol]) -> None:
        self._inner = inner
        self._all: set[Connection] = set()

    def __call__(self) -> Connection:
        """Make the protocol of a new connection."""
        return Connection(self, self._inner())

    def __len__(self) -> int:
        return len(self._all)

    def add(self, connection: Connection) -> bool:
        """Take a connection; False if there are too many."""
        if len(self._all) >= MOST_CONNECTIONS:
            return False
        self._all.add(connection)
        return True

    def remove(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self._all.discard(connection)

    def of(self, transport: object) -> Connection | None:
        """Find the connection with a transport; None if it has ended."""
        return next((each for each in self._all if each.is_of(transport)), None)

    def abort(self) -> None:
        """End all connections at once."""
        for each in tuple(self._all):
            each.abort()
