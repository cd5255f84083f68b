"""A node whose callbacks run in the thread that spins it, and only while it spins."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

_STEP_S = 0.05
"""Longest wait before `should_stop` is asked again."""


class Spinner:
    """Handles a node's messages while it waits; a context manager that destroys the node.

    Every method that handles messages raises KeyboardInterrupt once `should_stop` returns true.

    Args:
        node: The node; it is destroyed with the spinner.
        should_stop: Whether to stop waiting; see `catch_stop`.
    """

    def __init__(self, node: Node, should_stop: Callable[[], bool] | None = None) -> None:
        self.node = node
        self._should_stop = should_stop
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)

    def __enter__(self) -> Spinner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Destroy the node."""
        self._executor.shutdown()
        self.node.destroy_node()

    def spin_once(self) -> None:
        """Handle one message, timer or answer, if one is ready."""
        self._spin(0.0)

    def spin_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Handle messages until `condition` holds; False when `timeout_s` are over."""
        end = time.monotonic() + timeout_s
        while not condition():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._spin(min(left, _STEP_S))
        return True

    def spin_for(self, duration_s: float) -> None:
        """Handle messages for a while."""
        self.spin_until(lambda: False, duration_s)

    def _spin(self, timeout_s: float) -> None:
        if self._should_stop is not None and self._should_stop():
            raise KeyboardInterrupt
        self._executor.spin_once(timeout_sec=timeout_s)
