"""Describe an exception: its cause for /diagnostics, its text for the log."""

from __future__ import annotations

import traceback

from efv2_ros.errors import Efv2Error
from efv2_ros.runtimes.base import DeviceLostError, InferenceError, InferenceTimeoutError
from efv2_ros.vision.frame import FrameError

MACHINE_CAUSES = ("device", "infer", "internal", "timeout")
"""Causes of drops that are the machine's fault, and not the image's."""


def cause_of(error: Exception) -> str:
    """Name the cause under which a frame that failed with this error is counted as dropped."""
    match error:
        case FrameError():
            return error.fault
        case InferenceTimeoutError():
            return "timeout"
        case DeviceLostError():
            return "device"
        case InferenceError():
            return "infer"
    return "internal"


def explained(error: Exception) -> str:
    """Give the message of an error that is meant for people; of any other, the traceback."""
    if isinstance(error, (Efv2Error, ValueError)):
        return str(error)
    return "".join(traceback.format_exception(error))
