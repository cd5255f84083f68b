"""Messages made and read without ROS."""

from __future__ import annotations

import re
from typing import Any

from efv2_ros.messages.errors import MessageError
from efv2_ros.messages.typestore import typestore
from efv2_ros.vision.frame import Header


def serialize(type_name: str, **fields: Any) -> bytes:
    """A message as it goes over the wire.

    Args:
        type_name: As ROS names it.
        **fields: All fields of the message; those that are messages made by `message`.
    """
    return bytes(typestore().serialize_cdr(message(type_name, **fields), type_name))


def deserialize(type_name: str, data: bytes) -> Any:
    """A message from the wire, as an object with the fields for attributes.

    Raises:
        MessageError: The message is not of this type, or rosbags is missing.
    """
    store = typestore()
    try:
        return store.deserialize_cdr(data, type_name)
    except Exception as error:  # whatever damaged bytes make rosbags do
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
    """A `std_msgs/Header`."""
    stamp = message("builtin_interfaces/msg/Time", sec=header.sec, nanosec=header.nanosec)
    return message("std_msgs/msg/Header", stamp=stamp, frame_id=header.frame_id)
