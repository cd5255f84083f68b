"""One viewer: it gets what is new, no more than it takes, and holds up nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from efv2_ros.web.hub import Cursor, Hub

PATIENCE_S = 10.0
"""How long a viewer may show no progress."""

_MOST_UNDER_WAY = 2
"""Updates that a viewer may have without having shown them: one under way while one is shown."""

T = TypeVar("T")


class Viewer:
    """Sends updates to one browser, which confirms each.

    The browser confirms an update when its pictures are on the screen. What comes in the meantime
    is not queued: the next update holds the newest pictures.

    Args:
        hub: What to send.
        send: Sends one update; returns when there is room for the next.
        period_s: Shortest time between two updates.
        patience_s: See `PATIENCE_S`.
    """

    def __init__(
        self,
        hub: Hub,
        send: Callable[[bytes], Awaitable[Any]],
        *,
        period_s: float,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._hub, self._send = hub, send
        self._period_s, self._patience_s = period_s, patience_s
        self._under_way = 0
        self._room = asyncio.Event()

    def confirm(self) -> bool:
        """Note that the browser shows an update; False if there was none to confirm."""
        if not self._under_way:
            return False
        self._under_way -= 1
        self._room.set()
        return True

    async def run(self) -> None:
        """Send updates until the browser has gone, or makes no progress for too long."""
        seen = Cursor()
        while True:
            try:
                await self._within_patience(self._wait_for_room())
                await self._hub.changed(seen)
                update, seen = self._hub.update(seen)
                self._under_way += 1
                await self._within_patience(self._send(update))
            except (asyncio.TimeoutError, ConnectionError):
                return
            await asyncio.sleep(self._period_s)

    async def _wait_for_room(self) -> None:
        while self._under_way >= _MOST_UNDER_WAY:
            self._room.clear()
            await self._room.wait()

    async def _within_patience(self, work: Awaitable[T]) -> T:
        return await asyncio.wait_for(work, self._patience_s)
