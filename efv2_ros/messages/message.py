"""Messages made and read without ROS."""

from __future__ import annotations

from typing import Any

from efv2_ros.messages.typestore import BagError, typestore
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
        BagError: It is none of this type.
    """
    from rosbags.serde import SerdeError

    try:
        return typestore().deserialize_cdr(data, type_name)
    except (SerdeError, KeyError) as error:
        raise BagError(f"a message of type {type_name} cannot be read: {error}") from error


def message(type_name: str, **fields: Any) -> Any:
    """A message of a type, to be serialized alone or within another."""
    return typestore().types[type_name](**fields)


def header_message(header: Header) -> Any:
    """A `std_msgs/Header`."""
    stamp = message("builtin_interfaces/msg/Time", sec=header.sec, nanosec=header.nanosec)
    return message("std_msgs/msg/Header", stamp=stamp, frame_id=header.frame_id)
