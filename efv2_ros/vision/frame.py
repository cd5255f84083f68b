"""The image of a message before any conversion, without ROS and without a copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

FrameFault = Literal["message", "encoding", "size", "step", "data", "decode", "roi", "stamp"]
"""Cause for which a frame cannot be classified; the key under which diagnostics count it."""


class FrameError(ValueError):
    """A frame that cannot be classified.

    Attributes:
        fault: The cause, one of a fixed set: frames are counted by it, and logged once for each.
    """

    def __init__(self, fault: FrameFault, message: str) -> None:
        super().__init__(message)
        self.fault: FrameFault = fault


class Header(NamedTuple):
    """A `std_msgs/Header` without ROS; the result of an image has the image's header."""

    sec: int = 0
    nanosec: int = 0
    frame_id: str = ""

    @property
    def nanoseconds(self) -> int:
        """The stamp in nanoseconds."""
        return self.sec * 1_000_000_000 + self.nanosec


@dataclass(frozen=True, slots=True)
class Frame:
    """A view of one image message. Nothing is copied, and nothing has been checked.

    Attributes:
        header: The message's header.
        encoding: A name from `sensor_msgs/image_encodings`; or `jpeg` or `png` if `data` is a
            compressed file, which itself declares its size.
        data: The image's bytes, uint8, 1-D. Valid as long as the message exists.
        height: Rows, in pixels. 0 for a compressed file.
        width: Columns, in pixels. 0 for a compressed file.
        step: Bytes from one row to the next; 0 means that rows have no padding.
        is_bigendian: Byte order of 16-bit samples.
    """

    header: Header
    encoding: str
    data: NDArray[np.uint8]
    height: int = 0
    width: int = 0
    step: int = 0
    is_bigendian: bool = False
