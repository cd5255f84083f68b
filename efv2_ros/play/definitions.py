"""Whether installed message types have the fields that bags here say they have."""

from __future__ import annotations

from efv2_ros.messages.typestore import typestore
from efv2_ros.node.transports import TransportError, message_type


def has_our_fields(type_name: str) -> bool:
    """Whether the installed package of a message type has the fields of our definitions.

    Fields were added to foxglove_msgs from version to version. A bag that named other fields than
    its messages have could not be read.

    Args:
        type_name: A type that `typestore` knows.

    Returns:
        False also if the package is not installed.
    """
    package = type_name.partition("/")[0]
    definitions = typestore().fielddefs
    try:
        return all(
            [name for name, _ in fields] == list(message_type(each).get_fields_and_field_types())
            for each, (_, fields) in definitions.items()
            if each.startswith(f"{package}/")
        )
    except TransportError:
        return False
