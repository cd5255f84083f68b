"""Reader of CDR, the format of serialized ROS messages, without copying the data.

ROS 2's middlewares use plain CDR (OMG DDS-RTPS 2.3, 10.2; CORBA 3.3 part 2, 9.3): four bytes name
the byte order; the fields follow in their order, each aligned to its size, counted from there.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efv2_ros.vision.frame import FrameError

_BYTE_ORDERS = {b"\0\0": ">", b"\0\1": "<"}
_ENCAPSULATION = 4
"""Bytes before the first field, a multiple of every alignment used here."""


class CdrReader:
    """Reader of the fields of one message, in their order.

    Args:
        message: The whole message; arrays that are read are views of it.

    Raises:
        FrameError: fault `message`, also from every method: the message is not plain CDR, or ends
            before the field does.
    """

    __slots__ = ("_message", "_order", "_position")

    def __init__(self, message: bytes) -> None:
        order = _BYTE_ORDERS.get(message[:2])
        if order is None or len(message) < _ENCAPSULATION:
            raise FrameError(
                "message", f"the message is not plain CDR: it begins with {message[:4]!r}"
            )
        self._message = message
        self._order = order
        self._position = _ENCAPSULATION

    def words(self, kinds: str) -> tuple[Any, ...]:
        """Read numbers of four bytes each; `kinds` are `struct`'s letters `i` and `I`."""
        self._position = -(-self._position // 4) * 4
        start = self._advance(4 * len(kinds))
        return struct.unpack_from(self._order + kinds, self._message, start)

    def byte(self) -> int:
        """Read one uint8."""
        return self._message[self._advance(1)]

    def characters(self, length: int) -> str:
        """Read text in a field of `length` bytes, up to its first NUL.

        Bytes that are not UTF-8 become U+FFFD.
        """
        start = self._advance(length)
        return self._message[start : start + length].partition(b"\0")[0].decode("utf-8", "replace")

    def string(self) -> str:
        """Read a string; its length in CDR includes the closing NUL."""
        (length,) = self.words("I")
        return self.characters(length)

    def octets(self, length: int) -> NDArray[np.uint8]:
        """Read an array of `length` uint8, as a read-only view of shape (length,)."""
        start = self._advance(length)
        return np.frombuffer(self._message, np.uint8, length, start)

    def sequence(self) -> NDArray[np.uint8]:
        """Read a sequence of uint8, as a read-only view of shape (length,)."""
        (length,) = self.words("I")
        return self.octets(length)

    def _advance(self, count: int) -> int:
        """Step over the next `count` bytes and return their start."""
        start, end = self._position, self._position + count
        if end > len(self._message):
            raise FrameError(
                "message",
                f"the message ends after {len(self._message)} bytes, within a field that ends at "
                f"{end}",
            )
        self._position = end
        return start
