"""The images of all cameras, taken as often as the page shows them and made into JPEG files."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from efv2_ros.errors import Efv2Error
from efv2_ros.messages.images import IMAGE_TYPES, ImageType
from efv2_ros.node.transports import message_type
from efv2_ros.web.jpegs import JpegEncoder
from efv2_ros.web.status import View

TYPES = {each.name: each for each in IMAGE_TYPES.values()}
"""Image types by the name of their message."""

_IDLE_S = 0.05
"""How soon it is noticed that somebody looks."""

_PATIENCE_S = 3.0
"""Time without an image after which the page says so."""

_LOG_S = 10.0
"""Shortest time between two reports of an error."""


class Eyes:
    """Subscribes to images while somebody looks, and hands on a JPEG file of each one it takes.

    The middleware keeps the newest image of each camera. It is taken, converted and encoded at the
    rate of the page, in a thread of its own; the images in between cost nothing here.

    Args:
        node: A node of its own.
        width: Largest width of a picture, in pixels.
        fps: Most pictures a second of each camera.
        views: Returns where the images of each camera are; nothing while nobody looks.
        show: Called with a camera's name and a JPEG file.
    """

    def __init__(
        self,
        node: Node,
        *,
        width: int,
        fps: float,
        views: Callable[[], Mapping[str, View]],
        show: Callable[[str, bytes], None],
    ) -> None:
        self._node = node
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        self._period_s = 1.0 / fps
        self._views, self._show = views, show
        self._encode = JpegEncoder(width)
        self._followed: dict[str, View] = {}
        self._subscriptions: dict[str, Any] = {}
        self._taken_at: dict[str, float] = {}
        self._faults: dict[str, str] = {}

    @property
    def faults(self) -> dict[str, str]:
        """Why the pictures of a camera cannot be shown, by its name."""
        now = time.monotonic()
        silent = {
            name: f"no image of {view.topic} has come here for {_PATIENCE_S:.0f} s"
            for name, view in tuple(self._followed.items())
            if now - self._taken_at.get(name, now) > _PATIENCE_S
        }
        return {**silent, **self._faults}

    def run(self, stop: threading.Event) -> None:
        """Take images until `stop` is set."""
        while not stop.is_set():
            start = time.monotonic()
            try:
                self._step()
            except Exception as error:  # nothing that others publish may end the page
                self._node.get_logger().warning(
                    f"{type(error).__name__}: {error}", throttle_duration_sec=_LOG_S
                )
            wait_s = self._period_s if self._subscriptions else _IDLE_S
            stop.wait(max(0.0, start + wait_s - time.monotonic()))

    def close(self) -> None:
        """Unsubscribe and destroy the node; to be called once `run` has ended."""
        self._executor.shutdown()
        self._node.destroy_node()

    def _step(self) -> None:
        self._follow(self._views())
        for _ in self._subscriptions:
            self._executor.spin_once(timeout_sec=0.0)

    def _follow(self, views: Mapping[str, View]) -> None:
        """Subscribe to what is wanted now, and to nothing else."""
        for name in [each for each in self._followed if views.get(each) != self._followed[each]]:
            del self._followed[name]
            self._faults.pop(name, None)
            if (subscription := self._subscriptions.pop(name, None)) is not None:
                self._node.destroy_subscription(subscription)
        for name, view in views.items():
            if name not in self._followed:
                self._followed[name] = view
                self._taken_at[name] = time.monotonic()
                try:
                    self._subscriptions[name] = self._subscribe(name, view)
                except Efv2Error as error:
                    self._faults[name] = str(error)

    def _subscribe(self, name: str, view: View) -> Any:
        kind = TYPES[view.type_name]
        return self._node.create_subscription(
            message_type(kind.name),
            view.topic,
            partial(self._receive, name, kind),
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
            raw=True,
        )

    def _receive(self, name: str, kind: ImageType, data: bytes) -> None:
        self._taken_at[name] = time.monotonic()
        try:
            frame = kind.frame(data) if kind.has_header else kind.frame(data, name)
            jpeg = self._encode(frame)
        except Exception as error:  # no message may end the page
            self._faults[name] = str(error)
            return
        self._faults.pop(name, None)
        self._show(name, jpeg)
