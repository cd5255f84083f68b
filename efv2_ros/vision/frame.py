"""One image as it arrived: a zero-copy view of a message, before any conversion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

FrameFault = Literal["message", "encoding", "size", "step", "data", "decode", "roi", "stamp"]
"""Why a frame cannot be classified; the key under which diagnostics count it."""


class FrameError(ValueError):
    """A frame that cannot be classified.

    Attributes:
        fault: Short cause, stable enough to count and to log once by.
    """

    def __init__(self, fault: FrameFault, message: str) -> None:
        super().__init__(message)
        self.fault: FrameFault = fault


class Header(NamedTuple):
    """A `std_msgs/Header` without ROS: carried unchanged from image to result."""

    sec: int = 0
    nanosec: int = 0
    frame_id: str = ""

    @property
    def nanoseconds(self) -> int:
        """The stamp as nanoseconds."""
        return self.sec * 1_000_000_000 + self.nanosec


@dataclass(frozen=True, slots=True)
class Frame:
    """A view of one image message; nothing is copied and nothing is checked yet.

    Attributes:
        header: The source message's header.
        encoding: A name from `sensor_msgs/image_encodings`, or `jpeg` or `png` when `data` is a
            compressed file, whose size is then known only after decoding.
        data: All bytes of the message, uint8, 1-D. Only valid while the message lives.
        height: Rows, in pixels. 0 when compressed.
        width: Columns, in pixels. 0 when compressed.
        step: Bytes from one row to the next; 0 means "rows are not padded".
        is_bigendian: Byte order of 16-bit samples.
    """

    header: Header
    encoding: str
    data: NDArray[np.uint8]
    height: int = 0
    width: int = 0
    step: int = 0
    is_bigendian: bool = False
