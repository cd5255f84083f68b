"""ROS messages as objects: made, serialized and deserialized by rosbags, without ROS."""

from __future__ import annotations

import re
from typing import Any

from efv2_ros.messages.errors import MessageError
from efv2_ros.messages.typestore import typestore
from efv2_ros.vision.frame import Header


def serialize(type_name: str, **fields: Any) -> bytes:
    """Serialize a message to CDR.

    Args:
        type_name: Message type, `sensor_msgs/msg/Image`.
        **fields: All fields of the message; `message` makes fields that are messages themselves.

    Raises:
        MessageError: rosbags is missing.
    """
    return bytes(typestore().serialize_cdr(message(type_name, **fields), type_name))


def deserialize(type_name: str, data: bytes) -> Any:
    """Read a message from CDR, as an object with the fields as attributes.

    Raises:
        MessageError: The message is not of this type, or rosbags is missing.
    """
    store = typestore()
    try:
        return store.deserialize_cdr(data, type_name)
    except Exception as error:  # damaged data may raise anything
        raise MessageError(f"a message of type {type_name} cannot be read: {error}") from error


def message(type_name: str, **fields: Any) -> Any:
    """Make a message of a type, to be serialized alone or within another.

    Lone surrogates, which strings of ROS cannot hold, become U+FFFD.
    """
    for name, value in fields.items():
        if isinstance(value, str):
            fields[name] = _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", value)
    return typestore().types[type_name](**fields)


_SURROGATES = re.compile("[\ud800-\udfff]")


def header_message(header: Header) -> Any:
    """Make a `std_msgs/msg/Header`."""
    stamp = message("builtin_interfaces/msg/Time", sec=header.sec, nanosec=header.nanosec)
    return message("std_msgs/msg/Header", stamp=stamp, frame_id=header.frame_id)
