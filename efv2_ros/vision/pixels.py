"""Pixel layouts of the raw encodings, and checked views of a frame's bytes as arrays."""

from __future__ import annotations

from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from efv2_ros.vision.frame import Frame, FrameError

Kind = Literal["colour", "mono", "mono16", "yuv422", "yuv420", "bayer", "planar"]

_MAX_SIDE = 65535


class PixelFormat(NamedTuple):
    """Memory layout of one encoding's pixels.

    Attributes:
        kind: Family of layouts that are converted in the same way.
        channels: Bytes per pixel of a row.
        to_bgr: OpenCV's code for the conversion to BGR; None for BGR itself.
        order: Byte positions of Y, U and V, in a macropixel of two pixels for yuv422, in a pair of
            chroma samples for yuv420, where Y's is unused.
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
    """Return the pixel layout of a raw frame.

    Raises:
        FrameError: fault `encoding`; the encoding is not supported.
    """
    try:
        return PIXEL_FORMATS[frame.encoding]
    except KeyError:
        supported = ", ".join((*PIXEL_FORMATS, *COMPRESSED))
        raise FrameError(
            "encoding", f"encoding {frame.encoding!r} is not supported; supported are {supported}"
        ) from None


def view(frame: Frame, pixels: PixelFormat) -> NDArray[np.uint8]:
    """View a frame's bytes as an array of rows, without a copy.

    Rows may have padding, as `step` says, and the data may be longer than the rows; the padding of
    the last row may be missing. With `step == 0`, rows have no padding and the data must have
    exactly their length.

    Returns:
        uint8 of shape (rows, width), or (rows, width, channels) when a pixel has several bytes.
        nv12 and nv21 have `height * 3 // 2` rows, the last third of them chroma pairs.

    Raises:
        FrameError: fault `size`, `step` or `data`, by which of them is wrong.
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
    """Reshape a yuv422 view to (height, width // 2, 4): two Y, one U and one V each."""
    height, width, _ = packed.shape
    return packed.reshape(height, width // 2, 4)


def chroma_pairs(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the chroma of an nv12 or nv21 view, uint8 of shape (height // 2, width // 2, 2)."""
    chroma = rows[rows.shape[0] // 3 * 2 :]
    height, width = chroma.shape
    return chroma.reshape(height, width // 2, 2)


def _check_size(width: int, height: int, encoding: str, kind: Kind) -> None:
    if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
        raise FrameError(
            "size", f"{width}x{height} is not an image size: both sides must be 1 to {_MAX_SIDE}"
        )
    if kind in ("yuv420", "yuv422") and (width % 2 or (kind == "yuv420" and height % 2)):
        sides = "width and height" if kind == "yuv420" else "width"
        raise FrameError("size", f"{encoding} needs an even {sides}, got {width}x{height}")
    if kind == "bayer" and (width < 4 or height < 4):
        raise FrameError("size", f"{encoding} needs at least 4x4 pixels, got {width}x{height}")
