"""A node whose messages are handled in the thread that asks for it, and only while it asks."""

from __future__ import annotations

import time
from collections.abc import Callable

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
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)

    def close(self) -> None:
        """Destroy the node."""
        self._executor.shutdown()
        self.node.destroy_node()

    def once(self) -> None:
        """Handle one thing, if there is one."""
        self._executor.spin_once(timeout_sec=0.0)

    def until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Handle messages until `condition` holds; False when `timeout` seconds are over."""
        end = time.monotonic() + timeout
        while not condition():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._executor.spin_once(timeout_sec=min(left, _STEP))
        return True
