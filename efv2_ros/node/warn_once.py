"""Warnings that are logged once for each cause."""

from __future__ import annotations

import threading

from rclpy.impl.rcutils_logger import RcutilsLogger


class WarnOnce:
    """Logs the first warning of each cause and ignores the others. Thread-safe.

    rclpy's own `once` goes by the line of code that logs.
    """

    def __init__(self, logger: RcutilsLogger) -> None:
        self._logger = logger
        self._causes: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, cause: str, sentence: str) -> None:
        """Log a sentence, unless one of the same cause was logged before."""
        with self._lock:
            if cause in self._causes:
                return
            self._causes.add(cause)
        self._logger.warning(sentence)
