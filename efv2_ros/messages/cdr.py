"""Reading a serialized message where it lies.

ROS 2's middlewares serialize as plain CDR (OMG DDS-RTPS 2.3, 10.2; CORBA 3.3 part 2, 9.3): four
bytes that say the byte order, then the fields in their order, each at a multiple of its size from
there on.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efv2_ros.vision.frame import FrameError

_BYTE_ORDERS = {b"\0\0": ">", b"\0\1": "<"}
_ENCAPSULATION = 4
"""Bytes before the first field; a multiple of every alignment used here."""


class CdrReader:
    """Reads the fields of one message, in their order.

    Args:
        message: The whole message; what is read are views of it.

    Raises:
        FrameError: `message`, from every method, when the message ends before the field does or
            is no plain CDR.
    """

    __slots__ = ("_message", "_order", "_position")

    def __init__(self, message: bytes) -> None:
        order = _BYTE_ORDERS.get(message[:2])
        if order is None or len(message) < _ENCAPSULATION:
            raise FrameError(
                "message", f"the serialized message is no plain CDR: it begins {message[:4]!r}"
            )
        self._message = message
        self._order = order
        self._position = _ENCAPSULATION

    def words(self, kinds: str) -> tuple[Any, ...]:
        """Numbers of four bytes each, as `struct` writes their kinds: `i`, `I`."""
        self._position = -(-self._position // 4) * 4
        start = self._advance(4 * len(kinds))
        return struct.unpack_from(self._order + kinds, self._message, start)

    def byte(self) -> int:
        """One uint8."""
        return self._message[self._advance(1)]

    def characters(self, length: int) -> str:
        """Text in a field of `length` bytes, up to its first NUL.

        What is not UTF-8 is replaced, as rclpy does.
        """
        start = self._advance(length)
        return self._message[start : start + length].partition(b"\0")[0].decode("utf-8", "replace")

    def string(self) -> str:
        """A string, of which CDR counts the closing NUL as part."""
        (length,) = self.words("I")
        return self.characters(length)

    def octets(self, length: int) -> NDArray[np.uint8]:
        """An array of `length` uint8, as a read-only view of shape (length,)."""
        start = self._advance(length)
        return np.frombuffer(self._message, np.uint8, length, start)

    def sequence(self) -> NDArray[np.uint8]:
        """A sequence of uint8, as a read-only view of shape (length,)."""
        (length,) = self.words("I")
        return self.octets(length)

    def _advance(self, count: int) -> int:
        """Where the next `count` bytes start."""
        start, end = self._position, self._position + count
        if end > len(self._message):
            raise FrameError(
                "message",
                f"the serialized message ends after {len(self._message)} bytes, and a field "
                f"ends at {end}",
            )
        self._position = end
        return start
