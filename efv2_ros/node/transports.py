"""Transports: the types of image topics, and how their messages become frames."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from efv2_ros.errors import Efv2Error
from efv2_ros.messages.images import IMAGE_TYPES, ImageType
from efv2_ros.node import conversions
from efv2_ros.vision.frame import Frame


class TransportError(Efv2Error):
    """A message type's package is not installed."""


class Transport(NamedTuple):
    """A type of image topics.

    Attributes:
        type: The message type, and how a serialized message becomes a frame.
        from_message: Makes a frame that views a message; takes a `frame_id` as well if the type
            has no header.
    """

    type: ImageType
    from_message: Callable[..., Frame]

    def message_type(self) -> Any:
        """Import the message's class.

        Raises:
            TransportError: Its package is not installed.
        """
        return message_type(self.type.name)


def message_type(name: str) -> Any:
    """Import the class of a message type.

    Args:
        name: The type's full name, such as `sensor_msgs/msg/Image`.

    Raises:
        TransportError: Its package is not installed, or has no such message.
    """
    package, _, message = name.partition("/msg/")
    try:
        return getattr(import_module(f"{package}.msg"), message)
    except (ImportError, AttributeError, TypeError) as error:  # TypeError: the name has no package
        raise TransportError(
            f"messages of type {name} need the package {package}: on the board, "
            "source /opt/tros/humble/setup.bash"
        ) from error


_FROM_MESSAGE: dict[str, Callable[..., Frame]] = {
    "raw": conversions.frame_from_image,
    "compressed": conversions.frame_from_compressed,
}

TRANSPORTS = {
    name: Transport(kind, _FROM_MESSAGE.get(name, conversions.frame_from_hbm))
    for name, kind in IMAGE_TYPES.items()
}
"""Transport for each value of the parameter `transport`."""
