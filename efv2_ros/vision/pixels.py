"""A raw frame's bytes as an array: named formats, every size checked, nothing copied."""

from __future__ import annotations

from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from efv2_ros.vision.frame import Frame, FrameError

Kind = Literal["colour", "mono", "mono16", "yuv422", "yuv420", "bayer", "planar"]

_MAX_SIDE = 65535


class PixelFormat(NamedTuple):
    """How the pixels of one encoding lie in memory.

    Attributes:
        kind: What has to be done with them.
        channels: Bytes per pixel of a row.
        to_bgr: OpenCV's conversion to BGR, None where they are BGR.
        order: Byte positions of Y, U, V within a macropixel (yuv422: two pixels) or chroma pair
            (yuv420: Y is unused).
        shared: Pixels across and down that share a chroma sample.
    """

    kind: Kind
    channels: int
    to_bgr: int | None
    order: tuple[int, int, int] = (0, 0, 1)
    shared: tuple[int, int] = (1, 1)


# OpenCV names a Bayer pattern after the second row's second and third pixel, ROS after the first
# row's first two: ROS's RGGB is OpenCV's BG.
PIXEL_FORMATS: dict[str, PixelFormat] = {
    "bgr8": PixelFormat("colour", 3, None),
    "rgb8": PixelFormat("colour", 3, cv2.COLOR_RGB2BGR),
    "bgra8": PixelFormat("colour", 4, cv2.COLOR_BGRA2BGR),
    "rgba8": PixelFormat("colour", 4, cv2.COLOR_RGBA2BGR),
    "mono8": PixelFormat("mono", 1, cv2.COLOR_GRAY2BGR),
    "mono16": PixelFormat("mono16", 2, cv2.COLOR_GRAY2BGR),
    "nv12": PixelFormat("yuv420", 1, cv2.COLOR_YUV2BGR_NV12, (0, 0, 1), (2, 2)),
    "nv21": PixelFormat("yuv420", 1, cv2.COLOR_YUV2BGR_NV21, (0, 1, 0), (2, 2)),
    "yuv422": PixelFormat("yuv422", 2, cv2.COLOR_YUV2BGR_UYVY, (1, 0, 2), (2, 1)),
    "yuv422_yuy2": PixelFormat("yuv422", 2, cv2.COLOR_YUV2BGR_YUY2, (0, 1, 3), (2, 1)),
    "bayer_rggb8": PixelFormat("bayer", 1, cv2.COLOR_BayerBG2BGR),
    "bayer_bggr8": PixelFormat("bayer", 1, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg8": PixelFormat("bayer", 1, cv2.COLOR_BayerGR2BGR),
    "bayer_grbg8": PixelFormat("bayer", 1, cv2.COLOR_BayerGB2BGR),
}
PIXEL_FORMATS |= {
    "8UC1": PIXEL_FORMATS["mono8"],
    "8UC3": PIXEL_FORMATS["bgr8"],
    "uyvy": PIXEL_FORMATS["yuv422"],
    "yuyv": PIXEL_FORMATS["yuv422_yuy2"],
}

COMPRESSED = ("jpeg", "png")


def pixel_format(frame: Frame) -> PixelFormat:
    """The format of a raw frame.

    Raises:
        FrameError: `encoding`, when it is none of the supported ones.
    """
    try:
        return PIXEL_FORMATS[frame.encoding]
    except KeyError:
        supported = ", ".join((*PIXEL_FORMATS, *COMPRESSED))
        raise FrameError(
            "encoding", f"encoding {frame.encoding!r} is not supported; supported are {supported}"
        ) from None


def view(frame: Frame, pixels: PixelFormat) -> NDArray[np.uint8]:
    """The frame's rows as an array over the frame's own bytes.

    A row may be longer than its pixels (`step`), and the data longer than the rows; a last row
    without its padding is enough. `step == 0` stands for unpadded rows, and then the data must
    have just that length.

    Returns:
        uint8 of shape (rows, width), or (rows, width, channels) when a pixel has several bytes.
        nv12 and nv21 have `height * 3 // 2` rows, the last third of them chroma pairs.

    Raises:
        FrameError: `size`, `step` or `data`, whichever is wrong.
    """
    width, height = frame.width, frame.height
    _check_size(width, height, frame.encoding, pixels.kind)
    rows = height * 3 // 2 if pixels.kind == "yuv420" else height
    row_bytes = width * pixels.channels
    step = frame.step or row_bytes
    if step < row_bytes:
        raise FrameError(
            "step", f"step is {step}, but a row of {width} {frame.encoding} pixels has {row_bytes}"
        )
    needed = step * (rows - 1) + row_bytes
    have = frame.data.size
    if have < needed:
        raise FrameError(
            "data",
            f"a {width}x{height} {frame.encoding} image with step {frame.step} needs "
            f"{needed} bytes, got {have}",
        )
    if frame.step == 0 and have != needed:
        raise FrameError(
            "step",
            f"step is 0, and {have} bytes are not the {needed} of an unpadded "
            f"{width}x{height} {frame.encoding} image",
        )
    # NumPy checks again that the strides stay inside the buffer.
    if pixels.channels == 1:
        return np.ndarray((rows, width), np.uint8, frame.data, strides=(step, 1))
    return np.ndarray(
        (rows, width, pixels.channels), np.uint8, frame.data, strides=(step, pixels.channels, 1)
    )


def macropixels(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A yuv422 view as (height, width // 2, 4): two Y, one U and one V each."""
    height, width, _ = packed.shape
    return packed.reshape(height, width // 2, 4)


def chroma_pairs(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The last third of an nv12 or nv21 view's rows, as (height // 2, width // 2, 2)."""
    chroma = rows[rows.shape[0] // 3 * 2 :]
    height, width = chroma.shape
    return chroma.reshape(height, width // 2, 2)


def _check_size(width: int, height: int, encoding: str, kind: Kind) -> None:
    if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
        raise FrameError("size", f"{width}x{height} is no image size (1 to {_MAX_SIDE} each)")
    if kind in ("yuv420", "yuv422") and (width % 2 or (kind == "yuv420" and height % 2)):
        sides = "width and height" if kind == "yuv420" else "width"
        raise FrameError("size", f"{encoding} needs an even {sides}, got {width}x{height}")
    if kind == "bayer" and (width < 4 or height < 4):
        raise FrameError("size", f"{encoding} needs at least 4x4 pixels, got {width}x{height}")
