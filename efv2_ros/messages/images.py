"""Serialized image messages, from bags or the wire, viewed as frames.

Needs no message classes, so bags can be read without ROS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from efv2_ros.messages.cdr import CdrReader
from efv2_ros.vision.frame import Frame, FrameError, Header

_HBM_ENCODING = 12
"""Size of an HbmMsg's field `encoding`, in bytes."""


class ImageType(NamedTuple):
    """A type of image message.

    Attributes:
        name: Name of the type, `sensor_msgs/msg/Image`.
        frame: Function from a serialized message to a frame that views it; raises FrameError.
        has_header: Whether messages have a header; without one, `frame` takes a `frame_id`.
    """

    name: str
    frame: Callable[..., Frame]
    has_header: bool = True


def image_frame(message: bytes) -> Frame:
    """View a serialized Image; the frame keeps its bytes alive.

    Raises:
        FrameError: fault `message`: it is cut off, or a length in it is wrong.
    """
    reader = CdrReader(message)
    header = _read_header(reader)
    height, width = reader.words("II")
    encoding = reader.string()
    is_bigendian = bool(reader.byte())
    (step,) = reader.words("I")
    return Frame(header, encoding, reader.sequence(), height, width, step, is_bigendian)


def compressed_frame(message: bytes) -> Frame:
    """View a serialized CompressedImage holding a JPEG or PNG file.

    Raises:
        FrameError: fault `encoding`: the file is neither JPEG nor PNG; or fault `message`: it is
            cut off, or a length in it is wrong.
    """
    reader = CdrReader(message)
    header = _read_header(reader)
    encoding = file_encoding(reader.string())
    return Frame(header, encoding, reader.sequence())


def hbm_frame(message: bytes, frame_id: str, *, max_size: int) -> Frame:
    """View a serialized HbmMsg480P, 540P or 1080P.

    Args:
        message: The message.
        frame_id: Frame for the header, which the message lacks.
        max_size: Size of the data array of every message of this type, in bytes.

    Raises:
        FrameError: fault `data`: `data_size` exceeds the array; or fault `message`: it is cut off.
    """
    reader = CdrReader(message)
    _, sec, nanosec, *sizes = reader.words("iiIIIII")
    encoding = reader.characters(_HBM_ENCODING)
    header = Header(sec, nanosec, frame_id)
    return filled_part(header, sizes, encoding, reader.octets(max_size))


def file_encoding(format: str) -> str:
    """Read `jpeg` or `png` from a CompressedImage's `format`.

    Camera drivers write just that, image_transport writes `bgr8; jpeg compressed bgr8` or similar.

    Raises:
        FrameError: fault `encoding`: another format, such as compressedDepth.
    """
    words = format.lower().replace(";", " ").split()
    for encoding, names in (("jpeg", ("jpeg", "jpg")), ("png", ("png",))):
        if any(name in words for name in names):
            return encoding
    raise FrameError("encoding", f"CompressedImage format '{format}' is neither jpeg nor png")


def filled_part(
    header: Header, sizes: Sequence[int], encoding: str, data: NDArray[np.uint8]
) -> Frame:
    """Make a frame of an HbmMsg, whose array has room for the largest image of its type.

    Args:
        header: Header of the frame.
        sizes: The message's height, width, data_size and step.
        encoding: The message's encoding.
        data: The whole array, uint8 of shape (max_size,).

    Raises:
        FrameError: fault `data`: `data_size` exceeds the array.
    """
    height, width, data_size, step = sizes
    if data_size > data.size:
        raise FrameError(
            "data",
            f"data_size is {data_size} bytes, but the message has room for {data.size}",
        )
    return Frame(header, encoding, data[:data_size], height, width, step)


def _read_header(reader: CdrReader) -> Header:
    sec, nanosec = reader.words("iI")
    return Header(sec, nanosec, reader.string())


def _hbm(name: str, max_size: int) -> ImageType:
    return ImageType(
        f"hbm_img_msgs/msg/HbmMsg{name}", partial(hbm_frame, max_size=max_size), has_header=False
    )


IMAGE_TYPES = {
    "raw": ImageType("sensor_msgs/msg/Image", image_frame),
    "compressed": ImageType("sensor_msgs/msg/CompressedImage", compressed_frame),
    "hbmem_480p": _hbm("480P", 921_600),
    "hbmem_540p": _hbm("540P", 1_555_200),
    "hbmem_1080p": _hbm("1080P", 6_220_800),
}
"""Types of image messages, by the value of the node's parameter `transport`."""
