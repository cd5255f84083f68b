"""Lending of what is expensive to make, and what the next task of a process most likely needs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Closable(Protocol):
    """Something that holds memory or files."""

    def close(self) -> None:
        """Give them back."""


Thing = TypeVar("Thing", bound=Closable)


class Lending(Generic[Key, Thing]):
    """Keeps things of the kind that was asked for last, and lends each to one thread at a time.

    Args:
        make: Makes a thing of a kind.
    """

    def __init__(self, make: Callable[[Key], Thing]) -> None:
        self._make = make
        self._key: Key | None = None
        self._free: list[Thing] = []
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, key: Key) -> Iterator[Thing]:
        """Lend a thing of this kind. After an exception in the block it is not lent again.

        Raises:
            Exception: What `make` raises.
        """
        thing = self._take(key)
        if thing is None:
            thing = self._make(key)
        try:
            yield thing
        except BaseException:
            thing.close()
            raise
        for each in self._give_back(key, thing):
            each.close()

    def _take(self, key: Key) -> Thing | None:
        with self._lock:
            return self._free.pop() if self._free and key == self._key else None

    def _give_back(self, key: Key, thing: Thing) -> list[Thing]:
        """Keep a thing; return those that are not needed any more."""
        with self._lock:
            old: list[Thing] = []
            if key != self._key:
                old, self._free, self._key = self._free, [], key
            self._free.append(thing)
            return old
