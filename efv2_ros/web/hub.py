"""What all viewers look at: the newest picture of each camera, and the last minute."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from efv2_ros.errors import Efv2Error

TICK_S = 0.2
"""Time between two points of the last minute."""

MINUTE_S = 60.0
_POINTS = round(MINUTE_S / TICK_S)


class ControlError(Efv2Error):
    """The classifier did not do what was asked for."""


class Interval(NamedTuple):
    """What a camera has had since the last report.

    Attributes:
        results: How many results.
        classes: Name and score, 0..1, of the newest result's classes, best first.
        latency: Milliseconds of each stage; empty if not known.
    """

    results: int
    classes: tuple[tuple[str, float], ...] = ()
    latency: Mapping[str, float] = {}


class Report(NamedTuple):
    """What is new of a classifier.

    Attributes:
        status: Its state in words and numbers, as JSON has them.
        cameras: What is new of each camera, by name.
    """

    status: Mapping[str, Any]
    cameras: Mapping[str, Interval]


class Source(Protocol):
    """Where everything comes from: ROS, or a test."""

    def watch(self, on: bool) -> None:
        """Learn whether anybody looks; if nobody does, results and pictures need not come."""

    def collect(self) -> Report:
        """Return what is new since the last call."""

    def change(self, name: str, value: Any) -> Future[str]:
        """Ask the classifier for a change; the future has its answer, or `ControlError`."""


class Cursor(NamedTuple):
    """How much a viewer has been sent; what is newer, it gets with the next update.

    Attributes:
        tick: Number of the newest points.
        status: Number of the status.
        picture: Number of the newest picture.
    """

    tick: int = 0
    status: int = 0
    picture: int = 0


@dataclass
class _Camera:
    """A camera's newest picture, and its points of the last minute, each with its number."""

    jpeg: bytes = b""
    picture: int = 0
    classes: tuple[tuple[str, float], ...] = ()
    points: deque[tuple[int, dict[str, Any]]] = field(
        default_factory=lambda: deque(maxlen=_POINTS)
    )


class Hub:
    """Keeps what viewers look at, and packs for each what it has not got yet.

    All of a hub belongs to one thread, that of the event loop. Nothing here grows: a picture is
    replaced by the next one, and points older than a minute are dropped. Each update is packed
    once for all viewers that are equally far.

    Args:
        source: Where everything comes from.
        clock: Time in seconds.

    Attributes:
        viewers: How many look.
    """

    def __init__(self, source: Source, clock: Callable[[], float] = time.monotonic) -> None:
        self._source, self._clock = source, clock
        self._start = clock()
        self._cameras: dict[str, _Camera] = {}
        self._status: Mapping[str, Any] = {}
        self._newest = Cursor()
        self._packed: dict[Cursor, bytes] = {}
        self._news = asyncio.Event()
        self.viewers = 0

    def enter(self) -> None:
        """Count a viewer."""
        self.viewers += 1
        if self.viewers == 1:
            self._source.watch(True)
            self.tick()

    def leave(self) -> None:
        """Count a viewer less; after the last one, the pictures are old and forgotten."""
        self.viewers -= 1
        if not self.viewers:
            self._source.watch(False)
            for camera in self._cameras.values():
                camera.jpeg, camera.classes = b"", ()

    def show(self, name: str, jpeg: bytes) -> None:
        """Take a camera's newest picture, a JPEG file."""
        camera = self._cameras.get(name)
        if camera is None or not self.viewers:
            return
        number = self._newest.picture + 1
        camera.jpeg, camera.picture = jpeg, number
        self._tell(self._newest._replace(picture=number))

    def tick(self) -> None:
        """Collect what is new; to be called every `TICK_S` while somebody looks."""
        report = self._source.collect()
        number, status = self._newest.tick + 1, self._newest.status
        if report.status != self._status:
            self._status, status = report.status, status + 1
        self._cameras = {name: self._cameras.get(name, _Camera()) for name in report.cameras}
        for name, interval in report.cameras.items():
            camera = self._cameras[name]
            camera.classes = interval.classes or camera.classes
            camera.points.append((number, self._point(interval)))
        self._tell(self._newest._replace(tick=number, status=status))

    async def changed(self, seen: Cursor) -> None:
        """Wait until there is more than what a viewer has been sent."""
        while seen == self._newest:
            await self._news.wait()

    def update(self, seen: Cursor) -> tuple[bytes, Cursor]:
        """Pack what a viewer has not been sent.

        Returns:
            The size of a JSON text (4 bytes, big endian), the text, and the JPEG files whose sizes
            the text gives, in its order; and how far the viewer is with it.
        """
        if seen not in self._packed:
            self._packed[seen] = self._pack(seen)
        return self._packed[seen], self._newest

    def _pack(self, seen: Cursor) -> bytes:
        cameras: list[dict[str, Any]] = []
        jpegs: list[bytes] = []
        now = self._now()
        for name, camera in self._cameras.items():
            news: dict[str, Any] = {"name": name}
            if seen.tick < self._newest.tick:
                news["classes"] = camera.classes
                news["points"] = [
                    point
                    for number, point in camera.points
                    if number > seen.tick and point["t"] > now - MINUTE_S
                ]
            if camera.jpeg and camera.picture > seen.picture:
                news["jpeg"] = len(camera.jpeg)
                jpegs.append(camera.jpeg)
            cameras.append(news)
        content: dict[str, Any] = {"now": now, "cameras": cameras}
        if seen.status < self._newest.status:
            content["status"] = self._status
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "replace"
        )
        return b"".join((struct.pack(">I", len(text)), text, *jpegs))

    def _point(self, interval: Interval) -> dict[str, Any]:
        point: dict[str, Any] = {"t": self._now(), "n": interval.results}
        if interval.classes:
            point["c"] = interval.classes[0]
        if interval.latency:
            point["ms"] = {name: round(each, 3) for name, each in interval.latency.items()}
        return point

    def _now(self) -> float:
        return round(self._clock() - self._start, 3)

    def _tell(self, newest: Cursor) -> None:
        self._newest = newest
        self._packed.clear()
        self._news.set()
        self._news = asyncio.Event()
