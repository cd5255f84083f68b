"""A node whose messages are handled in the thread that asks for it, and only while it asks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

_STEP = 0.05
"""Seconds in which Ctrl-C is noticed."""


class Spinner:
    """Spins a node.

    Args:
        node: The node; it is destroyed with the spinner.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self._interrupted = False
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)

    def close(self) -> None:
        """Destroy the node."""
        self._executor.shutdown()
        self.node.destroy_node()

    def interrupt(self, *_: Any) -> None:
        """Have `once` and `until` raise KeyboardInterrupt; the handler of a signal.

        Raised just where the signal came it may come out of rclpy's C++ as another error. Called
        again, it is raised there all the same.
        """
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    def once(self) -> None:
        """Handle one thing, if there is one."""
        self._spin(0.0)

    def until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Handle messages until `condition` holds; False when `timeout` seconds are over."""
        end = time.monotonic() + timeout
        while not condition():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._spin(min(left, _STEP))
        return True

    def _spin(self, timeout: float) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._executor.spin_once(timeout_sec=timeout)
