"""Errors of reading and writing serialized messages."""

from efv2_ros.errors import Efv2Error


class MessageError(Efv2Error):
    """A message that cannot be read or written, or rosbags, which does both, is missing."""
