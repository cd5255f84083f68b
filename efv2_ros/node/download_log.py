"""Progress of a model's download, for a log."""

from __future__ import annotations

from rclpy.impl.rcutils_logger import RcutilsLogger


class DownloadLog:
    """Logs a download's progress every few seconds."""

    def __init__(self, logger: RcutilsLogger) -> None:
        self._logger = logger

    def __call__(self, done: int, total: int | None) -> None:
        """Log how many bytes have arrived."""
        share = f" of {total / 1e6:.1f}" if total else ""
        self._logger.info(
            f"downloading the model: {done / 1e6:.1f}{share} MB", throttle_duration_sec=2.0
        )
