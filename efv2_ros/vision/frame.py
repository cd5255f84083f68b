"""The image of a message before any conversion, without ROS and without a copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from efv2_ros.errors import Efv2Error

FrameFault = Literal["message", "encoding", "size", "step", "data", "decode", "roi", "stamp"]
"""Cause for which a frame cannot be classified; the key under which diagnostics count it."""


class FrameError(Efv2Error, ValueError):
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

    @classmethod
    def from_bgr(cls, bgr: NDArray[np.uint8], header: Header | None = None) -> Frame:
        """View a BGR picture, as OpenCV's `imread` returns it, as a frame.

        ```python
        frame = Frame.from_bgr(cv2.imread("photo.jpg"))
        ```

        Args:
            bgr: uint8 of shape (height, width, 3). It is copied only where its pixels are not
                contiguous.
            header: Stamp and frame_id; empty where none is given.

        Raises:
            FrameError: `data`, when `bgr` is another kind of array, or None, as `imread` returns
                for a file that it cannot read.
        """
        if not isinstance(bgr, np.ndarray) or bgr.dtype != np.uint8 or bgr.shape[2:] != (3,):
            found = f"{bgr.dtype} {bgr.shape}" if isinstance(bgr, np.ndarray) else repr(bgr)
            raise FrameError("data", f"a BGR picture is a uint8 array (height, width, 3): {found}")
        height, width = bgr.shape[:2]
        pixels = np.ascontiguousarray(bgr).reshape(-1)
        return cls(header or Header(), "bgr8", pixels, height, width, 3 * width)
