"""Errors of workers."""

from efv2_ros.errors import Efv2Error


class WorkersError(Efv2Error):
    """The workers cannot be had, or cannot run this package's tasks; no task can succeed."""


class WorkerDiedError(Efv2Error):
    """The process that ran a task died, each time that it was tried."""
