"""A ROS context for the duration of a block."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import rclpy
from rclpy.context import Context
from rclpy.signals import SignalHandlerOptions

from efv2_ros.errors import Efv2Error
from efv2_ros.node.fastdds import image_profile


class RosError(Efv2Error):
    """ROS cannot be started."""


@contextmanager
def ros_context(args: Sequence[str] = (), *, publishes_images: bool = True) -> Iterator[Context]:
    """Initialise ROS with shared memory for images, and shut it down after the block.

    rclpy installs no signal handlers for it: see `catch_stop`.

    Args:
        args: Arguments for ROS, from `--ros-args` on.
        publishes_images: Whether the process publishes images, and needs the memory.

    Raises:
        RosError: The middleware does not start.
    """
    profile = image_profile(os.environ) if publishes_images else {}
    os.environ.update(profile)
    context = Context()
    try:
        try:
            rclpy.init(
                args=list(args), context=context, signal_handler_options=SignalHandlerOptions.NO
            )
        except Exception as error:  # rclpy's RCLError, which Humble does not export, among others
            reason = str(error).partition("\n")[0]
            raise RosError(f"ROS 2 does not start: {reason}") from error
        yield context
    finally:
        if context.ok():
            context.try_shutdown()
        for name in profile:
            os.environ.pop(name, None)
