"""Logs the progress of a model's download."""

from __future__ import annotations

from rclpy.impl.rcutils_logger import RcutilsLogger

_PERIOD_S = 2.0


class DownloadLog:
    """Logs a download's progress every two seconds; a `DownloadProgress`."""

    def __init__(self, logger: RcutilsLogger) -> None:
        self._logger = logger

    def __call__(self, done: int, total: int | None) -> None:
        """Log how many bytes of how many have arrived."""
        share = f" of {total / 1e6:.1f}" if total else ""
        self._logger.info(
            f"downloading the model: {done / 1e6:.1f}{share} MB",
            throttle_duration_sec=_PERIOD_S,
        )
