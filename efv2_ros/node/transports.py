"""The kinds of image topic: their message types, and how a message becomes a frame."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

from efv2_ros.errors import Efv2Error
from efv2_ros.node import messages
from efv2_ros.vision.frame import Frame


class TransportError(Efv2Error):
    """The message type of a transport is not installed."""


class Transport(NamedTuple):
    """One kind of image topic.

    Attributes:
        type_name: The type, as ROS names it.
        from_message: A message to a frame that views it.
        from_serialized: The same for the message as it came over the wire.
        has_header: Whether messages have a header; without one the functions want a `frame_id`.
    """

    type_name: str
    from_message: Callable[..., Frame]
    from_serialized: Callable[..., Frame]
    has_header: bool = True

    def message_type(self) -> Any:
        """The message's class.

        Raises:
            TransportError: Its package is not installed.
        """
        package, _, name = self.type_name.partition("/msg/")
        try:
            return getattr(import_module(f"{package}.msg"), name)
        except ImportError as error:
            raise TransportError(
                f"images of type {self.type_name} need the package {package}: on the board, "
                "source /opt/tros/humble/setup.bash"
            ) from error


def _hbm(name: str, max_size: int) -> Transport:
    return Transport(
        f"hbm_img_msgs/msg/HbmMsg{name}",
        messages.frame_from_hbm,
        partial(messages.frame_from_serialized_hbm, max_size=max_size),
        has_header=False,
    )


TRANSPORTS = {
    "raw": Transport(
        "sensor_msgs/msg/Image", messages.frame_from_image, messages.frame_from_serialized_image
    ),
    "compressed": Transport(
        "sensor_msgs/msg/CompressedImage",
        messages.frame_from_compressed,
        messages.frame_from_serialized_compressed,
    ),
    "hbmem_480p": _hbm("480P", 921_600),
    "hbmem_540p": _hbm("540P", 1_555_200),
    "hbmem_1080p": _hbm("1080P", 6_220_800),
}
"""By the value of the parameter `transport`."""
