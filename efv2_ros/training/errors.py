"""What can go wrong in training."""

from __future__ import annotations

from efv2_ros.errors import Efv2Error


class TrainingError(Efv2Error):
    """Training that cannot be done; the message says why and what to do."""
