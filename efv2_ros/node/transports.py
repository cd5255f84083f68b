"""The kinds of image topic: their message types, and how a message becomes a frame."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from efv2_ros.errors import Efv2Error
from efv2_ros.messages.images import IMAGE_TYPES, ImageType
from efv2_ros.node import conversions
from efv2_ros.vision.frame import Frame


class TransportError(Efv2Error):
    """The package of a message type is not installed."""


class Transport(NamedTuple):
    """One kind of image topic.

    Attributes:
        type: The type, and how it is read as it came over the wire.
        from_message: A message to a frame that views it; without a header it wants a `frame_id`.
    """

    type: ImageType
    from_message: Callable[..., Frame]

    def message_type(self) -> Any:
        """The message's class.

        Raises:
            TransportError: Its package is not installed.
        """
        return message_type(self.type.name)


def message_type(name: str) -> Any:
    """The class of a message type, as `sensor_msgs/msg/Image`.

    Raises:
        TransportError: Its package is not installed, or has no such message.
    """
    package, _, message = name.partition("/msg/")
    try:
        return getattr(import_module(f"{package}.msg"), message)
    except (ImportError, AttributeError, TypeError) as error:  # TypeError: no package is named
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
"""By the value of the parameter `transport`."""
